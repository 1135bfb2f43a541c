"""Data sets by name: read, cut to the rows wanted, normalised and cast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.errors import ConfigError
from ablate.problem.data import digits, mnist, npz, xor
from ablate.problem.data.dataset import Dataset, Raw

_BATCH_SIZES: dict[str, int | None] = {"digits": 32, "mnist": 300, "xor": None, "npz": 32}
_CHUNK_VALUES = 1 << 18  # 2 MiB of float64: the normalisation's temporaries stay in a core's cache


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
