"""Central differences of the loss, and what is compared with them.

Everything is done in float64, on a few training samples, with the loss alone, independently of the backward pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ablate.backends.numpy.probe import NumpyProbe

Array = np.ndarray[Any, np.dtype[Any]]

# Enough to see every kind of mistake on every model, and few enough for a tenth of a second on LeNet-5
# (`python -m docs.studies.checks`).
COORDINATES = 16
DIRECTIONS = 3
# The first difference step is the most precise; a smaller one avoids kinks that it crosses.
STEPS = (1e-6, 1e-7, 1e-8)
KINK = 1e-3
TOLERANCE = 1e-4
CHANGE = 1e-4
# Gradients that differ by no more than this are the same.
MATCH = 1e-4


@dataclass(frozen=True)
class Entry:
    """One coordinate: the gradient as coded beside the central difference."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float


@dataclass(frozen=True)
class TensorCheck:
    """A tensor's sampled coordinates.

    `error` is the largest difference relative to the tensor's largest gradient; `cosine` that of the angle between the
    gradient step and the negative numerical gradient, None if either is zero.
    """

    name: str
    entries: tuple[Entry, ...]
    error: float
    cosine: float | None


def rounding(loss: float, step: float) -> float:
    """How much rounding of the loss may change a central difference."""
    return 20 * float(np.finfo(float).eps) * max(1.0, abs(loss)) / step


def central_difference(loss: Callable[[float], float], start: float, step: float) -> float | None:
    """The central difference; None at a kink, where the two one-sided slopes differ by more than curvature explains."""
    forward, backward = loss(step) - start, start - loss(-step)
    kink = abs(forward - backward) > KINK * max(abs(forward), abs(backward)) + rounding(start, 1.0)
    return None if kink else (forward + backward) / (2 * step)


def nearest_slope(
    loss: Callable[[float], float], start: float, analytic: float, scale: float, steps: Sequence[float]
) -> tuple[float, float] | None:
    """The slope over the difference steps that is nearest to the analytic one, and its error in units of `scale`.

    A wrong gradient is wrong at every step size, a right one next to a kink at the larger ones only. None if all the
    steps cross a kink.
    """
    found: tuple[float, float] | None = None
    for step in steps:
        slope = central_difference(loss, start, step)
        if slope is None:
            continue
        difference, allowance = abs(analytic - slope), rounding(start, step)
        floor = allowance / TOLERANCE if difference <= allowance else 0.0
        error = difference / max(scale, abs(slope), floor)
        if found is None or error < found[1]:
            found = slope, error
        if error <= TOLERANCE:
            break
    return found


def tensor_check(probe: NumpyProbe, name: str, sign: int, coded: Array, start: float, seed: int) -> TensorCheck:
    """Compare a sample of a tensor's coordinates, including the largest; kinks of the loss are skipped."""
    rng = np.random.default_rng((seed, len(name), coded.size))
    places = rng.choice(coded.size, min(COORDINATES, coded.size), replace=False)
    places = np.union1d(places[: COORDINATES - 1], [int(np.abs(coded).argmax())])
    largest = float(np.abs(coded).max())
    steps: Sequence[float] = STEPS
    entries, errors = [], [0.0]
    for place in places.tolist():
        analytic = float(coded.flat[place])
        found = nearest_slope(partial(probe.loss_at, name, place), start, analytic, largest, steps)
        if found is not None:
            index = tuple(int(i) for i in np.unravel_index(place, coded.shape))
            entries.append(Entry(name, index, analytic, found[0]))
            errors.append(found[1])
            # One coordinate that is wrong at every step size is enough; try the others with one only.
            steps = STEPS[:1] if max(errors) > TOLERANCE else STEPS
    return TensorCheck(name, tuple(entries), max(errors), descent_cosine(entries, sign))


def descent_cosine(entries: Sequence[Entry], sign: int) -> float | None:
    """The cosine of the angle between the gradient step and the negative numerical gradient."""
    step = np.array([-sign * entry.analytic for entry in entries])
    descent = np.array([-entry.numeric for entry in entries])
    norms = float(np.linalg.norm(step) * np.linalg.norm(descent))
    return float(step @ descent / norms) if norms > 0 else None


def one_step(
    probe: NumpyProbe, coded: Mapping[str, Array], sign: int, start: float, seed: int
) -> tuple[float | None, float | None, float]:
    """Change of the loss for one small gradient step, predicted and actual, and the error along random directions."""
    norm = _norm(coded)
    if norm == 0:
        return None, None, 0.0
    step: dict[str, Array] = {name: -sign * tensor / norm for name, tensor in coded.items()}
    slope = (probe.loss_along(step, STEPS[0]) - probe.loss_along(step, -STEPS[0])) / (2 * STEPS[0])
    actual = probe.loss_along(step, CHANGE) - start
    rng = np.random.default_rng((seed, 1))
    worst = 0.0
    for _ in range(DIRECTIONS):
        drawn = {name: np.asarray(rng.standard_normal(tensor.shape)) for name, tensor in coded.items()}
        length = _norm(drawn)
        direction = {name: tensor / length for name, tensor in drawn.items()}
        analytic = sum(float((coded[name] * direction[name]).sum()) for name in coded)
        found = nearest_slope(partial(probe.loss_along, direction), start, analytic, norm, STEPS)
        worst = max(worst, found[1] if found else 0.0)
    return slope * CHANGE, actual, worst


def _norm(weights: Mapping[str, Array]) -> float:
    return math.sqrt(sum(float(np.square(tensor).sum()) for tensor in weights.values()))


def alike(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return all(close(a[name], b[name]) for name in a)


def close(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0.0) <= MATCH * np.abs(b).max(initial=0.0))
