"""Output functions: what turns logits into a network's outputs, each with the product with its Jacobian.

Arrays are `(..., C, N)`: classes on the second last axis, samples on the last; leading axes are lanes.
z are logits, p the outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.problem.registry import Registry

Array = np.ndarray[Any, np.dtype[Any]]


def sum_classes(a: Array) -> Array:
    """The sum over a sample's classes, `(..., 1, N)`."""
    return np.add.reduce(a, axis=-2, keepdims=True)


def softmax(z: Array, eps_sum: float = 0.0) -> Array:
    """exp(z) / (sum exp(z) + eps_sum), numerator and denominator divided by the largest exp(z)."""
    largest = z.max(axis=-2, keepdims=True)
    e = np.exp(z - largest)
    total = sum_classes(e)
    if eps_sum:
        total += e.dtype.type(eps_sum) * np.exp(-largest)
    e /= total
    return e


def log_softmax(z: Array) -> Array:
    """ln softmax(z) by log-sum-exp."""
    shifted = z - z.max(axis=-2, keepdims=True)
    shifted -= np.log(sum_classes(np.exp(shifted)))
    return shifted


def softmax_jacobian(p: Array, d: Array) -> Array:
    """(∂p/∂z)ᵀ d for p = softmax(z): p (d - Σ d p). It holds with `eps_sum` in the denominator too."""
    return p * (d - sum_classes(d * p))


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)); if exp overflows the result is 0, which is right."""
    p = np.exp(-z)
    p += p.dtype.type(1)
    return np.reciprocal(p, out=p)


def sigmoid_jacobian(p: Array, d: Array) -> Array:
    """(∂p/∂z)ᵀ d for p = sigmoid(z)."""
    return d * p * (1 - p)


@dataclass(frozen=True)
class Output:
    """An output function: `function(z)` gives p, `jacobian(p, d)` is (∂p/∂z)ᵀ d; `kernel` is its name in C++,
    `also_called` are its names elsewhere."""

    name: str
    kernel: str
    function: Callable[[Array], Array]
    jacobian: Callable[[Array, Array], Array]
    also_called: tuple[str, ...] = ()


OUTPUTS: Registry[Output] = Registry("model.output")
for _output in (
    Output("softmax", "SOFTMAX", softmax, softmax_jacobian),
    Output("sigmoid", "SIGMOID", sigmoid, sigmoid_jacobian, ("logistic",)),
    Output("identity", "IDENTITY", lambda z: z, lambda p, d: d, ("linear", "none", "logits")),
):
    OUTPUTS.add(_output.name, _output)
