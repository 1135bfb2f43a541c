"""Rehearsal: changes to a trial are tried for some steps on a part of its data, beside the trial as it is.

The number of steps follows from an estimate of the work and not from a clock, so that a rehearsal gives the same
figures every time; only a call of a user's own loss is timed. It is computed by the NumPy engine, whatever
computed the trial.
"""

import contextlib
import math
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ablate.backends.engine import Engine
from ablate.config.groups import GROUPS, chosen
from ablate.config.parse import parse
from ablate.config.settings import Settings
from ablate.config.stops import Never
from ablate.diagnosis.causes import Change
from ablate.diagnosis.estimates import Estimate, deviations, of_summary
from ablate.errors import ConfigError
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import LossFailedError
from ablate.problem.tasks import Task
from ablate.training.loop import INITIAL_ROWS, Silent, Summary, train
from ablate.trials.prepared import PreparedTrial, engine, fitted, prepare

Array = np.ndarray[Any, np.dtype[Any]]

# What all changes together may cost, by the estimate below; and where that is too little for so few steps, what those
# may cost, and else the last changes are left out.
SECONDS = 3.0
FEWEST, LONGEST = 10, 15.0
ROWS, TEST_ROWS = 1000, 1000
# So many samples of a class are taken, however rare it is.
OF_EACH_CLASS = 5
# A step's Python calls, each lane's share of them, and multiplications a second, on one core.
STEP_SECONDS, LANE_SECONDS, SPEED = 3e-4, 5e-5, 8e9
# What a weight costs before and after training, and in a step.
WEIGHT_ONCE, WEIGHT_STEP = 5e-8, 5e-9
# So many weights are trained at once, in the lanes of one engine: each takes some ten times its room.
WEIGHTS = 4_000_000
# A key of the model that its layers call by another name.
IN_LAYERS = {"preactivation_divisor": "divisor"}
# A change is better if it recognises so much more and not by chance, or as much at a loss that is so much lower.
GAIN, LOSS_GAIN = 0.03, 0.9
# A network that has gone less of the way from a constant answer to all recognised may have named one class by luck: the
# samples of a class are alike, and so are its answers.
LEARNED = 0.05


@dataclass(frozen=True)
class Outcome:
    """What some steps made of a trial with a change (None: as it is).

    `first` and `last` are the training loss before the first update and after the last, NaN if that is not finite;
    `score` is the mean recall by class on test samples, the accuracy where classes are balanced, or the score of a task
    without classes, `estimate` what it says of all samples; `chance` is that of the best constant answer. `test_loss`
    is that of the same test samples.
    """

    change: Change | None
    settings: Settings
    task: Task
    first: float
    last: float
    score: float
    chance: float
    estimate: Estimate
    test_loss: float

    def __str__(self) -> str:
        first, last = _written(self.first), _written(self.last)
        called = "recall" if self.task.has_classes else self.task.called
        return f"loss {first} to {last}, {called} {self.written}"

    @property
    def written(self) -> str:
        """The score as a user reads it."""
        if not self.score > self.chance - 1:
            return "far below a constant answer's"
        return self.task.written(self.score)

    @property
    def rank(self) -> float:
        """The score, rounded, so that those that differ by little keep their order."""
        return round(self.score / GAIN) * GAIN if math.isfinite(self.score) else -math.inf

    def recognises_more_than(self, other: "Outcome", deviations: float) -> bool:
        """Whether it recognises more than the other and than a constant answer, by so many standard deviations."""
        return self.seems_better_than(other) and self._is_told(other, deviations)

    def seems_better_than(self, other: "Outcome") -> bool:
        """Whether it recognises more of these samples, by whatever chance."""
        return self.last < self.first and self.score >= other.score + GAIN and self.has_learned

    @property
    def has_learned(self) -> bool:
        """Whether these samples show more than a constant answer's score."""
        return self.score >= self.chance + max(GAIN, LEARNED * (1 - self.chance))

    def falls_lower_than(self, other: "Outcome", deviations: float) -> bool:
        """Whether the same loss ends lower on the test set, no less is recognised, and more than by a constant answer.

        On the training set, a loss is lower the better it is learned by heart.
        """
        is_comparable = self.settings.loss == other.settings.loss and self.settings.output == other.settings.output
        is_lower = math.isfinite(self.last) and self.test_loss < LOSS_GAIN * _or_infinite(other.test_loss)
        is_told = self.has_learned and self.estimate.exceeds(Estimate(self.chance), deviations)
        return is_comparable and is_lower and self.score > other.score - GAIN / 2 and is_told

    def _is_told(self, other: "Outcome", deviations: float) -> bool:
        reference = other.estimate if other.score > self.chance else Estimate(self.chance)
        return self.estimate.exceeds(reference, deviations)


