"""Losses: an output function, a value and its gradient by the logits, side by side.

Arrays are `(..., C, N)`: classes on the last axis but one, samples on the last; leading axes are lanes.
z are logits, p the outputs, y one-hot targets. `value` is per sample `(..., N)`; `gradient` is its derivative
by z, per sample. The formulas are those of DESIGN, section 3; a sum is over the classes of a sample.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ablate.config import schema as config
from ablate.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]


class Loss(Protocol):
    """What the engine asks of a loss: its output function's name, and three functions."""

    @property
    def output(self) -> str:
        """`softmax`, `sigmoid` or `identity`."""
        ...

    def outputs(self, z: Array) -> Array:
        """The network's outputs p for logits z, `(..., C, N)`."""
        ...

    def value(self, z: Array, p: Array, y: Array) -> Array:
        """The loss of each sample, `(..., N)`."""
        ...

    def gradient(self, z: Array, p: Array, y: Array) -> Array:
        """The derivative of each sample's loss by its logits, `(..., C, N)`, a new array."""
        ...


def _sum(a: Array) -> Array:
    return np.add.reduce(a, axis=-2, keepdims=True)


def softmax(z: Array, eps_sum: float = 0.0) -> Array:
    """exp(z) / (sum exp(z) + eps_sum), numerator and denominator divided by the largest exp(z)."""
    largest = z.max(axis=-2, keepdims=True)
    e = np.exp(z - largest)
    total = _sum(e)
    if eps_sum:
        total += e.dtype.type(eps_sum) * np.exp(-largest)
    e /= total
    return e


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)); where exp overflows the result is the right one, 0."""
    p = np.exp(-z)
    p += p.dtype.type(1)
    return np.reciprocal(p, out=p)


def identity(z: Array) -> Array:
    return z


def log_softmax(z: Array) -> Array:
    """ln softmax(z) by log-sum-exp."""
    shifted = z - z.max(axis=-2, keepdims=True)
    shifted -= np.log(_sum(np.exp(shifted)))
    return shifted


def softmax_jacobian(p: Array, d: Array) -> Array:
    """(∂p/∂z)ᵀ d for p = softmax(z): p (d - Σ d p). It holds with `eps_sum` in the denominator too."""
    return p * (d - _sum(d * p))


def sigmoid_jacobian(p: Array, d: Array) -> Array:
    """(∂p/∂z)ᵀ d for p = sigmoid(z)."""
    return d * p * (1 - p)


# The stable forms, from logits.


def _ce(z: Array, p: Array, y: Array) -> Array:
    return -(y * log_softmax(z)).sum(axis=-2)


def _residual(z: Array, p: Array, y: Array) -> Array:
    return p - y


def _mse(z: Array, p: Array, y: Array) -> Array:
    return np.square(p - y).sum(axis=-2) * p.dtype.type(0.5)


def _mse_softmax_gradient(z: Array, p: Array, y: Array) -> Array:
    return softmax_jacobian(p, p - y)


def _mse_sigmoid_gradient(z: Array, p: Array, y: Array) -> Array:
    return sigmoid_jacobian(p, p - y)


def _bce(z: Array, p: Array, y: Array) -> Array:
    # softplus(z) - y z, with softplus(z) = max(z, 0) + ln(1 + exp(-|z|)); the small term last, or it loses its digits
    return (np.maximum(z, 0) - y * z + np.log1p(np.exp(-np.abs(z)))).sum(axis=-2)


def _mae(z: Array, p: Array, y: Array) -> Array:
    return np.abs(p - y).sum(axis=-2)


def _mae_gradient(z: Array, p: Array, y: Array) -> Array:
    return softmax_jacobian(p, np.sign(p - y))


def _margins(z: Array, y: Array) -> Array:
    return (1 + z - _sum(z * y)) * (1 - y)


def _hinge(z: Array, p: Array, y: Array) -> Array:
    return np.maximum(_margins(z, y), 0).sum(axis=-2)


def _hinge_gradient(z: Array, p: Array, y: Array) -> Array:
    violated = (_margins(z, y) > 0).astype(z.dtype)
    return violated - y * _sum(violated)


def _complement(z: Array, y: Array) -> Array:
    """1 - p_t as the sum of the other classes' probabilities, which keeps its digits when p_t is near 1."""
    return _sum(softmax(z) * (1 - y))


