"""Update rules, each declared once: its keys, its state, and how a gradient becomes a step.

A rule turns the gradient g into a step s; the engine then does `w -= rate * s`, where rate carries the learning rate
and the sign of the update. Every rule is odd in g, so the sign may be applied after it. Arrays of K lanes are `(K, P)`.

Clipping and weight decay are common to all rules. The gradient is clipped first: its entries, then its norm. Then
`weight_decay * w` is added to it or, decoupled, to the step. Weight decay gets the sign of the rate, so that it draws
the weights towards 0 whatever the sign of the update.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.problem.registry import Choice, Group
from ablate.problem.section import Called, Fraction, NotNegative, Positive

Array = np.ndarray[Any, np.dtype[Any]]

# The most state arrays, constants and decays of a rule: the kernels have room for this many (cuda/rules.cuh).
MOST_STATES, MOST_CONSTANTS, MOST_DECAYS = 2, 3, 2
# Added to the norm that clipping divides by, as in torch.nn.utils.clip_grad_norm_.
NORM_EPSILON = 1e-6
# What does not say whether the norm or the values are meant.
_CLIP = ("clip", "clipping", "gradient_clipping", "gradient_clip")


class Optimizer(Choice):
    """An option of the group `optimizer`.

    `states` is the number of arrays that it keeps from step to step, all 0 at first; `kernel` is its struct in
    `cuda/rules.cuh`, or None; `is_decoupled` says that weight decay is added to the step, not to the gradient.
    `usual_rate` is the learning rate with which most networks train.
    """

    states: ClassVar[int] = 0
    kernel: ClassVar[str | None] = None
    is_decoupled: ClassVar[bool] = False
    usual_rate: ClassVar[float] = 0.1

    weight_decay: Annotated[NotNegative, Called("l2", "wd")] = Field(
        0.0, description="this times each weight and bias is added to its gradient (adamw, default 0.01: to its step)"
    )
    clip_norm: Annotated[Positive | None, Called("max_norm", "grad_clip", "clip_grad_norm", *_CLIP)] = Field(
        None, description="a gradient whose norm over all weights and biases is larger is scaled down to it (null: off)"
    )
    clip_value: Annotated[Positive | None, Called("clip_grad_value", *_CLIP)] = Field(
        None, description="entries of the gradient beyond plus or minus this are set to it (null: off)"
    )

    @property
    def parts(self) -> tuple[Any, ...]:
        """Equal for options whose lanes one `Rule` can serve: the same formulas, with other numbers."""
        return self.name, self.weight_decay > 0, self.clip_norm is not None, self.clip_value is not None

    def constants(self) -> tuple[float, ...]:
        """The constants of `step`, in float64; engines cast them to their precision."""
        return ()

    def decays(self) -> tuple[float, ...]:
        """Decays d of running means that start at 0; `step` is given the correction 1 / (1 - d^t) of each, t from 1."""
        return ()

    @classmethod
    def incomplete(cls) -> str | None:
        if (missing := super().incomplete()) is not None or cls.kernel is None:
            return missing
        one = cls.model_validate(cls.defaults())
        asked = (cls.states, len(one.constants()), len(one.decays()))
        fits = all(count <= most for count, most in zip(asked, (MOST_STATES, MOST_CONSTANTS, MOST_DECAYS), strict=True))
        return None if fits else "needs more states, constants or decays than the kernels have places for"

    @classmethod
    @abstractmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        """The step s for this gradient, which may be overwritten; the states advance by one.

        Gradient and states are `(K, P)`; constants and corrections are columns `(K, 1)` of the same dtype.
        """


def correction(decay: Array, step: int | Array) -> Array:
    """1 / (1 - d^t), in float64."""
    return np.asarray(1 / (1 - decay**step))


OPTIMIZERS: Group[Optimizer] = Group("optimizer")


@OPTIMIZERS.declare
class Sgd(Optimizer):
    """s = g."""

    name: Literal["sgd"] = "sgd"
    also_called: ClassVar[tuple[str, ...]] = ("gd", "gradient_descent")
    kernel: ClassVar[str | None] = "Sgd"

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        return gradient


class _Velocity(Optimizer):
    """What the rules with momentum share: the velocity v = momentum v + g, without damping."""

    states: ClassVar[int] = 1

    momentum: Fraction = Field(0.9, description="momentum, nesterov: the share of the velocity kept")

    def constants(self) -> tuple[float, ...]:
        return (self.momentum,)

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (velocity,), (momentum,) = states, constants
        velocity *= momentum
        velocity += gradient
        return velocity


@OPTIMIZERS.declare
class Momentum(_Velocity):
    """v = momentum v + g; s = v (Polyak's heavy ball, without damping)."""

    name: Literal["momentum"] = "momentum"
    also_called: ClassVar[tuple[str, ...]] = ("sgd_momentum", "heavy_ball")
    kernel: ClassVar[str | None] = "Momentum"


@OPTIMIZERS.declare
class Nesterov(_Velocity):
    """v = momentum v + g; s = g + momentum v (Sutskever et al., 2013, in PyTorch's form)."""

    name: Literal["nesterov"] = "nesterov"
    also_called: ClassVar[tuple[str, ...]] = ("nag", "sgd_nesterov")
    kernel: ClassVar[str | None] = "Nesterov"

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        velocity, (momentum,) = super().step(gradient, states, constants, corrections), constants
        return np.asarray(gradient + momentum * velocity)


class _Moments(Optimizer):
    """What the rules of Adam's kind share: bias-corrected running means of the gradient and of its square."""

    usual_rate: ClassVar[float] = 0.001
    states: ClassVar[int] = 2

    beta1: Fraction = Field(0.9, description="adam, adamw: decay of the mean gradient")
    beta2: Fraction = Field(0.999, description="adam, adamw: decay of the mean square")
    epsilon: Annotated[Positive, Called("eps")] = Field(
        1e-8, description="added to the root in the denominator (adadelta, default 1e-6: under both roots)"
    )

    def constants(self) -> tuple[float, ...]:
        return 1 - self.beta1, 1 - self.beta2, self.epsilon

    def decays(self) -> tuple[float, ...]:
        return self.beta1, self.beta2

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (mean, square), (rest1, rest2, epsilon), (scale1, scale2) = states, constants, corrections
        mean += rest1 * (gradient - mean)
        square += rest2 * (np.square(gradient) - square)
        return scale1 * mean / (np.sqrt(scale2 * square) + epsilon)


@OPTIMIZERS.declare
class Adam(_Moments):
    """Kingma and Ba, 2015: bias-corrected mean gradient over the root of the bias-corrected mean square."""

    name: Literal["adam"] = "adam"
    kernel: ClassVar[str | None] = "Adam"


@OPTIMIZERS.declare
class AdamW(_Moments):
    """Adam's step + weight_decay w: decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    kernel: ClassVar[str | None] = "AdamW"
    is_decoupled: ClassVar[bool] = True

    weight_decay: NotNegative = 0.01


@OPTIMIZERS.declare
class RmsProp(Optimizer):
    """q = decay q + (1 - decay) g²; s = g / (sqrt(q) + epsilon) (Tieleman and Hinton, 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    usual_rate: ClassVar[float] = 0.001
    states: ClassVar[int] = 1
    kernel: ClassVar[str | None] = "RmsProp"

    decay: Fraction = Field(0.99, description="rmsprop: decay of the mean square")
    epsilon: Positive = 1e-8

    def constants(self) -> tuple[float, ...]:
        return 1 - self.decay, self.epsilon

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (square,), (rest, epsilon) = states, constants
        square += rest * (np.square(gradient) - square)
        return gradient / (np.sqrt(square) + epsilon)


@OPTIMIZERS.declare
class Adagrad(Optimizer):
    """q = q + g²; s = g / (sqrt(q) + epsilon) (Duchi et al., 2011)."""

    name: Literal["adagrad"] = "adagrad"
    usual_rate: ClassVar[float] = 0.01
    states: ClassVar[int] = 1
    kernel: ClassVar[str | None] = "Adagrad"

    epsilon: Positive = 1e-8

    def constants(self) -> tuple[float, ...]:
        return (self.epsilon,)

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (square,), (epsilon,) = states, constants
        square += np.square(gradient)
        return gradient / (np.sqrt(square) + epsilon)


@OPTIMIZERS.declare
class Adadelta(Optimizer):
    """q = rho q + (1 - rho) g²; s = g sqrt((u + epsilon) / (q + epsilon)); u = rho u + (1 - rho) s² (Zeiler, 2012)."""

    name: Literal["adadelta"] = "adadelta"
    usual_rate: ClassVar[float] = 1.0
    states: ClassVar[int] = 2
    kernel: ClassVar[str | None] = "Adadelta"

    rho: Fraction = Field(0.9, description="adadelta: decay of the mean squares of gradient and step")
    epsilon: Positive = 1e-6

    def constants(self) -> tuple[float, ...]:
        return 1 - self.rho, self.epsilon

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (square, change), (rest, epsilon) = states, constants
        square += rest * (np.square(gradient) - square)
        step = np.sqrt(change + epsilon) / np.sqrt(square + epsilon) * gradient
        change += rest * (np.square(step) - change)
        return np.asarray(step)


class Rule:
    """The update rule of K lanes and its state: one kind, whose settings may differ by lane.

    The optimizers have equal `parts`; `weight_decay` `(K,)` has the signs of the lanes' rates. States are of the shape
    and dtype of the weights `(K, P)`.
    """

    def __init__(self, optimizers: Sequence[Optimizer], weight_decay: Sequence[float], weights: Array) -> None:
        dtype = weights.dtype
        self.kind, self.dtype, self.steps = type(optimizers[0]), dtype, 0
        self.states = [np.zeros_like(weights) for _ in range(self.kind.states)]
        self.constants = _columns([each.constants() for each in optimizers], dtype)
        self.decays = _columns([each.decays() for each in optimizers], np.dtype(np.float64))
        # Weight decay and clipping, where they are on.
        common = {
            "weight_decay": weight_decay,
            "clip_norm": [each.clip_norm for each in optimizers],
            "clip_value": [each.clip_value for each in optimizers],
        }
        self.common = {name: _column(values, dtype) for name, values in common.items() if values[0]}

    def step(self, gradient: Array, weights: Array) -> Array:
        """The step s `(K, P)` for this gradient `(K, P)`, which may be overwritten; the state advances by one."""
        self.steps += 1
        self._clip(gradient)
        weight_decay, is_decoupled = self.common.get("weight_decay"), self.kind.is_decoupled
        if weight_decay is not None and not is_decoupled:
            gradient += weight_decay * weights
        corrections = [correction(decay, self.steps).astype(self.dtype) for decay in self.decays]
        step = self.kind.step(gradient, self.states, self.constants, corrections)
        return step + weight_decay * weights if weight_decay is not None and is_decoupled else step

    def _clip(self, gradient: Array) -> None:
        if (largest := self.common.get("clip_value")) is not None:
            np.clip(gradient, -largest, largest, out=gradient)
        if (longest := self.common.get("clip_norm")) is not None:
            norm = np.sqrt(np.square(gradient, dtype=np.float64).sum(axis=1, keepdims=True))
            gradient *= np.minimum(1, longest / (norm + NORM_EPSILON)).astype(self.dtype)

    def keep(self, lanes: Array) -> None:
        """Drop every lane that is not in `lanes` (indices, ascending)."""
        self.states = [state[lanes] for state in self.states]
        self.constants = [column[lanes] for column in self.constants]
        self.decays = [column[lanes] for column in self.decays]
        self.common = {name: column[lanes] for name, column in self.common.items()}


def _column(by_lane: Sequence[float | None], dtype: np.dtype[Any]) -> Array:
    return np.array(by_lane, dtype)[:, None]


def _columns(by_lane: Sequence[Sequence[float]], dtype: np.dtype[Any]) -> list[Array]:
    return [_column(values, dtype) for values in zip(*by_lane, strict=True)]
