"""Trials composed and trained in memory through the package's own way in, and what became of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import ablate
from ablate.backends.engine import Engine
from ablate.commands import compose as composing
from ablate.config.groups import GROUPS
from ablate.config.parse import parse, resolve
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset
from ablate.problem.tasks import TASKS
from ablate.training.loop import Summary, train
from ablate.trials.prepared import PreparedTrial, engine
from ablate.trials.trial import Trial

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def trial(*overrides: str) -> Trial:
    """The one trial that `key=value` overrides mean."""
    [found] = ablate.compose(*overrides)
    return found


@cache
def settings(*overrides: str) -> Settings:
    """A trial's checked settings, those of `trial(*overrides)`.

    Hydra composes each group alone and once, not every combination of them: that takes 40 ms.
    """
    parts: dict[str, list[str]] = {}
    for override in overrides:
        group = re.split("[.=]", override.lstrip("+~"))[0]
        parts.setdefault(group if group in GROUPS else "", []).append(override)
    values = dict(_composed(*parts.pop("", [])))
    return parse({**values, **{group: _composed(*part)[group] for group, part in parts.items()}})


@cache
def _composed(*overrides: str) -> Mapping[str, Any]:
    """The values of all keys, unchecked."""
    composer = composing._composer(overrides, None)
    return resolve(composer.compose(overrides, 0), leaving_out=("hydra", "cells"))


def prepared(*overrides: str, dataset: Dataset | None = None) -> PreparedTrial:
    """A trial on its data set, or on another."""
    return ablate.prepare(settings(*overrides), dataset)


def load(settings: Settings) -> Dataset:
    """A trial's data set."""
    return settings.data.load(np.dtype(settings.dtype))


def noise(shape: tuple[int, ...], classes: int, rows: int = 7, seed: int = 0, test_rows: int = 5) -> Dataset:
    """Random samples with random labels, float64."""
    rng = np.random.default_rng(seed)
    x, x_test = rng.normal(size=(rows, *shape)), rng.normal(size=(test_rows, *shape))
    y, y_test = rng.integers(0, classes, rows), rng.integers(0, classes, test_rows)
    return Dataset("noise", "noise", x, y, x_test, y_test, classes)


def aimed(task: str, inputs: int, targets: int, rows: int, test_rows: int = 9) -> Dataset:
    """Random vectors with random targets of a task without classes, float64."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(rows + test_rows, inputs)), rng.normal(1, 2, size=(rows + test_rows, targets))
    y = y if task == "regression" else (y > 1).astype(float)
    return Dataset(task, task, x[:rows], y[:rows], x[rows:], y[rows:], targets, task=TASKS.get(task))


def scored(engine: Engine, dataset: Dataset) -> dict[str, Any]:
    """The first lane on the test set: its loss, the metrics of the task, and `predicted`, the counts by class."""
    found, scorer = engine.evaluate(), dataset.scorers["test"]
    metrics = {"test/loss": found.loss, **scorer.of_test(found.tallies, found.rows)}
    return {name: column[0] for name, column in {**metrics, "predicted": scorer.counts(found.tallies)[0]}.items()}


@dataclass
class Trained:
    """What became of one trial: its initial and final weights, its summary, and every record of its metrics."""

    initial: Mapping[str, Array] = field(default_factory=dict)
    final: Mapping[str, Array] = field(default_factory=dict)
    summary: Summary | None = None
    records: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)


class _Listener:
    def __init__(self, trained: Sequence[Trained]) -> None:
        self.trained = trained

    def begin(self, engine: Engine) -> None:
        for lane, trained in enumerate(self.trained):
            trained.initial = engine.weights(lane)

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        for lane in lanes:
            record = {name: float(column[lane]) for name, column in values.items()}
            self.trained[lane].records.append((step, epoch, record))

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        self.trained[lane].summary, self.trained[lane].final = summary, engine.weights(lane)


def train_together(trials: Sequence[Settings], dataset: Dataset | None = None) -> list[Trained]:
    """Train trials as the lanes of one cohort, in the order given."""
    first = ablate.prepare(trials[0], dataset)
    cohort = [first, *(ablate.prepare(each, first.dataset) for each in trials[1:])]
    trained = [Trained() for _ in trials]
    with threadpool_limits(1, user_api="blas"):
        train(cohort, engine(cohort), _Listener(trained))
    return trained


def train_alone(trial: Settings, dataset: Dataset | None = None) -> Trained:
    return train_together([trial], dataset)[0]


def assert_same(one: Trained, other: Trained) -> None:
    """Bit for bit the same weights, and the same summary and metrics."""
    assert one.final.keys() == other.final.keys()
    for name in one.final:
        np.testing.assert_array_equal(one.final[name], other.final[name], err_msg=name, strict=True)
    # As text: NaN is not equal to itself, and repr tells every bit of any other float.
    assert repr(one.summary) == repr(other.summary)
    assert repr(one.records) == repr(other.records)