def _focal(gamma: float) -> tuple["Formula", "Formula"]:
    """Lin et al., 2017: -(1 - p_t)^γ ln p_t and its derivative by z."""

    def value(z: Array, p: Array, y: Array) -> Array:
        log_p = _sum(log_softmax(z) * y)
        return -(_complement(z, y) ** gamma * log_p)[..., 0, :]

    def gradient(z: Array, p: Array, y: Array) -> Array:
        log_p, rest = _sum(log_softmax(z) * y), _complement(z, y)
        # d value / d ln p_t, times d ln p_t / dz = y - p; γ (1-p)^(γ-1) is 0·∞ where p_t rounds to 1.
        tiny = np.finfo(z.dtype).tiny
        slope = gamma * np.maximum(rest, tiny) ** (gamma - 1) * (1 - rest) * log_p - rest**gamma
        return slope * (y - p)

    return value, gradient


def _smooth(y: Array, smoothing: float) -> Array:
    return y * (1 - smoothing) + smoothing / y.shape[-2]


def _label_smoothing(smoothing: float) -> tuple["Formula", "Formula"]:
    """Szegedy et al., 2016: cross-entropy against y (1 - ε) + ε / C."""

    def value(z: Array, p: Array, y: Array) -> Array:
        return _ce(z, p, _smooth(y, smoothing))

    def gradient(z: Array, p: Array, y: Array) -> Array:
        return p - _smooth(y, smoothing)

    return value, gradient


# The naive forms, from probabilities: the value, and its derivative by p.


def _naive_ce(eps: float, smoothing: float = 0.0) -> tuple["Formula", "Formula"]:
    def value(z: Array, p: Array, y: Array) -> Array:
        target = _smooth(y, smoothing)
        # 0·ln 0 is 0: a class that is no target costs nothing however small its probability.
        return -(target * np.log(np.where(target > 0, p + eps, 1))).sum(axis=-2)

    def by_p(z: Array, p: Array, y: Array) -> Array:
        target = _smooth(y, smoothing)
        return -target / np.where(target > 0, p + eps, 1)

    return value, by_p


def _naive_bce(eps: float) -> tuple["Formula", "Formula"]:
    def value(z: Array, p: Array, y: Array) -> Array:
        return -np.where(y > 0, np.log(p + eps), np.log(1 - p + eps)).sum(axis=-2)

    def by_p(z: Array, p: Array, y: Array) -> Array:
        return np.where(y > 0, -1 / (p + eps), 1 / (1 - p + eps))

    return value, by_p


def _naive_focal(gamma: float, eps: float) -> tuple["Formula", "Formula"]:
    def value(z: Array, p: Array, y: Array) -> Array:
        p_t = (p * y).sum(axis=-2)
        return -((1 - p_t) ** gamma) * np.log(p_t + eps)

    def by_p(z: Array, p: Array, y: Array) -> Array:
        p_t = _sum(p * y)
        # Where p_t rounds to 1, (1-p)^(γ-1) ln p is ∞·0 for γ < 1; its limit is 0.
        rest = np.maximum(1 - p_t, np.finfo(p.dtype).tiny)
        slope = gamma * rest ** (gamma - 1) * np.log(p_t + eps)
        return y * (slope - (1 - p_t) ** gamma / (p_t + eps))

    return value, by_p


Formula = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class Builtin:
    """A loss of DESIGN's table: output function, value and gradient, all pure functions of (z, p, y)."""

    output: str
    _outputs: Callable[[Array], Array]
    _value: Formula
    _gradient: Formula

    def outputs(self, z: Array) -> Array:
        return self._outputs(z)

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return self._value(z, p, y)

    def gradient(self, z: Array, p: Array, y: Array) -> Array:
        return self._gradient(z, p, y)


_OUTPUTS: Mapping[str, Callable[[Array], Array]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "identity": identity,
}
_JACOBIANS: Mapping[str, Callable[[Array, Array], Array]] = {
    "softmax": softmax_jacobian,
    "sigmoid": sigmoid_jacobian,
    "identity": lambda p, d: d,
}


def _builtin(loss: config.BuiltinLoss, output: str) -> Builtin:
    value, gradient = _stable(loss, output) if loss.from_logits else _naive(loss, output)
    outputs = _OUTPUTS[output]
    if not loss.from_logits and output == "softmax" and loss.eps_sum:
        eps = loss.eps_sum

        def outputs(z: Array) -> Array:
            return softmax(z, eps)

    return Builtin(output, outputs, value, gradient)


def _stable(loss: config.BuiltinLoss, output: str) -> tuple[Formula, Formula]:
    if isinstance(loss, config.FocalLoss):
        return _focal(loss.gamma)
    if isinstance(loss, config.LabelSmoothingLoss):
        return _label_smoothing(loss.smoothing)
    assert isinstance(loss, config.PlainLoss)
    return {
        "ce": (_ce, _residual),
        "mse": (_mse, _mse_softmax_gradient if output == "softmax" else _mse_sigmoid_gradient),
        "bce": (_bce, _residual),
        "mae": (_mae, _mae_gradient),
        "hinge": (_hinge, _hinge_gradient),
    }[loss.name]


