"""The zoo of known mistakes: each can be made on purpose with `bug=`, to see what it looks like.

A mistake overrides the hooks of `Mistake` in which it is wrong. An engine calls the hooks and knows no mistake by name.
The kernels have counterparts of the hooks, in `cuda/objective.cuh` and `cuda/mistakes.cuh`: `objective_kernel` and
`backward_kernel` name the structs that replace the healthy ones.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from ablate.problem.layers import Activate, Divide, Layer
from ablate.problem.losses import BuiltinLoss, Formulas, Loss, Objective
from ablate.problem.models import Architecture
from ablate.problem.outputs import Array, softmax, softmax_jacobian
from ablate.problem.registry import Registry


class Mistake:
    """No mistake: what a correct training step does, hook by hook.

    `mistake` says in words what is wrong in the code, and `fix` what to write instead.
    """

    name: ClassVar[str] = "none"
    mistake: ClassVar[str] = ""
    fix: ClassVar[str] = ""
    objective_kernel: ClassVar[str] = "HealthyObjective"
    backward_kernel: ClassVar[str] = "HealthyBackward"
    # Whether the gradient of one batch reveals it: loss and data are the right ones, and no second batch is needed.
    shows_in_gradient: ClassVar[bool] = False
    # Whether `batch_gradient` needs the final gradient of the previous batch.
    remembers_gradient: ClassVar[bool] = False
    # Whether it is about the classes of a classification, and means nothing for other targets.
    needs_classes: ClassVar[bool] = False

    @property
    def has_kernel(self) -> bool:
        """Whether the kernels make the mistake too: they have a struct for the hooks that it overrides."""
        own, healthy = type(self), Mistake
        is_in_backward = (own.has_derivative, own.batch_gradient) != (healthy.has_derivative, healthy.batch_gradient)
        return (own.objective is healthy.objective or own.objective_kernel != healthy.objective_kernel) and (
            not is_in_backward or own.backward_kernel != healthy.backward_kernel
        )

    def refusal(self, loss: Loss, output: str, architecture: Architecture) -> str | None:
        """Why the mistake would change nothing here, so that the trial would be a correct one; else None."""
        return None

    def labels(self, labels: Array, classes: int) -> Array:
        """The training labels as the trial sees them."""
        return labels

    def objective(self, loss: Loss, objective: Objective) -> Objective:
        """The loss over its output as the trial computes it."""
        return objective

    def has_derivative(self, layer: Layer) -> bool:
        """Whether the backward pass applies a layer's own derivative."""
        return True

    def scale(self, reduction: Literal["mean", "sum"], n: int) -> float:
        """The factor of a sample's gradient in a batch of n."""
        return 1 / n if reduction == "mean" else 1.0

    def batch_gradient(self, gradient: Array, before: Array, biases: Sequence[slice], n: int) -> None:
        """Change a batch's gradient `(K, P)` in place; `before` is the last batch's, `biases` where biases lie in P."""


MISTAKES: Registry[Mistake] = Registry("bug")


def declare(mistake: type[Mistake]) -> type[Mistake]:
    """Class decorator: register a mistake under its name."""
    MISTAKES.add(mistake.name, mistake())
    return mistake


declare(Mistake)


class SoftmaxMistake(Mistake):
    """A mistake in the softmax of one of ablate's own losses."""

    def refusal(self, loss: Loss, output: str, architecture: Architecture) -> str | None:
        if output == "softmax" and isinstance(loss, BuiltinLoss):
            return None
        return "it is a mistake in a softmax of ablate's own; choose loss=ce or another softmax loss"

    def objective(self, loss: Loss, objective: Objective) -> Objective:
        assert isinstance(loss, BuiltinLoss), "refused before"
        return self.mistaken(loss, objective)

    def mistaken(self, loss: BuiltinLoss, objective: Objective) -> Formulas:
        """The objective with the mistake in it."""
        raise NotImplementedError


@declare
class DiagonalJacobian(SoftmaxMistake):
    name = "diagonal_jacobian"
    mistake = "the softmax is differentiated as if each output depended on its own logit only, p (1 - p)"
    fix = "use the whole Jacobian, p_i (1[i=j] - p_j); for cross-entropy it makes the error at the logits p - y"
    objective_kernel = "DiagonalJacobian"

    def mistaken(self, loss: BuiltinLoss, objective: Objective) -> Formulas:
        def gradient(z: Array, p: Array, y: Array) -> Array:
            return loss.naive_gradient(p, y) * p * (1 - p)

        return Formulas(objective.output, objective.outputs, objective.value, gradient)


