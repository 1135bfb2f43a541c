"""Losses of one's own as people wrote them, each with one slip: `loss.target=docs.studies.slips.<class>`.

Most are retold from public questions. `SLIPS` says for each what a check should call it; where a mistake can be read in
two ways, either name will do.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SLIPS: dict[str, tuple[str, ...]] = {}
# Refused before anything starts; the words that say why.
REFUSED: dict[str, str] = {}


def _called(*names: str) -> Any:
    def listed(cls: type) -> type:
        SLIPS[cls.__name__] = names
        return cls

    return listed


def _refused(words: str) -> Any:
    def listed(cls: type) -> type:
        REFUSED[cls.__name__] = words
        return cls

    return listed


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


class Ce:
    output = "softmax"

    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_softmax(z))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return _softmax(z) - y


class Mse(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return 0.5 * np.square(_softmax(z) - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        p = _softmax(z)
        return p * (p - y - ((p - y) * p).sum(axis=1, keepdims=True))


class Bce(Ce):
    output = "sigmoid"

    def value(self, z: Array, y: Array) -> Any:
        p = _sigmoid(z)
        return -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return _sigmoid(z) - y


# A value that depends on the other samples


@_called("other samples")
class SoftmaxOverSamples(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(np.exp(z) / sum(np.exp(z)))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return np.exp(z) / sum(np.exp(z)) - y


@_called("other samples")
class SoftmaxOverAll(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(np.exp(z) / np.exp(z).sum())).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return np.exp(z) / np.exp(z).sum() - y


@_called("other samples")
class LargestOfEachClass(Ce):
    """The largest logit is that of a column in the numerator, and of a row in the denominator."""

    def value(self, z: Array, y: Array) -> Any:
        below = np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)
        return -(y * np.log(np.exp(z - z.max(axis=0)) / below)).sum(axis=1)


@_called("other samples")
class MeanForAll(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return np.full(len(z), super().value(z, y).mean())


@_called("other samples")
class SumForAll(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return np.full(len(z), super().value(z, y).sum())


@_called("other samples")
class DiceOfBatch(Bce):
    def value(self, z: Array, y: Array) -> Any:
        p = _sigmoid(z)
        return np.full(len(z), 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1))

    def gradient(self, z: Array, y: Array) -> Any:
        p = _sigmoid(z)
        over, under = 2 * (p * y).sum() + 1, p.sum() + y.sum() + 1
        return -(2 * y * under - over) / under**2 * p * (1 - p) * len(z)


@_called("other samples")
class CentredByBatch(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(z - z.mean(axis=0), y)

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(z - z.mean(axis=0), y)


@_called("other samples")
class GradientOverSamples(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return np.exp(z) / np.exp(z).sum(axis=0) - y


@_called("factor of samples")
class DividedTwice(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(z, y) / len(z)

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(z, y) / len(z)


# A sign


@_called("negative value")
class NoMinus(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return (y * np.log(_softmax(z))).sum(axis=1)


@_called("negative value")
class NoMinusInBce(Bce):
    def value(self, z: Array, y: Array) -> Any:
        return -super().value(z, y)


@_called("negative value")
class BothNegative(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -super().value(z, y)

    def gradient(self, z: Array, y: Array) -> Any:
        return -super().gradient(z, y)


@_called("wrong sign")
class TargetMinusOutput(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return y - _softmax(z)


@_called("sign in one half")
class SecondHalfTurned(Bce):
    def value(self, z: Array, y: Array) -> Any:
        p = _sigmoid(z)
        return (-y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)


@_called("pushes the right class away")
class FocalWithNoAlpha(Bce):
    """alpha = -1, which turns the weight off elsewhere, is taken as a weight."""

    def value(self, z: Array, y: Array) -> Any:
        q = np.where(y > 0, _sigmoid(z), _sigmoid(-z))
        return -(np.where(y > 0, -1, 2) * (1 - q) ** 2 * np.log(q)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        q = np.where(y > 0, _sigmoid(z), _sigmoid(-z))
        by_q = np.where(y > 0, -1, 2) * (2 * (1 - q) * np.log(q) - (1 - q) ** 2 / q)
        return by_q * q * (1 - q) * np.where(y > 0, 1, -1)


@_called("not finite")
class Divergence(Ce):
    """y ln(y / p), which is 0 ln 0 for the classes that are not meant."""

    def value(self, z: Array, y: Array) -> Any:
        return (y * np.log(y / _softmax(z))).sum(axis=1)


# What the arguments are taken for


@_called("probabilities")
class OfProbabilities(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(z)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return -y / z


@_called("probabilities")
class OfClippedProbabilities(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(np.clip(z, 1e-7, 1 - 1e-7))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return -y / np.clip(z, 1e-7, 1 - 1e-7)


@_called("probabilities")
class OfProbabilitiesShort(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(z + 1e-9)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return z - y


@_called("probabilities")
class SquareOfLogits(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return 0.5 * np.square(z - y).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return z - y


@_called("probabilities")
class BceOfProbabilities(Bce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(z) + (1 - y) * np.log(1 - z)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return (z - y) / (z * (1 - z))


@_called("swapped arguments")
class TargetsFirst(Ce):
    def value(self, y: Array, z: Array) -> Any:
        return super().value(z, y)

    def gradient(self, y: Array, z: Array) -> Any:
        return super().gradient(z, y)


@_called("swapped arguments")
class TargetsFirstInGradient(Ce):
    def gradient(self, y: Array, z: Array) -> Any:
        return super().gradient(z, y)


@_called("probabilities")
class RefusesLogits(Ce):
    def value(self, z: Array, y: Array) -> Any:
        if (z < 0).any():
            raise ValueError("probabilities expected")
        return -(y * np.log(z)).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return -y / z


@_called("swapped arguments")
class SquareTargetsFirst(Mse):
    def value(self, y_true: Array, y_pred: Array) -> Any:
        return super().value(y_pred, y_true)

    def gradient(self, y_true: Array, y_pred: Array) -> Any:
        return super().gradient(y_pred, y_true)


# An output function that is not the one that is meant


@_called("double_softmax")
class TwiceSoftmax(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(_softmax(z), y)

    def gradient(self, z: Array, y: Array) -> Any:
        p, g = _softmax(z), super().gradient(_softmax(z), y)
        return p * (g - (g * p).sum(axis=1, keepdims=True))


@_called("double_softmax")
class TwiceSoftmaxShort(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(_softmax(z), y)

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(_softmax(z), y)


@_called("double_softmax")
class TwiceSoftmaxInValue(Mse):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(_softmax(z), y)


@_called("half of bce")
class SigmoidForSoftmax(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_sigmoid(z))).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return _sigmoid(z) - y


@_called("double output")
class SoftmaxOfSigmoid(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(_sigmoid(z), y)

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(_sigmoid(z), y)


@_called("another output")
class BceUnderSoftmax(Bce):
    output = "softmax"


@_called("not normalised")
class NoSum(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return 0.5 * np.square(np.exp(z) - y).sum(axis=1)


# Two losses, or a part of one


@_called("two losses", "missing_jacobian")
class MseWithCesGradient(Mse):
    def gradient(self, z: Array, y: Array) -> Any:
        return _softmax(z) - y


@_called("two losses", "wrong derivative", "jacobian_twice")
class CeWithMsesGradient(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return Mse().gradient(z, y)


@_called("two losses")
class EpsilonInValueOnly(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_softmax(z) + 0.05)).sum(axis=1)


@_called("discount turned")
class FocalTurned(Ce):
    def value(self, z: Array, y: Array) -> Any:
        p = (_softmax(z) * y).sum(axis=1)
        return -(p**2) * np.log(p)

    def gradient(self, z: Array, y: Array) -> Any:
        p = (_softmax(z) * y).sum(axis=1, keepdims=True)
        return -(2 * p * np.log(p) + p) * p * (y - _softmax(z))


@_called("wrong derivative", "another loss")
class FocalNotDifferentiated(Ce):
    """The weight (1 - p) ** 2 is taken for a constant."""

    def value(self, z: Array, y: Array) -> Any:
        p = (_softmax(z) * y).sum(axis=1)
        return -((1 - p) ** 2) * np.log(p)

    def gradient(self, z: Array, y: Array) -> Any:
        p = (_softmax(z) * y).sum(axis=1, keepdims=True)
        return (1 - p) ** 2 * (_softmax(z) - y)


@_called("another loss")
class WeightsInValueOnly(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return np.linspace(0.5, 2, y.shape[1])[y.argmax(axis=1)] * super().value(z, y)


@_called("missing logarithm")
class NoLogarithm(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * _softmax(z)).sum(axis=1)


@_called("half of bce")
class HalfOfBce(Bce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_sigmoid(z))).sum(axis=1)


@_called("half of bce")
class HalfOfBceInBoth(HalfOfBce):
    def gradient(self, z: Array, y: Array) -> Any:
        return -y * (1 - _sigmoid(z))


@_called("missing_jacobian")
class ByProbabilities(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return -y / _softmax(z)


# A factor


@_called("scale factor")
class Log2(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log2(_softmax(z))).sum(axis=1)


@_called("scale factor")
class Log10(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log10(_softmax(z))).sum(axis=1)


@_called("scale factor")
class HalfPrecisionTooSteep(Ce):
    """float16 inside, and a factor besides."""

    def value(self, z: Array, y: Array) -> Any:
        return super().value(z.astype(np.float16), y)

    def gradient(self, z: Array, y: Array) -> Any:
        return 1.5 * super().gradient(z.astype(np.float16), y)


@_called("factor of samples")
class LabelsDividedByN(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return _softmax(z) - y / len(z)


@_called("scale factor")
class MeanOverClasses(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_softmax(z))).mean(axis=1)


@_called("scale factor")
class SquareWithoutHalf(Mse):
    def value(self, z: Array, y: Array) -> Any:
        return np.square(_softmax(z) - y).sum(axis=1)


# Labels


@_called("labels 0 and 1 in a hinge")
class HingeOfZeroAndOne:
    output = "identity"

    def value(self, z: Array, y: Array) -> Any:
        return np.maximum(0, 1 - y * z).sum(axis=1)

    def gradient(self, z: Array, y: Array) -> Any:
        return -y * (y * z < 1)


@_called("wrong labels")
class OneClassOff(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(z, np.roll(y, 1, axis=1))

    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(z, np.roll(y, 1, axis=1))


@_called("wrong labels")
class LabelsNotUsed(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -np.log(_softmax(z)).sum(axis=1)


@_refused("takes labels as numbers")
class LabelsAsNumbers(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -np.log(_softmax(z)[np.arange(len(z)), y])

    def gradient(self, z: Array, y: Array) -> Any:
        p = _softmax(z)
        p[np.arange(len(z)), y] -= 1
        return p


@_refused("takes labels as numbers, one a sample, and takes them first")
class LabelsAsNumbersFirst(Ce):
    def value(self, y: Array, z: Array) -> Any:
        return -np.log(_softmax(z)[np.arange(len(z)), y])

    def gradient(self, y: Array, z: Array) -> Any:
        return _softmax(z) - np.eye(z.shape[1])[y]


# Shapes


@_refused("one number for the whole batch")
class MeanOfBatch(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return super().value(z, y).mean()


@_refused("one value a class")
class NotSummed(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -y * np.log(_softmax(z))


@_refused("keepdims=True")
class KeptDimension(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_softmax(z))).sum(axis=1, keepdims=True)


@_refused("a sum over the samples")
class SummedOverSamples(Ce):
    def value(self, z: Array, y: Array) -> Any:
        return -(y * np.log(_softmax(z))).sum(axis=0)


@_refused("a sum or mean over the samples")
class MeanGradient(Ce):
    def gradient(self, z: Array, y: Array) -> Any:
        return super().gradient(z, y).mean(axis=0)


@_called("loss fails")
class NoKeepdims(Ce):
    """Raises where there are not as many samples as classes."""

    def value(self, z: Array, y: Array) -> Any:
        e = np.exp(z)
        return -(y * np.log(e / e.sum(axis=1))).sum(axis=1)
