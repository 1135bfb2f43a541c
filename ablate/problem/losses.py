"""Losses, each declared once: its keys, the output functions it allows, value and gradient in two numerical forms.

Arrays are `(..., C, N)`: classes on the second last axis, samples on the last; leading axes are lanes.
z are logits, p the outputs, y targets: one-hot or, where there are no classes, as the data set gives them. A value is
per sample, `(..., N)`, a sum over its classes; a gradient is the derivative of each sample's value, `(..., C, N)`, a
new array.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.outputs import OUTPUTS, Array, log_softmax, sigmoid, softmax, sum_classes
from ablate.problem.registry import Choice, Group
from ablate.problem.section import Called, Fraction, NotNegative, Positive
from ablate.problem.tasks import Task

Formula = Callable[[Array, Array, Array], Array]


class LossFailedError(Exception):
    """A user's loss raised during training, or returned something that is not a value or gradient."""


class Objective(Protocol):
    """A loss over its output function, as an engine computes it. Equal settings give equal objectives."""

    @property
    def output(self) -> str:
        """`softmax`, `sigmoid` or `identity`."""
        ...

    @property
    def outputs(self) -> Callable[[Array], Array]:
        """The network's outputs p for logits z, `(..., C, N)`."""
        ...

    @property
    def value(self) -> Formula:
        """The loss of each sample for (z, p, y), `(..., N)`."""
        ...

    @property
    def gradient(self) -> Formula:
        """The derivative of each sample's loss with respect to its logits for (z, p, y), `(..., C, N)`, a new array."""
        ...


@dataclass(frozen=True)
class Formulas:
    """An objective of pure functions."""

    output: str
    outputs: Callable[[Array], Array]
    value: Formula
    gradient: Formula


@dataclass(frozen=True)
class Weighted:
    """An objective whose samples are weighted by their class, with one weight per class."""

    alike: Objective
    weights: tuple[float, ...]

    @property
    def output(self) -> str:
        return self.alike.output

    @property
    def outputs(self) -> Callable[[Array], Array]:
        return self.alike.outputs

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return self.alike.value(z, p, y) * self._of(y)[..., 0, :]

    def gradient(self, z: Array, p: Array, y: Array) -> Array:
        return self.alike.gradient(z, p, y) * self._of(y)

    def _of(self, y: Array) -> Array:
        """The weight of every sample, `(..., 1, N)`."""
        weights = np.array(self.weights, y.dtype)
        return sum_classes(weights[:, None] * y) if y.shape[-2] > 1 else np.where(y > 0, weights[1], weights[0])


def unweighted(objective: Objective) -> Objective:
    """The objective with all samples alike."""
    return objective.alike if isinstance(objective, Weighted) else objective


class Loss(Choice):
    """An option of the group `loss`.

    `allowed_outputs` are the output functions that it has formulas for; `model.output=auto` chooses the first. For a
    user's loss, which names its own, it is empty. `other_tasks` are those it has formulas for where the targets are no
    classes, by the name of the task. `kernel` is its struct in `cuda/losses.cuh`, or None.
    """

    allowed_outputs: ClassVar[tuple[str, ...]] = ()
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    kernel: ClassVar[str | None] = None
    # A user's loss may fail, and then only its own lane does; and it may keep state from call to call.
    is_foreign: ClassVar[bool] = False

    reduction: Literal["mean", "sum"] = Field(
        "mean", description="the batch takes the mean of its samples' gradients, or their sum"
    )
    class_weights: Annotated[Literal["balanced"] | list[float] | None, Called("class_weight", "weight", "weights")] = (
        Field(
            None,
            description="a weight for the samples of each class, one number a class; balanced: N / (C n) for a class"
            " with n of the N training samples (null: all 1)",
        )
    )

    @classmethod
    def outputs_for(cls, task: Task) -> tuple[str, ...]:
        """The output functions over which it can learn a task; empty if it cannot, or names its own."""
        return cls.allowed_outputs if task.has_classes else cls.other_tasks.get(task.name, ())

    def refusal(self, output: str) -> str | None:
        """Why its numbers leave nothing to learn over an output function, the key first; None if they do not."""
        return None

    @abstractmethod
    def objective(self, output: str) -> Objective:
        """The loss over an output function, `auto` for the loss's own. Raises ConfigError if that is impossible."""

    def weights_of_classes(self, labels: Array, classes: int) -> tuple[float, ...] | None:
        """The weight of each class for these training labels; None if all samples count alike.

        Raises ConfigError if numbers were given that are not one weight for each class, or if a class that would be
        balanced has no sample.
        """
        given = self.class_weights
        if given is None:
            return None
        if given == "balanced":
            counts = np.bincount(labels, minlength=classes)
            if not counts.all():
                raise ConfigError(
                    f"loss.class_weights=balanced: class {int(counts.argmin())} has no training sample, so there is no"
                    " weight that balances it; give numbers, or more data"
                )
            return tuple((len(labels) / (classes * counts)).tolist())
        if len(given) != classes or min(given) < 0 or max(given) == 0:
            raise ConfigError(
                f"loss.class_weights=[{','.join(f'{weight:g}' for weight in given)}]: expected {classes} numbers"
                " from 0, one for each class in the order of the labels, not all of them 0"
            )
        return tuple(map(float, given))


