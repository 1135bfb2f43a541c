"""The checks before training: is the gradient as coded the derivative of the loss, and does a step descend?

Everything is done in float64, on a few training samples, by central differences of the loss alone: the measurement
shares nothing with the backward pass. Whether a gradient is right does not depend on the point at which it is tested,
so the checks choose weights where nothing is saturated, dead or overflowing. The trial's own initialisation is tried
once, for numbers that are not finite. `python -m ablate.check key=value ...` prints the checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ablate import backends
from ablate.backends.engine import Lane
from ablate.backends.numpy.probe import NumpyProbe
from ablate.config.settings import Settings
from ablate.diagnosis.hypotheses import (
    NOT_FINITE,
    SAMPLES,
    Cause,
    is_finite,
    not_finite,
    not_repeatable,
    of_backward,
    of_kernels,
    of_updates,
)
from ablate.diagnosis.loss_alone import LossAlone, made_up
from ablate.diagnosis.measure import CHANGE, TOLERANCE, Entry, TensorCheck, descent_cosine, one_step, tensor_check
from ablate.diagnosis.readings import NEGATIVE, WRONG_SIGN, Finding, UsersLoss, of_failure, of_gradient
from ablate.problem.activations import ACTIVATIONS
from ablate.problem.data.dataset import Dataset
from ablate.problem.initialisation import GlorotUniform
from ablate.problem.layers import Divide
from ablate.problem.losses import Formulas, LossFailedError, Objective, unweighted
from ablate.problem.models import Architecture
from ablate.trials.prepared import PreparedTrial

Array = np.ndarray[Any, np.dtype[Any]]

DRAWS = 5


@dataclass(frozen=True)
class Check:
    """What a check found. `gradient_error` is over all tensors, `descent_cosine` over the weights; `guess` names a
    likely cause.

    The tensor `logits` is the loss by itself, without the network: its gradient at made-up logits, indexed by sample
    and class. `predicted` and `actual` are the change of the loss for one small step against the gradient: from the
    numerical slope, and as measured. `left_out` says why a configuration was not checked; it then has no figures.
    `note` says how it was checked where that was not as usual. `large` says at which large logits a user's loss is not
    finite.
    """

    tensors: tuple[TensorCheck, ...] = ()
    gradient_error: float | None = None
    descent_cosine: float | None = None
    predicted: float | None = None
    actual: float | None = None
    guess: str | None = None
    advice: str | None = None
    left_out: str | None = None
    note: str | None = None
    large: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether nothing was found."""
        return self.guess is None

    @property
    def is_of_start(self) -> bool:
        """Whether only numbers that are not finite at the trial's own start were found, and no wrong derivative."""
        return self.guess == NOT_FINITE and bool(self.tensors)

    @property
    def worst(self) -> Entry | None:
        """The coordinate where analytic and numeric differ most, in units of its tensor's largest gradient."""
        if not self.tensors:
            return None
        tensor = max(self.tensors, key=lambda tensor: tensor.error)
        return max(tensor.entries, key=lambda entry: abs(entry.analytic - entry.numeric), default=None)


def key(settings: Settings) -> str:
    """Equal for trials whose checks are the same: same model, loss, signs, mistake, data, initialisation, precision and
    backend."""
    named = {"model", "loss", "update_sign", "residual", "bug", "data", "init", "dtype", "backend", "device"}
    if not backends.get(settings.backend).is_reference:
        named |= {"optimizer", "schedule"}  # their kernels are tried too
    same = settings.model_dump_json(include=named)
    return same + str(settings.loss) if settings.loss.is_foreign else same


def check(trial: PreparedTrial, seed: int = 0) -> Check:
    """Check a trial's gradient and the direction of its step, on the first training samples of several classes.

    `seed` draws the point at which the gradient is tested. The trial's own seed is not used, so that trials that differ
    in their seed have the same check. If the loss raises, the check reports that.
    """
    trial = PreparedTrial(trial.settings.model_copy(update={"seed": seed}), trial.dataset)
    logits = trial.settings.model.logits
    if logits != "linear" and not ACTIVATIONS.get(logits).has_true_gradient:
        return Check(left_out=f"model.logits={logits} has no true gradient: forward and backward differ on purpose")
    try:
        return _examine(trial, _few(trial.seen_dataset))
    except LossFailedError as error:
        return Check(guess="loss fails", advice=f"the loss cannot be computed: {error}")


def check_all(trials: Sequence[PreparedTrial]) -> list[Check | None]:
    """The checks of trials on one data set, each distinct one made once; None for trials with `check=false`."""
    distinct = {key(trial.settings): trial for trial in trials if trial.settings.check}
    made = {name: check(trial) for name, trial in distinct.items()}
    return [made[key(trial.settings)] if trial.settings.check else None for trial in trials]


