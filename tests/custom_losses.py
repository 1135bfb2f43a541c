"""Losses as a user writes them, named by tests as `loss.target=custom_losses.<class>`."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class CrossEntropy:
    """The built-in `ce`, written once more; `scale` multiplies it."""

    output = "softmax"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def value(self, z: Array, y: Array) -> Array:
        shifted = z - z.max(axis=1, keepdims=True)
        return self.scale * -(y * (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return self.scale * (softmax(z) - y)


class Squared:
    """½ Σ (sigmoid(z) - y)²."""

    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Array:
        return 0.5 * np.square(1 / (1 + np.exp(-z)) - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = 1 / (1 + np.exp(-z))
        return (p - y) * p * (1 - p)


class Failing(CrossEntropy):
    """Raises at the `after`-th gradient it is asked for."""

    def __init__(self, after: int = 3) -> None:
        super().__init__()
        self.after = after

    def gradient(self, z: Array, y: Array) -> Array:
        self.after -= 1
        if self.after < 0:
            raise ArithmeticError("no more of this")
        return super().gradient(z, y)


class ScalarValue(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, y).mean()


class TurnedGradient(CrossEntropy):
    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, y).T


class TextValue(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, y).astype(str)


class NoValue:
    output = "softmax"

    def gradient(self, z: Array, y: Array) -> Array:
        return softmax(z) - y


class NoGradient:
    output = "softmax"

    def value(self, z: Array, y: Array) -> Array:
        return np.zeros(len(z))


class NoOutput(NoValue, NoGradient):
    output = "probabilities"


class Raising(CrossEntropy):
    def __init__(self) -> None:
        raise RuntimeError("not today")


class OneClassTooSteep(CrossEntropy):
    """Right but for samples of one class, whose gradient is three times too large."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong = wrong

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, y) * np.where(y[:, [self.wrong]] > 0, 3, 1)


class Off(CrossEntropy):
    """Its gradient is too large by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def gradient(self, z: Array, y: Array) -> Array:
        return self.factor * super().gradient(z, y)


class TinyAndUphill(CrossEntropy):
    def __init__(self) -> None:
        super().__init__(1e-9)

    def gradient(self, z: Array, y: Array) -> Array:
        return -super().gradient(z, y)


class InFloat32(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return super().value(z.astype(np.float32), y.astype(np.float32))

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z.astype(np.float32), y.astype(np.float32))


class OffInFloat32(InFloat32):
    """Its gradient is too large by a factor, besides."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def gradient(self, z: Array, y: Array) -> Array:
        return self.factor * super().gradient(z, y)


class WeightedInFloat16(CrossEntropy):
    """Some values are large, and so is their rounding."""

    weights = np.linspace(0.1, 3, 10)

    def value(self, z: Array, y: Array) -> Array:
        return ((y @ self.weights) * super().value(z, y)).astype(np.float16)

    def gradient(self, z: Array, y: Array) -> Array:
        return (y @ self.weights)[:, np.newaxis] * super().gradient(z, y)


class PenalisedInFloat16(CrossEntropy):
    """All but the cross-entropy; the logits are rounded."""

    def value(self, z: Array, y: Array) -> Array:
        z = z.astype(np.float16).astype(float)
        return super().value(z, y) + 1e-3 * np.square(z).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, y) + 2e-3 * z


class CappedAndRounded(CrossEntropy):
    """The kink at 2 is too slight to be seen over the steps that the rounding asks for."""

    def value(self, z: Array, y: Array) -> Array:
        return np.minimum(super().value(z, y), 2).round(4)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.where(super().value(z, y)[:, np.newaxis] < 2, super().gradient(z, y), 0)


class OfLogits(CrossEntropy):
    """The cross-entropy with the softmax in it, and no output function named; its gradient is too large by a factor."""

    output = "identity"

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def gradient(self, z: Array, y: Array) -> Array:
        return self.factor * super().gradient(z, y)


class BinaryOfLogits:
    """Σ ln(1 + exp(-t z)) with t = 2y - 1."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        return np.logaddexp(0, (1 - 2 * y) * z).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return 1 / (1 + np.exp(-z)) - y


class SquaredHinge:
    """With labels 0 and 1, where -1 and 1 are meant."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        return np.square(np.maximum(0, 1 - y * z)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return -2 * y * np.maximum(0, 1 - y * z)


