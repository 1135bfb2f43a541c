"""What is measured of a data set as the network gets it: scale, spread, classes. Advice and notices rest on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.columns import Columns, columns


@dataclass(frozen=True)
class Facts:
    """A data set in numbers, its inputs after `data.normalize`; the figures hold for the training set unless named.

    `smallest_deviation`, `median_deviation` and `largest_deviation` are those of the columns (the pixels of an image)
    that vary; 0 if none does. The counts list every class; they are empty where targets are not class numbers.
    `target_size` is the root mean square of targets that are numbers; NaN for classes, as is their range.
    """

    rows: int
    features: int
    low: float
    high: float
    mean: float
    deviation: float
    smallest_deviation: float
    median_deviation: float
    largest_deviation: float
    constant_columns: int
    test_low: float
    test_high: float
    train_counts: Sequence[int]
    test_counts: Sequence[int]
    target_low: float = math.nan
    target_high: float = math.nan
    target_size: float = math.nan

    @property
    def spread(self) -> float:
        """How many times wider the widest column is than the narrowest that varies; 1 if none does."""
        return self.largest_deviation / self.smallest_deviation if self.smallest_deviation else 1.0

    @property
    def majority(self) -> int | None:
        """The class with the most training labels, the first of equals; None without classes."""
        return int(np.argmax(self.train_counts)) if self.train_counts else None

    @property
    def majority_share(self) -> float | None:
        """The share of the training labels that the largest class has; None without classes."""
        return max(self.train_counts) / sum(self.train_counts) if self.train_counts else None

    @property
    def test_majority_share(self) -> float | None:
        """The share of the test labels that the largest class of the test set has; None without classes."""
        return max(self.test_counts) / sum(self.test_counts) if self.test_counts else None

    @property
    def untrained(self) -> Sequence[int]:
        """The classes of the test set that no training label has."""
        pairs = enumerate(zip(self.train_counts, self.test_counts, strict=True))
        return tuple(label for label, (train, test) in pairs if test and not train)


def measure(
    x_train: NDArray[Any], y_train: NDArray[Any], x_test: NDArray[Any], y_test: NDArray[Any], classes: int
) -> Facts:
    """The facts of a data set, whose arrays are those of `Dataset`; sums are in float64."""
    of_train = columns(x_train)
    varying = of_train.deviation[of_train.varies]
    return Facts(
        rows=len(x_train),
        features=len(of_train.mean),
        low=float(of_train.low.min()),
        high=float(of_train.high.max()),
        mean=float(of_train.mean.mean()),
        deviation=_deviation(of_train),
        smallest_deviation=float(varying.min(initial=np.inf)) if len(varying) else 0.0,
        median_deviation=float(np.median(varying)) if len(varying) else 0.0,
        largest_deviation=float(varying.max(initial=0.0)),
        constant_columns=int((~of_train.varies).sum()),
        test_low=float(x_test.min()),
        test_high=float(x_test.max()),
        train_counts=_counts(y_train, classes),
        test_counts=_counts(y_test, classes),
        **_numbers(y_train),
    )


@np.errstate(over="ignore", invalid="ignore")
def _deviation(of: Columns) -> float:
    """The standard deviation of all values, from those within columns and between their means."""
    overall = of.mean.mean()
    spread = np.hypot(of.deviation, of.mean - overall)
    largest = spread.max()
    return float(largest * np.sqrt(np.square(spread / largest).mean())) if largest else 0.0


def _numbers(y: NDArray[Any]) -> dict[str, float]:
    """Range and size of targets that are no classes."""
    if y.dtype.kind != "f":
        return {}
    size = float(np.sqrt(np.mean(np.square(y, dtype=np.float64))))
    return {"target_low": float(y.min()), "target_high": float(y.max()), "target_size": size}


def _counts(y: NDArray[Any], classes: int) -> tuple[int, ...]:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        return ()
    return tuple(int(count) for count in np.bincount(y, minlength=classes))
