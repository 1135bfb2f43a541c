"""Activations, each declared once: value, derivative, and what the rest of the program must know about it.

Arrays are of any shape. Every backend must reproduce `value` and `derivative`. The NumPy engine works in place, with
`apply` and `backpropagate`, which an activation may override for speed. A number that an activation depends on is a
field of its class: the key that sets it has the same name (`model.slope`), and the kernels get it as a constant.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from ablate.problem.near import did_you_mean
from ablate.problem.outputs import softmax, softmax_jacobian
from ablate.problem.registry import Registry

Array = np.ndarray[Any, np.dtype[Any]]
Workspace = tuple[Array, ...]


@dataclass(frozen=True)
class Activation(ABC):
    """A function y = f(x) without weights, whose result has the shape of x.

    `kernel` is its struct in `cuda/activations.cuh`, or None.
    """

    name: ClassVar[str]
    also_called: ClassVar[tuple[str, ...]] = ()
    kernel: ClassVar[str | None] = None
    # Whether each number of y depends on the number of x in its place alone.
    is_elementwise: ClassVar[bool] = True
    # Whether it is element-wise and non-decreasing, so that max-pooling may be moved before it.
    is_monotone: ClassVar[bool] = False
    # The bounds of its range, near which it is flat; None if it is unbounded.
    limits: ClassVar[tuple[float, float] | None] = None
    # Whether a unit that is 0 on all samples receives no gradient.
    can_die: ClassVar[bool] = False
    # Whether the derivative needs x; otherwise it is a function of y alone.
    needs_input: ClassVar[bool] = False
    # Whether hidden layers may use it (`model.activation`).
    is_hidden: ClassVar[bool] = True
    # False where forward and backward differ on purpose.
    has_true_gradient: ClassVar[bool] = True
    # Whether the backward pass leaves the gradient as it is.
    passes_gradient: ClassVar[bool] = False

    @property
    def constants(self) -> Mapping[str, float]:
        """The numbers that it depends on, by the names of its keys."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def reach(self) -> tuple[float, float] | None:
        """The middle of its range, and how far from it a value counts as saturated: within 1 % of a bound."""
        if self.limits is None:
            return None
        low, high = self.limits
        return (low + high) / 2, 0.49 * (high - low)

    @abstractmethod
    def value(self, x: Array) -> Array:
        """f(x), a new array."""

    def workspace(self, x: Array) -> Workspace:
        """Scratch arrays that `apply` and `backpropagate` need for arrays like x."""
        return ()

    def apply(self, x: Array, work: Workspace) -> None:
        """Replace x by f(x)."""
        np.copyto(x, self.value(x))

    @abstractmethod
    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        """Replace d, the gradient with respect to y, by that with respect to x. Unless `needs_input`, x is y."""


class Elementwise(Activation):
    """An activation that maps every number by itself."""

    @abstractmethod
    def derivative(self, x: Array, y: Array) -> Array:
        """f'(x), with y = f(x). Unless `needs_input`, x is y."""

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        np.multiply(d, self.derivative(x, y), out=d)


ACTIVATIONS: Registry[Activation] = Registry("model.activation")


def declare(activation: type[Activation]) -> type[Activation]:
    """Class decorator: register an activation under its name."""
    ACTIVATIONS.add(activation.name, activation())
    return activation


def hidden_names() -> list[str]:
    """The activations that hidden layers may use."""
    return [each.name for each in ACTIVATIONS if each.is_hidden]


def hidden(name: str, constants: Mapping[str, float]) -> Activation:
    """A hidden layer's activation with these numbers in place of its own.

    Raises ValueError if there is no such activation, or if it does not depend on one of them.
    """
    if name not in hidden_names():
        meant = did_you_mean(name, hidden_names(), ACTIVATIONS.also_called)
        raise ValueError(f"{name} is not one of {', '.join(hidden_names())}" + (f" ({meant})" if meant else ""))
    activation = ACTIVATIONS.get(name)
    for key in constants:
        if key not in activation.constants:
            raise ValueError(f"{name} has no {key}, {' and '.join(having(key)) or 'no activation'} has it")
    return replace(activation, **constants)


def having(key: str) -> list[str]:
    """The activations that depend on a number of this name."""
    return [each.name for each in ACTIVATIONS if key in each.constants]


def is_another_s(key: str, config: Mapping[str, Any]) -> bool:
    """Whether a key of a whole configuration is a number that its activation does not depend on."""
    group, _, last = ACTIVATIONS.kind.partition(".")
    section, _, name = key.partition(".")
    return section == group and name in constant_names() and config[group].get(last) not in having(name)


def constant_names() -> list[str]:
    """The names of all numbers that activations depend on."""
    return list(dict.fromkeys(key for each in ACTIVATIONS for key in each.constants))


def as_integers(a: Array) -> Array:
    """The same memory as signed integers of the same size."""
    return a.view(np.int32 if a.itemsize == 4 else np.int64)


