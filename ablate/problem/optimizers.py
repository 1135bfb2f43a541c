"""Update rules, each declared once: its keys, its state, and how a gradient becomes a step.

A rule turns the gradient g into a step s; the engine then does `w -= rate * s`, where rate carries the learning rate
and the sign of the update. Every rule is odd in g, so the sign may be applied after it. Arrays of K lanes are `(K, P)`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.problem.registry import Choice, Group
from ablate.problem.section import Fraction, Positive

Array = np.ndarray[Any, np.dtype[Any]]

# A rule keeps at most so many arrays, has at most so many constants, and so many corrections that change by step: the
# kernels have places for them (`Rule` and `Corrections` in cuda/update.cuh).
MOST_STATES, MOST_CONSTANTS, MOST_CORRECTIONS = 2, 3, 2


class Optimizer(Choice):
    """An option of the group `optimizer`.

    `states` is how many arrays it keeps from step to step, all 0 at first; `kernel` its struct in `cuda/rules.cuh`,
    None where it has none.
    """

    states: ClassVar[int] = 0
    kernel: ClassVar[str | None] = None

    def constants(self) -> tuple[float, ...]:
        """What `step` computes with, in float64; engines cast them to their precision."""
        return ()

    def corrections(self, steps: int | Array) -> tuple[Array, ...]:
        """Factors that depend on the number of the step, from 1, or of several: each `(S,)`, float64."""
        return ()

    @classmethod
    @abstractmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        """The step for this gradient, which may be overwritten; the states move on by one.

        Gradient and states are `(K, P)`; constants and corrections are columns `(K, 1)` of the same dtype.
        """


OPTIMIZERS: Group[Optimizer] = Group("optimizer")


@OPTIMIZERS.declare
class Sgd(Optimizer):
    """s = g."""

    name: Literal["sgd"] = "sgd"
    kernel: ClassVar[str | None] = "Sgd"

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        return gradient


@OPTIMIZERS.declare
class Momentum(Optimizer):
    """v = momentum v + g; s = v (Polyak's heavy ball, without damping)."""

    name: Literal["momentum"] = "momentum"
    states: ClassVar[int] = 1
    kernel: ClassVar[str | None] = "Momentum"

    momentum: Fraction = Field(0.9, description="momentum: the share of the velocity kept")

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
class Adam(Optimizer):
    """Kingma and Ba, 2015: bias-corrected mean gradient over the root of the bias-corrected mean square."""

    name: Literal["adam"] = "adam"
    states: ClassVar[int] = 2
    kernel: ClassVar[str | None] = "Adam"

    beta1: Fraction = Field(0.9, description="adam: decay of the mean gradient")
    beta2: Fraction = Field(0.999, description="adam: decay of the mean square")
    epsilon: Positive = Field(1e-8, description="adam, rmsprop, adagrad: added to the root in the denominator")

    def constants(self) -> tuple[float, ...]:
        return 1 - self.beta1, 1 - self.beta2, self.epsilon

    def corrections(self, steps: int | Array) -> tuple[Array, ...]:
        beta1, beta2 = np.array([[self.beta1], [self.beta2]])
        return 1 / (1 - beta1**steps), 1 / (1 - beta2**steps)

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        (mean, square), (rest1, rest2, epsilon), (scale1, scale2) = states, constants, corrections
        mean += rest1 * (gradient - mean)
        square += rest2 * (np.square(gradient) - square)
        return scale1 * mean / (np.sqrt(scale2 * square) + epsilon)


@OPTIMIZERS.declare
class RmsProp(Optimizer):
    """q = decay q + (1 - decay) g²; s = g / (sqrt(q) + epsilon) (Tieleman and Hinton, 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
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


class Rule:
    """The optimisers of K lanes, which are of one kind; their settings may differ. `shape` is `(K, P)`."""

    def __init__(self, optimizers: Sequence[Optimizer], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.optimizers, self.dtype, self.steps = list(optimizers), dtype, 0
        self.states = [np.zeros(shape, dtype) for _ in range(optimizers[0].states)]
        self._cast()

    def step(self, gradient: Array) -> Array:
        """The step `(K, P)` for this gradient `(K, P)`, which may be overwritten; the state moves on by one."""
        self.steps += 1
        return self.optimizers[0].step(gradient, self.states, self.constants, self._corrections())

    def keep(self, lanes: Array) -> None:
        """Forget every lane that is not in `lanes` (indices, ascending)."""
        self.optimizers = [self.optimizers[lane] for lane in lanes]
        self.states = [state[lanes] for state in self.states]
        self._cast()

    def _cast(self) -> None:
        by_lane = zip(*[optimizer.constants() for optimizer in self.optimizers], strict=True)
        self.constants = [np.array(values, self.dtype)[:, None] for values in by_lane]

    def _corrections(self) -> list[Array]:
        by_lane = zip(*[optimizer.corrections(self.steps) for optimizer in self.optimizers], strict=True)
        return [np.array(values).astype(self.dtype) for values in by_lane]
