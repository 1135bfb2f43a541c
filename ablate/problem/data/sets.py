"""The base of every data set: its keys, and how it is limited, normalised and cast."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data.columns import in_parts
from ablate.problem.data.comparison import unlike
from ablate.problem.data.dataset import Dataset, Raw
from ablate.problem.data.normalisation import NORMALIZE_HELP, Normalize, Scale, scale
from ablate.problem.registry import Choice, Group
from ablate.problem.section import Count
from ablate.problem.tasks import CLASSIFICATION, Task


class DataSet(Choice):
    """An option of the group `data`. `batch_size` is its default, None for the whole training set."""

    batch_size: ClassVar[int | None] = 32

    normalize: Normalize = Field("none", description=NORMALIZE_HELP)
    train_limit: Count | None = Field(None, description="use the first rows of the training set only (null: all)")
    test_limit: Count | None = Field(None, description="use the first rows of the test set only (null: all)")

    @property
    def learned(self) -> Task:
        """What is learned from it."""
        return CLASSIFICATION

    @abstractmethod
    def read(self) -> Raw:
        """The data set as its files give it. Raises ConfigError if a file is missing or bad."""

    def load(self, dtype: np.dtype[Any]) -> Dataset:
        """The first rows, as many as the limits say, normalised and cast.

        `per_image` subtracts each sample's mean and divides by its population standard deviation; a constant sample
        becomes zeros. `per_feature` does so with every column, by the mean and deviation of the training rows in use.
        `unit` maps the range of the pixels to 0..1. Raises ConfigError if a limit does not fit, if the rows in use are
        none to learn from or to score on, and what `read` raises.
        """
        raw = self.read()
        train = _limited(self.name, "train", len(raw.x_train), self.train_limit)
        test = _limited(self.name, "test", len(raw.x_test), self.test_limit)
        scaled = scale(self.normalize, raw, raw.x_train[:train])
        dataset = Dataset(
            name=self.name,
            source=raw.source,
            x_train=_normalized(raw.source, raw.x_train[:train], self.normalize, scaled, dtype),
            y_train=np.ascontiguousarray(raw.y_train[:train]),
            x_test=_normalized(raw.source, raw.x_test[:test], self.normalize, scaled, dtype),
            y_test=np.ascontiguousarray(raw.y_test[:test]),
            classes=raw.classes,
            task=raw.task,
        )
        if reason := raw.task.refusal(dataset.y_train, dataset.y_test):
            raise ConfigError(f"data={self.name}: in {raw.source}, {reason}")
        dataset = dataset if raw.task.has_classes else self._numbers(dataset)
        sentences = (*unlike(dataset, len(raw.x_train)), *raw.task.unscored(dataset.y_test))
        said = [f"data={self.name}: {sentence}" for sentence in sentences]
        return replace(dataset, notices=(*raw.notices, *said))

    def _numbers(self, data: Dataset) -> Dataset:
        """The data set with targets that are no classes cast to the precision of its samples."""
        dtype = data.x_train.dtype
        return replace(data, y_train=data.y_train.astype(dtype), y_test=data.y_test.astype(dtype))


DATA_SETS: Group[DataSet] = Group("data")


def _limited(name: str, part: str, rows: int, limit: int | None) -> int:
    if limit is None:
        return rows
    if not 1 <= limit <= rows:
        raise ConfigError(
            f"data.{part}_limit={limit}: {name} has {rows} {part} rows; give 1 to {rows}, or null for all"
        )
    return limit


def _normalized(source: str, x: NDArray[Any], normalize: str, scale: Scale, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`x` normalised in float64 and cast."""
    result = np.empty(x.shape, dtype)
    # Overflow is reported below, once, as the user's mistake.
    with np.errstate(over="ignore", invalid="ignore"):
        for rows, part in in_parts(x):
            result[rows] = scale(part)
    if not np.isfinite(result).all():
        raise ConfigError(
            f"data.normalize={normalize}: {source} has values too large for {result.dtype}; "
            "scale them down, or use dtype=float64"
        )
    return result
