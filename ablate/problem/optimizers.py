"""Update rules over lanes: every array is `(K, P)`, every hyper-parameter a column `(K, 1)`.

A rule turns the gradient g into a step s; the engine then does `w -= rate * s`, where rate carries the
learning rate and the sign of the update. Every rule is odd in g, so the sign may be applied after it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ablate.config import schema as config

Array = np.ndarray[Any, np.dtype[Any]]


class Rule(Protocol):
    """One kind of optimiser for K lanes."""

    def step(self, gradient: Array) -> Array:
        """The step `(K, P)` for this gradient `(K, P)`, which may be overwritten; the state moves on by one."""
        ...

    def keep(self, lanes: Array) -> None:
        """Forget every lane that is not in `lanes` (indices, ascending)."""
        ...


class Sgd:
    """s = g."""

    def __init__(self, optimizers: Sequence[config.Sgd], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Plain gradient descent has no settings and no state."""

    def step(self, gradient: Array) -> Array:
        return gradient

    def keep(self, lanes: Array) -> None:
        """Plain gradient descent has nothing to forget."""


def _column(values: Sequence[float], dtype: np.dtype[Any]) -> Array:
    return np.array(values, dtype)[:, None]


class Momentum:
    """v = momentum v + g; s = v (Polyak's heavy ball, without damping)."""

    def __init__(self, optimizers: Sequence[config.Momentum], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.momentum = _column([o.momentum for o in optimizers], dtype)
        self.velocity = np.zeros(shape, dtype)

    def step(self, gradient: Array) -> Array:
        self.velocity *= self.momentum
        self.velocity += gradient
        return self.velocity

    def keep(self, lanes: Array) -> None:
        self.momentum, self.velocity = self.momentum[lanes], self.velocity[lanes]


class Adam:
    """Kingma and Ba, 2015: bias-corrected mean gradient over the root of the bias-corrected mean square."""

    def __init__(self, optimizers: Sequence[config.Adam], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.beta1 = _column([o.beta1 for o in optimizers], np.dtype(np.float64))
        self.beta2 = _column([o.beta2 for o in optimizers], np.dtype(np.float64))
        self.epsilon = _column([o.epsilon for o in optimizers], dtype)
        self.mean, self.square = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.steps = 0

    def step(self, gradient: Array) -> Array:
        self.steps += 1
        cast = gradient.dtype.type
        self.mean += (1 - self.beta1).astype(cast) * (gradient - self.mean)
        self.square += (1 - self.beta2).astype(cast) * (np.square(gradient) - self.square)
        scale1 = (1 / (1 - self.beta1**self.steps)).astype(cast)
        scale2 = (1 / (1 - self.beta2**self.steps)).astype(cast)
        return scale1 * self.mean / (np.sqrt(scale2 * self.square) + self.epsilon)

    def keep(self, lanes: Array) -> None:
        self.beta1, self.beta2, self.epsilon = self.beta1[lanes], self.beta2[lanes], self.epsilon[lanes]
        self.mean, self.square = self.mean[lanes], self.square[lanes]


class RmsProp:
    """q = decay q + (1 - decay) g²; s = g / (sqrt(q) + epsilon) (Tieleman and Hinton, 2012)."""

    def __init__(self, optimizers: Sequence[config.RmsProp], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.rest = _column([1 - o.decay for o in optimizers], dtype)
        self.epsilon = _column([o.epsilon for o in optimizers], dtype)
        self.square = np.zeros(shape, dtype)

    def step(self, gradient: Array) -> Array:
        self.square += self.rest * (np.square(gradient) - self.square)
        return gradient / (np.sqrt(self.square) + self.epsilon)

    def keep(self, lanes: Array) -> None:
        self.rest, self.epsilon, self.square = self.rest[lanes], self.epsilon[lanes], self.square[lanes]


class Adagrad:
    """q = q + g²; s = g / (sqrt(q) + epsilon) (Duchi et al., 2011)."""

    def __init__(self, optimizers: Sequence[config.Adagrad], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.epsilon = _column([o.epsilon for o in optimizers], dtype)
        self.square = np.zeros(shape, dtype)

    def step(self, gradient: Array) -> Array:
        self.square += np.square(gradient)
        return gradient / (np.sqrt(self.square) + self.epsilon)

    def keep(self, lanes: Array) -> None:
        self.epsilon, self.square = self.epsilon[lanes], self.square[lanes]


_RULES: dict[str, Any] = {
    "sgd": Sgd,
    "momentum": Momentum,
    "adam": Adam,
    "rmsprop": RmsProp,
    "adagrad": Adagrad,
}


def build(optimizers: Sequence[config.Optimizer], shape: tuple[int, int], dtype: np.dtype[Any]) -> Rule:
    """The rule for K lanes whose optimisers are of one kind (their settings may differ); `shape` is `(K, P)`."""
    rule: Rule = _RULES[optimizers[0].name](optimizers, shape, dtype)
    return rule
