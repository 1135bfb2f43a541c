"""A loss of the user's own, behind the interface that all losses have."""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.losses import LOSSES, Loss, LossFailedError, Objective
from ablate.problem.outputs import OUTPUTS, Array
from ablate.problem.tasks import CLASSIFICATION, Task


@LOSSES.declare
class CustomLoss(Loss):
    """A class that `package.Class` names, with `output`, `value(z, y) -> (N,)` and `gradient(z, y) -> (N, C)`."""

    name: Literal["custom"] = "custom"
    is_foreign: ClassVar[bool] = True

    target: str | None = Field(None, description="custom: package.Class of your own loss")
    args: dict[str, Any] = Field({}, description="custom: the arguments of its constructor (+loss.args.alpha=2)")

    def objective(self, output: str) -> "CustomObjective":
        """Raises ConfigError if the class cannot be imported or built, or lacks output, value or gradient."""
        target = str(self.target)
        instance = _instantiate(target, self.args)
        for method in ("value", "gradient"):
            if not callable(getattr(instance, method, None)):
                raise ConfigError(f"loss.target={target}: the class has no method {method}(z, y)")
        named = self._output(instance, output)
        return CustomObjective(target, tuple(sorted(self.args.items(), key=lambda item: item[0])), named, instance)

    def _output(self, instance: Any, output: str) -> str:
        """The output function that the class names; where it names none, `model.output` does."""
        target = str(self.target)
        try:
            named = getattr(instance, "output", None if output == "auto" else output)
        except Exception as error:
            raise ConfigError(f"loss.target={target}: its output cannot be read ({type(error).__name__})") from None
        if not isinstance(named, str) or named not in OUTPUTS.names():
            missing = "" if hasattr(instance, "output") else '; write output = "softmax" in the class, say'
            raise ConfigError(
                f"loss.target={target}: its output is {named!r}; expected 'softmax', 'sigmoid' or 'identity'{missing}"
            )
        if output not in ("auto", named):
            raise ConfigError(f"model.output={output}: loss.target={target} has output {named!r} (auto chooses it)")
        return named


@dataclass(frozen=True)
class CustomObjective:
    """A user's loss as an engine asks for it; the user's class sees one lane at a time, samples first, `(N, C)`."""

    target: str
    args: tuple[tuple[str, Any], ...]
    output: str
    instance: Any = field(compare=False)

    @property
    def outputs(self) -> Callable[[Array], Array]:
        return OUTPUTS.get(self.output).function

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return self._each_lane("value", z, y, z.shape[-1:])

    def gradient(self, z: Array, p: Array, y: Array) -> Array:
        return self._each_lane("gradient", z, y, (z.shape[-1], z.shape[-2])).swapaxes(-1, -2).copy()

    def _each_lane(self, method: str, z: Array, y: Array, shape: tuple[int, ...]) -> Array:
        lanes = z.reshape(-1, *z.shape[-2:])
        targets = np.broadcast_to(y, z.shape).reshape(lanes.shape)
        results = [
            self._call(method, lane.T.copy(), target.T.copy(), shape)
            for lane, target in zip(lanes, targets, strict=True)
        ]
        return np.stack(results).astype(z.dtype, copy=False).reshape(*z.shape[:-2], *shape)

    def otherwise(self) -> Iterator[tuple["Reading", "CustomObjective"]]:
        """The same class as it would be called by someone who takes its arguments otherwise."""
        for reading in READINGS:
            yield reading, replace(self, instance=_Read(self.instance, reading))

    def type_of(self, method: str, z: Array, y: Array) -> np.dtype[Any]:
        """The type of the numbers that the class itself returns for arrays `(1, C, N)`."""
        shape = {"value": z.shape[-1:], "gradient": (z.shape[-1], z.shape[-2])}[method]
        return self._call(method, z[0].T.copy(), y[0].T.copy(), shape).dtype

    @property
    def is_named_swapped(self) -> bool:
        """Whether the parameters of value or gradient are named as if the targets came first."""
        return any(self._parameters(method) is not None for method in ("value", "gradient"))

    @property
    def swapped_names(self) -> str:
        """The parameters that are named so, as a user reads them."""
        found = (self._parameters(method) for method in ("value", "gradient"))
        return next((names for names in found if names is not None), "")

    def _parameters(self, method: str) -> str | None:
        try:
            names = list(inspect.signature(getattr(self.instance, method)).parameters)[:2]
        except (TypeError, ValueError, AttributeError):
            return None
        is_swapped = len(names) == 2 and _TARGET.match(names[0].lower()) and not _TARGET.match(names[1].lower())
        return f"{method}({', '.join(names)})" if is_swapped else None

    def _call(self, method: str, z: Array, y: Array, shape: tuple[int, ...]) -> Array:
        try:
            given = getattr(self.instance, method)(z, y)
        except (Exception, SystemExit) as error:
            hint = _KEEPDIMS if isinstance(error, ValueError) and "broadcast" in str(error) else ""
            raise LossFailedError(
                f"{self.target}.{method} raised {type(error).__name__}: {_line(error)} ({where(error)}){hint}"
            ) from error
        if given is None:
            raise LossFailedError(f"{self.target}.{method} returned None; an array {shape} was expected: return it")
        try:
            result = np.asarray(given)
        except ValueError:
            raise LossFailedError(f"{self.target}.{method} gave a ragged list; {shape} was expected") from None
        if result.dtype.kind == "O":
            kind = type(given).__name__
            raise LossFailedError(f"{self.target}.{method} gave no numbers ({kind}); an array {shape} was expected")
        if result.shape != shape or result.dtype.kind not in "biuf":
            raise LossFailedError(
                f"{self.target}.{method} gave {result.dtype} {result.shape} for logits {z.shape}; {shape} was expected"
            )
        return result


