"""How the value and the gradient of a loss can be read: what each is, and what is wrong between the two.

Every reading is tested numerically on the loss by itself, and says what was compared, with the two numbers. Where there
are two readings of a mistake, both are tried on the trial's samples (`attempts`), and the one that trains comes first.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from ablate.diagnosis import overflow
from ablate.diagnosis.attempts import ROWS, STEPS, Attempt, attempt
from ablate.diagnosis.formulas import (
    SAME,
    Fit,
    Slope,
    affine,
    elsewhere,
    fit,
    gradients,
    mixed,
    of_probabilities,
    over_samples,
    slips,
    sloped,
    slopes,
    sound,
)
from ablate.diagnosis.hypotheses import Cause, of_catalogue
from ablate.diagnosis.loss_alone import MOST_MADE_UP, TOO_NOISY, LossAlone
from ablate.diagnosis.measure import MATCH, TOLERANCE, close
from ablate.problem.custom_loss import CustomObjective, Reading
from ablate.problem.losses import Formulas, LossFailedError, Objective
from ablate.problem.outputs import OUTPUTS
from ablate.trials.prepared import PreparedTrial

Array = np.ndarray[Any, np.dtype[Any]]

WRONG_SIGN = "wrong sign"
NEGATIVE = "the loss's gradient has the wrong sign, so every step climbs"
_EACH_SAMPLE = "give each sample its own gradient, the batch's mean is taken for you"
_OWN_VALUE = "return each sample's own value, the batch's mean is taken for you"
_UNKNOWN = "wrong derivative", "the loss's gradient is not its value's derivative"
_BASES = (2, 10)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a loss: a name and the advice for the user.

    `has_slopes` says whether slopes of the value mean something, so that the gradient can be compared with them.
    """

    name: str
    advice: str
    has_slopes: bool = True


def of_gradient(alone: LossAlone) -> Cause | None:
    """The first hypothesis that explains the gradient as coded; None if the gradient is right."""
    if alone.error <= TOLERANCE:
        return None
    return _first(alone) or _UNKNOWN


def _first(alone: LossAlone) -> Cause | None:
    for flip in (1, -1):
        cause = _scaled(alone, flip * alone.coded) or _misread(alone, flip * alone.coded)
        if cause is not None:
            return cause if flip == 1 else (WRONG_SIGN, f"{NEGATIVE}; besides, {cause[1]}")
    return None


def _factor(alone: LossAlone, coded: Array) -> float | None:
    """The constant factor between a gradient and the slopes of the value; None if there is none."""
    known = np.isfinite(alone.numeric)
    square = float(np.square(alone.numeric[known]).sum())
    factor = float((coded * alone.numeric)[known].sum()) / square if square else 0.0
    return factor if factor and alone.difference(coded, factor * alone.numeric) <= MATCH else None


