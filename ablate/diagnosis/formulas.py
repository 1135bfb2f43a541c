"""What value and gradient of a user's loss may be: the losses of the registry, and slips made in writing one.

Arrays are `(..., C, N)` as in `problem.losses`: z logits, p outputs, y targets; a value is `(..., N)`. What there
is depends on the task: the registry says which losses learn it over which output functions.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from ablate.config.settings import shown
from ablate.errors import ConfigError
from ablate.problem.losses import LOSSES, BuiltinLoss, Objective
from ablate.problem.mistakes import MISTAKES
from ablate.problem.outputs import OUTPUTS, Array, sigmoid, softmax, sum_classes
from ablate.problem.tasks import Task

Value = Callable[[Array, Array], Array]

# Values of a loss's own keys that a user may have chosen, besides the default.
CHOSEN = (0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0, 5.0)
# Added inside the logarithm; smaller ones do not show.
EPSILONS = (1e-4, 1e-3, 0.01, 0.05, 0.1, 1.0)
# So near to a loss's formula, relative to its largest entry, is the same.
SAME = 1e-4


@dataclass(frozen=True)
class Formula:
    """A formula of a value by (z, y): `words` complete "it is ...".

    `mistake` names the slip in it and `fix` says what to write instead; both are empty where it is sound. `meant` is
    the loss that it is, or that was meant, over its output function; None where there is no telling. `note` says what
    is unusual about one that is sound.
    """

    words: str
    value: Value
    mistake: str = ""
    fix: str = ""
    meant: Objective | None = None
    note: str = ""

    def gradient(self, z: Array, y: Array) -> Array:
        """Its derivative by the logits: the loss's own, or for a slip central differences."""
        if self.meant is not None and not self.mistake:
            return self.meant.gradient(z, self.meant.outputs(z), y)
        return slopes(self.value, z, y, 1e-5)


@dataclass(frozen=True)
class Fit:
    """A value as `factor` times a formula, plus `offset`."""

    formula: Formula
    factor: float
    offset: float = 0.0


def slopes(value: Value, z: Array, y: Array, step: float) -> Array:
    """Every sample's derivative with respect to each of its logits, `(..., C, N)`, by central differences."""

    def moved(index: int, by: float) -> Array:
        there = z.copy()
        there[..., index, :] += by
        return value(there, y)

    return np.stack([(moved(c, step) - moved(c, -step)) / (2 * step) for c in range(z.shape[-2])], axis=-2)


def fit(values: Array, formulas: Iterator[Formula], z: Array, y: Array, allowance: Array | float) -> Fit | None:
    """The first formula that the values `(..., N)` are a multiple of, or that they differ from by a constant."""
    if not np.isfinite(values).all():
        return None
    bound = SAME * float(np.abs(values).max()) + allowance
    for formula in formulas:
        with np.errstate(all="ignore"):
            known = formula.value(z, y)
        square = float(np.square(known).sum())
        if not np.isfinite(known).all() or not square or np.ptp(known) <= SAME * np.abs(known).max():
            continue
        factor, offset = float((known * values).sum()) / square, float(np.mean(values - known))
        # A slip and a turned sign at once would explain too much.
        if (np.abs(values - factor * known) <= bound).all() and (factor > 0 or (factor and not formula.mistake)):
            return Fit(formula, factor)
        if (np.abs(values - known - offset) <= bound).all() and offset:
            return Fit(formula, 1.0, offset)
    return None


def affine(values: Array, formulas: Iterator[Formula], z: Array, y: Array, allowance: float) -> Fit | None:
    """The first formula that the values are a multiple of, plus a constant: it has the same minimum or maximum."""
    bound = SAME * float(np.abs(values).max()) + allowance
    centred = values - values.mean()
    for formula in formulas:
        known = formula.value(z, y)
        spread = known - known.mean()
        square = float(np.square(spread).sum())
        factor = float((spread * centred).sum()) / square if square and math.isfinite(square) else 0.0
        if factor and np.abs(centred - factor * spread).max() <= bound:
            return Fit(formula, factor, float(values.mean() - factor * known.mean()))
    return None


