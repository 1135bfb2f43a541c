"""Data sets: each becomes one `Dataset` of normalised samples and integer labels."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import ConfigError

_BATCH_SIZES: dict[str, int | None] = {"digits": 32, "mnist": 300, "xor": None, "npz": 32}
_CHUNK_VALUES = 1 << 18  # 2 MiB of float64: the normalisation's temporaries stay in a core's cache


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as its files give it: x `(N, C, H, W)` or `(N, D)` of any real dtype, y `(N,)` int64.

    `low` and `high` are the range of the pixels, which `data.normalize=unit` maps to 0 and 1.
    """

    source: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: int
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for training.

    `x_train` and `x_test` are images `(N, C, H, W)` or vectors `(N, D)` of the dtype asked for, C-contiguous;
    `y_train` and `y_test` are `(N,)` int64 in 0..classes-1. `source` says where the samples come from.
    """

    name: str
    source: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: int

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: `(C, H, W)` or `(D,)`."""
        return self.x_train.shape[1:]

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of a SHA-256 over the four arrays, their shapes and dtypes."""
        sha = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(array.data)
        return sha.hexdigest()[:16]


def brief(error: BaseException) -> str:
    """What `error` says, cut to a part of one line."""
    return textwrap.shorten(str(error) or type(error).__name__, 160)


def preset_batch_size(name: str) -> int | None:
    """The batch size that suits data set `name`; None means the whole training set.

    Raises ConfigError if there is no such data set.
    """
    if name not in _BATCH_SIZES:
        raise ConfigError(f"data={name}: no such data set; choose one of {', '.join(_BATCH_SIZES)}")
    return _BATCH_SIZES[name]


def load(
    name: str,
    *,
    dir: str | None = None,
    path: str | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    normalize: str,
    dtype: np.dtype[Any],
) -> Dataset:
    """Load data set `name`, keep the first `train_limit` and `test_limit` rows, normalise, cast to `dtype`.

    `dir` is for mnist, `path` for npz. `normalize` is `per_image` (each sample less its own mean, over its
    own population standard deviation; a constant one becomes zeros), `unit` (the pixels' range becomes 0..1)
    or `none`. Raises ConfigError for a wrong name, limit or normalisation, and for files missing or bad.
    """
    raw = _raw(name, dir, path)
    train = _limited(name, "train", len(raw.x_train), train_limit)
    test = _limited(name, "test", len(raw.x_test), test_limit)
    return Dataset(
        name=name,
        source=raw.source,
        x_train=_normalized(raw, raw.x_train[:train], normalize, dtype),
        y_train=np.ascontiguousarray(raw.y_train[:train]),
        x_test=_normalized(raw, raw.x_test[:test], normalize, dtype),
        y_test=np.ascontiguousarray(raw.y_test[:test]),
        classes=raw.classes,
    )


def _raw(name: str, dir: str | None, path: str | None) -> Raw:
    # Imported here because each of them takes `Raw` from this module.
    from ablate.data import digits, mnist, npz, xor

    preset_batch_size(name)
    match name:
        case "digits":
            return digits.load()
        case "mnist":
            return mnist.load(dir)
        case "npz":
            return npz.load(path)
        case _:
            return xor.load()


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
    rows = max(1, _CHUNK_VALUES // x[0].size)
    # What overflows is told below, once, as the user's mistake.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), rows):
            chunk = x[start : start + rows].astype(np.float64)
            result[start : start + rows] = _standardized(chunk, raw, normalize)
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
    if normalize == "per_image":
        return _per_image(x.reshape(len(x), -1)).reshape(x.shape)
    raise ConfigError(f"data.normalize={normalize}: no such way; choose one of per_image, unit, none")


def _per_image(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result = np.zeros_like(x)
    # By comparison: the mean of equal values may be off by a rounding, and their deviation above 0.
    varied = x.min(axis=1) != x.max(axis=1)
    centred = x[varied]
    centred -= centred.mean(axis=1, keepdims=True)
    centred /= np.abs(centred).max(axis=1, keepdims=True)  # so that no square overflows or underflows
    result[varied] = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    return result
