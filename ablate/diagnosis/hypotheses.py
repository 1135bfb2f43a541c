"""Hypotheses about the network, the update and the backend, each tested numerically.

A cause is a name and the advice for the user. Those about the loss by itself are in `readings`.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ablate.backends import Backend
from ablate.backends.engine import Lane
from ablate.backends.numpy.engine import NumpyEngine
from ablate.backends.numpy.probe import NumpyProbe
from ablate.diagnosis import overflow
from ablate.diagnosis.measure import alike
from ablate.problem.custom_loss import CustomObjective
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import Loss, unweighted
from ablate.problem.mistakes import MISTAKES
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer
from ablate.problem.schedules import Pace

Array = np.ndarray[Any, np.dtype[Any]]
Cause = tuple[str, str]

SAMPLES = 5
UPDATES = 3
# How far apart, relative to a tensor's largest weight, float64 and another order of additions may bring weights.
ROUNDING = 1e-7
NOT_FINITE = "not finite"


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
            NOT_FINITE,
            "the logits are not finite at the start: smaller weights (init), or inputs (data.normalize)",
        )
    with np.errstate(all="ignore"):
        p = probe.lane.objective.outputs(z)
    if not np.isfinite(p).all():
        mistake = MISTAKES.get("unshifted_softmax")
        return mistake.name, f"the largest logit is {z.max():.4g}; {mistake.mistake}: {mistake.fix}"
    objective = unweighted(probe.lane.objective)
    if isinstance(objective, CustomObjective):
        y = probe.targets().astype(z.dtype)
        if (words := overflow.not_finite(objective, z, y)) is not None:
            return NOT_FINITE, f"the loss is not finite at the start: {words}"
    remedy = "look at value(z, y) and gradient(z, y)"
    if not loss.is_foreign:
        remedy = "the form from logits (loss.from_logits=true) has no logarithm of 0, loss.eps_log avoids it"
    what = "the loss" if not math.isfinite(value) else "the gradient"
    return (
        NOT_FINITE,
        f"{what} is not finite at the start, with outputs from {p.min():.3g} to {p.max():.3g}: {remedy}",
    )


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
    optimizer = _clipping(lane.optimizer, NumpyProbe(architecture, few, lane).gradient())
    # An update is an epoch: the whole schedule in a few updates.
    lane = replace(lane, optimizer=optimizer, pace=Pace(lane.pace.schedule, 1, UPDATES))
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