@lru_cache
def _variants(loss: type[BuiltinLoss]) -> list[BuiltinLoss]:
    """A loss with its default keys, and with one of its own numbers chosen otherwise."""
    default = loss.defaults()
    own = [key for key in loss.field_names() if key not in BuiltinLoss.model_fields]
    numbers = [key for key in own if default[key] is None or type(default[key]) in (int, float)]
    found = [loss.model_validate(default)]
    for key in numbers:
        for number in CHOSEN:
            try:
                found.append(loss.model_validate({**default, key: number}))
            except ValidationError:
                continue
    return found


@lru_cache
def _with_epsilon(loss: type[BuiltinLoss]) -> list[BuiltinLoss]:
    """A loss with its default keys and an epsilon that shows."""
    naive = {**loss.defaults(), "from_logits": False}
    return [loss.model_validate({**naive, key: eps}) for key in ("eps_log", "eps_sum") for eps in EPSILONS]


def named(loss: BuiltinLoss) -> str:
    """`loss=focal loss.gamma=5`: the keys that are not the defaults."""
    other = [f"loss.{key}={shown(value)}" for key, value in loss if value != loss.defaults()[key]]
    return " ".join([f"loss={loss.name}", *other])


def _builtin() -> list[type[BuiltinLoss]]:
    return [loss for loss in LOSSES if issubclass(loss, BuiltinLoss)]


def _of(objective: Objective) -> Value:
    return lambda z, y: objective.value(z, objective.outputs(z), y)


def sound(output: str, task: Task) -> Iterator[Formula]:
    """ablate's losses over an output function: with their default keys first, with others, and with an epsilon."""
    yield from _over(output, task, _variants)
    yield from _over(output, task, _with_epsilon)


def _over(output: str, task: Task, variants: Callable[[type[BuiltinLoss]], list[BuiltinLoss]]) -> Iterator[Formula]:
    rows = [variants(loss) for loss in _builtin() if output in loss.outputs_for(task)]
    for loss in [row[0] for row in rows] + [loss for row in rows for loss in row[1:]]:
        try:
            objective = loss.objective(output)
        except ConfigError:  # keys that suit another output function only
            continue
        yield Formula(f"{named(loss)}'s", _of(objective), meant=objective)


def mixed(output: str, task: Task) -> Iterator[Formula]:
    """Formulas of ablate's losses over a softmax where ablate does not offer them: unusual, but sound."""
    for loss in _builtin():
        outputs = loss.outputs_for(task)
        if task.has_classes and output == "softmax" and "sigmoid" in outputs and output not in outputs:
            own = loss.model_validate(loss.defaults())
            yield Formula(f"loss={own.name}'s over a softmax", _naive(own, softmax))


def elsewhere(output: str, task: Task) -> Iterator[Formula]:
    """ablate's losses over another output function than the one that the class names.

    Of classes, the largest logit is predicted, whichever function the class names: a loss that is right by the logits
    then trains as it is. So it is where one of the two functions is the identity.
    """
    for other in OUTPUTS:
        if other.name == output:
            continue
        of_logits = "identity" in (other.name, output)
        for formula in _over(other.name, task, _variants):
            over = "of the logits" if other.name == "identity" else f"over a {other.name}"
            words = f"{formula.words} {over}"
            if task.has_classes and of_logits:
                note = (
                    f"the value is {words}, and the class says output = {output!r}: the largest logit is predicted"
                    f' either way, but p, the confidence, is that of another function; output = "{other.name}" suits it'
                )
                yield Formula(words, formula.value, meant=formula.meant, note=note)
            else:
                fix = f'name the {other.name}, output = "{other.name}", or write it over the {output}'
                if task.has_labels and not task.has_classes and of_logits:
                    fix = f"a label is answered with yes where p > 1/2, and p is another function's: {fix}"
                said = f"{words}, and the class says output = {output!r}"
                yield Formula(said, formula.value, "another output", fix, formula.meant)


def _pairs(output: str, task: Task) -> Iterator[tuple[BuiltinLoss, Objective]]:
    """The losses of probabilities with their default keys, over an output function where they have formulas for it."""
    for loss in _builtin():
        outputs = [name for name in loss.outputs_for(task) if name != "identity"]
        if outputs:
            own = loss.model_validate(loss.defaults())
            yield own, own.objective(output if output in outputs else outputs[0])


