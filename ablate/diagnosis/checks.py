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
    NEGATIVE,
    SAMPLES,
    WRONG_SIGN,
    Cause,
    LossAlone,
    is_finite,
    not_finite,
    not_repeatable,
    of_backward,
    of_kernels,
    of_updates,
)
from ablate.diagnosis.measure import CHANGE, TOLERANCE, Entry, TensorCheck, descent_cosine, one_step, tensor_check
from ablate.problem.activations import ACTIVATIONS
from ablate.problem.custom_loss import CustomObjective
from ablate.problem.data.dataset import Dataset
from ablate.problem.initialisation import GlorotUniform
from ablate.problem.layers import Divide
from ablate.problem.losses import LossFailedError, unweighted
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
    """

    tensors: tuple[TensorCheck, ...] = ()
    gradient_error: float | None = None
    descent_cosine: float | None = None
    predicted: float | None = None
    actual: float | None = None
    guess: str | None = None
    advice: str | None = None
    left_out: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether nothing was found."""
        return self.guess is None

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
        named.add("optimizer")  # its kernels are tried too
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
    objective = trial.objective
    try:
        if isinstance(objective, CustomObjective) and not objective.is_double(trial.architecture.units):
            return Check(left_out="the loss computes in less than float64, too coarse for central differences")
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
    firsts = np.unique(dataset.y_train[:200], return_index=True)[1]
    others = np.setdiff1d(np.arange(min(len(dataset.y_train), 200)), firsts)
    rows = np.concatenate([np.sort(firsts), others])[:SAMPLES]
    # An odd number: if two classes are equally frequent, the gradient of a bias may cancel to 0.
    rows = np.sort(rows[:-1] if len(rows) > 2 and len(rows) % 2 == 0 else rows)
    x, y = dataset.x_train[rows], dataset.y_train[rows]
    return replace(dataset, x_train=x, y_train=y, x_test=x, y_test=y)


def _in_float64(few: Dataset) -> Dataset:
    x = few.x_train.astype(np.float64)
    return replace(few, x_train=x, x_test=x)


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


def _examine(trial: PreparedTrial, few: Dataset) -> Check:
    settings, architecture, backend, sign = trial.settings, trial.architecture, trial.backend, trial.sign
    own = trial.lane()
    overflow = not_finite(NumpyProbe(architecture, few, own), settings.loss)
    few = _in_float64(few)
    lane = _awake(architecture, few, own, settings.seed)
    probe = NumpyProbe(architecture, few, lane)
    # The gradient under test is that of the trial's own backend.
    kernels = backend.probe(architecture, few, lane, settings.device)
    start, coded, again = probe.loss(), kernels.gradient(), kernels.gradient()
    if not is_finite(start, coded):
        cause = (
            overflow
            or of_kernels(backend, probe, coded)
            or ("not finite", "the loss or its gradient is not a finite number")
        )
        return Check(guess=cause[0], advice=cause[1])
    if probe.loss() != start:
        return Check(
            guess="not repeatable", advice="the same samples give another loss the second time: it keeps a state"
        )
    ones = {name: np.ones(tensor.shape) for name, tensor in coded.items()}
    if not any(tensor.any() for tensor in coded.values()) and probe.loss_along(ones, CHANGE) == start:
        return Check(left_out="neither loss nor gradient moves with the weights: nothing can be said")
    alone = LossAlone.at_made_up_logits(lane.loss, unweighted(lane.objective), architecture.units, settings.seed)
    tensors = [tensor_check(probe, name, sign, coded[name], start, settings.seed) for name in coded]
    cosine = descent_cosine([entry for tensor in tensors for entry in tensor.entries], sign)
    predicted, actual, along = one_step(probe, coded, sign, start, settings.seed)
    tensors.append(alone.tensor(sign))
    error = max(along, *(tensor.error for tensor in tensors))
    looked_for = [
        of_kernels(backend, probe, coded) or of_updates(backend, settings.device, architecture, few, lane),
        not_repeatable(coded, again),
        alone.cause(lane.loss),
        of_backward(architecture, few, lane, coded) if error > TOLERANCE else None,
        overflow,
    ]
    causes = [cause for cause in looked_for if cause is not None]
    if error > TOLERANCE and not causes:
        causes = [("wrong derivative", "the gradient is not the loss's derivative: compare the worst entry by hand")]
    if sign > 0 and not causes and cosine is not None and cosine < -0.5:
        # Even a gradient as small as the rounding error still has a direction.
        causes = [(WRONG_SIGN, f"{NEGATIVE}: change it")]
    guess, advice = _told(causes, settings.residual, sign)
    return Check(tuple(tensors), error, cosine, predicted, actual, guess, advice)


def _told(causes: Sequence[Cause], residual: str, sign: int) -> tuple[str | None, str | None]:
    """The guess is the first cause, and the others are added to its advice; an uphill update comes first of all."""
    if sign < 0:
        remedy = "update_sign=minus or residual=y-p" if residual == "p-y" else "residual=p-y or update_sign=plus"
        climbs = WRONG_SIGN, f"the update adds the gradient, so every step climbs: use {remedy}"
        if causes and causes[0][0] == WRONG_SIGN:
            both = (
                "the gradient has the wrong sign and the update adds it: the two mistakes cancel, and a step descends"
            )
            climbs, causes = (WRONG_SIGN, f"{both}; turn both, or nobody will trust the code"), causes[1:]
        causes = [climbs, *causes]
    if not causes:
        return None, None
    return causes[0][0], "; besides, ".join(advice for _, advice in causes)
