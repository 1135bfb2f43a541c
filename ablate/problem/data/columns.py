"""The columns of samples, the pixels of images: their range and spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_VALUES_AT_ONCE = 1 << 18  # 2 MiB of float64: the temporaries stay in a core's cache


@dataclass(frozen=True)
class Columns:
    """Every column of some samples, an array `(D,)` each: its range, its mean, its population standard deviation.

    The deviation is 0 exactly where all values are equal.
    """

    low: Float64
    high: Float64
    mean: Float64
    deviation: Float64

    @property
    def varies(self) -> NDArray[np.bool_]:
        return self.low != self.high


def in_parts(x: NDArray[Any]) -> Iterator[tuple[slice, Float64]]:
    """`x` in float64, a few rows at a time so that memory stays near its own size."""
    rows = max(1, _VALUES_AT_ONCE // x[0].size)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        yield part, x[part].astype(np.float64)


@np.errstate(over="ignore", invalid="ignore")
def columns(x: NDArray[Any]) -> Columns:
    """The columns of samples `(N, ...)`, each flattened; the sums are in float64, in the order of the rows.

    Where a range is too wide for float64, the figures are not finite.
    """
    flat = x.reshape(len(x), -1)
    low, high = flat.min(axis=0).astype(np.float64), flat.max(axis=0).astype(np.float64)
    # From the lowest value on: a column far from 0 with a small spread keeps its digits.
    mean = low + sum((part - low).sum(axis=0) for _, part in in_parts(flat)) / len(flat)
    # By comparison: rounding may give equal values a mean that differs from them, and a deviation above 0.
    varies = low != high
    farthest = np.where(varies, np.maximum(high - mean, mean - low), 1.0)  # so that no square overflows or underflows
    squares = sum(np.square((part - mean) / farthest).sum(axis=0) for _, part in in_parts(flat))
    return Columns(low, high, mean, np.where(varies, farthest * np.sqrt(squares / len(flat)), 0.0))
