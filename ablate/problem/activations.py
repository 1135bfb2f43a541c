"""Element-wise functions, each declared once: value, derivative, and what the rest of the program must know about it.

Arrays are of any shape. Every backend must reproduce `value` and `derivative`. The NumPy engine works in place, with
`apply` and `backpropagate`, which an activation may override for speed.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from ablate.problem.registry import Registry

Array = np.ndarray[Any, np.dtype[Any]]
Workspace = tuple[Array, ...]


class Activation(ABC):
    """An element-wise function y = f(x).

    `kernel` is its struct in `cuda/activations.cuh`, or None.
    """

    name: ClassVar[str]
    kernel: ClassVar[str | None] = None
    # Whether it is non-decreasing, so that max-pooling may be moved before it.
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

    @abstractmethod
    def derivative(self, x: Array, y: Array) -> Array:
        """f'(x), with y = f(x). Unless `needs_input`, x is y."""

    def workspace(self, x: Array) -> Workspace:
        """Scratch arrays that `apply` and `backpropagate` need for arrays like x."""
        return ()

    def apply(self, x: Array, work: Workspace) -> None:
        """Replace x by f(x)."""
        np.copyto(x, self.value(x))

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        """Multiply d, the gradient with respect to y, by f'(x), in place."""
        np.multiply(d, self.derivative(x, y), out=d)


ACTIVATIONS: Registry[Activation] = Registry("model.activation")


def declare(activation: type[Activation]) -> type[Activation]:
    """Class decorator: register an activation under its name."""
    ACTIVATIONS.add(activation.name, activation())
    return activation


def hidden_names() -> list[str]:
    """The activations that hidden layers may use."""
    return [each.name for each in ACTIVATIONS if each.is_hidden]


def as_integers(a: Array) -> Array:
    """The same memory as signed integers of the same size."""
    return a.view(np.int32 if a.itemsize == 4 else np.int64)


@declare
class Relu(Activation):
    """max(x, 0); its derivative at 0 is 0."""

    name = "relu"
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

    def derivative(self, x: Array, y: Array) -> Array:
        return np.ones_like(y)

    def backpropagate(self, d: Array, x: Array, y: Array, work: Workspace) -> None:
        """The gradient passes unchanged."""


@declare
class Sigmoid(Activation):
    """1 / (1 + exp(-x)); y (1 - y)."""

    name = "sigmoid"
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
class Tanh(Activation):
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
