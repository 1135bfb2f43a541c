"""Schedules of the learning rates, each declared once: the factor of both rates at every update.

Updates count from 0 through the whole training. First comes the warm-up, w updates: the factor of update t is
(t + 1) / w. Then the schedule begins, with a factor of 1; u counts its updates from 0, e = u / (updates an epoch) its
epochs.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.problem.registry import Choice, Group
from ablate.problem.section import Count, Fraction, NotNegative, Positive

Array = np.ndarray[Any, np.dtype[Any]]


class Schedule(Choice):
    """An option of the group `schedule`."""

    is_level: ClassVar[bool] = False

    warmup: NotNegative = Field(
        0.0,
        description="the rates rise in equal steps to lr and output_lr over so many epochs, before the schedule begins",
    )

    @property
    def is_constant(self) -> bool:
        """Whether the factor is 1 throughout."""
        return self.is_level and self.warmup == 0

    @abstractmethod
    def factors(self, update: Array, updates: int, per_epoch: int) -> Array:
        """The factors of updates u `(S,)`, whole numbers, of `updates` in all and `per_epoch` in an epoch; float64."""


SCHEDULES: Group[Schedule] = Group("schedule")


class _Level(Schedule):
    """What the schedules share that have nothing but a warm-up."""

    is_level: ClassVar[bool] = True

    def factors(self, update: Array, updates: int, per_epoch: int) -> Array:
        return np.ones(update.shape)


@SCHEDULES.declare
class Constant(_Level):
    """1 after the warm-up, if there is any."""

    name: Literal["constant"] = "constant"
    also_called: ClassVar[tuple[str, ...]] = ("none", "fixed")


@SCHEDULES.declare
class Step(Schedule):
    """factor^floor(e / every)."""

    name: Literal["step"] = "step"
    also_called: ClassVar[tuple[str, ...]] = ("step_lr", "step_decay", "staircase")
    every: Count = Field(5, description="step: epochs from one fall of the rates to the next")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="step: what the rates are multiplied by")

    def factors(self, update: Array, updates: int, per_epoch: int) -> Array:
        return np.asarray(self.factor ** (update // (self.every * per_epoch)))


@SCHEDULES.declare
class Cosine(Schedule):
    """floor + (1 - floor) (1 + cos(π u / U)) / 2 for U updates in all (Loshchilov and Hutter, 2017, no restarts)."""

    name: Literal["cosine"] = "cosine"
    also_called: ClassVar[tuple[str, ...]] = ("cosine_annealing", "cosine_annealing_lr", "cosine_decay")
    floor: Fraction = Field(0.0, description="cosine: the factor that the rates fall to by the end of the last epoch")

    def factors(self, update: Array, updates: int, per_epoch: int) -> Array:
        return np.asarray(1 - (1 - self.floor) * (1 - np.cos(np.pi * update / max(updates, 1))) / 2)


@SCHEDULES.declare
class Warmup(_Level):
    """1 after a warm-up."""

    name: Literal["warmup"] = "warmup"
    also_called: ClassVar[tuple[str, ...]] = ("linear_warmup",)
    warmup: NotNegative = 1.0


@SCHEDULES.declare
class InverseTime(Schedule):
    """1 / (1 + e / half_after): the 1/t decay (Robbins and Monro, 1951)."""

    name: Literal["inverse_time"] = "inverse_time"
    also_called: ClassVar[tuple[str, ...]] = ("1/t", "inverse_time_decay", "time_decay")
    half_after: Positive = Field(
        1.0, description="inverse_time: epochs after which the rates are half of what they were"
    )

    def factors(self, update: Array, updates: int, per_epoch: int) -> Array:
        return np.asarray(1 / (1 + update / (self.half_after * per_epoch)))


@dataclass(frozen=True)
class Pace:
    """A schedule over a training of so many epochs."""

    schedule: Schedule
    steps_per_epoch: int
    epochs: int

    def factors(self, first: int, count: int) -> Array:
        """The factors `(count,)` of the updates from `first` on, in float64."""
        update, warm = np.arange(first, first + count), round(self.schedule.warmup * self.steps_per_epoch)
        begun = np.maximum(update - warm, 0)
        later = self.schedule.factors(begun, self.epochs * self.steps_per_epoch - warm, self.steps_per_epoch)
        return np.where(update < warm, (update + 1) / max(warm, 1), later)


class Paces:
    """The paces of K lanes; each distinct one is computed once."""

    def __init__(self, paces: Sequence[Pace]) -> None:
        self.distinct = list(dict.fromkeys(paces))
        numbers = {pace: number for number, pace in enumerate(self.distinct)}
        self.number_of = np.array([numbers[pace] for pace in paces])
        self.are_constant = all(pace.schedule.is_constant for pace in self.distinct)

    def factors(self, first: int, count: int) -> Array:
        """The factors `(K, count)` of the updates from `first` on, in float64."""
        return np.stack([pace.factors(first, count) for pace in self.distinct])[self.number_of]