def _naive(loss: config.BuiltinLoss, output: str) -> tuple[Formula, Formula]:
    value, by_p = _by_probability(loss)
    jacobian = _JACOBIANS[output]

    def gradient(z: Array, p: Array, y: Array) -> Array:
        return jacobian(p, by_p(z, p, y))

    return value, gradient


def _by_probability(loss: config.BuiltinLoss) -> tuple[Formula, Formula]:
    if isinstance(loss, config.FocalLoss):
        return _naive_focal(loss.gamma, loss.eps_log)
    if isinstance(loss, config.LabelSmoothingLoss):
        return _naive_ce(loss.eps_log, loss.smoothing)
    assert isinstance(loss, config.PlainLoss)
    return {
        "ce": _naive_ce(loss.eps_log),
        "mse": (_mse, _residual),
        "bce": _naive_bce(loss.eps_log),
        "mae": (_mae, lambda z, p, y: np.sign(p - y)),
        "hinge": (_hinge, _hinge_gradient),
    }[loss.name]


def naive(loss: config.BuiltinLoss, output: str) -> Builtin:
    """A loss in its form from probabilities, whatever form it is configured in."""
    return Builtin(output, _OUTPUTS[output], *_naive(loss, output))


def over(output: str) -> list[config.Loss]:
    """The losses over an output function, in their default form."""
    if output == "sigmoid":
        return [config.PlainLoss(name="bce"), config.PlainLoss(name="mse")]
    if output == "identity":
        return [config.PlainLoss(name="hinge")]
    plain = [config.PlainLoss(name="ce"), config.PlainLoss(name="mse"), config.PlainLoss(name="mae")]
    return [*plain, config.FocalLoss(name="focal"), config.LabelSmoothingLoss(name="label_smoothing")]


def by_probability(loss: config.BuiltinLoss) -> Formula:
    """The derivative of a loss's value by the outputs p, as a function of (z, p, y)."""
    return _by_probability(loss)[1]


class LossFailedError(Exception):
    """A user's loss raised, or gave something that is not a value or gradient, while it was training."""


@dataclass(frozen=True)
class Custom:
    """A user's loss behind the engine's face: it sees one lane at a time, samples first, `(N, C)`."""

    target: str
    args: tuple[tuple[str, Any], ...]
    instance: Any = field(compare=False)

    @property
    def output(self) -> str:
        return str(self.instance.output)

    def outputs(self, z: Array) -> Array:
        return _OUTPUTS[self.output](z)

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


def build(loss: config.Loss, output: str) -> Loss:
    """The loss of a trial. Equal settings give losses that compute the same.

    Raises ConfigError where a custom loss cannot be imported or built, or lacks output, value or gradient.
    """
    if isinstance(loss, config.CustomLoss):
        return _build_custom(loss, output)
    return _builtin(loss, output)


def try_out(loss: Loss, units: int) -> None:
    """Try a user's loss on made-up samples, two numbers of them.

    Raises ConfigError where it gives wrong shapes. Where it raises, its trial will fail of that while it runs.
    """
    if not isinstance(loss, Custom):
        return
    for samples in (4, 3):
        z, y = _made_up(units, samples)
        try:
            loss.value(z, loss.outputs(z), y)
            loss.gradient(z, loss.outputs(z), y)
        except LossFailedError as error:
            if error.__cause__ is None:
                raise ConfigError(f"loss.target={loss.target}: {error}") from None


def _build_custom(loss: config.CustomLoss, output: str) -> Custom:
    target = str(loss.target)
    instance = _instantiate(target, loss.args)
    for method in ("value", "gradient"):
        if not callable(getattr(instance, method, None)):
            raise ConfigError(f"loss.target={target}: the class has no method {method}(z, y)")
    try:
        named = getattr(instance, "output", None)
    except Exception as error:
        raise ConfigError(f"loss.target={target}: its output cannot be read ({type(error).__name__})") from None
    if not isinstance(named, str) or named not in _OUTPUTS:
        raise ConfigError(f"loss.target={target}: its output is {named!r}; expected 'softmax', 'sigmoid' or 'identity'")
    if output not in ("auto", named):
        raise ConfigError(f"model.output={output}: loss.target={target} has output {named!r} (auto chooses it)")
    return Custom(target, tuple(sorted(loss.args.items(), key=lambda item: item[0])), instance)


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
        raise ConfigError(
            f"loss.target={target}: {name}({_shown(args)}) raised {type(error).__name__}: {error}"
        ) from None


def _shown(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in args.items())
