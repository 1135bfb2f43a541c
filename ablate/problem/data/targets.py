"""Targets of any task: how they are read from a file, and the keys of a data set that can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data import labels
from ablate.problem.data.dataset import Dataset
from ablate.problem.data.labels import Policy
from ablate.problem.data.origin import Origin
from ablate.problem.data.sets import DataSet
from ablate.problem.section import OneOf
from ablate.problem.tasks import TASKS, Task

TASK_HELP = "classification: a class a sample; regression: numbers; multilabel: labels that are 0 or 1 each"
NORMALIZE_TARGETS_HELP = "regression: targets to mean 0 and deviation 1, each column by those of the training set"


@dataclass(frozen=True)
class Targets:
    """What is to be learned of the training and the test samples: `(N,)` classes, or `(N, C)` numbers in float64.

    `classes` is the number of classes, or of targets C.
    """

    train: NDArray[Any]
    test: NDArray[Any]
    classes: int


def read_targets(
    task: Task,
    origin: Origin,
    arrays: Sequence[NDArray[Any]],
    rows: Sequence[int],
    policy: Policy,
    names: Sequence[str],
) -> Targets:
    """The targets of a training and a test set, `rows` samples each; `names` are the arrays' names.

    Classes are those of `labels.read`; for the other tasks arrays are `(N,)` or `(N, C)`, bools, integers or floats.
    Raises `origin.error`.
    """
    if task.has_classes:
        read = labels.read(origin, arrays, rows, policy, names)
        return Targets(read.train, read.test, read.classes)
    if policy != "auto":
        raise ConfigError(f"data.labels={policy}: it is about classes, which data.task={task.name} has none of")
    y_train, y_test = (
        _numbers(task, origin, name, y, count) for name, y, count in zip(names, arrays, rows, strict=True)
    )
    if y_train.shape[1] != y_test.shape[1]:
        counts = f"{names[0]} has {y_train.shape[1]} targets a sample, {names[1]} has {y_test.shape[1]}"
        raise origin.error(f"{counts}; make them equal")
    return Targets(y_train, y_test, y_train.shape[1])


def _numbers(task: Task, origin: Origin, name: str, y: NDArray[Any], samples: int) -> NDArray[np.float64]:
    """One array of targets as `(N, C)`."""
    if y.dtype.kind not in "biuf" or y.ndim not in (1, 2) or not y.size:
        raise origin.error(f"{name} is {y.dtype} {y.shape}; data.task={task.name} takes {task.takes}")
    if len(y) != samples:
        raise origin.error(f"{name} has {len(y)} rows for {samples} samples; one each was expected")
    numbers = y.reshape(samples, -1).astype(np.float64)
    wrong = task.wrong(numbers)
    if wrong.any():
        row, column = (int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
        found = f"{name} has {wrong.sum()} such values, the first in row {row}, column {column}: {numbers[row, column]}"
        raise origin.error(f"data.task={task.name} takes {task.takes}, and nothing else; {found}")
    return numbers


class OwnTargets(DataSet):
    """A data set whose targets may be of any task."""

    task: Annotated[str, OneOf(TASKS.names)] = Field("classification", description=TASK_HELP)
    normalize_targets: bool = Field(False, description=NORMALIZE_TARGETS_HELP)

    @property
    def learned(self) -> Task:
        return TASKS.get(self.task)

    def _numbers(self, data: Dataset) -> Dataset:
        """Targets are standardised in float64; what is too large for the precision is the user's mistake."""
        if self.normalize_targets:
            mean, deviation = data.y_train.mean(axis=0), data.y_train.std(axis=0)
            y_train, y_test = ((y - mean) / deviation for y in (data.y_train, data.y_test))
            data = replace(data, y_train=y_train, y_test=y_test, scale=deviation, shift=mean)
        with np.errstate(over="ignore"):
            data = super()._numbers(data)
        if not (np.isfinite(data.y_train).all() and np.isfinite(data.y_test).all()):
            raise ConfigError(
                f"data.normalize_targets={str(self.normalize_targets).lower()}: {data.source} has targets too large for"
                f" {data.y_train.dtype}; scale them down, or use data.normalize_targets=true"
            )
        return data