@declare
class Relu(Elementwise):
    """max(x, 0); its derivative at 0 is 0."""

    name = "relu"
    also_called = ("rectifier",)
    kernel = "Relu"
    is_monotone = True
    can_die = True

    def value(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def derivative(self, x: Array, y: Array) -> Array:
        return (y > 0).astype(y.dtype)

    def workspace(self, x: Array) -> Workspace:
        # A row of zeros: NumPy compares with an array several times faster than with a single number.
        return np.zeros(x.shape[-3:], x.dtype), np.empty(x.shape, x.dtype)

    def apply(self, x: Array, work: Workspace) -> None:
        np.maximum(x, work[0], out=x)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        # A positive float is a positive integer: its negative's sign bit, spread over the word, is the mask.
        mask, gradient = as_integers(work[1]), as_integers(d)
        np.negative(as_integers(y), out=mask)
        np.right_shift(mask, mask.itemsize * 8 - 1, out=mask)
        np.bitwise_and(gradient, mask, out=gradient)


@declare
class StraightThroughRelu(Relu):
    """max(x, 0) forward, the identity backward (as in docs/posts/lenet5_mnist.md)."""

    name = "straight_through_relu"
    kernel = "StraightThroughRelu"
    is_hidden = False
    has_true_gradient = False
    passes_gradient = True

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(y)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        """The gradient passes unchanged."""


@declare
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)); y (1 - y)."""

    name = "sigmoid"
    also_called = ("logistic",)
    kernel = "Sigmoid"
    is_monotone = True
    limits = (0.0, 1.0)

    def value(self, x: Array) -> Array:
        return np.reciprocal(np.exp(-x) + x.dtype.type(1))

    def derivative(self, x: Array, y: Array) -> Array:
        return (1 - y) * y

    def workspace(self, x: Array) -> Workspace:
        return (np.empty(x.shape, x.dtype),)

    def apply(self, x: Array, work: Workspace) -> None:
        np.negative(x, out=x)
        np.exp(x, out=x)
        np.add(x, 1, out=x)
        np.reciprocal(x, out=x)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        (slope,) = work
        np.subtract(1, y, out=slope)
        np.multiply(slope, y, out=slope)
        np.multiply(d, slope, out=d)


@declare
class Tanh(Elementwise):
    """tanh x; 1 - y²."""

    name = "tanh"
    kernel = "Tanh"
    is_monotone = True
    limits = (-1.0, 1.0)

    def value(self, x: Array) -> Array:
        return np.tanh(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return 1 - np.square(y)

    def workspace(self, x: Array) -> Workspace:
        return (np.empty(x.shape, x.dtype),)

    def apply(self, x: Array, work: Workspace) -> None:
        np.tanh(x, out=x)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        (slope,) = work
        np.multiply(y, y, out=slope)
        np.subtract(1, slope, out=slope)
        np.multiply(d, slope, out=d)


@declare
class Identity(Elementwise):
    """x."""

    name = "identity"
    also_called = ("linear", "none")
    kernel = "Identity"
    is_monotone = True
    passes_gradient = True

    def value(self, x: Array) -> Array:
        return x.copy()

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(y)

    def apply(self, x: Array, work: Workspace) -> None:
        """Nothing changes."""

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        """The gradient passes unchanged."""


@declare
@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """x above 0, else slope * x (Maas et al., 2013); its derivative at 0 is slope."""

    name = "leaky_relu"
    also_called = ("lrelu",)
    kernel = "LeakyRelu"
    is_monotone = True

    slope: float = 0.01

    def value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slope * x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, 1, y.dtype.type(self.slope))

    def workspace(self, x: Array) -> Workspace:
        return np.empty(x.shape, x.dtype), np.empty(x.shape, bool)

    def apply(self, x: Array, work: Workspace) -> None:
        scaled = work[0]
        np.multiply(x, self.slope, out=scaled)
        (np.maximum if self.slope <= 1 else np.minimum)(x, scaled, out=x)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        scaled, is_above = work
        np.multiply(d, self.slope, out=scaled)
        np.greater(y, 0, out=is_above)
        np.copyto(scaled, d, where=is_above)
        np.copyto(d, scaled)


@declare
@dataclass(frozen=True)
class Elu(Elementwise):
    """x above 0, else alpha (exp(x) - 1) (Clevert et al., 2016); its derivative from 0 down is y + alpha."""

    name = "elu"
    kernel = "Elu"
    is_monotone = True

    alpha: float = 1.0

    def value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, 1, y + y.dtype.type(self.alpha))


# Constants of SELU (Klambauer et al., 2017), for which mean 0 and variance 1 are a fixed point.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@declare
class Selu(Elementwise):
    """1.0507 times ELU with alpha 1.6733 (Klambauer et al., 2017); its derivative from 0 down is y + 1.7581."""

    name = "selu"
    kernel = "Selu"
    is_monotone = True

    def value(self, x: Array) -> Array:
        return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, y.dtype.type(SELU_SCALE), y + y.dtype.type(SELU_SCALE * SELU_ALPHA))


@declare
class Softplus(Elementwise):
    """ln(1 + exp(x)); 1 - exp(-y)."""

    name = "softplus"
    kernel = "Softplus"
    is_monotone = True

    def value(self, x: Array) -> Array:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def derivative(self, x: Array, y: Array) -> Array:
        return -np.expm1(-y)


@declare
class Softsign(Elementwise):
    """x / (1 + |x|); (1 - |y|)²."""

    name = "softsign"
    kernel = "Softsign"
    is_monotone = True
    limits = (-1.0, 1.0)

    def value(self, x: Array) -> Array:
        return x / (1 + np.abs(x))

    def derivative(self, x: Array, y: Array) -> Array:
        return np.square(1 - np.abs(y))


@declare
class Softmax(Activation):
    """exp(x) / Σ exp(x) over the units, which lie on the second last axis; its whole Jacobian, y (d - Σ d y).

    Of a vector all numbers are units, of an image the maps at each pixel. It has no `limits`: of many units most are
    near 0 at any time.
    """

    name = "softmax"
    kernel = "SoftmaxUnits"
    is_elementwise = False

    def value(self, x: Array) -> Array:
        return softmax(x)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        np.copyto(d, softmax_jacobian(y, d))