class HalfTheSquare:
    """The value is that of the square, the gradient that of half of it."""

    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        return np.square(z - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return z - y


class NothingReturned(CrossEntropy):
    def value(self, z: Array, y: Array) -> None:
        super().value(z, y)


class Yielding(CrossEntropy):
    def value(self, z: Array, y: Array) -> object:
        return (each for each in super().value(z, y))


class TwoLines(CrossEntropy):
    def gradient(self, z: Array, y: Array) -> Array:
        raise ArithmeticError("no more\nof this")


class FarBelowZero(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return super().value(z, y) - 1e6


class Annealed(CrossEntropy):
    """Its value depends on how often it was asked."""

    calls = 0

    def value(self, z: Array, y: Array) -> Array:
        self.calls += 1
        return super().value(z, y) / self.calls


class Zero(CrossEntropy):
    def __init__(self) -> None:
        super().__init__(0.0)


class FourValues(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return np.resize(super().value(z, y), 4)


class Ragged(CrossEntropy):
    def value(self, z: Array, y: Array) -> object:
        return [[1.0], [1.0, 2.0], *super().value(z, y)[2:]]


class HingeUnderSoftmax:
    """The built-in `hinge`, which is right whatever output it names; `forgets` leaves out a part of its gradient."""

    output = "softmax"

    def __init__(self, forgets: bool = False) -> None:
        self.forgets = forgets

    def margins(self, z: Array, y: Array) -> Array:
        return (1 + z - (z * y).sum(axis=1, keepdims=True)) * (1 - y)

    def value(self, z: Array, y: Array) -> Array:
        return np.maximum(0, self.margins(z, y)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        violated = (self.margins(z, y) > 0).astype(float)
        return violated if self.forgets else violated - y * violated.sum(axis=1, keepdims=True)


class CrossEntropyUnderIdentity(CrossEntropy):
    output = "identity"


class Unshifted:
    """The cross-entropy from logits, without the largest one subtracted; `from_p` takes it from the probabilities."""

    output = "softmax"

    def __init__(self, from_p: bool = False) -> None:
        self.from_p = from_p

    def value(self, z: Array, y: Array) -> Array:
        if self.from_p:
            return -(y * np.log(softmax(z))).sum(axis=1)
        return np.log(np.exp(z).sum(axis=1)) - (z * y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        e = np.exp(z)
        return softmax(z) - y if self.from_p else e / e.sum(axis=1, keepdims=True) - y


class WholeNumbers(CrossEntropy):
    def gradient(self, z: Array, y: Array) -> Array:
        return super().gradient(z, y).astype(int)


class ErrorRate(CrossEntropy):
    def value(self, z: Array, y: Array) -> Array:
        return (z.argmax(axis=1) != y.argmax(axis=1)).astype(float)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.zeros_like(z)


def cross_entropy(z: Array, y: Array) -> Array:
    return CrossEntropy().value(z, y)


# Of numbers


class LogCosh:
    output = "identity"

    def value(self, z: Array, y: Array) -> Array:
        return np.log(np.cosh(z - y)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.tanh(z - y)


class SquareClimbed(LogCosh):
    def value(self, z: Array, y: Array) -> Array:
        return -np.square(z - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return -2 * (z - y)


class SquareCrossed(LogCosh):
    def value(self, z: Array, y: Array) -> Array:
        return np.square(z.ravel() - y).mean(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return 2 * (z - y)


class SquareRavelled(LogCosh):
    def value(self, z: Array, y: Array) -> Array:
        return np.square(z.ravel() - y.ravel())

    def gradient(self, z: Array, y: Array) -> Array:
        return 2 * (z.ravel() - y.ravel())


class AbsoluteWithoutSign(LogCosh):
    def value(self, z: Array, y: Array) -> Array:
        return np.abs(z - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.abs(z - y)


class HuberWithoutSign(LogCosh):
    def value(self, z: Array, y: Array) -> Array:
        d = np.abs(z - y)
        return np.where(d < 1, d * d / 2, d - 0.5).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        return np.where(np.abs(z - y) < 1, z - y, 1.0)


# Of labels that are there or not


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


class Binary:
    """The built-in `bce`, with a slip in it if one is named."""

    output = "sigmoid"

    def __init__(self, slip: str = "") -> None:
        self.slip = slip

    def p(self, z: Array) -> Array:
        return {"": sigmoid(z), "half": sigmoid(z), "twice": sigmoid(sigmoid(z)), "of p": z}[self.slip]

    def value(self, z: Array, y: Array) -> Array:
        p = self.p(z)
        rest = 0 if self.slip == "half" else (1 - y) * np.log(1 - p)
        return -(y * np.log(p) + rest).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Array:
        p = self.p(z)
        if self.slip == "of p":
            return (p - y) / (p * (1 - p))
        return y * (p - 1) if self.slip == "half" else p - y


class BinaryUnderIdentity(Binary):
    output = "identity"
