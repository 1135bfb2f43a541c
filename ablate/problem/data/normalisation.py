"""What `data.normalize` does to samples: each way a function of float64 samples, made from the training set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.columns import Float64, columns
from ablate.problem.data.dataset import Raw

Scale = Callable[[Float64], Float64]
Normalize = Literal["per_image", "per_feature", "unit", "none"]

NORMALIZE_HELP = (
    "per_image: each sample to mean 0 and deviation 1; per_feature: each column (or pixel) to mean 0 and deviation 1 "
    "over the training set; unit: pixels to [0, 1]; none: as they are"
)


def scale(normalize: Normalize, raw: Raw, train: NDArray[Any]) -> Scale:
    """The function that normalises samples `(N, ...)`; `train` are those that are trained on, out of `raw`."""
    return _SCALES[normalize](raw, train)


def _none(raw: Raw, train: NDArray[Any]) -> Scale:
    return lambda x: x


def _unit(raw: Raw, train: NDArray[Any]) -> Scale:
    return lambda x: (x - raw.low) / (raw.high - raw.low or 1.0)


def _per_feature(raw: Raw, train: NDArray[Any]) -> Scale:
    of_train = columns(train)
    # A constant column becomes 0, in the test set too.
    deviation = np.where(of_train.varies, of_train.deviation, np.inf)

    def scaled(x: Float64) -> Float64:
        return ((x.reshape(len(x), -1) - of_train.mean) / deviation).reshape(x.shape)

    return scaled


def _per_image(raw: Raw, train: NDArray[Any]) -> Scale:
    return lambda x: _each(x.reshape(len(x), -1)).reshape(x.shape)


def _each(x: Float64) -> Float64:
    result = np.zeros_like(x)
    # By comparison, as in `columns`.
    varied = x.min(axis=1) != x.max(axis=1)
    centred = x[varied]
    centred -= centred.mean(axis=1, keepdims=True)
    centred /= np.abs(centred).max(axis=1, keepdims=True)
    result[varied] = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    return result


_SCALES: dict[str, Callable[[Raw, NDArray[Any]], Scale]] = {
    "per_image": _per_image,
    "per_feature": _per_feature,
    "unit": _unit,
    "none": _none,
}
