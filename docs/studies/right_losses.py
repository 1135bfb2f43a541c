"""Right losses, each written in another style: none of them may be an alarm of the checks.

`loss.target=docs.studies.right_losses.<class>`; `ALL` names them.
"""

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[Any]

ALL: list[str] = []


def _listed(cls: type) -> type:
    ALL.append(cls.__name__)
    return cls


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


class Ce:
    """Cross-entropy as in a textbook; the others are variations of it."""

    output = "softmax"

    def value(self, z: Array, y: Array) -> Array:
        return -(y * np.log(_softmax(z))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return _softmax(z) - y


@_listed
class Textbook(Ce):
    """-Σ y ln p and p - y."""


@_listed
class SingleInside(Ce):
    """The logits are cast to float32."""

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z.astype(np.float32), y)

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z.astype(np.float32), y)


@_listed
class SingleOutside(Ce):
    """The results are cast to float32."""

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, y).astype(np.float32)

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, y).astype(np.float32)


@_listed
class HalfInside(Ce):
    """The probabilities are kept in float16."""

    def value(self, z: Array, y: Array) -> Array:
        p = _softmax(z).astype(np.float16)
        return -(y * np.log(p.astype(np.float64) + 1e-7)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return _softmax(z).astype(np.float16) - y


@_listed
class Rounded(Ce):
    """The value is rounded to six digits, for the log."""

    def value(self, z: Array, y: Array) -> Array:
        return np.round(super().value(z, y), 6)


@_listed
class Cached(Ce):
    """`value` keeps the probabilities for `gradient`."""

    def value(self, z: Array, y: Array) -> Array:
        self.p = _softmax(z)
        return -(y * np.log(self.p)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return self.p - y


@_listed
class CachedByContent(Ce):
    """The softmax is remembered by the bytes of its argument."""

    def value(self, z: Array, y: Array) -> Array:
        return -(y * np.log(_remembered(z.tobytes(), z.shape, z.dtype.str))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return _remembered(z.tobytes(), z.shape, z.dtype.str) - y


@lru_cache(maxsize=64)
def _remembered(content: bytes, shape: tuple[int, ...], dtype: str) -> Array:
    return _softmax(np.frombuffer(content, dtype).reshape(shape))


@_listed
class InPlace(Ce):
    """Works in the arrays that it is given."""

    def value(self, z: Array, y: Array) -> Array:
        z -= z.max(axis=1, keepdims=True)
        picked = (z * y).sum(axis=1)
        np.exp(z, out=z)
        return np.log(z.sum(axis=1)) - picked

    def gradient(self, z: Array, y: Array) -> Array:
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        z -= y
        return z


@_listed
class OneBuffer(Ce):
    """Returns the same array from call to call, as long as the shape stays."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, ...], Array] = {}

    def value(self, z: Array, y: Array) -> Array:
        held = self.held.setdefault((len(z),), np.empty(len(z)))
        held[:] = super().value(z, y)
        return held

    def gradient(self, z: Array, y: Array) -> Array:
        held = self.held.setdefault(z.shape, np.empty(z.shape))
        held[:] = super().gradient(z, y)
        return held


@_listed
class Integers(Ce):
    """Labels by `argmax`, and picked by index."""

    def value(self, z: Array, y: Array) -> Array:
        return -np.log(_softmax(z)[np.arange(len(z)), y.argmax(axis=1)])

    def gradient(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        p[np.arange(len(z)), y.argmax(axis=1)] -= 1
        return p


@_listed
class IntegerGradient:
    """A hinge whose gradient counts, in whole numbers."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        margins = 1 + z - (z * y).sum(axis=1, keepdims=True)
        return (np.maximum(margins, 0) * (1 - y)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        over = (1 + z - (z * y).sum(axis=1, keepdims=True) > 0) & (y == 0)
        return over.astype(int) - y.astype(int) * over.sum(axis=1, keepdims=True)


@_listed
class Loops(Ce):
    """Two loops and the standard library's way of thinking."""

    def value(self, z: Array, y: Array) -> Array:
        losses = []
        for row, target in zip(z, y, strict=True):
            e = [np.exp(each - max(row)) for each in row]
            losses.append(-sum(t * np.log(each / sum(e)) for t, each in zip(target, e, strict=True)))
        return np.array(losses)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.array([_softmax(row[None])[0] - target for row, target in zip(z, y, strict=True)])


@_listed
class Lists(Ce):
    """Returns lists."""

    def value(self, z: Array, y: Array) -> Any:
        return super().value(z, y).tolist()

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(z, y).tolist()


@_listed
class Einsum(Ce):
    """Sums by `einsum`, the gradient through the whole Jacobian."""

    def value(self, z: Array, y: Array) -> Array:
        return -np.einsum("nc,nc->n", y, np.log(_softmax(z)))

    def gradient(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        jacobian = np.einsum("nc,cd->ncd", p, np.eye(z.shape[1])) - np.einsum("nc,nd->ncd", p, p)
        return np.einsum("nc,ncd->nd", -y / p, jacobian)


@_listed
class Scipy(Ce):
    """`scipy.special`."""

    def value(self, z: Array, y: Array) -> Array:
        return -(y * special.log_softmax(z, axis=1)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return special.softmax(z, axis=1) - y


@_listed
class LogSumExp(Ce):
    """ln Σ exp(z) - z_t."""

    def value(self, z: Array, y: Array) -> Array:
        return special.logsumexp(z, axis=1) - (z * y).sum(axis=1)


@_listed
class Logaddexp(Ce):
    """The logarithm of the sum by a reduction."""

    def value(self, z: Array, y: Array) -> Array:
        return np.logaddexp.reduce(z, axis=1) - z[y.astype(bool)]


@_listed
class Clipped(Ce):
    """Probabilities kept away from 0 and 1."""

    def value(self, z: Array, y: Array) -> Array:
        return -(y * np.log(np.clip(_softmax(z), 1e-12, 1 - 1e-12))).sum(axis=1)


@_listed
class Epsilon(Ce):
    """A small number inside the logarithm."""

    def value(self, z: Array, y: Array) -> Array:
        return -(y * np.log(_softmax(z) + 1e-10)).sum(axis=1)


@_listed
class ShiftedByAll(Ce):
    """The largest logit of the whole batch is subtracted, which changes nothing."""

    def value(self, z: Array, y: Array) -> Array:
        e = np.exp(z - z.max())
        return -(y * np.log(e / e.sum(axis=1, keepdims=True))).sum(axis=1)


@_listed
class Transposed(Ce):
    """Works with classes first."""

    def value(self, z: Array, y: Array) -> Array:
        e = np.exp(z.T - z.T.max(axis=0))
        return -np.log((e / e.sum(axis=0) * y.T).sum(axis=0))


@_listed
class Temperature(Ce):
    """A softmax of z / 2."""

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z / 2, y)

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z / 2, y) / 2


@_listed
class ClassWeights(Ce):
    """A weight for each class, looked up by its label."""

    def weights(self, y: Array) -> Array:
        return np.linspace(0.5, 2, y.shape[1])[y.argmax(axis=1)]

    def value(self, z: Array, y: Array) -> Array:
        return self.weights(y) * super().value(z, y)

    def gradient(self, z: Array, y: Array) -> Array:
        return self.weights(y)[:, None] * super().gradient(z, y)


@_listed
class PerSample(Ce):
    """Hard samples count more, and the weight is differentiated."""

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, y) ** 2 / 2

    def gradient(self, z: Array, y: Array) -> Array:
        return super().value(z, y)[:, None] * super().gradient(z, y)


@_listed
class Confident(Ce):
    """Cross-entropy minus a tenth of the entropy."""

    def value(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        return super().value(z, y) + 0.1 * (p * np.log(p)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        inner = np.log(p) + 1
        return super().gradient(z, y) + 0.1 * p * (inner - (inner * p).sum(axis=1, keepdims=True))


@_listed
class Smoothed(Ce):
    """Smoothed labels, by an argument and a class attribute."""

    smoothing: ClassVar[float] = 0.15

    def targets(self, y: Array) -> Array:
        return (1 - self.smoothing) * y + self.smoothing / y.shape[1]

    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, self.targets(y))

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, self.targets(y))


@_listed
class Counting(Ce):
    """Keeps what it has seen, for a curve of its own."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def value(self, z: Array, y: Array) -> Array:
        loss = super().value(z, y)
        self.seen = [*self.seen[-99:], float(loss.mean())]
        return loss


@_listed
class FocalOfOne:
    """Focal loss by its derivative with respect to p_t."""

    output = "softmax"

    def value(self, z: Array, y: Array) -> Array:
        p_t = (_softmax(z) * y).sum(axis=1)
        return -0.25 * (1 - p_t) ** 2 * np.log(p_t)

    def gradient(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        p_t = (p * y).sum(axis=1, keepdims=True)
        slope = 0.25 * (2 * (1 - p_t) * np.log(p_t) - (1 - p_t) ** 2 / p_t)
        return slope * p_t * (y - p)


@_listed
class MeanSquare:
    """The mean over the classes of the squared error, of a sigmoid."""

    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Array:
        return ((_sigmoid(z) - y) ** 2).mean(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = _sigmoid(z)
        return 2 * (p - y) * p * (1 - p) / z.shape[1]


@_listed
class SquareOfLogits:
    """The squared error of the logits themselves."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        return 0.5 * np.linalg.norm(z - y, axis=1) ** 2

    def gradient(self, z: Array, y: Array) -> Array:
        return z - y


@_listed
class BinaryPieces:
    """Binary cross-entropy by branches, as a C programmer writes it."""

    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Array:
        small = np.log1p(np.exp(-np.abs(z)))
        return np.where(z > 0, small + (1 - y) * z, small - y * z).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        branches = [lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(z) / (1 + np.exp(z))]
        return np.piecewise(z, [z >= 0, z < 0], branches) - y


@_listed
class SignedHinge:
    """A hinge for each class with labels -1 and 1."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        t = 2 * y - 1
        return np.maximum(0, 1 - t * z).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        t = 2 * y - 1
        return -t * (t * z < 1)


@_listed
class DicePerSample:
    """Dice of each sample."""

    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Array:
        p = _sigmoid(z)
        return 1 - (2 * (p * y).sum(axis=1) + 1) / (p.sum(axis=1) + y.sum(axis=1) + 1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = _sigmoid(z)
        over = 2 * (p * y).sum(axis=1, keepdims=True) + 1
        under = (p + y).sum(axis=1, keepdims=True) + 1
        return -(2 * y * under - over) / under**2 * p * (1 - p)


@_listed
class Huber:
    """Huber's loss of a softmax."""

    output = "softmax"

    def value(self, z: Array, y: Array) -> Array:
        d = np.abs(_softmax(z) - y)
        return np.where(d < 0.5, 0.5 * d**2, 0.5 * (d - 0.25)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = _softmax(z)
        by_p = np.clip(p - y, -0.5, 0.5)
        return p * (by_p - (by_p * p).sum(axis=1, keepdims=True))
