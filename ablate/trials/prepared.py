"""A trial on its data set, and everything that follows from the two, computed in one place."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ablate import backends
from ablate.backends import Backend
from ablate.backends.engine import Engine, Lane
from ablate.backends.process_group import ProcessGroup
from ablate.config.settings import Settings
from ablate.errors import ConfigError
from ablate.problem.custom_loss import try_out
from ablate.problem.data.dataset import Dataset
from ablate.problem.dropout import key_of
from ablate.problem.losses import Objective, Weighted
from ablate.problem.mistakes import MISTAKES, Mistake
from ablate.problem.models import Architecture, build
from ablate.problem.schedules import Pace

STEP_RECORDS = 500


@dataclass(frozen=True)
class PreparedTrial:
    """Checked settings on a data set that they fit; made by `prepare`."""

    settings: Settings
    dataset: Dataset

    def __reduce__(self) -> tuple[Any, ...]:
        # What follows from the two is computed again in another process: a user's loss may not be picklable.
        return type(self), (self.settings, self.dataset)

    @cached_property
    def objective(self) -> Objective:
        """The loss over its output function, without any mistake, all samples alike."""
        return self.settings.loss.objective(self.settings.output)

    @cached_property
    def architecture(self) -> Architecture:
        shape, classes = self.dataset.sample_shape, self.dataset.classes
        return build(self.settings.model, self.objective.output, shape, classes, self.dataset.task)

    @cached_property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class in the loss, from the labels that the trial trains on; None for all alike."""
        labels = self.mistake.labels(self.dataset.y_train, self.dataset.classes)
        return self.settings.loss.weights_of_classes(labels, self.dataset.classes)

    def on(self, part: Dataset) -> "PreparedTrial":
        """The same trial on a part of its data set; the classes keep the weights that they have on the whole."""
        if self.class_weights is None:
            return PreparedTrial(self.settings, part)
        loss = self.settings.loss.model_copy(update={"class_weights": list(self.class_weights)})
        return PreparedTrial(self.settings.model_copy(update={"loss": loss}), part)

    @property
    def backend(self) -> Backend:
        return backends.get(self.settings.backend)

    @property
    def mistake(self) -> Mistake:
        return MISTAKES.get(self.settings.bug)

    @property
    def sign(self) -> int:
        """+1 if the update as configured subtracts the gradient, -1 if it adds it."""
        return (1 if self.settings.update_sign == "minus" else -1) * (1 if self.settings.residual == "p-y" else -1)

    @property
    def batch_size(self) -> int:
        """Samples per update: the configured number, the default of the data set, or the whole training set."""
        rows = len(self.dataset.y_train)
        return self.settings.batch_size or min(self.settings.data.batch_size or rows, rows)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training set; the last batch may be short."""
        return math.ceil(len(self.dataset.y_train) / self.batch_size)

    @property
    def pace(self) -> Pace:
        """The schedule of the learning rates over the trial's updates."""
        return Pace(self.settings.schedule, self.steps_per_epoch, self.settings.epochs)

    @property
    def log_every(self) -> int:
        """Steps from one record of step metrics to the next."""
        total = self.settings.epochs * self.steps_per_epoch
        return self.settings.log_every or max(1, math.ceil(total / STEP_RECORDS))

    @property
    def seen_dataset(self) -> Dataset:
        """The data set as the trial sees it: a mistake may have changed the training labels."""
        labels = self.mistake.labels(self.dataset.y_train, self.dataset.classes)
        return self.dataset if labels is self.dataset.y_train else replace(self.dataset, y_train=labels)

    def initial_weights(self) -> Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """The weights before the first update, by their public names."""
        return self.settings.init.weights(self.architecture.parameters, streams(self.settings.seed)[0])

    def lane(self) -> Lane:
        """The trial as an engine sees it; the signs of update and residual become the sign of its learning rates."""
        settings = self.settings
        # Each lane gets its own objective: a user's loss may keep state from call to call.
        objective = self.mistake.objective(settings.loss, settings.loss.objective(settings.output))
        weights = self.class_weights
        return Lane(
            weights=self.initial_weights(),
            loss=settings.loss,
            objective=Weighted(objective, weights) if weights else objective,
            optimizer=settings.optimizer,
            rate=self.sign * settings.lr,
            output_rate=self.sign * (settings.output_lr or settings.lr),
            pace=self.pace,
            mistake=self.mistake,
            dropout_key=key_of(settings.seed),
            class_weights=weights,
        )


