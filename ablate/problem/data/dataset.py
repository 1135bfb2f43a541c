"""A data set as its files give it, and ready for training."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.facts import Facts, measure


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as its files give it: x `(N, C, H, W)` or `(N, D)` of any real dtype, y `(N,)` int64.

    `low` and `high` are the range of the pixels, which `data.normalize=unit` maps to 0 and 1. `notices` are lines for
    the user on what was not taken as it stands in the files.
    """

    source: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: int
    low: float
    high: float
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for training.

    `x_train` and `x_test` are images `(N, C, H, W)` or vectors `(N, D)` of the dtype asked for, C-contiguous;
    `y_train` and `y_test` are `(N,)` int64 in 0..classes-1. `source` says where the samples come from,
    `notices` are lines for the user on what was not taken as it stands there.
    """

    name: str
    source: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: int
    notices: tuple[str, ...] = ()

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

    @cached_property
    def facts(self) -> Facts:
        """What is measured of it."""
        return measure(self.x_train, self.y_train, self.x_test, self.y_test, self.classes)


def brief(error: BaseException) -> str:
    """The message of `error`, shortened to fit into one line."""
    return textwrap.shorten(str(error) or type(error).__name__, 160)