_KEEPDIMS = "; a sum or maximum over a sample's outputs that is combined with z is .sum(axis=1, keepdims=True)"
# What a parameter for the targets is called.
_TARGET = re.compile(r"(y|t|gt|y_?t|.*(true|truth|target|label|actual|expected|one_?hot).*)s?$")


_Arguments = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Reading:
    """Another way to call `value` and `gradient`: a name for it, what the class does then, and what to write instead.

    `value` and `gradient` make what each of the two is given of z and y.
    """

    name: str
    words: str
    fix: str
    value: _Arguments
    gradient: _Arguments

    @property
    def takes_labels(self) -> bool:
        return not {self.value, self.gradient} <= {_as_it_is, _swapped}


@dataclass(frozen=True)
class _Read:
    """A user's class that is called with other arguments."""

    instance: Any
    reading: Reading

    def value(self, z: Array, y: Array) -> Any:
        return self.instance.value(*self.reading.value(z, y))

    def gradient(self, z: Array, y: Array) -> Any:
        return self.instance.gradient(*self.reading.gradient(z, y))


_SWAP = "write def value(self, z, y) and def gradient(self, z, y): the logits come first, the targets second"
_LABELS = "y is one-hot, floats of shape (N, C): begin with y = y.argmax(axis=1) where labels are needed"


def _as_it_is(z: Array, y: Array) -> tuple[Array, Array]:
    return z, y


def _swapped(z: Array, y: Array) -> tuple[Array, Array]:
    return y, z


def _labels(z: Array, y: Array) -> tuple[Array, Array]:
    return z, y.argmax(axis=1)


def _labels_first(z: Array, y: Array) -> tuple[Array, Array]:
    return y.argmax(axis=1), z


_FIRST = "takes the targets first and the logits second"
_NUMBERS = "takes labels as numbers, one a sample"
READINGS = (
    Reading("swapped arguments", _FIRST, _SWAP, _swapped, _swapped),
    Reading("swapped arguments", f"{_FIRST} in value only", _SWAP, _swapped, _as_it_is),
    Reading("swapped arguments", f"{_FIRST} in gradient only", _SWAP, _as_it_is, _swapped),
    Reading("labels as numbers", _NUMBERS, _LABELS, _labels, _labels),
    Reading("labels as numbers", f"{_NUMBERS}, in value only", _LABELS, _labels, _as_it_is),
    Reading("labels as numbers", f"{_NUMBERS}, in gradient only", _LABELS, _as_it_is, _labels),
    Reading(
        "swapped arguments", f"{_NUMBERS}, and takes them first", f"{_SWAP}; {_LABELS}", _labels_first, _labels_first
    ),
)


def _line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())


def where(error: BaseException) -> str:
    """The place in the user's file, or below it, where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _made_up(units: int, samples: int, task: Task) -> tuple[Array, Array]:
    """Logits and targets `(1, units, samples)` to try a user's loss on."""
    z = np.linspace(-1, 1, samples * units).reshape(1, units, samples)
    return z, task.made_up(np.random.default_rng(0), units, samples)


def try_out(objective: Objective, units: int, task: Task = CLASSIFICATION) -> None:
    """Try a user's loss on made-up samples, in two batch sizes.

    Raises ConfigError if its results have wrong shapes, or if it fails and would not if it were given its arguments
    otherwise. If it raises for another reason, its trial fails later, while it runs.
    """
    if not isinstance(objective, CustomObjective):
        return
    sizes = [samples for samples in (4, 3, 5) if samples != units or units == 1][:2]
    for samples in sizes:
        try:
            _tried(objective, units, samples, task)
        except LossFailedError as error:
            if task.has_classes and (other := _reading(objective, units, sizes)) is not None:
                raise ConfigError(
                    f"loss.target={objective.target}: the class {other.words} (called so it works; called as"
                    f" value(z, y) and gradient(z, y), y one-hot, {error}): {other.fix}"
                ) from None
            if error.__cause__ is None:
                instead = _instead(objective, units, samples, task)
                raise ConfigError(f"loss.target={objective.target}: {error}{instead}") from None


