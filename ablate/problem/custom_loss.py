"""A loss of the user's own, behind the interface that all losses have."""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.losses import LOSSES, Loss, LossFailedError, Objective
from ablate.problem.outputs import OUTPUTS, Array


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
        try:
            named = getattr(instance, "output", None)
        except Exception as error:
            raise ConfigError(f"loss.target={target}: its output cannot be read ({type(error).__name__})") from None
        if not isinstance(named, str) or named not in OUTPUTS.names():
            raise ConfigError(
                f"loss.target={target}: its output is {named!r}; expected 'softmax', 'sigmoid' or 'identity'"
            )
        if output not in ("auto", named):
            raise ConfigError(f"model.output={output}: loss.target={target} has output {named!r} (auto chooses it)")
        return CustomObjective(target, tuple(sorted(self.args.items(), key=lambda item: item[0])), instance)


@dataclass(frozen=True)
class CustomObjective:
    """A user's loss as an engine asks for it; the user's class sees one lane at a time, samples first, `(N, C)`."""

    target: str
    args: tuple[tuple[str, Any], ...]
    instance: Any = field(compare=False)

    @property
    def output(self) -> str:
        return str(self.instance.output)

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

    def is_double(self, units: int) -> bool:
        """Whether the loss keeps the precision of float64 logits."""
        z, y = _made_up(units, 4)
        kinds = [
            self._call("value", z[0].T, y[0].T, (4,)).dtype,
            self._call("gradient", z[0].T, y[0].T, (4, units)).dtype,
        ]
        return all(kind.kind != "f" or kind.itemsize >= 8 for kind in kinds)

    def _call(self, method: str, z: Array, y: Array, shape: tuple[int, ...]) -> Array:
        try:
            given = getattr(self.instance, method)(z, y)
        except (Exception, SystemExit) as error:
            raise LossFailedError(
                f"{self.target}.{method} raised {type(error).__name__}: {error} ({_where(error)})"
            ) from error
        try:
            result = np.asarray(given)
        except ValueError:
            raise LossFailedError(f"{self.target}.{method} gave a ragged list; {shape} was expected") from None
        if result.shape != shape or result.dtype.kind not in "biuf":
            raise LossFailedError(
                f"{self.target}.{method} gave {result.dtype} {result.shape} for logits {z.shape}; {shape} was expected"
            )
        return result


def _where(error: BaseException) -> str:
    """The place in the user's file, or below it, where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _made_up(units: int, samples: int) -> tuple[Array, Array]:
    """Logits and one-hot targets `(1, units, samples)` to try a user's loss on."""
    z = np.linspace(-1, 1, samples * units).reshape(1, units, samples)
    return z, np.eye(units)[None, :, np.arange(samples) % units]


def try_out(objective: Objective, units: int) -> None:
    """Try a user's loss on made-up samples, in two batch sizes.

    Raises ConfigError if its results have wrong shapes. If the loss raises, its trial fails later, while it runs.
    """
    if not isinstance(objective, CustomObjective):
        return
    for samples in (4, 3):
        z, y = _made_up(units, samples)
        try:
            objective.value(z, objective.outputs(z), y)
            objective.gradient(z, objective.outputs(z), y)
        except LossFailedError as error:
            if error.__cause__ is None:
                raise ConfigError(f"loss.target={objective.target}: {error}") from None


def _instantiate(target: str, args: Mapping[str, Any]) -> Any:
    module, _, name = target.rpartition(".")
    # The script `ablate` does not put the working directory on the path, `python -m ablate` does.
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        cls = getattr(importlib.import_module(module), name) if module else None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"loss.target={target}: cannot be imported ({type(error).__name__}: {error})") from None
    if not callable(cls):
        raise ConfigError(f"loss.target={target}: expected package.Class that can be imported from here")
    try:
        return cls(**args)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in args.items())
        raise ConfigError(f"loss.target={target}: {name}({given}) raised {type(error).__name__}: {error}") from None
