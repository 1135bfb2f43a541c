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
from ablate.problem.scoring import Scorer
from ablate.problem.tasks import CLASSIFICATION, Task


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as its files give it: x `(N, C, H, W)` or `(N, D)` of any real dtype, y as the task reads it.

    `low` and `high` are the range of the pixels, which `data.normalize=unit` maps to 0 and 1. `notices` are lines for
    the user on what was not taken as it stands in the files.
    """

    source: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    classes: int
    low: float
    high: float
    notices: tuple[str, ...] = ()
    task: Task = CLASSIFICATION


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for training.

    `x_train` and `x_test` are images `(N, C, H, W)` or vectors `(N, D)` of the dtype asked for, C-contiguous;
    `y_train` and `y_test` are `(N,)` int64 in 0..classes-1 or, where the task has no classes, `(N, C)` of the dtype of
    x; `classes` is then the number of targets C. `source` says where the samples come from, `notices` are lines for
    the user on what was not taken as it stands there. `scale` and `shift` `(C,)`, where targets were standardised,
    bring outputs back to the units of the files.
    """

    name: str
    source: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    classes: int
    notices: tuple[str, ...] = ()
    task: Task = CLASSIFICATION
    scale: NDArray[Any] | None = None
    shift: NDArray[Any] | None = None

    @cached_property
    def scorers(self) -> dict[str, Scorer]:
        """What scores outputs on the training set, `train`, and on the test set, `test`."""
        scale = np.ones(self.classes) if self.scale is None else self.scale
        targets = {"train": self.y_train, "test": self.y_test}
        return {split: self.task.scorer(y, self.classes, scale) for split, y in targets.items()}

    def in_file_units(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs `(N, C)` in the units in which the files give the targets."""
        if self.scale is None or self.shift is None:
            return outputs
        return (outputs * self.scale + self.shift).astype(outputs.dtype)

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
