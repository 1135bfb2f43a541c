"""Losses as people write them, each with one slip or none: `loss.target=docs.studies.report_losses.Batch`."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def softmax(z: Array) -> Array:
    """Of each row."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(p: Array, y: Array) -> Array:
    """Of each row, (N,)."""
    return -(y * np.log(p)).sum(axis=1)


class SoftmaxLoss:
    """Cross-entropy over a softmax, without a slip."""

    output = "softmax"

    def value(self, z: Array, y: Array) -> Array:
        return cross_entropy(softmax(z), y)

    def gradient(self, z: Array, y: Array) -> Array:
        return softmax(z) - y


class MinusForgotten(SoftmaxLoss):
    """The value is the mean log-likelihood, the gradient that of the loss."""

    def value(self, z: Array, y: Array) -> Array:
        return (y * np.log(softmax(z))).sum(axis=1)


class OverTheBatch(SoftmaxLoss):
    """The softmax divides by the sums over the batch: Python's `sum` adds the rows."""

    def _p(self, z: Array) -> Array:
        e = np.exp(z)
        return e / sum(e)

    def value(self, z: Array, y: Array) -> Array:
        return cross_entropy(self._p(z), y)

    def gradient(self, z: Array, y: Array) -> Array:
        return self._p(z) - y


class OverAll(OverTheBatch):
    """The softmax divides by one sum over rows and classes."""

    def _p(self, z: Array) -> Array:
        e = np.exp(z)
        return e / e.sum()


class Dice:
    """One value for the whole batch, the same for each row, and its right gradient."""

    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Array:
        both, all_ = self._sums(z, y)
        return np.full(len(z), 1 - both / all_)

    def gradient(self, z: Array, y: Array) -> Array:
        p = 1 / (1 + np.exp(-z))
        both, all_ = self._sums(z, y)
        return -len(z) * (2 * y * all_ - both) / all_**2 * p * (1 - p)

    def _sums(self, z: Array, y: Array) -> tuple[float, float]:
        p = 1 / (1 + np.exp(-z))
        return float(2 * (p * y).sum() + 1), float(p.sum() + y.sum() + 1)


class OfProbabilities(SoftmaxLoss):
    """Written for outputs that are probabilities already; what it gets are logits."""

    def value(self, z: Array, y: Array) -> Array:
        return cross_entropy(z, y)

    def gradient(self, z: Array, y: Array) -> Array:
        return -y / z


class TwiceSoftmax(SoftmaxLoss):
    """A softmax of the softmax, and its right gradient."""

    def value(self, z: Array, y: Array) -> Array:
        return cross_entropy(softmax(softmax(z)), y)

    def gradient(self, z: Array, y: Array) -> Array:
        p = softmax(z)
        error = softmax(p) - y
        return p * (error - (error * p).sum(axis=1, keepdims=True))


class TwiceSoftmaxShort(TwiceSoftmax):
    """The same value, with the gradient of the outer softmax alone."""

    def gradient(self, z: Array, y: Array) -> Array:
        return softmax(softmax(z)) - y


class SquaredAndEntropy(SoftmaxLoss):
    """The value of the squared error, the gradient of cross-entropy."""

    def value(self, z: Array, y: Array) -> Array:
        return 0.5 * np.square(softmax(z) - y).sum(axis=1)


class InFloat32(SoftmaxLoss):
    """Right, and computed in float32 whatever it is given."""

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z.astype(np.float32), y)

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z.astype(np.float32), y)