_TWICE = MISTAKES.get("double_softmax")
_ONCE = "apply the output function once, to the logits"
# How p may be made of z, what to call it, and what to write instead.
_OUTPUTS: list[tuple[str, str, Callable[[Array], Array], str]] = [
    ("the softmax of a softmax", _TWICE.name, lambda z: softmax(softmax(z)), _TWICE.fix),
    ("the softmax of a sigmoid", "double output", lambda z: softmax(sigmoid(z)), _ONCE),
    ("the sigmoid of a softmax", "double output", lambda z: sigmoid(softmax(z)), _ONCE),
    ("the sigmoid of a sigmoid", "double output", lambda z: sigmoid(sigmoid(z)), _ONCE),
    (
        "exp(z), not divided by its sum",
        "not normalised",
        np.exp,
        "divide by e.sum(axis=1, keepdims=True): the softmax is e / e.sum(axis=1, keepdims=True)",
    ),
    (
        "z divided by its sum, without exp",
        "missing exp",
        lambda z: z / sum_classes(z),
        "the softmax is e / e.sum(axis=1, keepdims=True) with e = exp(z)",
    ),
    (
        "exp(z - max) divided by the sum of exp(z)",
        "shift in one place",
        lambda z: np.exp(z - z.max(axis=-2, keepdims=True)) / sum_classes(np.exp(z)),
        "subtract the largest logit in the numerator and in the denominator, or in neither",
    ),
]


def _naive(loss: BuiltinLoss, outputs: Callable[[Array], Array], y: Callable[[Array], Array] = lambda y: y) -> Value:
    return lambda z, target: loss.naive_value(outputs(z), y(target))


def slips(output: str, task: Task) -> Iterator[Formula]:
    """Losses with one slip in them, the likely ones first."""
    function = OUTPUTS.get(output).function
    if output != "identity":
        if not task.has_classes and output == "softmax":
            yield from _of_one_class(task)
        for words, name, outputs, fix in _OUTPUTS:
            for loss, meant in _pairs(output, task):
                yield Formula(f"loss={loss.name}'s of {words}", _naive(loss, outputs), name, fix, meant)
        if task.has_labels:
            yield from _of_labels(output, task)
    if output != "identity" or not task.has_labels:
        difference = "p - y" if output != "identity" else "z - y"
        yield Formula(
            f"the sum of {difference} without its square",
            lambda z, y: (function(z) - y).sum(axis=-2),
            "missing square",
            f"square the difference: 0.5 * (({difference}) ** 2).sum(axis=1)",
        )
    if task.has_labels:
        yield from _of_hinges()


def _of_one_class(task: Task) -> Iterator[Formula]:
    """Losses over a softmax where a sample is not of one class out of several."""
    name, output = _USUAL[task.name]
    for loss in _builtin():
        if "softmax" in loss.allowed_outputs:
            own = loss.model_validate(loss.defaults())
            yield Formula(
                f"loss={own.name}'s over a softmax, whose outputs sum to 1, which a sample's {task.parts} need not",
                _naive(own, softmax),
                "softmax of one class",
                f'name the {output}, output = "{output}", and write the formula of loss={name} over it',
                _meant(name, output),
            )


# What is usually meant where the targets are no classes.
_USUAL = {"regression": ("mse", "identity"), "multilabel": ("bce", "sigmoid")}


def _of_labels(output: str, task: Task) -> Iterator[Formula]:
    """Slips in what is done with the labels."""
    yield from _of_sums(output, task)
    for loss, meant in _pairs(output, task):
        own = OUTPUTS.get(meant.output).function
        for words, targets in _TARGETS:
            own_ones = "own class c" if task.has_classes else "own labels c"
            fix = f"look at the place where y is used: y[i, c] is 1 for sample i's {own_ones} and 0 for the others"
            value = _naive(loss, own, targets)
            yield Formula(f"loss={loss.name}'s of {words}", value, "wrong labels", fix, meant)
    for loss, meant in _pairs(output, task):
        own = OUTPUTS.get(meant.output).function
        yield Formula(
            f"loss={loss.name}'s of -z",
            _naive(loss, lambda z, own=own: own(-z)),  # type: ignore[misc]
            "logits turned",
            "the largest logit is the class that is predicted: use exp(z) in the softmax, not exp(-z)",
            meant,
        )


