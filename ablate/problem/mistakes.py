"""The zoo of known mistakes: each can be injected by `bug=`, to see what it looks like.

Three kinds of place can be wrong: the loss (its output function or gradient), the labels, and the backward
pass. The first two are changed here; a backend asks `Bug.name` for the third.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ablate.config import schema as config
from ablate.errors import ConfigError
from ablate.problem import losses, models
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import Array


@dataclass(frozen=True)
class Bug:
    """A mistake in words: what was written, and what to write instead."""

    name: str
    mistake: str
    fix: str


CATALOGUE: Mapping[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug(
            "diagonal_jacobian",
            "the softmax is differentiated as if each output depended on its own logit only, p (1 - p)",
            "use the whole Jacobian, p_i (1[i=j] - p_j); for cross-entropy it makes the error at the logits p - y",
        ),
        Bug(
            "missing_activation_derivative",
            "the backward pass leaves out the derivative of the hidden activations",
            "multiply the error that comes back through an activation by that activation's derivative",
        ),
        Bug(
            "missing_divisor",
            "the forward pass divides the pre-activation by a constant, the backward pass does not",
            "divide the error by the same constant on its way back",
        ),
        Bug(
            "sum_for_mean",
            "the gradient is summed over the batch where the mean is meant",
            "divide the gradient by the batch's size, or the learning rate",
        ),
        Bug(
            "bias_gradient",
            "the gradient of the biases is divided by the batch's size once more than that of the weights",
            "sum a bias's gradient over the batch exactly as a weight's",
        ),
        Bug(
            "stale_gradients",
            "the gradients are added to those of the batches before, because they are never reset",
            "set the gradients to zero before each batch",
        ),
        Bug(
            "unshifted_softmax",
            "the softmax does not subtract the largest logit, so exp overflows",
            "subtract the largest logit first; the result is the same and stays finite",
        ),
        Bug(
            "double_softmax",
            "the softmax is applied twice: once by the network, once more inside the loss",
            "give the loss the logits, or take the logarithm of the probabilities you have",
        ),
        Bug(
            "swapped_labels",
            "the labels of the training set are one class off",
            "look at a few training samples beside their labels",
        ),
    )
}

_SOFTMAX_ONLY = ("diagonal_jacobian", "unshifted_softmax", "double_softmax")


def check(settings: config.Settings, network: models.Architecture, loss: losses.Loss) -> None:
    """Raises ConfigError where a bug has nothing to be wrong in, so that the trial would be a correct one."""
    name = settings.bug
    if name in _SOFTMAX_ONLY and (loss.output != "softmax" or isinstance(loss, losses.Custom)):
        raise ConfigError(
            f"bug={name}: it is a mistake in a softmax of ablate's own; choose loss=ce or another softmax loss"
        )
    hidden = [stage.layer for stage in network.stages]
    if name == "missing_divisor" and not any(isinstance(layer, models.Divide) for layer in hidden):
        raise ConfigError(f"bug={name}: nothing is divided here; choose model=mlp model.preactivation_divisor=78.5")
    if name == "missing_activation_derivative" and not any(isinstance(layer, models.Activation) for layer in hidden):
        raise ConfigError(f"bug={name}: the model has no activation; choose model=mlp or model=lenet5")
    if name in ("sum_for_mean", "bias_gradient") and settings.loss.reduction == "sum":
        raise ConfigError(f"bug={name}: it is a mistake in a mean; choose loss.reduction=mean")


def labels(bug: str, dataset: Dataset) -> Dataset:
    """The data set as a trial with this bug sees it."""
    if bug != "swapped_labels":
        return dataset
    return replace(dataset, y_train=(dataset.y_train + 1) % dataset.classes)


def loss(bug: str, settings: config.Loss, correct: losses.Loss) -> losses.Loss:
    """The loss as a trial with this bug computes it."""
    if not isinstance(settings, config.BuiltinLoss) or bug not in _SOFTMAX_ONLY:
        return correct
    return {"diagonal_jacobian": _diagonal, "unshifted_softmax": _unshifted, "double_softmax": _double}[bug](
        settings, correct
    )


def _diagonal(settings: config.BuiltinLoss, correct: losses.Loss) -> losses.Loss:
    by_p = losses.by_probability(settings)

    def gradient(z: Array, p: Array, y: Array) -> Array:
        return by_p(z, p, y) * p * (1 - p)

    return losses.Builtin(correct.output, correct.outputs, correct.value, gradient)


def _unshifted(settings: config.BuiltinLoss, correct: losses.Loss) -> losses.Loss:
    def outputs(z: Array) -> Array:
        e = np.exp(z)
        return e / e.sum(axis=-2, keepdims=True)

    naive = losses.naive(settings, correct.output)
    return losses.Builtin(correct.output, outputs, naive.value, correct.gradient)


def _double(settings: config.BuiltinLoss, correct: losses.Loss) -> losses.Loss:
    def outputs(z: Array) -> Array:
        return correct.outputs(losses.softmax(z))

    def value(z: Array, p: Array, y: Array) -> Array:
        return correct.value(losses.softmax(z), p, y)

    def gradient(z: Array, p: Array, y: Array) -> Array:
        q = losses.softmax(z)
        return losses.softmax_jacobian(q, correct.gradient(q, p, y))

    return losses.Builtin(correct.output, outputs, value, gradient)