class BuiltinLoss(Loss):
    """One of ablate's own losses, in two numerical forms.

    The naive form computes value and derivative from the outputs p, the way one writes it by hand. The stable form
    computes from the logits; unless a loss overrides it, it is the naive one through the output function's Jacobian.
    """

    from_logits: bool = Field(True, description="true: the stable fused form; false: the naive one, from probabilities")
    eps_log: NotNegative = Field(0.0, description="added to p inside the logarithm (naive form only)")
    eps_sum: NotNegative = Field(0.0, description="added to the denominator of the softmax (naive form only)")

    @classmethod
    def incomplete(cls) -> str | None:
        if missing := super().incomplete():
            return missing
        if cls.allowed_outputs and set(cls.allowed_outputs) <= set(OUTPUTS.names()):
            return None
        return f"needs allowed_outputs, names out of {', '.join(OUTPUTS.names())}"

    @abstractmethod
    def naive_value(self, p: Array, y: Array) -> Array:
        """The value of each sample from the outputs, `(..., N)`."""

    @abstractmethod
    def naive_gradient(self, p: Array, y: Array) -> Array:
        """The derivative of `naive_value` with respect to the outputs, `(..., C, N)`."""

    def value(self, z: Array, p: Array, y: Array) -> Array:
        """The value of each sample from the logits."""
        return self.naive_value(p, y)

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        """The derivative of `value` with respect to the logits."""
        return OUTPUTS.get(output).jacobian(p, self.naive_gradient(p, y))

    def objective(self, output: str) -> Formulas:
        name = self.allowed_outputs[0] if output == "auto" else output
        if not self.from_logits:
            return self.naive(name)
        return Formulas(name, OUTPUTS.get(name).function, self.value, partial(self.gradient, output=name))

    def naive(self, output: str) -> Formulas:
        """The objective in the naive form, whichever form is configured."""
        function = OUTPUTS.get(output)
        outputs = function.function
        if not self.from_logits and self.eps_sum and output == "softmax":
            outputs = partial(softmax, eps_sum=self.eps_sum)
        return Formulas(
            output,
            outputs,
            lambda z, p, y: self.naive_value(p, y),
            lambda z, p, y: function.jacobian(p, self.naive_gradient(p, y)),
        )

    def own_constants(self) -> tuple[float, ...]:
        """Its own keys as numbers, in the order of its fields, but for those of every loss; for the kernels."""
        own = (key for key in self.field_names() if key not in BuiltinLoss.model_fields)
        return tuple(float(getattr(self, key)) for key in own)


LOSSES: Group[Loss] = Group("loss")