# Labels as they may have been taken.
_TARGETS: list[tuple[str, Callable[[Array], Array]]] = [
    ("labels one place too high", lambda y: np.roll(y, 1, axis=-2)),
    ("labels one place too low", lambda y: np.roll(y, -1, axis=-2)),
    ("1 - y, the labels turned", lambda y: 1 - y),
    ("y reversed", lambda y: y[..., ::-1, :]),
    ("ones in place of y, so that the labels are not used", np.ones_like),
]


def _of_sums(output: str, task: Task) -> Iterator[Formula]:
    """Sums of logarithms with a part missing or turned."""
    softly, each = OUTPUTS.get("softmax").function, OUTPUTS.get("sigmoid").function
    ce, bce = _meant("ce", "softmax"), _meant("bce", "sigmoid")
    both = "write both halves, -(y * log(p) + (1 - y) * log(1 - p)).sum(axis=1)"
    softmax_or = f"one class of several is meant: use the softmax; or {both}"
    yield Formula(
        f"-Σ y ln p with p a sigmoid, which has no part for the {task.parts} that are not meant",
        lambda z, y: -(y * np.log(each(z))).sum(axis=-2),
        "half of bce",
        both if output == "sigmoid" else softmax_or,
        bce if output == "sigmoid" else ce,
    )
    over_both = [("sigmoid", each, bce), ("softmax", softly, ce)]
    for words, p, meant in over_both if task.has_classes else over_both[:1]:
        meant_ones = "the class that is meant" if task.has_classes else "the labels that are there"
        yield Formula(
            f"-Σ (1 - y) ln(1 - p) over a {words}: the part for {meant_ones} is missing",
            lambda z, y, p=p: -((1 - y) * np.log1p(-p(z))).sum(axis=-2),  # type: ignore[misc]
            "half of bce",
            both if words == "sigmoid" else "for one class of several write -(y * log(p)).sum(axis=1)",
            meant,
        )
        yield Formula(
            f"Σ of -y ln p + (1 - y) ln(1 - p) over a {words}: the second part has the wrong sign",
            lambda z, y, p=p: (-y * np.log(p(z)) + (1 - y) * np.log1p(-p(z))).sum(axis=-2),  # type: ignore[misc]
            "sign in one half",
            both,
            meant,
        )
        yield Formula(
            f"-Σ p ln p over a {words}, in which y does not occur",
            lambda z, y, p=p: -(p(z) * np.log(p(z))).sum(axis=-2),  # type: ignore[misc]
            "wrong labels",
            "y, not p, stands before the logarithm: -(y * log(p)).sum(axis=1)",
            meant,
        )
        for power in (1, 2):
            yield Formula(
                f"-Σ y p^{power} ln p over a {words}, the discount of easy samples turned",
                lambda z, y, p=p, power=power: -(y * p(z) ** power * np.log(p(z))).sum(axis=-2),  # type: ignore[misc]
                "discount turned",
                "the focal loss has (1 - p) ** gamma in front of the logarithm: easy samples count less, not more",
                _meant("focal", words),
            )
        yield Formula(
            f"-Σ y p over a {words}, without the logarithm",
            lambda z, y, p=p: -(y * p(z)).sum(axis=-2),  # type: ignore[misc]
            "missing logarithm",
            "write -(y * log(p)).sum(axis=1)",
            meant,
        )


def _of_hinges() -> Iterator[Formula]:
    """Hinges of labels 0 and 1 where -1 and 1 are meant."""
    for power, square in ((1, ""), (2, "²")):
        yield Formula(
            f"Σ max(0, 1 - y z){square} with y 0 or 1: classes that are not meant cost 1, whatever their logit",
            lambda z, y, power=power: (np.maximum(0, 1 - y * z) ** power).sum(axis=-2),  # type: ignore[misc]
            "labels 0 and 1 in a hinge",
            f"a hinge takes labels -1 and 1: t = 2 * y - 1, then max(0, 1 - t * z){square}",
            Signed(power),
        )