def _scaled(alone: LossAlone, coded: Array) -> Cause | None:
    """Hypotheses about one constant factor; a negative one is left to the call with the other sign."""
    factor = _factor(alone, coded)
    if factor is None:
        return None
    if abs(factor + 1) <= MATCH:
        return WRONG_SIGN, f"{NEGATIVE}: change it"
    if factor < 0:
        return None
    words = _by_factor(factor)
    if not close(alone.gradient(*_half(alone)), alone.coded[..., : alone.z.shape[-1] // 2]):
        return "factor of samples", f"{words}, and the factor changes with the number of samples: {_EACH_SAMPLE}"
    if alone.task.has_classes and alone.z.shape[-2] == 2 and abs(factor - 0.5) <= MATCH:
        words += " (of two classes, a softmax's Jacobian reduced to its diagonal looks the same)"
    return "scale factor", f"{words}: {_where_from(factor, alone)}"


def _by_factor(factor: float) -> str:
    return f"the loss's gradient is {factor:.6g} times the derivative of its value, everywhere alike"


def _where_from(factor: float, alone: LossAlone) -> str:
    """What a factor between gradient and slope is likely to come from."""
    classes, parts = alone.z.shape[-2], alone.task.parts
    for base in _BASES:
        if abs(factor / math.log(base) - 1) <= MATCH:
            return f"that is ln {base}: the value has np.log{base} where np.log is meant"
        if abs(factor * math.log(base) - 1) <= MATCH:
            return f"that is 1 / ln {base}: the value has {base} ** z where np.exp(z) is meant"
    if classes > 1 and abs(factor - classes) <= MATCH * classes:
        return (
            f"that is the number of {parts}, {classes}: the value is a mean over the {parts} and the gradient that of"
            " their sum; write .sum(axis=1) in value, or divide the gradient too"
        )
    if classes > 1 and abs(factor * classes - 1) <= MATCH:
        return f"that is 1 by the number of {parts}, {classes}: the gradient is divided by it and the value is not"
    if abs(factor - 0.5) <= MATCH or abs(factor - 2) <= MATCH:
        place = "value" if factor < 1 else "gradient"
        return f"a factor is missing, or one too many: the ½ of a square, say, belongs in both (here: into {place})"
    return "a factor is missing, or one too many"


def _half(alone: LossAlone) -> tuple[Array, Array]:
    half = slice(alone.z.shape[-1] // 2)
    return alone.z[..., half], alone.y[..., half]


def _misread(alone: LossAlone, coded: Array) -> Cause | None:
    """Hypotheses about the output function's derivative."""
    p, output = alone.p, alone.objective.output
    if output == "identity":
        return None
    jacobian = OUTPUTS.get(output).jacobian
    if _is_derivative(alone, jacobian(p, coded)):
        return "missing_jacobian", f"it is the gradient by the outputs p: multiply it by the {output}'s derivative"
    if output == "softmax" and _is_derivative(alone, jacobian(p, coded / (p * (1 - p)))):
        return of_catalogue("diagonal_jacobian")
    if alone.difference(coded, jacobian(p, alone.numeric)) <= MATCH:
        return "jacobian_twice", f"the {output}'s derivative is applied twice: leave one out"
    return None


def _is_derivative(alone: LossAlone, candidate: Array) -> bool:
    return alone.difference(candidate, alone.numeric) <= MATCH


def of_failure(objective: Objective, z: Array, y: Array, error: LossFailedError) -> Finding:
    """A user's loss that cannot be computed at logits: whether it can at probabilities."""
    cannot = f"the loss cannot be computed: {error}"
    p = objective.outputs(z)
    try:
        value = float(objective.value(p, p, y)[0, 0]) if objective.output != "identity" else math.nan
        objective.gradient(p, p, y)
    except LossFailedError:
        value = math.nan
    if not math.isfinite(value):
        return Finding("loss fails", cannot, has_slopes=False)
    return Finding(
        "probabilities",
        f"z are logits, any real numbers (here from {z.min():.3g} to {z.max():.3g}), and the loss takes them for"
        f" probabilities: {cannot}; with p the {objective.output} of z, value(p, y)[0] is {value:.6g}; apply the"
        f" {objective.output} first, p = {objective.output}(z), in value and in gradient",
        has_slopes=False,
    )


class UsersLoss:
    """A user's loss read in every way there is. `trial` is where two readings are tried, `seed` draws its weights."""

    def __init__(self, trial: PreparedTrial, alone: LossAlone, seed: int) -> None:
        assert isinstance(alone.objective, CustomObjective)
        self.trial, self.alone, self.seed = trial, alone, seed
        self.objective: CustomObjective = alone.objective
        self.output, self.task = self.objective.output, alone.task
        self.z, self.y = alone.z, alone.y
        if alone.precision.noise and self._is_sound and self.fit is not None:
            self.alone = alone.with_slopes_of(self.fit.factor * self.fit.formula.gradient(self.z, self.y))

    def left_out(self) -> str | None:
        """Why the loss cannot be checked; None if it can."""
        noise, size = self.alone.precision.noise, self.alone.size
        if noise > TOO_NOISY * size:
            return f"value(z, y) changes by {noise:.2g} for no reason, rounding or chance: too coarse for a slope"
        if not self.alone.is_finite or self.alone.numeric.any() or not self.alone.coded.any():
            return None
        # Even over large steps, for it may be rounded.
        far = self._perhaps(1.5 * self.z, self.y)
        moves = "changes in jumps" if (far != self.alone.values).any() else "does not change"
        known = f"; gradient(z, y) is {self.slope[0].words}" if self.slope else ""
        return f"value(z, y) {moves} with the logits (a count?): it has no slope to compare gradient(z, y) with{known}"

    @property
    def note(self) -> str | None:
        """What is unusual about a loss that is right."""
        return (self.fit.formula.note or None) if self.fit is not None else None

    @property
    def at_large_logits(self) -> str | None:
        """What is not finite at large logits, and why."""
        return overflow.at_large_logits(self.objective, self.z, self.y, self.trial.settings.dtype)

    def finding(self) -> Finding | None:
        """The first that holds; None if nothing is wrong."""
        for looked_for in (self._counts, self._other_samples, self._probabilities, self._otherwise, self._not_finite):
            if (found := looked_for()) is not None:
                return found
        is_right = self.alone.error <= TOLERANCE or self._ratio == 1
        return self._consistent() if is_right else self._inconsistent()

    def _counts(self) -> Finding | None:
        """Whether value and gradient have no slope anywhere, and the value changes nevertheless."""
        if not self.alone.is_finite or np.nan_to_num(self.alone.numeric).any() or self.alone.coded.any():
            return None
        turned = self._perhaps(-self.z, self.y)
        changed = np.isfinite(turned) & (turned != self.alone.values)
        if not changed.any():
            return None
        i = int(changed[0].argmax())
        wrong = (self.z.argmax(axis=-2) != self.y.argmax(axis=-2)).astype(float)
        is_rate = self.task.has_classes and self.z.shape[-2] > 1 and (self.alone.values == wrong).all()
        what = "it is 1 where another class has the largest logit, the error rate" if is_rate else "a count, say"
        return Finding(
            "no slope",
            f"value(z, y) changes in jumps only: {what} (value(z, y)[{i}] is {self.alone.values[0, i]:.6g}, and"
            f" {turned[0, i]:.6g} with -z); it has no slope, gradient(z, y) is 0 and no step is made: train with a loss"
            f" that has one, and read the {self.task.called} in the results",
            has_slopes=False,
        )

    @cached_property
    def _ratio(self) -> float | None:
        """The gradient's factor in units of the value's, where both are one loss of ablate; 1: it is its derivative."""
        if self.fit is None or self.slope is None or self.fit.formula.words != self.slope[0].words:
            return None
        ratio = self.slope[1] / self.fit.factor
        return 1.0 if abs(ratio - 1) <= 2 * SAME else ratio

    def _perhaps(self, z: Array, y: Array) -> Array:
        """The loss's values at other arguments than it was written for; NaN where it refuses them."""
        try:
            return self.alone.value(z, y)
        except LossFailedError:
            return np.full_like(self.alone.values, np.nan)

    @cached_property
    def fit(self) -> Fit | None:
        """What the value is."""
        every = chain(*(of(self.output, self.task) for of in (sound, mixed, elsewhere, slips)))
        return fit(self.alone.values, every, self.z, self.y, self.alone.misfit)

    @cached_property
    def slope(self) -> tuple[Slope, float] | None:
        """What the gradient is, and its factor."""
        return sloped(
            self.alone.coded, self.z, self.y, gradients(self.output, self.task), 10 * self.alone.precision.noise
        )

    # The samples of a batch

    def _other_samples(self) -> Finding | None:
        values, alone = self.alone.values, self.alone.alone
        if not np.isfinite(values).all():
            return None
        apart = np.where(np.isfinite(alone), np.abs(values - alone), np.inf)
        if apart.max() <= self.alone.closeness:
            return None
        i, samples = int(apart.argmax()), values.shape[-1]
        numbers = f"value(z, y)[{i}] is {values[0, i]:.6g} in a batch of {samples} and {alone[0, i]:.6g} by itself"
        if np.abs(values * samples - alone).max() <= self.alone.closeness * samples:
            return Finding(
                "factor of samples", f"the value is divided by the number of samples ({numbers}): {_OWN_VALUE}"
            )
        words = f"a sample's value depends on the other samples of its batch ({numbers})"
        return Finding("other samples", f"{words}: {self._of_batch()}", has_slopes=False)

    def _of_batch(self) -> str:
        """What a value that depends on the batch is, and what to write instead."""
        values, alone = self.alone.values, self.alone.alone
        for function, total in (("mean", alone.mean()), ("sum", alone.sum())):
            if np.abs(values - total).max() <= self.alone.closeness * values.size:
                return f"every sample is given the batch's {function}, {total:.6g}; {_OWN_VALUE}"
        known = fit(values, over_samples(self.task), self.z, self.y, self.alone.closeness)
        if known is not None:
            meant = known.formula.meant
            assert meant is not None
            expected = known.factor * float(meant.value(self.z, meant.outputs(self.z), self.y)[0, 0])
            beside = f"value(z, y)[0] is {values[0, 0]:.6g}, and {expected:.6g} as it is meant"
            return f"it is {known.formula.words} ({beside}); {known.formula.fix}"
        if (crossed := self._crossed()) is not None:
            return crossed
        per_sample = (
            f"sum over the {self.task.parts} of each sample only, .sum(axis=1); a loss meant for the whole batch, as"
            " Dice often is, has to be written for each sample"
        )
        return f"{self._right_for_batch()}{per_sample}"

    def _crossed(self) -> str | None:
        """Whether every logit was compared with every target, as NumPy does of shapes (N,) and (N, 1); in words."""
        values, count = self.alone.values[0], self.z.shape[-1]
        if self.z.shape[-2] > 1:
            return None
        # Of sample i's logit with sample j's target.
        pairs = np.stack(
            [
                [self._perhaps(self.z[..., i : i + 1], self.y[..., j : j + 1])[0, 0] for j in range(count)]
                for i in range(count)
            ]
        )
        bound = self.alone.closeness * count
        for function, of in (("mean", np.mean), ("sum", np.sum)):
            for axis, words in ((0, "its target and every logit"), (1, "its logit and every target")):
                if np.abs(values - of(pairs, axis=axis)).max() <= bound:
                    return (
                        f"it is the {function} of the loss of {words} of the batch, {of(pairs, axis=axis)[0]:.6g} for"
                        " sample 0: an array of shape (N,) minus one of (N, 1) makes (N, N); z and y are both (N, 1):"
                        " use z - y as they are, without .ravel() or [:, 0] on one of them, and .sum(axis=1) in value"
                    )
        return None

    def _right_for_batch(self) -> str:
        """Whether the gradient is right if the value is taken as the loss of the whole batch, in words."""
        index, step = int(np.abs(self.alone.coded).argmax()), 1e-5
        coded = float(self.alone.coded.flat[index])

        def total(by: float) -> float:
            moved = self.z.copy()
            moved.flat[index] += by
            return float(self._perhaps(moved, self.y).sum())

        slope = (total(step) - total(-step)) / (2 * step)
        _, c, i = np.unravel_index(index, self.z.shape)
        if abs(coded - slope) > 1e-3 * abs(coded):
            return ""
        return (
            f"as a loss of the whole batch its gradient is right (gradient(z, y)[{i}, {c}] is {coded:.6g}, the slope of"
            f" the batch's sum of values {slope:.6g}), but nothing is compared sample by sample; "
        )

    # What the arguments are taken for

    def _probabilities(self) -> Finding | None:
        """Whether the loss is written for the outputs p and takes the logits for them."""
        if self.output == "identity" or (self.alone.is_finite and self._is_sound):
            return None
        function, p = f"the {self.output}", self.alone.p
        of_p = self._perhaps(p, self.y)
        if not np.isfinite(of_p).all():
            return None
        name, clips = self._known_of_outputs(of_p), self._clips()
        if name is None and not clips and np.isfinite(self.alone.values).all():
            return None
        bad = ~np.isfinite(self.alone.values[0])
        i = int(bad.argmax()) if bad.any() else int(np.abs(self.alone.values - of_p)[0].argmax())
        row = ", ".join(f"{each:.3g}" for each in self.z[0, :3, i]) + (", ..." if self.z.shape[-2] > 3 else "")
        known = f", which is {name}'s" if name else ""
        words = (
            f"z are logits, any real numbers (here z[{i}] is [{row}]), and value(z, y) takes them for probabilities"
            f"{', clipped to 0..1' if clips else ''}: value(z, y)[{i}] is {self.alone.values[0, i]:.6g}, and"
            f" value(p, y)[{i}] with p {function} of z {of_p[0, i]:.6g}{known}"
        )
        fix = f"apply {function} first, p = {self.output}(z), in value and in gradient"
        return Finding("probabilities", f"{words}; {fix}{self._gradient_of_outputs()}", has_slopes=False)

    @property
    def _is_sound(self) -> bool:
        return self.fit is not None and not self.fit.formula.mistake

    def _known_of_outputs(self, values: Array) -> str | None:
        """ablate's loss that the values are if the outputs are passed for z."""
        if not np.ptp(values):
            return None
        finite = np.isfinite(self.alone.values).all()
        bound = (SAME if finite else 100 * SAME) * float(np.abs(values).max()) + self.alone.closeness
        for name, value in of_probabilities(self.task):
            with np.errstate(all="ignore"):
                known = value(self.alone.p, self.y)
            square = float(np.square(known).sum())
            if not math.isfinite(square) or not square or np.ptp(known) <= SAME * np.abs(known).max():
                continue
            factor = float((known * values).sum()) / square
            if np.abs(values - factor * known).max() <= bound:
                return name if abs(abs(factor) - 1) <= 100 * SAME else f"{factor:.4g} times {name}"
        return None

    def _clips(self) -> bool:
        """Whether the value does not see by how much a logit is below 0 or above 1."""
        values, clipped = self.alone.values, self._perhaps(self.z.clip(0, 1), self.y)
        same = np.isfinite(values) & (np.abs(values - clipped) <= self.alone.closeness + 1e-5 * np.abs(values))
        return bool(same.all() and np.ptp(values) > self.alone.closeness)

    def _gradient_of_outputs(self) -> str:
        """What to do with the gradient of a loss of the outputs, as far as it can be told."""
        p = self.alone.p
        with np.errstate(all="ignore"):
            try:
                coded = self.alone.gradient(p, self.y)
            except LossFailedError:
                return ""
            numeric = slopes(self.alone.value, p, self.y, 1e-6)
        if close(coded, p - self.y) and not close(coded, numeric):
            return "; then gradient, p - y, is that of ce"
        if not np.isfinite(coded).all() or not close(coded, numeric):
            return ""
        by = "p * (d - (d * p).sum(axis=1, keepdims=True))" if self.output == "softmax" else "d * p * (1 - p)"
        return f"; gradient is the derivative d by p: return {by}, the derivative by z"

    def _otherwise(self) -> Finding | None:
        """Whether the class is right if it is called with its arguments in another order, or with labels."""
        if self.alone.is_finite and self.alone.error <= TOLERANCE:
            return None
        for reading, other in self.objective.otherwise():
            if reading.takes_labels and not self.task.has_classes:
                continue  # there are no labels as numbers
            if (found := self._read(reading, other)) is not None:
                return found
        return None

    def _read(self, reading: Reading, other: CustomObjective) -> Finding | None:
        try:
            alone = LossAlone.at(other, self.z, self.y, True, self.seed)
            if not alone.is_finite or not np.nan_to_num(alone.numeric).any() or alone.error > TOLERANCE:
                return None
            known = fit(alone.values, sound(self.output, self.task), self.z, self.y, alone.closeness)
        except LossFailedError:
            return None
        # A loss that is the same either way, such as a square of a difference, may as well have a wrong sign.
        is_same = known is None and np.allclose(alone.values, self.alone.values)
        is_symmetric = np.allclose(self._perhaps(self.y, self.z), self.alone.values)
        if (is_same or is_symmetric) and not self.objective.is_named_swapped:
            return None
        is_known = f", {known.formula.words}" if known else ""
        worst = alone.worst
        sample, index = worst.index
        mine = self.alone.coded[0, index, sample]
        called = f" (its parameters are {self.objective.swapped_names})" if self.objective.is_named_swapped else ""
        return Finding(
            reading.name,
            f"the class {reading.words}{called}: taken so, value[0] is {alone.values[0, 0]:.6g}{is_known}, and gradient"
            f"[{sample}, {index}], {worst.analytic:.6g}, is its slope, {worst.numeric:.6g}; called as value(z, y) and"
            f" gradient(z, y) they are {self.alone.values[0, 0]:.6g} and {mine:.6g}: {reading.fix}",
            has_slopes=False,
        )

    def _not_finite(self) -> Finding | None:
        if self.alone.is_finite:
            return None
        for method, array in (("value", self.alone.values[:, None]), ("gradient", self.alone.coded)):
            bad = np.argwhere(~np.isfinite(array[0]))
            if len(bad):
                c, i = bad[0]
                z, y = self.z[0, :, i], self.y[0, :, i]
                softened = self.y * 0.9 + 0.1 / len(y)
                look = overflow.reason(self.objective, method, self.z, self.y) or (
                    "look for a logarithm, root or quotient of a number that may be 0 or below (z are logits, any real"
                    " numbers)"
                )
                of_softened = self._perhaps(self.z, softened)
                if np.isfinite(of_softened).all() and self.output != "identity" and self.task.has_labels:
                    look = (
                        f"with y softened to {softened.min():.3g} and {softened.max():.3g} value(z, y)[{i}] is"
                        f" {of_softened[0, i]:.6g}, so it is the zeros of y that a"
                        " logarithm or quotient meets: 0 * log(0) is nan; leave out the terms where y is 0"
                    )
                place = f"{method}(z, y)[{i}]" if method == "value" else f"gradient(z, y)[{i}, {c}]"
                right = f" of which the right class's is {z[int(y.argmax())]:.3g}" if self.task.has_classes else ""
                return Finding(
                    "not finite",
                    f"{place} is {array[0, c, i]} at logits from {z.min():.3g} to {z.max():.3g}{right}: {look}",
                    has_slopes=method == "gradient",
                )
        return None

    # A gradient that is the derivative of its value

    def _consistent(self) -> Finding | None:
        if self.fit is not None and self.fit.factor < 0:
            known = self.fit.formula.words
            return Finding(
                "negative value",
                f"the value is the negative of {known} ({self._beside()}), and the gradient is its derivative, so every"
                " step climbs: put the minus in front of both",
            )
        if self.fit is not None and self.fit.formula.mistake:
            # With its own gradient, half of a known loss minus 1 is meant, not a slip.
            is_meant = affine(self.alone.values, sound(self.output, self.task), self.z, self.y, self.alone.closeness)
            return None if is_meant else self._slip()
        if self.fit is None and self.task.has_classes:
            return self._pushed_away()
        return None

    def _beside(self) -> str:
        """A value beside that of the formula that it was found to be, or to be the negative of."""
        assert self.fit is not None
        known = self.fit.formula.value(self.z, self.y)[0]
        i = int(np.abs(known).argmax())
        name = self.fit.formula.words
        return f"value(z, y)[{i}] is {self.alone.values[0, i]:.6g}, {name} {known[i]:.6g}"

    def _slip(self) -> Finding | None:
        """A value that is one of ablate's losses with a slip in it."""
        assert self.fit is not None
        formula, meant = self.fit.formula, self.fit.formula.meant
        factor = "" if abs(self.fit.factor - 1) <= SAME else f", {self.fit.factor:.4g} times it"
        if meant is None:
            value = f"value(z, y)[0] is {self.alone.values[0, 0]:.6g}{factor}"
            return Finding(formula.mistake, f"the value is {formula.words} ({value}): {formula.fix}")
        right = meant.value(self.z, meant.outputs(self.z), self.y)[0]
        i = int(np.abs(self.alone.values[0] - right).argmax())
        value = f"value(z, y)[{i}] is {self.alone.values[0, i]:.6g}{factor}"
        is_same = abs(self.alone.values[0, i] - right[i]) <= SAME * abs(right[i])
        words = f"the value is {formula.words} ({value}{'' if is_same else f', and {right[i]:.6g} as it is meant'})"
        if is_same and self.alone.error <= TOLERANCE:
            # Only p is another function's: there is no other gradient to try.
            return Finding(formula.mistake, f"{words}: {formula.fix}")
        if self.slope is not None and self.alone.error > TOLERANCE:
            words += f", the gradient is {_times(self.slope[1])}{self.slope[0].words}"
        coded, mended = self._attempts(lambda z, p, y: meant.gradient(z, meant.outputs(z), y))
        if coded.beats(mended):
            # No advice to change what trains better as it is.
            if self.alone.error <= TOLERANCE:
                return None
            return Finding(
                formula.mistake, f"{words}; {self._trains(coded, mended)}: leave the gradient as it is, mend the value"
            )
        return Finding(formula.mistake, f"{words}: {formula.fix}; {self._trains(coded, mended)}")

    def _trains(self, coded: Attempt, other: Attempt) -> str:
        return self._tried(
            f"{coded} with the gradient as coded (lr={coded.rate:g}) and {other} with the gradient of what is meant"
            f" (lr={other.rate:g})"
        )

    def _tried(self, what: str) -> str:
        """What was reached by following gradients, and how far they were followed."""
        if self._is_large:
            return f"not tried with so many classes as {self.trial.architecture.units}"
        return f"{STEPS} steps on {min(ROWS, len(self.trial.dataset.y_train))} samples reach {self._score} of {what}"

    @property
    def _score(self) -> str:
        return {"accuracy": "an accuracy", "R²": "an R²"}.get(self.task.called, f"a {self.task.called}")

    def _pushed_away(self) -> Finding | None:
        """Whether the value rises with the right class's logit, for every sample."""
        target = self.alone.numeric[0][self.y[0] == 1]
        target = target[np.isfinite(target)]
        if not len(target) or target.min() <= self.alone.precision.allowance:
            return None
        i = int(self.y[0].max(axis=0).argmax())
        c = int(self.y[0, :, i].argmax())
        return Finding(
            "pushes the right class away",
            f"the value rises with the logit of the right class, for every sample (the slope of value(z, y)[{i}] with"
            f" z[{i}, {c}] is {self.alone.numeric[0, c, i]:.6g}, where it should be below 0), so that every step lowers"
            " it: look for a sign, or for a weight below 0 such as alpha=-1",
        )

    # A gradient that is not

    def _inconsistent(self) -> Finding:
        if (found := self._whole_numbers()) is not None:
            return found
        cause, slope = _first(self.alone), self.slope
        if cause is not None and cause[0] == "factor of samples":
            return Finding(cause[0], f"{cause[1]} ({self._worst()})")
        if (found := self._gradient_of_others()) is not None:
            return found
        factor = self._ratio or _factor(self.alone, self.alone.coded)
        is_sound = slope is not None and slope[0].is_sound and slope[1] > 0
        if factor is not None and factor < 0:
            return self._negative(cause, is_sound)
        if self.fit is not None and self.fit.formula.mistake and (found := self._slip()) is not None:
            return found
        if factor is not None:
            name, words = cause or ("scale factor", f"{_by_factor(factor)}: {_where_from(factor, self.alone)}")
            return Finding(name, f"{words} ({self._worst()}){self._known()}")
        if is_sound:
            return self._two(cause)
        return self._by_value(cause)

    def _whole_numbers(self) -> Finding | None:
        """Whether the gradient is right but for its fractions, which an integer type cuts off."""
        kind = self.objective.type_of("gradient", self.z, self.y)
        if kind.kind not in "iu" or np.nanmax(np.abs(self.alone.coded - self.alone.numeric)) >= 1:
            return None
        return Finding(
            "whole numbers",
            f"gradient(z, y) is of the type {kind}, which cuts the fractions off ({self._worst()}): leave out"
            " .astype(int), or fill an array of floats, np.zeros(z.shape)",
        )

    def _worst(self) -> str:
        worst = self.alone.worst
        sample, index = worst.index
        coded = f"gradient(z, y)[{sample}, {index}] is {worst.analytic:.6g}"
        return f"{coded}, the slope of value(z, y) there is {worst.numeric:.6g}"

    def _known(self) -> str:
        """What value and gradient are, where that is known."""
        parts = []
        if self.fit is not None:
            parts.append(f"the value is {_times(self.fit.factor)}{self.fit.formula.words}")
        if self.slope is not None:
            parts.append(f"the gradient is {_times(self.slope[1])}{self.slope[0].words}")
        return f"; {', '.join(parts)}" if parts else ""

    def _gradient_of_others(self) -> Finding | None:
        """Whether the gradient of a sample depends on the others, and is right without them or is not."""
        alone, coded = self.alone.gradient_alone, self.alone.coded
        if not np.isfinite(alone).all() or close(alone, coded):
            return None
        index = int(np.abs(alone - coded).argmax())
        _, c, i = np.unravel_index(index, coded.shape)
        numbers = (
            f"gradient(z, y)[{i}, {c}] is {coded[0, c, i]:.6g} in a batch of {coded.shape[-1]} and"
            f" {alone[0, c, i]:.6g} by itself, the slope of value(z, y) is {self.alone.numeric[0, c, i]:.6g}"
        )
        if self._depends_on_number(int(i)):
            words = "a part of the gradient changes with the number of samples, the value does not"
            return Finding("factor of samples", f"{words} ({numbers}): {_EACH_SAMPLE}")
        return Finding(
            "other samples",
            f"a sample's gradient depends on the other samples of its batch, its value does not ({numbers}): sum over"
            f" the {self.task.parts} of each sample only, axis=1 with keepdims=True",
        )

    def _depends_on_number(self, sample: int) -> bool:
        """Whether a sample's gradient stays as it is among other samples, as long as they are as many."""
        others = 0.5 * self.z
        others[..., sample] = self.z[..., sample]
        try:
            among = self.alone.gradient(others, self.y)
        except LossFailedError:
            return False
        return close(among[..., sample], self.alone.coded[..., sample])

    def _negative(self, cause: Cause | None, is_sound: bool) -> Finding:
        """A gradient that is the derivative's negative: either of the two may be what is meant."""
        if self.fit is not None and self.fit.factor < 0 and not self.fit.formula.mistake:
            known = self.fit.formula.words
            return Finding(
                "negative value",
                f"the value is the negative of {known} ({self._beside()}), and the gradient is right, {known}: put the"
                " minus in front of the value and leave the gradient as it is",
            )
        coded, turned = self._attempts(self._turned)
        if is_sound or coded.beats(turned):
            words = f"the gradient is {self.slope[0].words}" if is_sound and self.slope else "the gradient trains"
            return Finding(
                "negative value",
                f"the value is the negative of what the gradient descends ({self._worst()}): {words}, so put a minus in"
                f" front of the value and leave the gradient as it is; {self._either(coded, turned, 'turned')}",
            )
        name, advice = cause or (WRONG_SIGN, f"{NEGATIVE}: change it")
        return Finding(name, f"{advice} ({self._worst()}){self._known()}; {self._either(coded, turned, 'turned')}")

    def _either(self, coded: Attempt, other: Attempt, how: str) -> str:
        return self._tried(f"{coded} with the gradient as coded and {other} with it {how}")

    def _turned(self, z: Array, p: Array, y: Array) -> Array:
        return -self._coded(z, p, y)

    def _two(self, cause: Cause | None) -> Finding:
        """A gradient that is that of one of ablate's losses, and a value that is not."""
        assert self.slope is not None
        gradient = self.slope[0].words
        values = [("", self.alone.values[0, 0])]
        if self.slope[0].meant is not None:
            meant = self.slope[0].meant
            values.append((gradient, float(meant.value(self.z, self.alone.p, self.y)[0, 0])))
        beside = ", ".join(f"{words or 'value(z, y)[0]'} {'is ' if not words else ''}{v:.6g}" for words, v in values)
        value = f"{_times(self.fit.factor)}{self.fit.formula.words}" if self.fit is not None else "another one"
        coded, descended = self._attempts(self._slope_of_value)
        reason = cause or self._partly()
        by_value = reason[1] if reason is not None else "write the derivative of the value in gradient(z, y)"
        first = f"if {gradient} is meant, mend value(z, y) and leave the gradient as it is"
        second = f"if the value is meant, mend gradient(z, y): {by_value}"
        name = "two losses" if self.fit is not None else "another loss"
        tried = self._tried(f"{coded} with the gradient as coded and {descended} with the slope of the value")
        if descended.mean >= coded.mean:
            first, second = second, first
            name = cause[0] if cause is not None else name
        return Finding(
            name,
            f"gradient(z, y) is {gradient}, value(z, y) is {value} ({beside}; {self._worst()}). Two readings, the one"
            f" that trains sooner first ({tried}): {first}; {second}",
        )

    def _by_value(self, cause: Cause | None) -> Finding:
        """A gradient that is none of ablate's, so that the value is taken as what is meant."""
        name, words = cause or self._partly() or _UNKNOWN
        if cause is None and self.fit is not None:
            words += f": the value is {self.fit.formula.words}, look at gradient(z, y)"
        coded, descended = self._attempts(self._slope_of_value)
        tried = self._either(coded, descended, "replaced by the slope of the value")
        if coded.beats(descended):
            return Finding(
                "another loss",
                f"the gradient is not the derivative of the value ({self._worst()}){self._known()}, and it trains"
                f" better: {tried}; look at value(z, y) first; or, if the value is meant: {words}",
            )
        return Finding(name, f"{words} ({self._worst()}); {tried}")

    def _partly(self) -> Cause | None:
        """Whether the gradient is right but for signs, or a factor of each sample, each class, or the ones of y."""
        coded, numeric, y = self.alone.coded[0], self.alone.numeric[0], self.y[0]
        if (known := self._signs() or self._value_itself()) is not None:
            return known
        with np.errstate(all="ignore"):
            ratio = np.where(np.abs(numeric) > 1e-6 * np.nanmax(np.abs(numeric)), coded / numeric, np.nan)
        is_zero = np.abs(numeric) <= 1e-6 * np.nanmax(np.abs(numeric))
        if np.abs(coded[is_zero]).max(initial=0.0) > MATCH * np.abs(coded).max():
            return self._some_entries()
        one, several = self.task.part, self.task.parts
        groups: list[tuple[str, Array, str]] = [
            (
                f"of each {one}",
                np.broadcast_to(np.arange(len(y))[:, None], y.shape),
                f"a weight of the {several} is missing in one of the two, or one {one} is left out",
            ),
            (
                "of each sample",
                np.broadcast_to(np.arange(y.shape[1]), y.shape),
                f"a weight of the sample, or of its {one}, is in only one of the two, or is not differentiated",
            ),
        ]
        if self.task.has_labels:
            mine = "of the entries of the right class and of the others"
            if not self.task.has_classes:
                mine = "of the entries where y is 1 and of the others"
            why = "a weight, or a part of the gradient, is missing for one of the two"
            groups.insert(0, (mine, np.where(y > 0, 0, 1), why))
        for words, of, why in groups:
            factors = [ratio[(of == group) & np.isfinite(ratio)] for group in np.unique(of)]
            factors = [each for each in factors if len(each)]
            if len(factors) > 1 and all(np.ptp(each) <= 1e-3 * max(1.0, np.abs(each).max()) for each in factors):
                if min(len(each) for each in factors) < 2:
                    continue
                means = [float(each.mean()) for each in factors]
                return (
                    "wrong derivative",
                    f"the loss's gradient is its value's derivative times a factor {words}, from {min(means):.4g} to"
                    f" {max(means):.4g}: {why}",
                )
        return self._some_entries()

    def _signs(self) -> Cause | None:
        """Whether each entry of the gradient has the right size, and some have the wrong sign."""
        coded, numeric = self.alone.coded[0], self.alone.numeric[0]
        known = np.isfinite(numeric)
        if self.alone.difference(np.abs(self.alone.coded), np.abs(self.alone.numeric)) > MATCH:
            return None
        wrong = known & (np.abs(coded - numeric) > MATCH * np.abs(numeric[known]).max())
        below = self.z[0] < self.y[0]
        at = " where z < y" if (wrong <= below).all() else " where z > y" if (wrong <= ~below).all() else ""
        why = "np.abs(z - y) has the derivative np.sign(z - y), 1 above the target and -1 below"
        fix = f"a sign is forgotten ({why})" if at else "look at what the sign depends on"
        return (
            "sign of some entries",
            f"each entry of the loss's gradient has the right size, and {int(wrong.sum())} of {int(known.sum())} have"
            f" the wrong sign{at}: {fix}",
        )

    def _value_itself(self) -> Cause | None:
        """Whether the gradient is the value that it should be the derivative of."""
        if not close(self.alone.coded.sum(axis=-2), self.alone.values):
            return None
        what = "it" if self.z.shape[-2] == 1 else f"its sum over the {self.task.parts}"
        return (
            "value for gradient",
            f"gradient(z, y) gives the value itself ({what} is value(z, y)), where its derivative by z is meant",
        )

    def _some_entries(self) -> Cause | None:
        """Whether the gradient is wrong at the entries of the right class only, or at the others."""
        coded, numeric, y = self.alone.coded[0], self.alone.numeric[0], self.y[0]
        wrong = np.abs(coded - numeric) > MATCH * np.nanmax(np.abs(numeric)) + self.alone.doubt[0]
        if not self.task.has_labels:
            return None
        names = ("of the right class", "of the other classes")
        names = names if self.task.has_classes else ("where y is 1", "where y is 0")
        for mine, words in zip((y > 0, y == 0), names, strict=True):
            if wrong[mine].any() and not wrong[~mine].any() and (~mine).any():
                return (
                    "wrong derivative",
                    f"only the entries {words} are wrong, {int(wrong.sum())} of {int(mine.sum())}: look at what y does"
                    " there in gradient(z, y)",
                )
        return None

    # What is tried

    def _coded(self, z: Array, p: Array, y: Array) -> Array:
        self.objective.value(z, p, y)
        return self.objective.gradient(z, p, y)

    def _slope_of_value(self, z: Array, p: Array, y: Array) -> Array:
        if self.fit is not None and not self.fit.formula.mistake:
            return self.fit.factor * self.fit.formula.gradient(z, y)
        return slopes(lambda at, to: self.objective.value(at, self.objective.outputs(at), to), z, y, self._step)

    @property
    def _step(self) -> float:
        return max(self.alone.precision.step, 1e-5)

    @property
    def _is_large(self) -> bool:
        return self.trial.architecture.units > MOST_MADE_UP

    def _attempts(self, other: Callable[[Array, Array, Array], Array]) -> tuple[Attempt, Attempt]:
        """How far the gradient as coded comes, and another; nowhere both where that would take too long."""
        if self._is_large:
            return Attempt(math.nan, 0.0, 0.0, 1), Attempt(math.nan, 0.0, 0.0, 1)
        outputs = self.objective.outputs
        tried = [Formulas(self.output, outputs, _nothing, gradient) for gradient in (self._coded, other)]
        coded, found = attempt(self.trial, tried, self.seed)
        return coded, found


def _nothing(z: Array, p: Array, y: Array) -> Array:
    return np.zeros((*z.shape[:-2], z.shape[-1]), z.dtype)


def _times(factor: float) -> str:
    return "" if abs(factor - 1) <= SAME else f"{factor:.6g} times "
