"""Hypotheses about what is wrong, each tested numerically. A cause is a name and the advice for the user."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablate.backends import Backend
from ablate.backends.engine import Lane
from ablate.backends.numpy.engine import NumpyEngine
from ablate.backends.numpy.probe import NumpyProbe
from ablate.diagnosis.measure import (
    KINK,
    MATCH,
    STEPS,
    TOLERANCE,
    Entry,
    TensorCheck,
    alike,
    close,
    descent_cosine,
    rounding,
)
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import Loss, Objective, over
from ablate.problem.mistakes import MISTAKES
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer
from ablate.problem.outputs import OUTPUTS

Array = np.ndarray[Any, np.dtype[Any]]
Cause = tuple[str, str]

SAMPLES = 5
MOST_MADE_UP = 32
UPDATES = 3
# How far apart, relative to a tensor's largest weight, float64 and another order of additions may bring weights.
ROUNDING = 1e-7
LOGITS = "logits"
WRONG_SIGN = "wrong sign"


def is_finite(loss: float, gradient: Mapping[str, Array]) -> bool:
    return math.isfinite(loss) and all(np.isfinite(tensor).all() for tensor in gradient.values())


def not_finite(probe: NumpyProbe, loss: Loss) -> Cause | None:
    """What is not finite at the trial's own initialisation, in its own precision; None if nothing is."""
    value = probe.loss()
    if is_finite(value, probe.gradient()):
        return None
    z = probe.logits()
    if not np.isfinite(z).all():
        return (
            "not finite",
            "the logits are not finite at the start: smaller weights (init), or inputs (data.normalize)",
        )
    with np.errstate(all="ignore"):
        p = probe.lane.objective.outputs(z)
    if not np.isfinite(p).all():
        mistake = MISTAKES.get("unshifted_softmax")
        return mistake.name, f"the largest logit is {z.max():.4g}; {mistake.mistake}: {mistake.fix}"
    remedy = "look at value(z, y) and gradient(z, y)"
    if not loss.is_foreign:
        remedy = "the form from logits (loss.from_logits=true) has no logarithm of 0, loss.eps_log avoids it"
    what = "the loss" if not math.isfinite(value) else "the gradient"
    return (
        "not finite",
        f"{what} is not finite at the start, with outputs from {p.min():.3g} to {p.max():.3g}: {remedy}",
    )


