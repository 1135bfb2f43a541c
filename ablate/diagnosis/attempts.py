"""Which of several gradients trains: each is followed for some steps on a few of the trial's samples.

A wrong gradient can be read in two ways, and only one of them is what its author meant. Both are tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablate.backends.numpy.engine import NumpyEngine
from ablate.problem.custom_loss import CustomLoss
from ablate.problem.data.dataset import Dataset
from ablate.problem.initialisation import GlorotUniform
from ablate.problem.losses import Formulas
from ablate.problem.mistakes import MISTAKES
from ablate.problem.optimizers import OPTIMIZERS
from ablate.problem.tasks import CLASSIFICATION, Task
from ablate.trials.prepared import PreparedTrial

Array = np.ndarray[Any, np.dtype[Any]]

ROWS, STEPS = 40, 40
RATES = (0.1, 1.0)


@dataclass(frozen=True)
class Attempt:
    """How far a gradient came at the best of the rates: the score at the end, and its mean over all steps.

    The score is the task's, and no less than 0. The higher its mean, the sooner it trained.
    """

    score: float
    mean: float
    rate: float
    rows: int
    task: Task = CLASSIFICATION

    def beats(self, other: "Attempt") -> bool:
        """Whether it trains better by more than chance on so few samples."""
        clearly = 1 / math.sqrt(self.rows)
        return max(self.score - other.score, self.mean - other.mean) > clearly and self.mean > other.mean

    def __str__(self) -> str:
        if self.task.score == "accuracy":
            return f"{self.score:.0%} ({self.mean:.0%} on the way)"
        return f"{self.score:.2f} ({self.mean:.2f} on the way)"


def attempt(trial: PreparedTrial, objectives: Sequence[Formulas], seed: int) -> list[Attempt]:
    """Follow each objective's gradient down, for the same steps from the same weights on the same samples."""
    few = _small(trial.dataset)
    rng = np.random.default_rng(seed)
    weights = GlorotUniform(bias="same").weights(trial.architecture.parameters, rng)
    lane = replace(
        trial.lane(),
        weights=weights,
        # Lanes of a user's loss are never taken for one another.
        loss=CustomLoss(reduction="mean"),
        optimizer=OPTIMIZERS.read({"name": "sgd"}),
        mistake=MISTAKES.get("none"),
    )
    lanes = [
        replace(lane, objective=_in_float64(objective), rate=rate, output_rate=rate)
        for objective in objectives
        for rate in RATES
    ]
    rows = len(few.y_train)
    engine = NumpyEngine(trial.architecture, few, lanes, rows)
    order = np.arange(rows)
    scorer = few.scorers["train"]
    epochs = [engine.train_epoch([order] * len(lanes), []) for _ in range(STEPS)]
    score = few.task.score
    curves = _learned(np.stack([scorer.of_training(epoch.tallies, rows)[f"train/{score}"] for epoch in epochs]))
    last = _learned(scorer.of_test(engine.evaluate(rows).tallies, rows)[f"test/{score}"])
    means = curves.mean(axis=0)
    every = [Attempt(float(last[k]), float(means[k]), RATES[k % len(RATES)], rows, few.task) for k in range(len(lanes))]
    each = [every[start : start + len(RATES)] for start in range(0, len(every), len(RATES))]
    return [max(mine, key=lambda one: (one.mean, one.score)) for mine in each]


def _learned(scores: Array) -> Array:
    """Scores from 0; a lane that failed or whose loss is not finite has learned nothing."""
    return np.maximum(np.nan_to_num(scores, neginf=0.0), 0.0)


def _in_float64(objective: Formulas) -> Formulas:
    """The objective for a network in float32: differences of a value need all digits of its logits."""

    def gradient(z: Array, p: Array, y: Array) -> Array:
        return objective.gradient(z.astype(np.float64), p.astype(np.float64), y.astype(np.float64))

    return replace(objective, gradient=gradient)


def _small(dataset: Dataset) -> Dataset:
    """Some of the training samples, of all classes alike, in float32, inputs and numbers brought to the scale 1."""
    rows = _rows(dataset)
    x, y = dataset.x_train[rows].astype(np.float64), dataset.y_train[rows]
    x = (x / (np.sqrt(np.mean(np.square(x))) or 1.0)).astype(np.float32)
    if not dataset.task.has_labels:
        spread = y.std(axis=0)
        y = (y - y.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    if not dataset.task.has_classes:
        y = y.astype(np.float32)
    return replace(dataset, x_train=x, y_train=y, x_test=x, y_test=y, scale=None, shift=None)


def _rows(dataset: Dataset) -> Array:
    labels = dataset.y_train
    if not dataset.task.has_classes:
        return np.sort(dataset.task.spread_out(labels)[:ROWS])
    turn = np.empty(len(labels), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.sort(np.argsort(turn, kind="stable")[:ROWS])
