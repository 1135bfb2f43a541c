"""The epoch loop over the lanes of an engine. It knows neither the backend nor who observes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ablate.backends.engine import Ended, Engine, Epoch, Evaluation
from ablate.config.settings import Settings
from ablate.problem.layers import Dropout
from ablate.problem.schedules import Paces
from ablate.problem.tasks import CLASSIFICATION, Task
from ablate.trials.prepared import PreparedTrial, streams

Array = np.ndarray[Any, np.dtype[Any]]

WATCHED_EPOCHS = 50
# All of the embedded digits, so that start and end are measured on the same rows.
INITIAL_ROWS = 2000


@dataclass(frozen=True)
class Summary:
    """How a trial's training went, in numbers: the basis of the verdict and the results.

    `initial_loss` is the loss before the first update on the first rows of the training set (2,000 at most);
    `test_losses` and `test_accuracies` (R² for numbers) have one entry per epoch, preceded by that of the untrained
    network; `predicted` counts the test set's predictions by class, `labels` its true classes, `recognised` the right
    predictions by class (all empty for a task without classes). `target_accuracy` or `target_r2` is the score to reach.
    `figures` are the last metrics by name, `baseline` is the score of the best constant answer. `too_large` and
    `too_small` count updates of the output layer out of range (`ablate.backends.engine.Watched`), `dead_units` and
    `saturated` are the last observed shares. `has_dropout`: the training loss is one with dropout.
    """

    epochs: int
    steps: int
    initial_loss: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    test_losses: Sequence[float]
    test_accuracies: Sequence[float]
    predicted: Sequence[int]
    labels: Sequence[int]
    recognised: Sequence[int]
    target_accuracy: float
    too_large: int = 0
    too_small: int = 0
    dead_units: float = math.nan
    saturated: float = math.nan
    not_finite_step: int | None = None
    error: str | None = None
    task: Task = CLASSIFICATION
    figures: Mapping[str, float] = field(default_factory=dict)
    baseline: float = math.nan
    target_r2: float = math.nan
    test_rows: int = 0
    has_dropout: bool = False

    @property
    def losses(self) -> Sequence[tuple[str, float, float]]:
        """By the name of the set, the loss before the first update and at the end.

        Dropout raises the training loss, and not the one before the first update: the test loss is measured alike.
        """
        trained = ("training", self.initial_loss, self.train_loss)
        if not self.has_dropout or not math.isfinite(self.test_loss):
            return [trained]
        return [trained, ("test", self.test_losses[0], self.test_loss)]

    @property
    def target(self) -> float:
        """The score to reach."""
        return self.target_r2 if self.task.score == "r2" else self.target_accuracy

    @property
    def train_score(self) -> float:
        """The score by which trials of this task are compared, on the training set."""
        return self.figures.get(f"train/{self.task.score}", math.nan)

    @property
    def test_score(self) -> float:
        return self.figures.get(f"test/{self.task.score}", math.nan)


class Observer(Protocol):
    """What is told about the training of an engine's lanes; trials are identified by their lane."""

    def begin(self, engine: Engine) -> None:
        """Every lane has its initial weights."""
        ...

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        """One record of metrics of these lanes after `step` updates, within or at the end of `epoch`.

        Each array `(K,)` has an element for every lane of the engine. It is not changed afterwards.
        """
        ...

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        """The lane has been trained to its end."""
        ...


class Silent:
    """An observer that does nothing, for the processes of a group other than rank 0."""

    def begin(self, engine: Engine) -> None:
        """Somebody else records."""

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        """Somebody else records."""

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        """Somebody else records."""


class _Stop:
    """The lanes' rules for early stopping and their state: arrays `(K,)`."""

    def __init__(self, settings: Sequence[Settings]) -> None:
        rules = [trial.stop for trial in settings]
        self.patience = np.array([rule.worse_epochs for rule in rules])
        self.target, self.times = np.array([rule.reached for rule in rules]).T
        self.best, self.best_epoch, self.reached = np.zeros((3, len(rules)))
        self.best.fill(math.inf)

    def heed(self, test: Mapping[str, Array], epoch: int) -> Array:
        """Which lanes stop, given the metrics of the test set after `epoch`; 0 is before training."""
        is_better = test["test/loss"] < self.best
        np.copyto(self.best, test["test/loss"], where=is_better)
        np.copyto(self.best_epoch, epoch, where=is_better)
        if epoch and "test/accuracy" in test:
            self.reached += test["test/accuracy"] >= self.target
        return np.asarray((epoch - self.best_epoch >= self.patience) | (self.reached >= self.times))


class Orders:
    """The order in which each lane visits the training set: one permutation per epoch from its own random stream.

    Lanes of the same seed share one array. Without `shuffle`, or if one batch is the whole training set, the order is
    that of the file.
    """

    def __init__(self, settings: Sequence[Settings], count: int, batch: int) -> None:
        self.plain = np.arange(count)
        self.seeds = [trial.seed if trial.shuffle and batch < count else None for trial in settings]
        self.streams = {seed: streams(seed)[1] for seed in self.seeds if seed is not None}

    def next(self) -> list[Array]:
        """Each lane's rows `(N,)` for the next epoch."""
        drawn = {seed: stream.permutation(len(self.plain)) for seed, stream in self.streams.items()}
        return [self.plain if seed is None else drawn[seed] for seed in self.seeds]


