"""A loss by itself, at made-up logits: its values, their noise, their slopes, and its gradient as coded."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ablate.diagnosis.measure import KINK, STEPS, TOLERANCE, Entry, TensorCheck, descent_cosine, rounding
from ablate.problem.losses import Loss, LossFailedError, Objective
from ablate.problem.tasks import CLASSIFICATION, Task

Array = np.ndarray[Any, np.dtype[Any]]

LOGITS = "logits"
# Enough samples to tell one formula from another by its values.
MADE_UP, MOST_MADE_UP = 12, 32
# Sixth differences over this step are 0 but for rounding, in float32 and float16 too.
NOISE_STEP, NOISE_DIRECTIONS = 3e-4, 5
_SIXTH = np.array([1, -6, 15, -20, 15, -6, 1]) / math.sqrt(924)
# Steps for a value of few digits: the error of a four-point slope is about noise / step + step⁴.
COARSE, COARSEST = 0.02, 0.2
# A value with more noise than this, relative to its size, says nothing about a slope.
TOO_NOISY = 0.01


@dataclass(frozen=True)
class Precision:
    """How accurately slopes of a value can be measured: over steps of `step`, to within `allowance`.

    `noise` is the rounding error of one value; 0 where it is that of float64. `noises` `(1, N)` are those of samples
    whose own is larger, as that of a large value in float16 is.
    """

    noise: float
    step: float
    allowance: float
    noises: Array | float = 0.0

    @classmethod
    def of(cls, value: Callable[[Array], Array], z: Array, size: float, seed: int) -> "Precision":
        """Measured by the sixth differences of the values along random directions, which are 0 but for rounding."""
        fine = cls(0.0, STEPS[0], rounding(size, STEPS[0]))
        rng = np.random.default_rng((seed, 3))
        found, jumps = [], []
        for _ in range(NOISE_DIRECTIONS):
            direction = NOISE_STEP * rng.standard_normal(z.shape)
            values = np.stack([value(z + k * direction) for k in range(-3, 4)])
            if not np.isfinite(values).all():
                return fine
            found.append(np.abs(np.tensordot(_SIXTH, values, 1)))
            jumps.append(_jump(values))
        # A kink is met along a few directions only, and values that stand still tell nothing.
        each = np.maximum(np.median(found, axis=0), np.median(jumps, axis=0) / 2)
        noise = float(np.quantile(each[each > 0], 0.75)) if each.any() else 0.0
        if noise <= 50 * np.finfo(float).eps * size:
            return fine
        step = COARSE if noise <= 1e-5 * size else COARSEST
        return cls(noise, step, 20 * noise / step, np.maximum(each, noise))


def made_up(loss: Loss, units: int, seed: int, task: Task) -> tuple[Array, Array]:
    """Logits and targets, `(1, C, N)`."""
    # With two classes some mistakes look the same; ablate's own losses take any number of classes.
    classes = max(units, 3) if units > 1 and not loss.is_foreign else units
    # Every class is a target once, or a mistake in one of them would go unnoticed.
    samples = max(MADE_UP, min(classes, MOST_MADE_UP))
    # As many samples as classes would hide arrays that are turned.
    samples += samples == classes
    rng = np.random.default_rng((seed, 2))
    z = 1.5 * rng.standard_normal((1, classes, samples))
    return z, task.made_up(rng, classes, samples)


def _jump(values: Array) -> Array:
    """The smallest change between neighbours of values `(7, 1, N)` that also stand still in between; else 0."""
    changes = np.abs(np.diff(values, axis=0))
    smallest = np.where(changes > 0, changes, np.inf).min(axis=0)
    return np.where((changes == 0).any(axis=0) & np.isfinite(smallest), smallest, 0.0)


@dataclass(frozen=True)
class LossAlone:
    """A loss at made-up logits: z, p, y `(1, C, N)`, values `(1, N)`, the gradient as coded and by differences.

    `numeric` is NaN at kinks. `size` is the magnitude of the values, which limits how accurate the differences can be.
    `exact` are the slopes where they are known without differences.
    """

    objective: Objective
    z: Array
    p: Array
    y: Array
    values: Array
    coded: Array
    size: float
    precision: Precision
    task: Task = CLASSIFICATION
    exact: Array | None = None

    @classmethod
    def at_made_up_logits(
        cls, loss: Loss, objective: Objective, units: int, seed: int, task: Task = CLASSIFICATION
    ) -> "LossAlone":
        """Raises LossFailedError if a user's loss does."""
        z, y = made_up(loss, units, seed, task)
        return replace(cls.at(objective, z, y, loss.is_foreign, seed), task=task)

    @classmethod
    def at(cls, objective: Objective, z: Array, y: Array, is_foreign: bool, seed: int = 0) -> "LossAlone":
        with np.errstate(all="ignore"):
            p = objective.outputs(z)
            # First the value, then the gradient, as in training: a loss may keep what it computed.
            values = np.asarray(objective.value(z, p, y), float)
            coded = np.asarray(objective.gradient(z, p, y), float)
            size = max(1.0, float(np.abs(values).max()))
            precision = Precision(0.0, STEPS[0], rounding(size, STEPS[0]))
            if is_foreign and math.isfinite(size):
                precision = Precision.of(lambda at: objective.value(at, objective.outputs(at), y), z, size, seed)
        return cls(objective, z, p, y, values, coded, size, precision)

    def value(self, z: Array, y: Array) -> Array:
        """The loss's values at other logits or targets."""
        with np.errstate(all="ignore"):
            return np.asarray(self.objective.value(z, self.objective.outputs(z), y), float)

    def gradient(self, z: Array, y: Array) -> Array:
        """The gradient as coded at other logits or targets; the value is asked for first, as in training."""
        with np.errstate(all="ignore"):
            p = self.objective.outputs(z)
            self.objective.value(z, p, y)
            return np.asarray(self.objective.gradient(z, p, y), float)

    @cached_property
    def numeric(self) -> Array:
        """Every sample's slope with respect to each of its logits, `(1, C, N)`."""
        return self._slopes[0] if self.exact is None else self.exact

    @cached_property
    def doubt(self) -> Array:
        """By how much each slope may be wrong, `(1, C, N)`."""
        if self.exact is not None or not self.precision.noise:
            return np.full_like(self.coded, self.precision.allowance)
        return self._slopes[1]

    @cached_property
    def _slopes(self) -> tuple[Array, Array]:
        found = [self._by_class(index) for index in range(self.z.shape[-2])]
        slopes, doubts = (np.stack(each, axis=1) for each in zip(*found, strict=True))
        return slopes, doubts

    def _by_class(self, index: int) -> tuple[Array, Array]:
        """The slopes with one logit, `(1, N)`, and by how much they may be wrong."""

        def value(step: float) -> Array:
            moved = self.z.copy()
            moved[:, index] += step
            return self.value(moved, self.y)

        step, noise = self.precision.step, self.precision.noise
        forward, backward = value(step) - self.values, self.values - value(-step)
        largest = np.maximum(np.abs(forward), np.abs(backward))
        if not noise:
            kink = np.abs(forward - backward) > KINK * largest + rounding(self.size, 1.0)
            slope = (forward + backward) / (2 * step)
            return np.where(kink, np.nan, slope), np.full_like(slope, self.precision.allowance)
        wide, narrow = (forward + backward) / (2 * step), (value(step / 2) - value(-step / 2)) / step
        # Over such steps a curve bends, by about the step; a kink shows as a larger bend, or between the two slopes.
        kink = np.abs(forward - backward) > 2 * step * largest + 10 * noise
        kink |= np.abs(wide - narrow) > 0.05 * step * np.abs(wide) + self.precision.allowance
        # A kink too slight to be seen is wrong by no more than the two slopes differ.
        doubt = 20 * self.precision.noises / step + np.abs(wide - narrow)
        return np.where(kink, np.nan, (4 * narrow - wide) / 3), doubt

    def with_slopes_of(self, slopes: Array) -> "LossAlone":
        """The same for a value that was recognised to within its rounding, with the slopes of what it is."""
        return replace(self, exact=slopes, precision=replace(self.precision, allowance=20 * self.precision.noise))

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.values).all() and np.isfinite(self.coded).all())

    @property
    def error(self) -> float:
        return self.difference(self.coded, self.numeric)

    def difference(self, a: Array, b: Array) -> float:
        """The largest difference, without kinks, relative to the largest entry."""
        known = np.isfinite(self.numeric)
        scale = max(float(np.abs(each[known]).max(initial=0.0)) for each in (a, b))
        apart, doubt = np.abs(a - b)[known], self.doubt[known]
        if not np.isfinite(apart).all():
            return math.inf
        # Where the slopes are coarse, a difference below their error is none; a larger one is told as it is.
        told = apart[apart > doubt]
        if self.precision.noise and len(told):
            return float(told.max()) / scale
        return float(apart.max(initial=0.0)) / max(scale, float(doubt.max(initial=0.0)) / TOLERANCE)

    def tensor(self, sign: int) -> TensorCheck:
        """The comparison as a row of the table of tensors; entries are indexed by sample and class."""
        entries = tuple(
            Entry(LOGITS, (sample, index), float(self.coded[0, index, sample]), float(self.numeric[0, index, sample]))
            for index, sample in np.argwhere(np.isfinite(self.numeric[0])).tolist()
        )
        return TensorCheck(LOGITS, entries, self.error, descent_cosine(entries, sign))

    @property
    def worst(self) -> Entry:
        """The entry where the coded gradient and the slope differ most."""
        return max(self.tensor(1).entries, key=lambda entry: abs(entry.analytic - entry.numeric))

    @cached_property
    def alone(self) -> Array:
        """Every sample's value when it is evaluated in as small a batch as the loss takes: by itself, or with one more.

        `(1, N)`
        """
        try:
            return self._by_parts(1)
        except LossFailedError:
            return self._by_parts(2)

    def _by_parts(self, size: int) -> Array:
        count = self.z.shape[-1]
        starts = [min(start, count - size) for start in range(0, count, size)]
        found = np.empty_like(self.values)
        for start in starts:
            part = slice(start, start + size)
            found[:, part] = self.value(self.z[..., part], self.y[..., part])
        return found

    @cached_property
    def gradient_alone(self) -> Array:
        """The same of the gradient as coded, `(1, C, N)`."""
        count = self.z.shape[-1]
        parts = [slice(start, start + 1) for start in range(count)]
        try:
            return np.concatenate([self.gradient(self.z[..., part], self.y[..., part]) for part in parts], axis=-1)
        except LossFailedError:
            return self.coded

    @property
    def closeness(self) -> float:
        """Values of one sample that differ by no more than this are the same."""
        return 1e-9 * self.size + 50 * self.precision.noise

    @property
    def misfit(self) -> Array | float:
        """By how much rounding may keep each value from its formula, `(1, N)`.

        Right losses of few digits stay below 4 of their samples' noises, and those with a small term more above 8.
        """
        return 1e-9 * self.size + 6 * self.precision.noises