def _softplus(z: Array) -> Array:
    """ln(1 + exp(z))."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


class _AgainstTarget(BuiltinLoss):
    """Cross-entropy against a distribution over the classes."""

    @abstractmethod
    def target(self, y: Array) -> Array:
        """The target distribution `(..., C, N)`."""

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return -(self.target(y) * log_softmax(z)).sum(axis=-2)

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        return p - self.target(y)

    def naive_value(self, p: Array, y: Array) -> Array:
        target = self.target(y)
        # 0·ln 0 is 0: a class that is not a target costs nothing, however small its probability.
        return -(target * np.log(np.where(target > 0, p + self.eps_log, 1))).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        target = self.target(y)
        return -target / np.where(target > 0, p + self.eps_log, 1)


@LOSSES.declare
class CrossEntropy(_AgainstTarget):
    """-Σ y ln p, by log-sum-exp; p - y."""

    name: Literal["ce"] = "ce"
    also_called: ClassVar[tuple[str, ...]] = (
        "cross_entropy",
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "nll",
        "nll_loss",
        "log_loss",
        "softmax_loss",
    )
    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax",)
    kernel: ClassVar[str | None] = "CrossEntropy"

    def target(self, y: Array) -> Array:
        return y


@LOSSES.declare
class SquaredError(BuiltinLoss):
    """½ Σ (p - y)²; its derivative with respect to p is p - y."""

    name: Literal["mse"] = "mse"
    also_called: ClassVar[tuple[str, ...]] = ("mean_squared_error", "squared_error", "l2", "brier")
    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "sigmoid")
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "regression": ("identity", "sigmoid"),
        "multilabel": ("sigmoid",),
    }
    kernel: ClassVar[str | None] = "SquaredError"

    def naive_value(self, p: Array, y: Array) -> Array:
        return np.square(p - y).sum(axis=-2) * p.dtype.type(0.5)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return p - y


@LOSSES.declare
class BinaryCrossEntropy(BuiltinLoss):
    """-Σ [y ln p + (1 - y) ln(1 - p)], by softplus; p - y."""

    name: Literal["bce"] = "bce"
    also_called: ClassVar[tuple[str, ...]] = (
        "binary_cross_entropy",
        "binary_crossentropy",
        "bce_with_logits",
        "bce_logits",
        "binary_cross_entropy_with_logits",
        "logistic",
    )
    allowed_outputs: ClassVar[tuple[str, ...]] = ("sigmoid",)
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {"multilabel": ("sigmoid",)}
    kernel: ClassVar[str | None] = "BinaryCrossEntropy"

    def value(self, z: Array, p: Array, y: Array) -> Array:
        # softplus(z) = max(z, 0) + ln(1 + exp(-|z|)), minus y z; the small term is added last, to keep its digits.
        return (np.maximum(z, 0) - y * z + np.log1p(np.exp(-np.abs(z)))).sum(axis=-2)

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        return p - y

    def naive_value(self, p: Array, y: Array) -> Array:
        return -np.where(y > 0, np.log(p + self.eps_log), np.log(1 - p + self.eps_log)).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return np.where(y > 0, -1 / (p + self.eps_log), 1 / (1 - p + self.eps_log))


@LOSSES.declare
class AbsoluteError(BuiltinLoss):
    """Σ |p - y|; its derivative with respect to p is the sign of p - y."""

    name: Literal["mae"] = "mae"
    also_called: ClassVar[tuple[str, ...]] = ("mean_absolute_error", "absolute_error", "l1")
    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "sigmoid")
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "regression": ("identity", "sigmoid"),
        "multilabel": ("sigmoid",),
    }
    kernel: ClassVar[str | None] = "AbsoluteError"

    def naive_value(self, p: Array, y: Array) -> Array:
        return np.abs(p - y).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return np.sign(p - y)


@LOSSES.declare
class Huber(BuiltinLoss):
    """Huber, 1964: Σ of d²/2 where |d| = |p - y| is at most δ, of δ (|d| - δ/2) beyond; d cut to [-δ, δ]."""

    name: Literal["huber"] = "huber"
    also_called: ClassVar[tuple[str, ...]] = ("smooth_l1",)
    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "sigmoid")
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "regression": ("identity", "sigmoid"),
        "multilabel": ("sigmoid",),
    }
    kernel: ClassVar[str | None] = "Huber"

    delta: Positive = Field(1.0, description="huber: the error from which on it grows linearly, not quadratically")

    def naive_value(self, p: Array, y: Array) -> Array:
        size = np.abs(p - y)
        near = np.minimum(size, self.delta)
        return (near * (size - near * p.dtype.type(0.5))).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return np.clip(p - y, -self.delta, self.delta)


class _Margins(BuiltinLoss):
    """A loss of the margins m + z_j - z_t of the wrong classes over the right one."""

    allowed_outputs: ClassVar[tuple[str, ...]] = ("identity",)

    margin: NotNegative = Field(
        1.0, description="hinge, squared_hinge: by how much the right class's logit must exceed every other"
    )

    def _margins(self, p: Array, y: Array) -> Array:
        """For every wrong class; 0 for the right one."""
        return (self.margin + p - sum_classes(p * y)) * (1 - y)


@LOSSES.declare
class Hinge(_Margins):
    """Crammer and Singer, 2001, summed as by Weston and Watkins, 1999: Σ over j≠t of max(0, m + z_j - z_t)."""

    name: Literal["hinge"] = "hinge"
    also_called: ClassVar[tuple[str, ...]] = ("svm", "multi_margin", "categorical_hinge")
    kernel: ClassVar[str | None] = "Hinge"

    def naive_value(self, p: Array, y: Array) -> Array:
        return np.maximum(self._margins(p, y), 0).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        violated = (self._margins(p, y) > 0).astype(p.dtype)
        return violated - y * sum_classes(violated)


@LOSSES.declare
class SquaredHinge(_Margins):
    """Σ over j≠t of max(0, m + z_j - z_t)², which has no kink: its slope starts at 0 where a margin is violated."""

    name: Literal["squared_hinge"] = "squared_hinge"
    also_called: ClassVar[tuple[str, ...]] = ("l2_svm", "hinge_squared")
    kernel: ClassVar[str | None] = "SquaredHinge"

    def naive_value(self, p: Array, y: Array) -> Array:
        return np.square(np.maximum(self._margins(p, y), 0)).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        slope = 2 * np.maximum(self._margins(p, y), 0)
        return slope - y * sum_classes(slope)


class _Discounted(BuiltinLoss):
    """-w (1 - q)^γ ln q of the probability q that was given to the truth."""

    name: Literal["focal"] = "focal"
    also_called: ClassVar[tuple[str, ...]] = ("focal_loss", "sigmoid_focal")

    gamma: NotNegative = Field(2.0, description="focal: how much easy samples are discounted")
    alpha: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="focal: weight of a sample; over a sigmoid, of the class that is meant, and 1 - alpha of the others"
        " (null: 1 for all)",
    )

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of the class that is meant, and of the others where they have a loss of their own."""
        return (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)

    def own_constants(self) -> tuple[float, ...]:
        return self.gamma, *self.weights

    def _naive(self, q: Array) -> Array:
        """The value without its weight."""
        return -((1 - q) ** self.gamma) * np.log(q + self.eps_log)

    def _naive_slope(self, q: Array) -> Array:
        """The derivative of `_naive` with respect to q."""
        # Where q rounds to 1, (1-q)^(γ-1) ln q is ∞·0 for γ < 1; its limit is 0.
        rest = np.maximum(1 - q, np.finfo(q.dtype).tiny)
        slope = self.gamma * rest ** (self.gamma - 1) * np.log(q + self.eps_log)
        return slope - (1 - q) ** self.gamma / (q + self.eps_log)