def train(trials: Sequence[PreparedTrial], engine: Engine, observer: Observer) -> None:
    """Train every lane to its end; `trials[lane]` is the trial in that lane of the engine.

    The observer is told once for each lane that it has finished: after its last epoch, when its rule for early stopping
    applies, when its loss is no longer finite, or when it fails.
    """
    loop = _Loop(trials, engine, observer)
    loop.begin()
    for number in range(1, trials[0].settings.epochs + 1):
        if loop.active:
            loop.epoch(number)


class _Loop:
    """The state of the training. Arrays `(K,)`, or `(.., K)`, have an element for every lane."""

    def __init__(self, trials: Sequence[PreparedTrial], engine: Engine, observer: Observer) -> None:
        first = trials[0]
        settings, dataset = [trial.settings for trial in trials], first.dataset
        self.settings, self.engine, self.observer = settings, engine, observer
        self.orders = Orders(settings, len(dataset.y_train), first.batch_size)
        self.steps_per_epoch, self.log_every = first.steps_per_epoch, first.log_every
        lanes = len(settings)
        # Updates too large and too small: counted so far, and reported in metrics so far.
        self.counted, self.told = np.zeros((2, 2, lanes))
        self.watched_next = 1
        self.active = list(range(lanes))
        self.stop = _Stop(settings)
        self.lr, self.paces = np.array([trial.lr for trial in settings]), Paces([trial.pace for trial in trials])
        self.scheduled = {lane for lane, trial in enumerate(settings) if not trial.schedule.is_constant}
        self.initial_loss, self.dead_units, self.saturated = np.full((3, lanes), math.nan)
        # Test loss and score by epoch, from the untrained network on.
        self.curve: list[tuple[Array, Array]] = []
        self.dataset, self.task = dataset, dataset.task
        self.labels = np.bincount(dataset.y_test, minlength=dataset.classes).tolist() if self.task.has_classes else []
        self.baseline = self.task.baseline(dataset.y_train, dataset.y_test)
        self.has_dropout = any(isinstance(stage.layer, Dropout) for stage in first.architecture.stages)

    def begin(self) -> None:
        """Measure the untrained networks: epoch 0."""
        self.observer.begin(self.engine)
        initial, test = self.engine.evaluate(INITIAL_ROWS), self.engine.evaluate()
        self.initial_loss = initial.loss
        tested = self._tested(test)
        self.curve.append(self._point(tested))
        self.stop.heed(tested, 0)
        self.observer.metrics(self.active, 0, 0, tested)
        self._fail({**initial.failed, **test.failed}, test, {**self._untrained(), **tested}, 0)

    def epoch(self, number: int) -> None:
        """One pass over the training set, its records, and the lanes that end in it."""
        first = (number - 1) * self.steps_per_epoch
        logged = range(-first % self.log_every, self.steps_per_epoch, self.log_every)
        epoch = self.engine.train_epoch(self.orders.next(), logged)
        self._record_steps(epoch, first, number)
        for lane, ended in sorted(epoch.ended.items()):
            self._end(lane, ended, first + ended.step, number)
        if self.active:
            self._test(epoch, number)

    def _record_steps(self, epoch: Epoch, first: int, number: int) -> None:
        if epoch.steps:
            self.counted += (epoch.watched.too_large, epoch.watched.too_small)
        columns = zip(epoch.step_loss.T, epoch.gradient_norm.T, epoch.output_gradient_norm.T, strict=True)
        for step, (loss, norm, output_norm) in zip(epoch.steps, columns, strict=True):
            ended = {lane for lane, end in epoch.ended.items() if step > end.step}
            lanes = [lane for lane in self.active if lane not in ended]
            values = {"step/loss": loss, "grad/norm": norm, "grad/output_norm": output_norm}
            self._record_step(lanes, first + step, number, values)

    def _record_step(self, lanes: Sequence[int], step: int, number: int, values: Mapping[str, Array]) -> None:
        """Record a step, with the learning rate of those lanes whose rate changes."""
        if not self.scheduled:
            self.observer.metrics(lanes, step, number, values)
            return
        rates = self.lr * self.paces.factors(step, 1)[:, 0]
        for some, more in ((set(lanes) - self.scheduled, {}), (set(lanes) & self.scheduled, {"step/lr": rates})):
            self.observer.metrics(sorted(some), step, number, {**values, **more})

    def _end(self, lane: int, ended: Ended, step: int, number: int) -> None:
        """Record and finish a lane that failed, or whose loss is no longer finite, within an epoch."""
        test = self.engine.evaluate_lane(lane)
        values = {**self._untrained(), **self._tested(test)}
        self.observer.metrics([lane], step, number, values)
        curve = [*self.curve, self._point(values)]
        error, not_finite = (ended.why, None) if ended.failed else (None, step)
        epochs = number - 1 if ended.failed else number
        self._finish(lane, self._summary(lane, values, test, curve, epochs, step, not_finite, error))

    def _test(self, epoch: Epoch, number: int) -> None:
        test = self.engine.evaluate()
        last = number == self.settings[0].epochs
        measured = {**self._trained(epoch), **self._tested(test)}
        self.curve.append(self._point(measured))
        values = measured
        if last or (epoch.steps and number >= self.watched_next):
            self.watched_next = number + math.ceil(self.settings[0].epochs / WATCHED_EPOCHS)
            values = measured | self._watched(epoch)
        step = number * self.steps_per_epoch
        self.observer.metrics(self.active, step, number, values)
        self._fail(test.failed, test, measured, number)
        stops = self.stop.heed(measured, number)
        for lane in [lane for lane in self.active if last or stops[lane]]:
            self._finish(lane, self._summary(lane, measured, test, self.curve, number, step))

    def _trained(self, epoch: Epoch) -> dict[str, Array]:
        """An epoch as metrics."""
        rows = len(self.dataset.y_train)
        return {"train/loss": epoch.loss, **self.dataset.scorers["train"].of_training(epoch.tallies, rows)}

    def _untrained(self) -> dict[str, Array]:
        """The same metrics where there was no epoch: not known."""
        scorer, lanes = self.dataset.scorers["train"], len(self.settings)
        nothing = np.full((lanes, scorer.while_trained), math.nan)
        return {"train/loss": np.full(lanes, math.nan), **scorer.of_training(nothing, 1)}

    def _tested(self, test: Evaluation) -> dict[str, Array]:
        """An evaluation of the test set as metrics."""
        return {"test/loss": test.loss, **self.dataset.scorers["test"].of_test(test.tallies, test.rows)}

    def _point(self, measured: Mapping[str, Array]) -> tuple[Array, Array]:
        """Test loss and score."""
        return measured["test/loss"], measured[f"test/{self.task.score}"]

    def _watched(self, epoch: Epoch) -> dict[str, Array]:
        """What was watched since the last report, without metrics of units that the network does not have."""
        units, watched = self.engine.units(), epoch.watched
        self.dead_units, self.saturated = units.dead, units.saturated
        too_large, too_small = self.counted - self.told
        self.told = self.counted.copy()
        seen = {"watch/too_large": too_large, "watch/too_small": too_small}
        seen |= {"watch/dead_units": units.dead, "watch/saturated": units.saturated}
        if epoch.steps:
            seen |= {f"grad/{layer}": norms for layer, norms in zip(watched.layers, watched.layer_norms.T, strict=True)}
        return {name: values for name, values in seen.items() if not _is_missing(name, values[self.active])}

    def _fail(self, failures: Mapping[int, str], test: Evaluation, measured: Mapping[str, Array], number: int) -> None:
        step = number * self.steps_per_epoch
        for lane in sorted(failures.keys() & set(self.active)):
            summary = self._summary(lane, measured, test, self.curve, number, step, error=failures[lane])
            self._finish(lane, summary)

    def _summary(
        self,
        lane: int,
        measured: Mapping[str, Array],
        test: Evaluation,
        curve: Sequence[tuple[Array, Array]],
        epoch: int,
        step: int,
        not_finite_step: int | None = None,
        error: str | None = None,
    ) -> Summary:
        figures = {name: float(values[lane]) for name, values in measured.items()}
        predicted, recognised = self.dataset.scorers["test"].counts(test.tallies)
        return Summary(
            epochs=epoch,
            steps=step,
            initial_loss=float(self.initial_loss[lane]),
            train_loss=figures["train/loss"],
            train_accuracy=figures.get("train/accuracy", math.nan),
            test_loss=figures["test/loss"],
            test_accuracy=figures.get("test/accuracy", math.nan),
            test_losses=[float(loss[lane]) for loss, _ in curve],
            test_accuracies=[float(score[lane]) for _, score in curve],
            predicted=predicted[lane].tolist(),
            labels=self.labels,
            recognised=recognised[lane].tolist(),
            target_accuracy=self.settings[lane].target_accuracy,
            too_large=int(self.counted[0, lane]),
            too_small=int(self.counted[1, lane]),
            dead_units=float(self.dead_units[lane]),
            saturated=float(self.saturated[lane]),
            not_finite_step=not_finite_step,
            error=error,
            task=self.task,
            figures=figures,
            baseline=self.baseline,
            target_r2=self.settings[lane].target_r2,
            test_rows=len(self.dataset.y_test),
            has_dropout=self.has_dropout,
        )

    def _finish(self, lane: int, summary: Summary) -> None:
        """Report a lane and take it out of training."""
        self.observer.finished(lane, summary, self.engine)
        self.engine.drop([lane])
        self.active.remove(lane)


def _is_missing(name: str, values: Array) -> bool:
    """Whether a metric is about units of a kind that the network does not have."""
    return name in ("watch/dead_units", "watch/saturated") and bool(np.isnan(values).all())