def _few(dataset: Dataset) -> Dataset:
    """A few training samples, from as many classes as possible."""
    rows = dataset.task.spread_out(dataset.y_train[:200])[:SAMPLES]
    # An odd number: if two classes are equally frequent, the gradient of a bias may cancel to 0.
    rows = np.sort(rows[:-1] if len(rows) > 2 and len(rows) % 2 == 0 else rows)
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    return replace(dataset, x_train=x, y_train=y, x_test=x, y_test=y)


def _in_float64(few: Dataset) -> Dataset:
    x, y = few.x_train.astype(np.float64), few.y_train
    y = y if few.task.has_classes else y.astype(np.float64)
    return replace(few, x_train=x, x_test=x, y_train=y, y_test=y)


def _gentle(architecture: Architecture, few: Dataset, seed: int) -> dict[str, Array]:
    """Weights at which nothing is extreme: Glorot's, divided by the data's scale, times the model's divisors."""
    weights = GlorotUniform(bias="same").weights(architecture.parameters, np.random.default_rng(seed))
    weights[next(iter(weights))] /= float(np.sqrt(np.mean(np.square(few.x_train)))) or 1.0
    for stage, after in pairwise(architecture.stages):
        if stage.name and isinstance(after.layer, Divide):
            weights[f"{stage.name}.weight"] *= after.layer.divisor
    return weights


def _awake(architecture: Architecture, few: Dataset, own: Lane, seed: int) -> Lane:
    """The lane at gentle weights where no tensor's gradient is entirely 0, if a few draws find any."""
    lane = own
    for attempt in range(DRAWS):
        lane = replace(own, weights=_gentle(architecture, few, seed + attempt))
        if all(tensor.any() for tensor in NumpyProbe(architecture, few, lane).gradient().values()):
            break
    return lane


@dataclass(frozen=True)
class _Read:
    """A loss read by itself, without the network: its slopes and what was found of it."""

    alone: LossAlone
    cause: Cause | None
    note: str | None = None
    large: str | None = None


def _examine(trial: PreparedTrial, few: Dataset) -> Check:
    read = _read_loss(trial, few)
    return read if isinstance(read, Check) else _examine_network(trial, few, read)


def _read_loss(trial: PreparedTrial, few: Dataset) -> _Read | Check:
    """The trial's loss by itself; a check that is done where its value has no slopes to compare a gradient with."""
    settings, units = trial.settings, trial.architecture.units
    own = trial.lane()
    objective = unweighted(own.objective)
    try:
        alone = LossAlone.at_made_up_logits(own.loss, objective, units, settings.seed, few.task)
    except LossFailedError as failure:
        found = of_failure(objective, *made_up(own.loss, units, settings.seed, few.task), failure)
        return _found(trial, found)
    if not own.loss.is_foreign:
        return _Read(alone, of_gradient(alone))
    if (alone.value(alone.z, alone.y) != alone.values).any() and np.isfinite(alone.values).all():
        return Check(guess="not repeatable", advice=f"{_ANOTHER_LOSS} ({_apart(alone)})")
    users = UsersLoss(trial, alone, settings.seed)
    if (reason := users.left_out()) is not None:
        return Check(left_out=reason)
    if (finding := users.finding()) is None:
        return _Read(users.alone, None, users.note, users.at_large_logits)
    if not finding.has_slopes:
        return _found(trial, finding)
    return _Read(users.alone, (finding.name, finding.advice))


def _found(trial: PreparedTrial, finding: Finding) -> Check:
    """The check of a loss of which nothing more can be said."""
    guess, advice = _told([(finding.name, finding.advice)], trial.settings.residual, trial.sign)
    return Check(guess=guess, advice=advice)