@LOSSES.declare
class Focal(_Discounted):
    """Lin et al., 2017: -α (1 - p_t)^γ ln p_t; over a sigmoid their own form, for every class by itself."""

    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "sigmoid")
    other_tasks: ClassVar[Mapping[str, tuple[str, ...]]] = {"multilabel": ("sigmoid",)}
    kernel: ClassVar[str | None] = "Focal"

    def refusal(self, output: str) -> str | None:
        if output != "sigmoid" or self.weights[1] > 0:
            return None
        weight = "over a sigmoid the classes that are not meant weigh 1 - alpha, which is nothing"
        return f"loss.alpha={self.alpha:g}: {weight}; choose a number below 1, or null for all alike"

    def objective(self, output: str) -> Formulas:
        if output == "sigmoid":
            return _BinaryFocal.model_validate(self.model_dump()).objective(output)
        return super().objective(output)

    def value(self, z: Array, p: Array, y: Array) -> Array:
        log_p = sum_classes(log_softmax(z) * y)
        return -(self._complement(z, y) ** self.gamma * log_p)[..., 0, :] * self.weights[0]

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        gamma, log_p, rest = self.gamma, sum_classes(log_softmax(z) * y), self._complement(z, y)
        # d value / d ln p_t, times d ln p_t / dz = y - p; γ (1-p)^(γ-1) is 0·∞ where p_t rounds to 1.
        tiny = np.finfo(z.dtype).tiny
        slope = gamma * np.maximum(rest, tiny) ** (gamma - 1) * (1 - rest) * log_p - rest**gamma
        return slope * self.weights[0] * (y - p)

    def naive_value(self, p: Array, y: Array) -> Array:
        return self._naive((p * y).sum(axis=-2)) * self.weights[0]

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return y * (self._naive_slope(sum_classes(p * y)) * self.weights[0])

    @staticmethod
    def _complement(z: Array, y: Array) -> Array:
        """1 - p_t as the sum of the other classes' probabilities, which stays accurate when p_t is near 1."""
        return sum_classes(softmax(z) * (1 - y))