@dataclass(frozen=True)
class Rehearsal:
    """The outcomes of all changes, after `steps` steps on `rows` training samples, on `test_rows` test samples.

    `left_out` are the changes at the end for which there was no time.
    """

    steps: int
    rows: int
    test_rows: int
    as_it_is: Outcome
    tried: Sequence[Outcome]
    left_out: Sequence[Change] = ()

    @property
    def better(self) -> list[Outcome]:
        """Those that do better than the trial as it is, the best first, equals in the order given.

        A lower loss counts only where no change recognises more.
        """
        as_it_is, needed = self.as_it_is, deviations(max(len(self.tried), 1), self.test_rows)
        found = [outcome for outcome in self.tried if outcome.recognises_more_than(as_it_is, needed)]
        lower = [outcome for outcome in self.tried if outcome.falls_lower_than(as_it_is, needed)]
        return sorted(found, key=lambda outcome: -outcome.rank) or sorted(lower, key=lambda outcome: outcome.test_loss)

    def described(self, outcome: Outcome) -> str:
        """An outcome in words, with the losses of the test set where it is better by them alone."""
        if outcome.seems_better_than(self.as_it_is):
            return str(outcome)
        return f"{outcome}, test loss {_written(outcome.test_loss)} instead of {_written(self.as_it_is.test_loss)}"

    @property
    def learns_nothing(self) -> bool:
        """Whether neither the trial as it is nor any change tells more of the test samples than a constant answer."""
        return not any(outcome.has_learned for outcome in (self.as_it_is, *self.tried))

    @property
    def untold(self) -> list[Outcome]:
        """Those that recognise more of the test samples, which are too few to tell it from chance."""
        better = self.better
        seeming = (outcome for outcome in self.tried if outcome.seems_better_than(self.as_it_is))
        return [outcome for outcome in seeming if outcome not in better]

    @property
    def others(self) -> list[Outcome]:
        """Those that do not."""
        listed = [*self.better, *self.untold]
        return [outcome for outcome in self.tried if outcome not in listed]


def rehearse(config: Mapping[str, Any], changes: Sequence[Change], data: str | None = None) -> Rehearsal:
    """Try changes to the trial of a resolved configuration, on data of this digest where it is known.

    A change that does not fit the trial is left out. Raises ConfigError if the trial itself cannot be prepared here:
    its data or its loss may be gone, or the data may be others.
    """
    as_it_is = prepare(_plain(parse(config)))
    if data not in (None, as_it_is.dataset.digest):
        raise ConfigError("its data have changed since it was trained")
    own = _data_key(as_it_is.settings)
    few = {own: _drawn(as_it_is.dataset, ROWS, TEST_ROWS)}
    trials: list[tuple[Change | None, PreparedTrial]] = [(None, as_it_is.on(few[own]))]
    for change in changes:
        # A key that the trial does not have, a combination that is refused: there is nothing to try.
        with contextlib.suppress(ConfigError):
            settings = _plain(parse(changed(config, change)))
            key = _data_key(settings)
            # A data set taken otherwise is let go again: only some of its samples are needed.
            trial = fitted(settings, as_it_is.dataset if key == own else None)
            few[key] = few[key] if key in few else _drawn(trial.dataset, ROWS, TEST_ROWS)
            trials.append((change, trial.on(few[key])))
    most = as_it_is.settings.epochs * as_it_is.steps_per_epoch
    cost = _Cost([trial for _, trial in trials])
    kept = cost.trials_for(min(most, FEWEST))
    steps = cost.steps(kept, most)
    left_out = [change for change, _ in trials[kept:] if change is not None]
    trials = trials[:kept]
    short = [(change, _shortened(trial, steps, trials[0][1])) for change, trial in trials]
    summaries = _train([trial for _, trial in short])
    first, *tried = [_outcome(change, trial, *ended) for (change, trial), ended in zip(short, summaries, strict=True)]
    tried_for = short[0][1].settings.epochs * short[0][1].steps_per_epoch
    dataset = short[0][1].dataset
    return Rehearsal(tried_for, len(dataset.y_train), len(dataset.y_test), first, tried, left_out)