def _tried(objective: CustomObjective, units: int, samples: int, task: Task = CLASSIFICATION) -> None:
    z, y = _made_up(units, samples, task)
    with np.errstate(all="ignore"):
        objective.value(z, objective.outputs(z), y)
        objective.gradient(z, objective.outputs(z), y)


def _reading(objective: CustomObjective, units: int, sizes: Sequence[int]) -> Reading | None:
    """The way of giving labels as numbers under which a class's results have the right shapes."""
    for reading, other in objective.otherwise():
        if not reading.takes_labels:
            continue  # z and y have one shape, so their order does not change the results'
        try:
            for samples in sizes:
                _tried(other, units, samples)
        except LossFailedError:
            continue
        return reading
    return None


def _instead(objective: CustomObjective, units: int, samples: int, task: Task) -> str:
    """What to write in place of a result of a wrong shape; empty where that cannot be told."""
    z, y = (array[0].T.copy() for array in _made_up(units, samples, task))
    known = _INSTEAD if units > 1 else _INSTEAD | _INSTEAD_OF_ONE
    for method, wanted in (("value", (samples,)), ("gradient", (samples, units))):
        try:
            given = np.asarray(getattr(objective.instance, method)(z.copy(), y.copy()))
        except Exception:
            return ""
        if given.dtype.kind == "O":
            return ""
        if given.shape != wanted:
            words = known.get((method, _pattern(given.shape, samples, units)), "")
            return words.format(part=task.part, parts=task.parts)
    return ""


def _pattern(shape: tuple[int, ...], samples: int, units: int) -> str:
    """A shape in letters: `NC`, `N1`, `C`."""
    letters = {samples: "N", 1: "1", units: "C"}
    return "".join(letters.get(size, "?") for size in shape)


_MEAN = (
    "; that is one number for the whole batch: return one value a sample, without .mean() or .sum() over the samples:"
    " the batch's mean is taken for you"
)
_INSTEAD = {
    ("value", ""): _MEAN,
    ("value", "1"): _MEAN,
    ("value", "11"): _MEAN,
    ("value", "NC"): "; that is one value a {part}: sum over the {parts}, .sum(axis=1)",
    ("value", "CN"): "; that is one value a {part}, turned: sum over the {parts} and not over the samples",
    ("value", "N1"): "; leave keepdims=True out of the last sum, or return value[:, 0]",
    ("value", "C"): "; that is a sum over the samples: sum over the {parts}, .sum(axis=1)",
    ("value", "1N"): "; return value[0]",
    ("value", "1C"): "; that is a sum over the samples: sum over the {parts}, .sum(axis=1)",
    ("gradient", "CN"): "; that is turned: return gradient.T",
    ("gradient", "N"): "; that is one number a sample: return one a {part}, the derivative by each logit",
    ("gradient", "C"): "; that is a sum or mean over the samples: return every sample's own gradient",
    ("gradient", "1C"): "; that is a sum or mean over the samples: return every sample's own gradient",
    ("gradient", "N1"): "; that is one number a sample: return one a {part}, the derivative by each logit",
    ("gradient", ""): "; that is one number for the whole batch: return the derivative by each logit of each sample",
}
_ONE = "z and y are both (N, 1), and z - y is too, without .ravel() or [:, 0] on one of them"
# With one logit a sample, letters stand for the same sizes.
_INSTEAD_OF_ONE = {
    ("value", "NC"): "; take .sum(axis=1) of it, or return value[:, 0]",
    ("value", "NN"): f"; an array of shape (N,) meets one of (N, 1), which makes (N, N): {_ONE}",
    ("value", "C"): _MEAN,
    ("value", "CC"): _MEAN,
    ("gradient", "N"): f"; {_ONE}, or return gradient[:, None]",
    ("gradient", "NN"): f"; an array of shape (N,) meets one of (N, 1), which makes (N, N): {_ONE}",
}


def _instantiate(target: str, args: Mapping[str, Any]) -> Any:
    module, _, name = target.rpartition(".")
    # The script `ablate` does not put the working directory on the path, `python -m ablate` does.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        cls = getattr(importlib.import_module(module), name) if module else None
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"loss.target={target}: cannot be imported ({type(error).__name__}: {_line(error)})"
        ) from None
    if not callable(cls):
        raise ConfigError(f"loss.target={target}: expected package.Class that can be imported from here")
    try:
        return cls(**args)
    except TypeError as error:
        if not inspect.isroutine(cls):
            raise ConfigError(_raised(target, name, args, error)) from None
        raise ConfigError(
            f"loss.target={target}: {name} is a function; expected a class with output, value(z, y) and gradient(z, y)"
        ) from None
    except (Exception, SystemExit) as error:
        raise ConfigError(_raised(target, name, args, error)) from None


def _raised(target: str, name: str, args: Mapping[str, Any], error: BaseException) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in args.items())
    return f"loss.target={target}: {name}({given}) raised {type(error).__name__}: {_line(error)}"