class _BinaryFocal(_Discounted):
    """The sum over the classes of -α_c (1 - q_c)^γ ln q_c; where y is 1, q is p and α_c is α, else 1 - p and 1 - α."""

    allowed_outputs: ClassVar[tuple[str, ...]] = ("sigmoid",)

    def value(self, z: Array, p: Array, y: Array) -> Array:
        u = np.where(y > 0, z, -z)
        return (self._weight(y) * sigmoid(-u) ** self.gamma * _softplus(-u)).sum(axis=-2)

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        u = np.where(y > 0, z, -z)
        rest = sigmoid(-u)
        slope = self._weight(y) * rest**self.gamma * (self.gamma * (1 - rest) * _softplus(-u) + rest)
        return np.where(y > 0, -slope, slope)

    def naive_value(self, p: Array, y: Array) -> Array:
        return (self._weight(y) * self._naive(np.where(y > 0, p, 1 - p))).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        slope = self._weight(y) * self._naive_slope(np.where(y > 0, p, 1 - p))
        return np.where(y > 0, slope, -slope)

    def _weight(self, y: Array) -> Array:
        mine, others = self.weights
        return np.where(y > 0, y.dtype.type(mine), y.dtype.type(others))


class _Smoothed(_AgainstTarget):
    """A loss against y (1 - ε) + ε / C."""

    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax",)

    smoothing: Annotated[Fraction, Called("label_smoothing")] = Field(
        0.1, description="label_smoothing, kl, reverse_kl: the share of the target spread over all classes"
    )

    def target(self, y: Array) -> Array:
        return y * (1 - self.smoothing) + self.smoothing / y.shape[-2]


@LOSSES.declare
class LabelSmoothing(_Smoothed):
    """Szegedy et al., 2016: cross-entropy against y (1 - ε) + ε / C."""

    name: Literal["label_smoothing"] = "label_smoothing"
    also_called: ClassVar[tuple[str, ...]] = ("smoothed_ce",)
    kernel: ClassVar[str | None] = "LabelSmoothing"


@LOSSES.declare
class KullbackLeibler(_Smoothed):
    """KL(t‖p) = Σ t ln(t / p), t = y (1 - ε) + ε / C: cross-entropy against t minus t's entropy, with its gradient."""

    name: Literal["kl"] = "kl"
    also_called: ClassVar[tuple[str, ...]] = ("kld", "kl_div", "kl_divergence", "kullback_leibler")
    kernel: ClassVar[str | None] = "KullbackLeibler"

    smoothing: Fraction = Field(0.0, description=_Smoothed.model_fields["smoothing"].description)

    def value(self, z: Array, p: Array, y: Array) -> Array:
        target = self.target(y)
        return (target * (_log_of_target(target) - log_softmax(z))).sum(axis=-2)

    def naive_value(self, p: Array, y: Array) -> Array:
        target = self.target(y)
        return (target * (_log_of_target(target) - np.log(np.where(target > 0, p + self.eps_log, 1)))).sum(axis=-2)


@LOSSES.declare
class ReverseKullbackLeibler(_Smoothed):
    """KL(p‖t) = Σ p ln(p / t), t = y (1 - ε) + ε / C: infinite against a one-hot target."""

    name: Literal["reverse_kl"] = "reverse_kl"
    kernel: ClassVar[str | None] = "ReverseKullbackLeibler"

    def objective(self, output: str) -> Formulas:
        if self.smoothing == 0:
            raise ConfigError(
                "loss.smoothing=0: loss=reverse_kl is infinite against a one-hot target; choose a number above 0"
            )
        return super().objective(output)

    def value(self, z: Array, p: Array, y: Array) -> Array:
        return (p * (log_softmax(z) - np.log(self.target(y)))).sum(axis=-2)

    def gradient(self, z: Array, p: Array, y: Array, output: str) -> Array:
        distance = log_softmax(z) - np.log(self.target(y))
        return p * (distance - sum_classes(p * distance))

    def naive_value(self, p: Array, y: Array) -> Array:
        return (p * (np.log(self._inside(p)) - np.log(self.target(y)))).sum(axis=-2)

    def naive_gradient(self, p: Array, y: Array) -> Array:
        inside = self._inside(p)
        return np.log(inside) + p / inside - np.log(self.target(y))

    def _inside(self, p: Array) -> Array:
        """What stands inside the logarithm: p ln p is 0 where p is."""
        return np.where(p > 0, p + self.eps_log, 1)


def _log_of_target(target: Array) -> Array:
    """ln t, and 0 where t is: t ln t is 0 there."""
    return np.log(np.where(target > 0, target, 1))
