"""The epoch loop over a cohort. It knows neither which backend computes nor who listens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ablate import bugs, losses, models
from ablate.backends import Engine, Epoch, Evaluation, Lane
from ablate.config import Settings
from ablate.data import Dataset, preset_batch_size

Array = np.ndarray[Any, np.dtype[Any]]

STEP_RECORDS = 500
WATCHED_EPOCHS = 50
# All of the embedded digits, so that start and end are measured on the same rows.
INITIAL_ROWS = 2000


@dataclass(frozen=True)
class Summary:
    """How a trial's training went, in figures: what the verdict and the results are made of.

    `initial_loss` is the loss before the first update on the first rows of the training set (2,000 at most);
    `test_losses` has one entry an epoch, the untrained network's first; `predicted` counts the test set's
    predictions by class, `labels` its true classes. `too_large` and `too_small` count updates of the output layer
    out of range (`ablate.backends.Watched`), `dead_units` and `saturated` are the shares last seen.
    """

    epochs: int
    steps: int
    initial_loss: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_losses: Sequence[float]
    predicted: Sequence[int]
    labels: Sequence[int]
    too_large: int = 0
    too_small: int = 0
    dead_units: float = math.nan
    saturated: float = math.nan
    not_finite_step: int | None = None
    error: str | None = None


class Observer(Protocol):
    """Who listens to a cohort's training; trials are named by their lane."""

    def metrics(self, lane: int, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One record of metrics after `step` updates, within or at the end of `epoch`."""
        ...

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        """The lane trains no further."""
        ...


@dataclass
class _Progress:
    """What the loop remembers of one lane."""

    epoch: int = 0
    step: int = 0
    initial_loss: float = math.nan
    train: tuple[float, float] = (math.nan, math.nan)
    test_losses: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    dead_units: float = math.nan
    saturated: float = math.nan


def architecture(settings: Settings, dataset: Dataset) -> models.Architecture:
    """The network of a trial on its data. Raises ConfigError where the shapes do not fit."""
    loss = losses.build(settings.loss, settings.output)
    network = models.build(settings.model, loss.output, dataset.sample_shape, dataset.classes)
    bugs.check(settings, network, loss)
    return network


def batch_size(settings: Settings, dataset: Dataset) -> int:
    """Samples an update: the configured number, the data set's own, or the whole set."""
    return settings.batch_size or min(
        preset_batch_size(settings.data.name) or len(dataset.y_train), len(dataset.y_train)
    )


def steps_per_epoch(settings: Settings, dataset: Dataset) -> int:
    """Updates in one pass over the training set; the last batch may be short."""
    return math.ceil(len(dataset.y_train) / batch_size(settings, dataset))


def log_every(settings: Settings, dataset: Dataset) -> int:
    """Steps from one record of step metrics to the next."""
    total = settings.epochs * steps_per_epoch(settings, dataset)
    return settings.log_every or max(1, math.ceil(total / STEP_RECORDS))


def streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """The two independent generators of a trial, `PCG64`: its initial weights', and its order's."""
    weights, order = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(weights), np.random.default_rng(order)


def lane(settings: Settings, network: models.Architecture) -> Lane:
    """A trial as the backend sees it; the signs of update and residual become the sign of its rates."""
    sign = (1 if settings.update_sign == "minus" else -1) * (1 if settings.residual == "p-y" else -1)
    return Lane(
        weights=models.initial_weights(network, settings.init, streams(settings.seed)[0]),
        loss=bugs.loss(settings.bug, settings.loss, losses.build(settings.loss, settings.output)),
        loss_key=(str(settings.loss), settings.output),
        reduction=settings.loss.reduction,
        optimizer=settings.optimizer,
        rate=sign * settings.lr,
        output_rate=sign * (settings.output_lr or settings.lr),
        bug=settings.bug,
    )


class Orders:
    """The order in which each lane meets the training set: one permutation an epoch from its own stream.

    Lanes of the same seed share one array. Without `shuffle`, or where one batch is the whole set, the order
    is that of the file.
    """

    def __init__(self, settings: Sequence[Settings], count: int, batch: int) -> None:
        self.plain = np.arange(count)
        self.seeds = [trial.seed if trial.shuffle and batch < count else None for trial in settings]
        self.streams = {seed: streams(seed)[1] for seed in self.seeds if seed is not None}

    def next(self) -> list[Array]:
        """Each lane's rows `(N,)` for the next epoch."""
        drawn = {seed: stream.permutation(len(self.plain)) for seed, stream in self.streams.items()}
        return [self.plain if seed is None else drawn[seed] for seed in self.seeds]


def train(settings: Sequence[Settings], dataset: Dataset, engine: Engine, observer: Observer) -> None:
    """Train a cohort to its end; `settings[lane]` are those of the engine's lane.

    Every lane is reported to the observer once as finished: after its last epoch, when its rule to stop
    applies, when its loss is not finite any more, or when it fails.
    """
    loop = _Loop(settings, dataset, engine, observer)
    loop.begin()
    for number in range(1, settings[0].epochs + 1):
        if loop.active:
            loop.epoch(number)


class _Loop:
    def __init__(self, settings: Sequence[Settings], dataset: Dataset, engine: Engine, observer: Observer) -> None:
        self.settings, self.dataset, self.engine, self.observer = settings, dataset, engine, observer
        self.orders = Orders(settings, len(dataset.y_train), batch_size(settings[0], dataset))
        self.steps_per_epoch = steps_per_epoch(settings[0], dataset)
        self.log_every = log_every(settings[0], dataset)
        # Updates too large and too small: those counted so far, and those that metrics have told.
        self.counted, self.told = np.zeros((2, 2, len(settings)))
        self.watched_next = 1
        self.active = set(range(len(settings)))
        self.progress = [_Progress() for _ in settings]
        self.labels = np.bincount(dataset.y_test, minlength=dataset.classes).tolist()

    def begin(self) -> None:
        """Measure the untrained networks: epoch 0."""
        initial, test = self.engine.evaluate(INITIAL_ROWS), self.engine.evaluate()
        for lane in sorted(self.active):
            self.progress[lane].initial_loss = float(initial.loss[lane])
            self._record(lane, test, 0, 0)
        self._fail({**initial.failed, **test.failed})

    def epoch(self, number: int) -> None:
        """One pass over the training set, its records, and the lanes that end with it."""
        first = (number - 1) * self.steps_per_epoch
        logged = [step for step in range(self.steps_per_epoch) if (first + step) % self.log_every == 0]
        epoch = self.engine.train_epoch(self.orders.next(), logged)
        if logged:
            self.counted += (epoch.watched.too_large, epoch.watched.too_small)
        for lane in sorted(self.active):
            self._record_steps(lane, epoch, first, number)
        for lane, ended in sorted(epoch.ended.items()):
            self.progress[lane].train = (math.nan, math.nan)
            self._record(lane, self.engine.evaluate_lane(lane), first + ended.step, number)
            if ended.failed:
                self._finish(lane, error=ended.why)
            else:
                self._finish(lane, not_finite_step=first + ended.step)
        if self.active:
            self._test(epoch, number)

    def _test(self, epoch: Epoch, number: int) -> None:
        test = self.engine.evaluate()
        last = number == self.settings[0].epochs
        watched = {}
        if last or (epoch.steps and number >= self.watched_next):
            self.watched_next = number + math.ceil(self.settings[0].epochs / WATCHED_EPOCHS)
            watched = self._watched(epoch)
        for lane in sorted(self.active):
            self.progress[lane].train = (float(epoch.loss[lane]), float(epoch.accuracy[lane]))
            self._record(lane, test, number * self.steps_per_epoch, number, watched.get(lane))
        self._fail(test.failed)
        for lane in [lane for lane in sorted(self.active) if last or self._stops(lane)]:
            self._finish(lane)

    def _record_steps(self, lane: int, epoch: Epoch, first: int, number: int) -> None:
        for column, step in enumerate(epoch.steps):
            if lane in epoch.ended and step > epoch.ended[lane].step:
                return
            values = {
                "step/loss": float(epoch.step_loss[lane, column]),
                "grad/norm": float(epoch.gradient_norm[lane, column]),
                "grad/output_norm": float(epoch.output_gradient_norm[lane, column]),
            }
            self.observer.metrics(lane, first + step, number, values)

    def _watched(self, epoch: Epoch) -> dict[int, dict[str, float]]:
        """What was seen of each lane's inside since it was last told, once the test set is evaluated."""
        units, watched = self.engine.units(), epoch.watched
        columns = {
            **dict(zip(("watch/too_large", "watch/too_small"), self.counted - self.told, strict=True)),
            "watch/dead_units": units.dead,
            "watch/saturated": units.saturated,
        }
        if epoch.steps:
            columns |= {
                f"grad/{layer}": norms for layer, norms in zip(watched.layers, watched.layer_norms.T, strict=True)
            }
        self.told = self.counted.copy()
        seen = {name: column.tolist() for name, column in columns.items()}
        return {
            lane: {name: values[lane] for name, values in seen.items() if not math.isnan(values[lane])}
            for lane in self.active
        }

    def _record(
        self, lane: int, test: Evaluation, step: int, epoch: int, watched: Mapping[str, float] | None = None
    ) -> None:
        progress = self.progress[lane]
        progress.epoch, progress.step = epoch, step
        progress.test_losses.append(float(test.loss[lane]))
        progress.test_accuracies.append(float(test.accuracy[lane]))
        progress.predicted = test.predicted[lane].tolist()
        values = {"train/loss": progress.train[0], "train/accuracy": progress.train[1]} if epoch else {}
        values["test/loss"] = progress.test_losses[-1]
        values["test/accuracy"] = progress.test_accuracies[-1]
        values["test/confidence"] = float(test.confidence[lane])
        values["watch/largest_class"] = max(progress.predicted) / sum(progress.predicted)
        if watched:
            values |= watched
            progress.dead_units = watched.get("watch/dead_units", math.nan)
            progress.saturated = watched.get("watch/saturated", math.nan)
        self.observer.metrics(lane, step, epoch, values)

    def _fail(self, failures: Mapping[int, str]) -> None:
        for lane in sorted(failures.keys() & self.active):
            self._finish(lane, error=failures[lane])

    def _stops(self, lane: int) -> bool:
        """Whether the lane's rule to stop applies after the last record."""
        stop, progress = self.settings[lane].stop, self.progress[lane]
        if stop.name == "patience":
            losses_ = [loss if math.isfinite(loss) else math.inf for loss in progress.test_losses]
            return len(losses_) - 1 - losses_.index(min(losses_)) >= stop.patience
        if stop.name == "target":
            return sum(accuracy >= stop.accuracy for accuracy in progress.test_accuracies[1:]) >= stop.times
        return False

    def _finish(self, lane: int, not_finite_step: int | None = None, error: str | None = None) -> None:
        """Report a lane and take it out of training."""
        progress = self.progress[lane]
        summary = Summary(
            epochs=progress.epoch,
            steps=progress.step,
            initial_loss=progress.initial_loss,
            train_loss=progress.train[0],
            train_accuracy=progress.train[1],
            test_loss=progress.test_losses[-1],
            test_accuracy=progress.test_accuracies[-1],
            test_losses=progress.test_losses,
            predicted=progress.predicted,
            labels=self.labels,
            too_large=int(self.counted[0, lane]),
            too_small=int(self.counted[1, lane]),
            dead_units=progress.dead_units,
            saturated=progress.saturated,
            not_finite_step=not_finite_step,
            error=error,
        )
        self.observer.finished(lane, summary, self.engine)
        self.engine.drop([lane])
        self.active.discard(lane)
