"""Why a user's loss is not finite: the operation in which it stops to be, and the place in the user's file.

NumPy raises where it would warn, so what is said is what happened. Arrays are `(1, C, N)`, as in `loss_alone`.
"""

import re
from typing import Any, Literal

import numpy as np

from ablate.problem.custom_loss import CustomObjective, where
from ablate.problem.losses import LossFailedError

Array = np.ndarray[Any, np.dtype[Any]]

# Logits as large as these are met in training: by a large learning rate, by inputs that are not normalised.
LARGE = (10, 30, 100, 300, 1000)
METHODS = ("value", "gradient")
_WORDS = re.compile(r"(overflow|divide by zero|invalid value) encountered in (?:scalar )?(\w+)")
_SHIFTED = "s = z - z.max(axis=1, keepdims=True)"
_OF_LOGARITHM = {
    "softmax": f"take ln p from the logits, s - np.log(np.exp(s).sum(axis=1, keepdims=True)) with {_SHIFTED}",
    "sigmoid": "take the logarithms from the logits: -ln p is np.logaddexp(0, -z), -ln(1 - p) is np.logaddexp(0, z)",
    "identity": "keep what it is given above 0",
}
_OF_OVERFLOW = {
    "softmax": f"subtract each sample's largest logit before np.exp, {_SHIFTED}: the softmax of s is that of z",
    "sigmoid": "np.logaddexp(0, z) is ln(1 + exp(z)) without overflow, and np.exp(-np.abs(z)) is at most 1",
    "identity": "write it in a form in which it is given no large number, or take smaller steps",
}
_OF_COSH = "ln cosh d is np.abs(d) + np.log1p(np.exp(-2 * np.abs(d))) - np.log(2)"


def not_finite(objective: CustomObjective, z: Array, y: Array) -> str | None:
    """What is not finite at these logits, and why, in words; None if value and gradient are finite."""
    for method in METHODS:
        if (found := _not_finite(objective, method, z, y)) is not None:
            return found
    return None


def at_large_logits(objective: CustomObjective, z: Array, y: Array, dtype: str) -> str | None:
    """The same at the smallest of the large logits, in the precision of the training, at which each is not finite."""
    found: list[str] = []
    for method in METHODS:
        sizes = ((z * (size / np.abs(z).max())).astype(dtype) for size in LARGE)
        words = (_not_finite(objective, method, large, y.astype(dtype)) for large in sizes)
        first = next((each for each in words if each), None)
        # One remedy is told once.
        if first and not any(first.partition("): ")[2] == each.partition("): ")[2] for each in found):
            found.append(first)
    return f"not finite at large logits: {'; '.join(found)}" if found else None


def _not_finite(objective: CustomObjective, method: str, z: Array, y: Array) -> str | None:
    found = _computed(objective, method, z, y)
    if found is None or np.isfinite(found).all():
        return None
    bad = tuple(np.argwhere(~np.isfinite(found[0]))[0].tolist())
    place = f"{method}(z, y)[{', '.join(map(str, bad[::-1]))}]"
    number = f"{place} is {found[0][bad]} with logits from {z.min():.3g} to {z.max():.3g}"
    why = reason(objective, method, z, y)
    return f"{number}: {why}" if why else number


def _computed(objective: CustomObjective, method: str, z: Array, y: Array) -> Array | None:
    with np.errstate(all="ignore"):
        try:
            # First the value, as in training: a loss may keep what it computed.
            values = objective.value(z, objective.outputs(z), y)
            return values if method == "value" else objective.gradient(z, objective.outputs(z), y)
        except LossFailedError:
            return None


def reason(objective: CustomObjective, method: str, z: Array, y: Array) -> str | None:
    """The operation that makes it so, and what to write instead."""
    # Where a large number is only divided by, it is harmless: exp(-z) of a sigmoid.
    spoils = _raised(objective, method, z, y, "divide", "invalid")
    overflows = _raised(objective, method, z, y, "over")
    of_zero = spoils is not None and spoils[0] == "divide by zero"
    what, operation, place = (spoils if of_zero or overflows is None else overflows) or ("", "", "")
    if not what:
        return None
    if operation.startswith("log") and what != "overflow":
        is_zero = what == "divide by zero"
        given = "0, a probability that is rounded" if is_zero and objective.output != "identity" else "0"
        given = given if is_zero else "a number below 0"
        return f"np.{operation} is given {given} ({place}): {_OF_LOGARITHM[objective.output]}"
    if what == "overflow":
        fix = _OF_COSH if operation == "cosh" else _OF_OVERFLOW[objective.output]
        return f"np.{operation} overflows ({place}): {fix}"
    fix = _OF_OVERFLOW["softmax"] if objective.output == "softmax" else "look at what is divided by"
    return f"{what} in np.{operation} ({place}): {fix}"


def _raised(objective: CustomObjective, method: str, z: Array, y: Array, *kinds: str) -> tuple[str, str, str] | None:
    """The first floating point error of some kinds: what it is, the operation, and the place in the user's file."""
    with np.errstate(all="ignore"):
        p = objective.outputs(z)
    over, divide, invalid = (_handled(kind in kinds) for kind in ("over", "divide", "invalid"))
    with np.errstate(under="ignore", over=over, divide=divide, invalid=invalid):
        try:
            getattr(objective, method)(z, p, y)
        except LossFailedError as error:
            found = _WORDS.search(str(error.__cause__))
            if isinstance(error.__cause__, FloatingPointError) and found:
                return found[1], found[2], where(error.__cause__)
    return None


def _handled(is_told: bool) -> Literal["raise", "ignore"]:
    return "raise" if is_told else "ignore"