@dataclass(frozen=True)
class LossAlone:
    """A loss at made-up logits: z, p, y `(1, C, N)`, the gradient as coded and by central differences (NaN at kinks).

    `size` is the magnitude of the values, which limits how accurate the differences can be.
    """

    objective: Objective
    z: Array
    p: Array
    y: Array
    coded: Array
    numeric: Array
    size: float

    @classmethod
    def at_made_up_logits(cls, loss: Loss, objective: Objective, units: int, seed: int) -> "LossAlone":
        # With two classes some mistakes look the same; ablate's own losses take any number of classes.
        classes = max(units, 3) if units > 1 and not loss.is_foreign else units
        # Every class is a target once, or a mistake in one of them would go unnoticed.
        samples = max(SAMPLES, min(classes, MOST_MADE_UP))
        z = 1.5 * np.random.default_rng((seed, 2)).standard_normal((1, classes, samples))
        labels = np.arange(samples) % max(classes, 2)
        y = (labels == (np.arange(classes)[:, None] if classes > 1 else 1)).astype(float)[None]
        y = y.reshape(1, classes, samples)
        with np.errstate(all="ignore"):
            p = objective.outputs(z)
            size = max(1.0, float(np.abs(objective.value(z, p, y)).max()))
            coded = np.asarray(objective.gradient(z, p, y), float)
            numeric = np.stack([cls._by_class(objective, z, y, index, size) for index in range(classes)], axis=1)
        return cls(objective, z, p, y, coded, numeric, size)

    @staticmethod
    def _by_class(objective: Objective, z: Array, y: Array, index: int, size: float) -> Array:
        """The derivative of every sample's value with respect to the logit of one class, `(1, N)`."""

        def value(step: float) -> Array:
            moved = z.copy()
            moved[:, index] += step
            return np.asarray(objective.value(moved, objective.outputs(moved), y), float)

        step, start = STEPS[0], value(0.0)
        forward, backward = value(step) - start, start - value(-step)
        kink = np.abs(forward - backward) > KINK * np.maximum(np.abs(forward), np.abs(backward)) + rounding(size, 1.0)
        return np.where(kink, np.nan, (forward + backward) / (2 * step))

    @property
    def error(self) -> float:
        return self._difference(self.coded, self.numeric)

    def _difference(self, a: Array, b: Array) -> float:
        """The largest difference, without kinks, relative to the largest entry."""
        known = np.isfinite(self.numeric)
        scale = max(float(np.abs(each[known]).max(initial=0.0)) for each in (a, b))
        worst = float(np.abs(a - b)[known].max(initial=0.0))
        return worst / max(scale, rounding(self.size, STEPS[0]) / TOLERANCE) if math.isfinite(worst) else math.inf

    def tensor(self, sign: int) -> TensorCheck:
        """The comparison as a row of the table of tensors; entries are indexed by sample and class."""
        entries = tuple(
            Entry(LOGITS, (sample, index), float(self.coded[0, index, sample]), float(self.numeric[0, index, sample]))
            for index, sample in np.argwhere(np.isfinite(self.numeric[0])).tolist()
        )
        return TensorCheck(LOGITS, entries, self.error, descent_cosine(entries, sign))

    def cause(self, loss: Loss) -> Cause | None:
        """The first hypothesis that explains the gradient as coded; None if the gradient is right."""
        if self.error <= TOLERANCE:
            return None
        name, words = self._first() or ("wrong derivative", "the loss's gradient is not its value's derivative")
        if not loss.is_foreign:
            return name, words
        worst = max(self.tensor(1).entries, key=lambda entry: abs(entry.analytic - entry.numeric))
        sample, index = worst.index
        coded = f"gradient(z, y)[{sample}, {index}] is {worst.analytic:.6g}"
        return name, f"{words} ({coded}, the slope of value(z, y) there is {worst.numeric:.6g})"

    def _first(self) -> Cause | None:
        for flip in (1, -1):
            cause = self._scaled(flip * self.coded) or self._misread(flip * self.coded)
            if cause is not None:
                return cause if flip == 1 else (WRONG_SIGN, f"{NEGATIVE}; besides, {cause[1]}")
        return self._mixed_up()

    def _scaled(self, coded: Array) -> Cause | None:
        """Hypotheses about one constant factor; a negative one is left to the call with the other sign."""
        known = np.isfinite(self.numeric)
        square = float(np.square(self.numeric[known]).sum())
        factor = float((coded * self.numeric)[known].sum()) / square if square else 0.0
        if factor == 0 or self._difference(coded, factor * self.numeric) > MATCH:
            return None
        if abs(factor + 1) <= MATCH:
            return WRONG_SIGN, f"{NEGATIVE}: change it"
        if factor < 0:
            return None
        words = f"the loss's gradient is {factor:.6g} times the derivative of its value, everywhere alike"
        if self._depends_on_samples():
            return "factor of samples", f"{words}, and the factor changes with the number of samples: {_EACH_SAMPLE}"
        if self.z.shape[-2] == 2 and abs(factor - 0.5) <= MATCH:
            words += " (of two classes, a softmax's Jacobian reduced to its diagonal looks the same)"
        return "scale factor", f"{words}: a factor is missing, or one too many"

    def _depends_on_samples(self) -> bool:
        half = slice(self.z.shape[-1] // 2)
        with np.errstate(all="ignore"):
            fewer = self.objective.gradient(self.z[..., half], self.p[..., half], self.y[..., half])
        return not close(fewer, self.coded[..., half])

    def _misread(self, coded: Array) -> Cause | None:
        """Hypotheses about the output function's derivative."""
        p, output = self.p, self.objective.output
        if output == "identity":
            return None
        jacobian = OUTPUTS.get(output).jacobian
        if self._is_derivative(jacobian(p, coded)):
            return "missing_jacobian", f"it is the gradient by the outputs p: multiply it by the {output}'s derivative"
        if output == "softmax" and self._is_derivative(jacobian(p, coded / (p * (1 - p)))):
            return of_catalogue("diagonal_jacobian")
        if self._difference(coded, jacobian(p, self.numeric)) <= MATCH:
            return "jacobian_twice", f"the {output}'s derivative is applied twice: leave one out"
        return None

    def _is_derivative(self, candidate: Array) -> bool:
        return self._difference(candidate, self.numeric) <= MATCH

    def _mixed_up(self) -> Cause | None:
        """Whether only one of value and gradient is that of one of ablate's own losses."""
        others = over(self.objective.output) if self.z.shape[-2] > 1 else []
        gradients = [
            (each.name, each.objective(self.objective.output).gradient(self.z, self.p, self.y)) for each in others
        ]
        for name, gradient in gradients:
            if close(self.coded, gradient):
                return "another loss", f"gradient(z, y) is that of loss={name}, value(z, y) is not: look at value(z, y)"
        for name, gradient in gradients:
            if self._is_derivative(gradient):
                return "wrong derivative", f"value(z, y) is that of loss={name}: look at gradient(z, y)"
        return None


NEGATIVE = "the loss's gradient has the wrong sign, so every step climbs"
_EACH_SAMPLE = "give each sample its own gradient, the batch's mean is taken for you"


def not_repeatable(coded: Mapping[str, Array], again: Mapping[str, Array]) -> Cause | None:
    """Whether the same samples and weights give a different gradient the second time."""
    if alike(again, coded):
        return None
    if alike(again, {name: 2 * tensor for name, tensor in coded.items()}):
        return of_catalogue("stale_gradients")
    return "not repeatable", "the same samples give another gradient the second time: it keeps a state or draws numbers"


def of_backward(architecture: Architecture, few: Dataset, lane: Lane, coded: Mapping[str, Array]) -> Cause | None:
    """Hypotheses that need a backward pass with a known mistake made on purpose."""

    def gradient(name: str) -> Mapping[str, Array]:
        return NumpyProbe(architecture, few, replace(lane, mistake=MISTAKES.get(name))).gradient()

    if alike(coded, gradient("none")):
        return None
    for mistake in MISTAKES:
        if mistake.shows_in_gradient and alike(coded, gradient(mistake.name)):
            return of_catalogue(mistake.name)
    return None


def of_kernels(backend: Backend, probe: NumpyProbe, coded: Mapping[str, Array]) -> Cause | None:
    """Whether a backend computes a different gradient than the reference for the same loss and network."""
    if backend.is_reference or alike(coded, probe.gradient()):
        return None
    return "kernel", f"{backend.possessive} gradient is not NumPy's: {backend.fault}"


def of_updates(backend: Backend, device: str, architecture: Architecture, few: Dataset, lane: Lane) -> Cause | None:
    """Whether a few updates by a backend lead to other weights than the reference's: a wrong update rule, say."""
    if backend.is_reference:
        return None
    rows = len(few.y_train)
    lane = replace(lane, optimizer=_clipping(lane.optimizer, NumpyProbe(architecture, few, lane).gradient()))
    engines = (
        NumpyEngine(architecture, few, [lane], rows),
        backend.engine(architecture, few, [lane], rows, device),
    )
    for engine in engines:
        for _ in range(UPDATES):
            engine.train_epoch([np.arange(rows)], [])
    expected, found = (engine.weights(0) for engine in engines)
    is_finite = all(np.isfinite(tensor).all() for tensor in expected.values())
    apart = max(_distance(found[name], tensor) for name, tensor in expected.items())
    if not is_finite or apart <= ROUNDING:
        return None
    return "kernel", f"after {UPDATES} updates {backend.possessive} weights are not NumPy's: {backend.fault}"


def _clipping(optimizer: Optimizer, gradient: Mapping[str, Array]) -> Optimizer:
    """The optimizer; where it clips, with limits that this gradient exceeds, or its clipping would not be seen."""
    entries = np.concatenate([tensor.ravel() for tensor in gradient.values()])
    limits = {"clip_value": np.abs(entries).max() / 2, "clip_norm": np.linalg.norm(entries) / 4}
    on = {key: float(limit) for key, limit in limits.items() if limit and getattr(optimizer, key)}
    return optimizer.model_copy(update=on)


def _distance(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest entry; infinite if it is NaN."""
    difference = np.abs(found - expected).max() / (np.abs(expected).max() or 1.0)
    return float(difference) if np.isfinite(difference) else math.inf


def of_catalogue(name: str) -> Cause:
    """A known mistake as a cause."""
    known = MISTAKES.get(name)
    return name, f"{known.mistake}: {known.fix}"