def prepare(settings: Settings, dataset: Dataset | None = None) -> PreparedTrial:
    """A trial on its data set, which is loaded unless it is given.

    `settings` are those of a trial of `ablate.compose`. Raises ConfigError if they are something else, or if the two do
    not fit together: a file that is missing or wrong, shapes that do not fit, a batch larger than the training set, a
    loss that cannot be imported, a mistake that would change nothing, a backend that cannot compute the trial, a number
    that the precision turns into 0 or infinity.
    """
    trial = fitted(settings, dataset)
    try_out(trial.objective, trial.architecture.units, trial.dataset.task)
    return trial


def fitted(settings: Settings, dataset: Dataset | None = None) -> PreparedTrial:
    """The same, but a user's loss is not tried out: for trials whose loss has been, since a call may take long."""
    if not isinstance(settings, Settings):
        raise ConfigError(f"settings: expected a trial's settings, not {type(settings).__name__}; write trial.settings")
    if dataset is None:
        dataset = settings.data.load(np.dtype(settings.dtype))
    rows = len(dataset.y_train)
    if settings.batch_size and settings.batch_size > rows:
        raise ConfigError(f"batch_size={settings.batch_size}: the training set has {rows} rows; choose 1 to {rows}")
    trial = PreparedTrial(settings, dataset)
    architecture, output, task = trial.architecture, trial.objective.output, dataset.task
    if trial.mistake.needs_classes and not task.has_classes:
        raise ConfigError(f"bug={settings.bug}: it is a mistake about classes, which data.task={task.name} has none of")
    if (reason := trial.mistake.refusal(settings.loss, output, architecture)) is not None:
        raise ConfigError(f"bug={settings.bug}: {reason}")
    reason = trial.backend.refusal(settings.loss, settings.optimizer, architecture, trial.mistake)
    if reason is not None:
        raise ConfigError(reason)
    _check_precision(trial)
    return trial


# What an engine computes with in a trial's own precision; the rest it is given in float64, or not at all.
_COMPUTED = ("lr", "output_lr", "init", "loss", "model", "optimizer")


def _check_precision(trial: PreparedTrial) -> None:
    """Refuse numbers that the precision of the arithmetic turns into 0 or infinity."""
    settings = trial.settings
    # What becomes of the arguments of a user's loss is up to it.
    computed = settings.model_dump(include=set(_COMPUTED), exclude={"loss": {"args"}})
    computed["loss"]["class_weights"] = list(trial.class_weights or ())
    cast = np.dtype(settings.dtype).type
    for key, value in _numbers(computed):
        with np.errstate(all="ignore"):
            held = float(cast(value))
        if value and not 0 < held < np.inf:
            raise ConfigError(f"{key}={value}: in {settings.dtype} this is {held:g}; choose a less extreme number")


def _numbers(part: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a part of the configuration, with their keys."""
    if isinstance(part, Mapping):
        for name, each in part.items():
            yield from _numbers(each, f"{key}.{name}" if key else str(name))
    elif isinstance(part, list):
        for place, each in enumerate(part):
            yield from _numbers(each, f"{key}[{place}]")
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield key, part


def engine(trials: Sequence[PreparedTrial], processes: ProcessGroup | None = None) -> Engine:
    """An engine for trials of one cohort: one lane per trial, in the order given.

    Raises ConfigError if the backend's device is not available.
    """
    first = trials[0]
    lanes = [trial.lane() for trial in trials]
    device = first.settings.device
    return first.backend.engine(first.architecture, first.seen_dataset, lanes, first.batch_size, device, processes)


def streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """The two independent `PCG64` generators of a trial: one for its initial weights, one for its order."""
    weights, order = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(weights), np.random.default_rng(order)