@dataclass(frozen=True)
class Signed:
    """The hinge of every class by itself to a power, Σ max(0, 1 - t z)^power with t = 2y - 1.

    That is what hinges of 0 and 1 are meant to be.
    """

    power: int
    output: str = "identity"

    @property
    def outputs(self) -> Callable[[Array], Array]:
        return OUTPUTS.get(self.output).function

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return (np.maximum(0, 1 - (2 * y - 1) * z) ** self.power).sum(axis=-2)

    def gradient(self, z: Array, p: Array, y: Array) -> Array:
        t = 2 * y - 1
        return np.where(t * z < 1, -t * self.power * (1 - t * z) ** (self.power - 1), 0.0)


def _meant(name: str, output: str) -> Objective:
    loss = LOSSES.get(name)
    return loss.model_validate(loss.defaults()).objective(output)


def over_samples(task: Task) -> Iterator[Formula]:
    """Losses whose softmax runs over the samples too: the axis."""
    whole = "sum over the classes of each sample only: .sum(axis=1, keepdims=True)"
    outputs: list[tuple[str, Callable[[Array], Array]]] = [
        ("the softmax over the samples (axis=0)", lambda z: _normalised(z, (-1,))),
        ("exp(z) divided by the sum over the whole batch", lambda z: _normalised(z, (-2, -1))),
        ("exp(z - z.max(axis=0)), the largest logit of each class", _shifted_by_class),
    ]
    for words, function in outputs:
        for loss, meant in _pairs("softmax", task):
            yield Formula(f"loss={loss.name}'s with {words}", _naive(loss, function), "other samples", whole, meant)


def _normalised(z: Array, axes: tuple[int, ...]) -> Array:
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum(axis=axes, keepdims=True))


def _shifted_by_class(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / sum_classes(np.exp(z - z.max(axis=-2, keepdims=True))))


@dataclass(frozen=True)
class Slope:
    """A formula of a gradient by (z, y): `words` complete "it is ..."; `meant` is the loss that it belongs to."""

    words: str
    gradient: Value
    meant: Objective | None = None
    # It is the derivative of a sound loss by the logits.
    is_sound: bool = False


def gradients(output: str, task: Task) -> Iterator[Slope]:
    """Gradients as they are written: of ablate's losses, and the short form p - y of wrong outputs."""
    for formula in sound(output, task):
        yield Slope(formula.words, formula.gradient, formula.meant, True)
    for words, _, outputs, _ in _OUTPUTS:
        yield Slope(f"p - y with p {words}", partial(_short, outputs))
    for formula in elsewhere(output, task):
        yield Slope(formula.words, _gradient_of(formula.meant), formula.meant, not formula.mistake)


def _short(outputs: Callable[[Array], Array], z: Array, y: Array) -> Array:
    return outputs(z) - y


def _gradient_of(meant: Objective | None) -> Value:
    assert meant is not None
    return lambda z, y: meant.gradient(z, meant.outputs(z), y)


def sloped(
    coded: Array, z: Array, y: Array, candidates: Iterator[Slope], allowance: float
) -> tuple[Slope, float] | None:
    """The first gradient that the coded one `(..., C, N)` is a multiple of, and by which factor."""
    if not np.isfinite(coded).all() or not coded.any():
        return None
    bound = SAME * float(np.abs(coded).max()) + allowance
    for slope in candidates:
        with np.errstate(all="ignore"):
            known = slope.gradient(z, y)
        square = float(np.square(known).sum())
        if not np.isfinite(known).all() or not square:
            continue
        factor = float((known * coded).sum()) / square
        if factor and np.abs(coded - factor * known).max() <= bound:
            return slope, factor
    return None


def of_probabilities(task: Task) -> Iterator[tuple[str, Any]]:
    """ablate's losses by their outputs, p: their names and `naive_value`."""
    for loss in _builtin():
        if set(loss.outputs_for(task)) & {"softmax", "sigmoid"}:
            for variant in _variants(loss):
                yield named(variant), variant.naive_value
