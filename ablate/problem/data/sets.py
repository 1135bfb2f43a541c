"""The base of every data set: its keys, and how it is limited, normalised and cast."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data.dataset import Dataset, Raw
from ablate.problem.registry import Choice, Group
from ablate.problem.section import Count

Normalize = Literal["per_image", "unit", "none"]
NORMALIZE_HELP = "per_image: each sample to mean 0 and deviation 1; unit: pixels to [0, 1]; none: as they are"

_VALUES_AT_ONCE = 1 << 18  # 2 MiB of float64: the normalisation's temporaries stay in a core's cache


class DataSet(Choice):
    """An option of the group `data`. `batch_size` is its default, None for the whole training set."""

    batch_size: ClassVar[int | None] = 32

    normalize: Normalize = Field("none", description=NORMALIZE_HELP)
    train_limit: Count | None = Field(None, description="use the first rows of the training set only (null: all)")
    test_limit: Count | None = Field(None, description="use the first rows of the test set only (null: all)")

    @abstractmethod
    def read(self) -> Raw:
        """The data set as its files give it. Raises ConfigError if a file is missing or bad."""

    def load(self, dtype: np.dtype[Any]) -> Dataset:
        """The first rows, as many as the limits say, normalised and cast.

        `per_image` subtracts each sample's mean and divides by its population standard deviation; a constant sample
        becomes zeros. `unit` maps the range of the pixels to 0..1. Raises ConfigError if a limit does not fit, and what
        `read` raises.
        """
        raw = self.read()
        train = _limited(self.name, "train", len(raw.x_train), self.train_limit)
        test = _limited(self.name, "test", len(raw.x_test), self.test_limit)
        return Dataset(
            name=self.name,
            source=raw.source,
            x_train=_normalized(raw, raw.x_train[:train], self.normalize, dtype),
            y_train=np.ascontiguousarray(raw.y_train[:train]),
            x_test=_normalized(raw, raw.x_test[:test], self.normalize, dtype),
            y_test=np.ascontiguousarray(raw.y_test[:test]),
            classes=raw.classes,
        )


DATA_SETS: Group[DataSet] = Group("data")


def _limited(name: str, part: str, rows: int, limit: int | None) -> int:
    if limit is None:
        return rows
    if not 1 <= limit <= rows:
        raise ConfigError(
            f"data.{part}_limit={limit}: {name} has {rows} {part} rows; give 1 to {rows}, or null for all"
        )
    return limit


def _normalized(raw: Raw, x: NDArray[Any], normalize: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`x` normalised in float64, a few rows at a time so that memory stays near the result's own size."""
    result = np.empty(x.shape, dtype)
    rows = max(1, _VALUES_AT_ONCE // x[0].size)
    # Overflow is reported below, once, as the user's mistake.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), rows):
            part = x[start : start + rows].astype(np.float64)
            result[start : start + rows] = _standardized(part, raw, normalize)
    if not np.isfinite(result).all():
        raise ConfigError(
            f"data.normalize={normalize}: {raw.source} has values too large for {result.dtype}; "
            "scale them down, or use dtype=float64"
        )
    return result


def _standardized(x: NDArray[np.float64], raw: Raw, normalize: str) -> NDArray[np.float64]:
    if normalize == "none":
        return x
    if normalize == "unit":
        return (x - raw.low) / (raw.high - raw.low or 1.0)
    assert normalize == "per_image", normalize
    return _per_image(x.reshape(len(x), -1)).reshape(x.shape)


def _per_image(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.zeros_like(x)
    # By comparison: rounding may give equal values a mean that differs from them, and a deviation above 0.
    varied = x.min(axis=1) != x.max(axis=1)
    centred = x[varied]
    centred -= centred.mean(axis=1, keepdims=True)
    centred /= np.abs(centred).max(axis=1, keepdims=True)  # so that no square overflows or underflows
    result[varied] = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    return result
