"""Losses of one's own with wrong gradients, for the checks to find: `loss.target=docs.studies.mistaken.Mistaken`."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Mistaken:
    """A loss whose gradient is right (`none`), or wrong as many have written it.

    `loss` is `ce` or `mse` over a softmax, or `sigmoid_mse`.
    """

    def __init__(self, loss: str = "ce", mistake: str = "none") -> None:
        self.loss, self.mistake = loss, mistake
        self.output = "sigmoid" if loss == "sigmoid_mse" else "softmax"

    def value(self, z: Array, y: Array) -> Array:
        p = self._p(z)
        return -(y * np.log(p)).sum(axis=1) if self.loss == "ce" else 0.5 * np.square(p - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = self._p(z)
        by_p = -y / p if self.loss == "ce" else p - y
        right = self._through(p, by_p)
        wrong = {
            "none": right,
            "sign": -right,
            "factor 2": 2 * right,
            "no Jacobian": by_p,
            "diagonal Jacobian": by_p * p * (1 - p),
            "Jacobian twice": self._through(p, right),
            "divided by N": right / len(z),
            "times N": right * len(z),
            "one class forgotten": right * (np.arange(z.shape[1]) > 0),
        }
        return wrong[self.mistake]

    def _p(self, z: Array) -> Array:
        return _softmax(z) if self.output == "softmax" else 1 / (1 + np.exp(-z))

    def _through(self, p: Array, d: Array) -> Array:
        """(dp/dz)^T d"""
        return p * (d - (d * p).sum(axis=1, keepdims=True)) if self.output == "softmax" else d * p * (1 - p)


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