@declare
class MissingActivationDerivative(Mistake):
    name = "missing_activation_derivative"
    mistake = "the backward pass leaves out the derivative of the hidden activations"
    fix = "multiply the error that comes back through an activation by that activation's derivative"
    backward_kernel = "MissingActivationDerivative"
    shows_in_gradient = True

    def refusal(self, loss: Loss, output: str, architecture: Architecture) -> str | None:
        layers = [stage.layer for stage in architecture.stages]
        if any(isinstance(layer, Activate) and not layer.activation.passes_gradient for layer in layers):
            return None
        return "the model has no activation with a derivative; choose model=mlp or model=lenet5"

    def has_derivative(self, layer: Layer) -> bool:
        return not isinstance(layer, Activate)


@declare
class MissingDivisor(Mistake):
    name = "missing_divisor"
    mistake = "the forward pass divides the pre-activation by a constant, the backward pass does not"
    fix = "divide the error by the same constant on its way back"
    backward_kernel = "MissingDivisor"
    shows_in_gradient = True

    def refusal(self, loss: Loss, output: str, architecture: Architecture) -> str | None:
        if any(isinstance(stage.layer, Divide) for stage in architecture.stages):
            return None
        return "nothing is divided here; choose model=mlp model.preactivation_divisor=78.5"

    def has_derivative(self, layer: Layer) -> bool:
        return not isinstance(layer, Divide)


class MeanMistake(Mistake):
    """A mistake in the mean over a batch."""

    def refusal(self, loss: Loss, output: str, architecture: Architecture) -> str | None:
        return "it is a mistake in a mean; choose loss.reduction=mean" if loss.reduction == "sum" else None


@declare
class SumForMean(MeanMistake):
    name = "sum_for_mean"
    mistake = "the gradient is summed over the batch where the mean is meant"
    fix = "divide the gradient by the batch's size, or the learning rate"
    shows_in_gradient = True

    def scale(self, reduction: Literal["mean", "sum"], n: int) -> float:
        return 1.0


@declare
class BiasGradient(MeanMistake):
    name = "bias_gradient"
    mistake = "the gradient of the biases is divided by the batch's size once more than that of the weights"
    fix = "sum a bias's gradient over the batch exactly as a weight's"
    backward_kernel = "BiasGradient"
    shows_in_gradient = True

    def batch_gradient(self, gradient: Array, before: Array, biases: Sequence[slice], n: int) -> None:
        for span in biases:
            gradient[:, span] /= n


@declare
class StaleGradients(Mistake):
    name = "stale_gradients"
    mistake = "the gradients are added to those of the batches before, because they are never reset"
    fix = "set the gradients to zero before each batch"
    backward_kernel = "StaleGradients"
    remembers_gradient = True

    def batch_gradient(self, gradient: Array, before: Array, biases: Sequence[slice], n: int) -> None:
        gradient += before


@declare
class UnshiftedSoftmax(SoftmaxMistake):
    name = "unshifted_softmax"
    mistake = "the softmax does not subtract the largest logit, so exp overflows"
    fix = "subtract the largest logit first; the result is the same and stays finite"
    objective_kernel = "UnshiftedSoftmax"

    def mistaken(self, loss: BuiltinLoss, objective: Objective) -> Formulas:
        def outputs(z: Array) -> Array:
            e = np.exp(z)
            return e / e.sum(axis=-2, keepdims=True)

        return Formulas(objective.output, outputs, loss.naive(objective.output).value, objective.gradient)


@declare
class DoubleSoftmax(SoftmaxMistake):
    name = "double_softmax"
    mistake = "the softmax is applied twice: once by the network, once more inside the loss"
    fix = "give the loss the logits, or take the logarithm of the probabilities you have"
    objective_kernel = "DoubleSoftmax"

    def mistaken(self, loss: BuiltinLoss, objective: Objective) -> Formulas:
        def outputs(z: Array) -> Array:
            return objective.outputs(softmax(z))

        def value(z: Array, p: Array, y: Array) -> Array:
            return objective.value(softmax(z), p, y)

        def gradient(z: Array, p: Array, y: Array) -> Array:
            q = softmax(z)
            return softmax_jacobian(q, objective.gradient(q, p, y))

        return Formulas(objective.output, outputs, value, gradient)


@declare
class SwappedLabels(Mistake):
    name = "swapped_labels"
    mistake = "the labels of the training set are one class off"
    fix = "look at a few training samples beside their labels"
    needs_classes = True

    def labels(self, labels: Array, classes: int) -> Array:
        return (labels + 1) % classes