def changed(config: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """A resolved configuration with a change; the keys that two options of a group share keep their values.

    Raises ConfigError if there is no such key.
    """
    values = deepcopy(dict(config))
    for key, value in change.keys.items():
        group, _, rest = key.partition(".")
        if key in GROUPS:
            values[group] = chosen(group, value, values[group])
        elif rest:
            if rest not in values[group]:
                raise ConfigError(f"{key}: no such key here")
            values[group] = {**values[group], rest: value}
            # An interpolation, which the resolved configuration no longer has.
            inside = IN_LAYERS.get(rest, rest)
            for layer in values[group].get("layers", ()) if group == "model" else ():
                if isinstance(layer, dict) and inside in layer:
                    layer[inside] = value
        else:
            values[key] = value
    return values


def _plain(settings: Settings) -> Settings:
    """Computed by NumPy, to its end, with few records."""
    return settings.model_copy(update={"backend": "numpy", "stop": Never(), "log_every": 10**9})


def _data_key(settings: Settings) -> str:
    return settings.data.model_dump_json() + settings.dtype


def _drawn(dataset: Dataset, rows: int, test_rows: int) -> Dataset:
    """So many of its samples at most, in their order, drawn at random: a file may be sorted by class."""
    train, test = _rows(dataset.task, dataset.y_train, rows), _rows(dataset.task, dataset.y_test, test_rows)
    return replace(
        dataset,
        x_train=dataset.x_train[train],
        y_train=dataset.y_train[train],
        x_test=dataset.x_test[test],
        y_test=dataset.y_test[test],
    )


def _rows(task: Task, y: Array, most: int) -> Array:
    """Row numbers in ascending order: of every class a few if it has them, and at random otherwise."""
    rows = np.random.default_rng(0).permutation(len(y))
    if task.has_classes and most < len(y):
        labels, turn = y[rows], np.empty(len(y), int)
        there = np.unique(labels)
        for label in there:
            turn[labels == label] = np.arange((labels == label).sum())
        kept = min(OF_EACH_CLASS, most // len(there))
        rows = rows[np.argsort(turn >= kept, kind="stable")]
    return np.sort(rows[:most])


class _Cost:
    """An estimate of the seconds that trials take together, the first of them as it is."""

    def __init__(self, trials: Sequence[PreparedTrial]) -> None:
        self.trials = trials
        self.call = _call_seconds(trials[0])

    def trials_for(self, steps: int) -> int:
        """How many of the trials, the first two at least, can be trained for so many steps in `LONGEST`."""
        counts = range(2, len(self.trials) + 1)
        return 1 + max(bisect_right(counts, LONGEST, key=lambda count: self._seconds(count, steps)), 1)

    def steps(self, count: int, most: int) -> int:
        """For how many steps, at most `most`, to train the first trials."""
        usual, longest = (
            bisect_right(range(1, most + 1), limit, key=lambda steps: self._seconds(count, steps))
            for limit in (SECONDS, LONGEST)
        )
        return max(1, usual, min(longest, FEWEST))

    def _seconds(self, count: int, steps: int) -> float:
        some = self.trials[:count]
        return steps * STEP_SECONDS * len({_key(trial) for trial in some}) + sum(self._lane(one, steps) for one in some)

    def _lane(self, trial: PreparedTrial, steps: int) -> float:
        """What a lane adds; an epoch ends with an evaluation, and so does the training, on both sets."""
        dataset, architecture = trial.dataset, trial.architecture
        batch = min(trial.batch_size, len(dataset.y_train))
        rows = min(steps * batch, len(dataset.y_train))
        evaluations = 1 + math.ceil(steps * batch / rows)
        samples = 3 * steps * batch + 2 * rows + evaluations * len(dataset.y_test)
        weights = sum(parameter.size for parameter in architecture.parameters)
        calls = (2 * steps + 2 + evaluations) * self.call if trial.settings.loss.is_foreign else 0.0
        weighed = weights * (WEIGHT_ONCE + steps * WEIGHT_STEP)
        return steps * LANE_SECONDS + samples * architecture.multiplications / SPEED + weighed + calls


def _call_seconds(trial: PreparedTrial) -> float:
    """What a call of a user's own loss takes on a batch; 0 for other losses, which the estimate holds.

    It is rounded up to a power of 4, so that it is nearly always the same.
    """
    if not trial.settings.loss.is_foreign:
        return 0.0
    objective, units = trial.objective, trial.architecture.units
    rng = np.random.default_rng(0)
    y = trial.dataset.task.made_up(rng, units, min(trial.batch_size, len(trial.dataset.y_train)))
    z = np.asarray(rng.standard_normal(y.shape))
    begun = time.perf_counter()
    with contextlib.suppress(LossFailedError), np.errstate(all="ignore"):
        objective.value(z, objective.outputs(z), y)
    taken = max(time.perf_counter() - begun, 1e-5)
    return float(4.0 ** math.ceil(math.log(taken, 4)))


def _shortened(trial: PreparedTrial, steps: int, as_it_is: PreparedTrial) -> PreparedTrial:
    """The trial with as many passes as make so many steps of the trial as it is; more where it has more epochs."""
    count = len(as_it_is.dataset.y_train)
    batch = min(as_it_is.batch_size, count)
    rows = max(steps * batch, min(trial.dataset.classes, count) if trial.dataset.task.has_classes else 1)
    few = _drawn(trial.dataset, rows, TEST_ROWS)
    passes = steps / math.ceil(min(rows, count) / batch)
    more = trial.settings.epochs / as_it_is.settings.epochs
    update = {"epochs": max(1, round(passes * more)), "batch_size": min(trial.batch_size, len(few.y_train))}
    part = trial.on(few)
    return replace(part, settings=part.settings.model_copy(update=update))


class _Listener(Silent):
    """Keeps the summaries of an engine's lanes, each with its training loss after the last update.

    An epoch's mean would be the loss before the update where the epoch is one step.
    """

    def __init__(self) -> None:
        self.summaries: dict[int, tuple[Summary, float]] = {}
        self.last: Array | None = None

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        last = math.nan
        if summary.error is None and summary.not_finite_step is None:
            # All lanes that train to the end do so at once.
            self.last = engine.evaluate(INITIAL_ROWS).loss if self.last is None else self.last
            last = float(self.last[lane])
        self.summaries[lane] = summary, last


def _train(trials: Sequence[PreparedTrial]) -> list[tuple[Summary, float]]:
    together: dict[str, list[int]] = defaultdict(list)
    for place, trial in enumerate(trials):
        together[_key(trial)].append(place)
    found: dict[int, tuple[Summary, float]] = {}
    # Numbers that are not finite are outcomes, not mishaps.
    with threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):
        for places in (chunk for many in together.values() for chunk in _chunks(many, trials[many[0]])):
            lanes, listener = [trials[place] for place in places], _Listener()
            train(lanes, engine(lanes), listener)
            found |= {places[lane]: ended for lane, ended in listener.summaries.items()}
    return [found[place] for place in range(len(trials))]


def _chunks(places: Sequence[int], trial: PreparedTrial) -> list[Sequence[int]]:
    """So few at once that their weights have room; a lane's numbers do not depend on the others."""
    size = max(1, WEIGHTS // max(1, sum(parameter.size for parameter in trial.architecture.parameters)))
    return [places[start : start + size] for start in range(0, len(places), size)]


def _key(trial: PreparedTrial) -> str:
    """Equal for trials that one engine can train together."""
    settings = trial.settings
    model = settings.model.model_dump_json(exclude={"output"})
    return model + settings.model_dump_json(include={"data", "batch_size", "epochs", "dtype", "bug"})


def _outcome(change: Change | None, trial: PreparedTrial, summary: Summary, last: float) -> Outcome:
    last = last if math.isfinite(last) and math.isfinite(summary.test_loss) else math.nan
    score, chance = summary.test_score, summary.baseline
    if summary.task.has_classes:
        recalls = [right / rows for right, rows in zip(summary.recognised, summary.labels, strict=True) if rows]
        score, chance = sum(recalls) / len(recalls), 1 / len(recalls)
    # Where the test set is the training set, all samples there are have been seen.
    estimate = Estimate(score) if _is_all(trial.dataset) else of_summary(summary)
    return Outcome(
        change, trial.settings, summary.task, summary.initial_loss, last, score, chance, estimate, summary.test_loss
    )


def _written(loss: float) -> str:
    return f"{loss:.3g}" if math.isfinite(loss) else "not finite"


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _is_all(dataset: Dataset) -> bool:
    return np.array_equal(dataset.y_train, dataset.y_test) and np.array_equal(dataset.x_train, dataset.x_test)