def _examine_network(trial: PreparedTrial, few: Dataset, read: _Read) -> Check:
    settings, architecture, backend, sign = trial.settings, trial.architecture, trial.backend, trial.sign
    own = trial.lane()
    overflow = not_finite(NumpyProbe(architecture, few, own), settings.loss)
    few = _in_float64(few)
    lane = _awake(architecture, few, own, settings.seed)
    # The gradient under test is that of the trial's own backend.
    kernels = backend.probe(architecture, few, lane, settings.device)
    coded, again = kernels.gradient(), kernels.gradient()
    probe = NumpyProbe(architecture, few, _linear(architecture, few, lane) if read.alone.precision.noise else lane)
    start = probe.loss()
    if not is_finite(start, coded):
        cause = (
            overflow
            or of_kernels(backend, probe, coded)
            or (NOT_FINITE, "the loss or its gradient is not a finite number")
        )
        return Check(guess=cause[0], advice=cause[1])
    if probe.loss() != start:
        return Check(guess="not repeatable", advice=_ANOTHER_LOSS)
    ones = {name: np.ones(tensor.shape) for name, tensor in coded.items()}
    if not any(tensor.any() for tensor in coded.values()) and probe.loss_along(ones, CHANGE) == start:
        return Check(left_out="neither loss nor gradient moves with the weights: nothing can be said")
    tensors = [tensor_check(probe, name, sign, coded[name], start, settings.seed) for name in coded]
    cosine = descent_cosine([entry for tensor in tensors for entry in tensor.entries], sign)
    predicted, actual, along = one_step(probe, coded, sign, start, settings.seed)
    tensors.append(read.alone.tensor(sign))
    error = max(along, *(tensor.error for tensor in tensors))
    looked_for = [
        of_kernels(backend, probe, coded) or of_updates(backend, settings.device, architecture, few, lane),
        not_repeatable(coded, again),
        read.cause,
        of_backward(architecture, few, lane, coded) if error > TOLERANCE else None,
        overflow,
    ]
    guess, advice = _told(_causes(looked_for, error, cosine, sign), settings.residual, sign)
    note = "; ".join(filter(None, (_note(read.alone), read.note))) or None
    return Check(tuple(tensors), error, cosine, predicted, actual, guess, advice, note=note, large=read.large)


def _causes(looked_for: Sequence[Cause | None], error: float, cosine: float | None, sign: int) -> list[Cause]:
    """What was found; where nothing was, what error and direction say by themselves."""
    causes = [cause for cause in looked_for if cause is not None]
    if error > TOLERANCE and not causes:
        return [("wrong derivative", "the gradient is not the loss's derivative: compare the worst entry by hand")]
    if sign > 0 and not causes and cosine is not None and cosine < -0.5:
        # Even a gradient as small as the rounding error still has a direction.
        return [(WRONG_SIGN, f"{NEGATIVE}: change it")]
    return causes


_ANOTHER_LOSS = "the same samples give another loss the second time: it keeps a state"


def _apart(alone: LossAlone) -> str:
    """A value that is another one when it is asked for again, beside the first."""
    again = alone.value(alone.z, alone.y)
    i = int(np.abs(again - alone.values).argmax())
    return f"value(z, y)[{i}] is {alone.values[0, i]:.6g} at first and {again[0, i]:.6g} later"


def _note(alone: LossAlone) -> str | None:
    """How a value of few digits was checked."""
    precision = alone.precision
    if not precision.noise:
        return None
    slopes = f"are taken over steps of {precision.step:g}"
    if alone.exact is not None:
        slopes = "are those of the loss of ablate that it is"
    passed = float(alone.doubt[np.isfinite(alone.numeric)].max(initial=precision.allowance))
    return (
        f"value(z, y) is rounded to about {precision.noise:.1g}, less exact than float64: its slopes {slopes},"
        f" differences up to {passed:.1g} pass, and the network is checked with gradient(z, y) as it is"
    )


def _linear(architecture: Architecture, few: Dataset, lane: Lane) -> Lane:
    """The lane with a loss that is linear in the logits and has the gradient as coded: its slopes are exact."""
    probe = NumpyProbe(architecture, few, lane)
    objective: Objective = lane.objective
    z, y = probe.logits().copy(), probe.targets()
    p = objective.outputs(z)
    objective.value(z, p, y)
    gradient = np.array(objective.gradient(z, p, y))
    linear = Formulas(
        objective.output,
        objective.outputs,
        lambda z, p, y: (gradient * z).sum(axis=-2),
        lambda z, p, y: gradient.copy(),
    )
    return replace(lane, objective=linear)


def _told(causes: Sequence[Cause], residual: str, sign: int) -> tuple[str | None, str | None]:
    """The guess is the first cause, and the others are added to its advice; an uphill update comes first of all."""
    if sign < 0:
        remedy = "update_sign=minus or residual=y-p" if residual == "p-y" else "residual=p-y or update_sign=plus"
        signs = f"update_sign={'plus' if residual == 'p-y' else 'minus'} with residual={residual}"
        climbs = WRONG_SIGN, f"the update adds the gradient, so every step climbs ({signs}): use {remedy}"
        if causes and causes[0][0] == WRONG_SIGN:
            both = (
                "the gradient has the wrong sign and the update adds it: the two mistakes cancel, and a step descends"
            )
            climbs, causes = (WRONG_SIGN, f"{both}; turn both, or nobody will trust the code"), causes[1:]
        causes = [climbs, *causes]
    if not causes:
        return None, None
    return causes[0][0], "; besides, ".join(advice for _, advice in causes)
