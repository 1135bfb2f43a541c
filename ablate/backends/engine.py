"""What an engine is to the rest of the program: lanes in, numbers out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ablate.errors import ConfigError
from ablate.problem.losses import Loss, Objective
from ablate.problem.mistakes import Mistake
from ablate.problem.optimizers import Optimizer
from ablate.problem.schedules import Pace, Paces

Array = np.ndarray[Any, np.dtype[Any]]


class OutOfMemoryError(ConfigError):
    """A device has less memory than was requested; fewer lanes at once may fit."""


# Hidden units are watched on this many rows of the test set.
WATCHED_ROWS = 50


@dataclass(frozen=True)
class Lane:
    """What distinguishes one trial from the others of an engine.

    `rate` and `output_rate` carry the signs of the update and of the residual; `pace` has their factors. `objective` is
    the loss over its output function, the mistake and the `class_weights` included. The lanes of an engine share their
    mistake. `dropout_key` is that of `problem.dropout`.
    """

    weights: Mapping[str, Array]
    loss: Loss
    objective: Objective
    optimizer: Optimizer
    rate: float
    output_rate: float
    pace: Pace
    mistake: Mistake
    class_weights: tuple[float, ...] | None = None
    dropout_key: int = 0

    @property
    def weight_decay(self) -> float:
        """The optimiser's weight decay with the sign of the rate: it draws to 0 whatever the sign of the update."""
        return math.copysign(self.optimizer.weight_decay, self.rate)

    @cached_property
    def objective_key(self) -> object:
        """Equal for lanes whose objectives compute the same, so that one call serves them all."""
        return id(self) if self.loss.is_foreign else (str(self.loss), self.objective.output)


class Rates:
    """The learning rates of K lanes, update by update."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.first = np.array([(lane.rate, lane.output_rate) for lane in lanes]).reshape(-1, 2)
        self.paces = Paces([lane.pace for lane in lanes])

    @property
    def are_constant(self) -> bool:
        """Whether they are the same at every update."""
        return self.paces.are_constant

    def table(self, first: int, count: int) -> Array:
        """The rates of hidden layers and output layer `(K, count, 2)` at the updates from `first` on, in float64."""
        return self.first[:, None] * self.paces.factors(first, count)[:, :, None]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set. Arrays `(K,)` and `(K, S)` for S logged steps; NaN for lanes not trained.

    `loss` is the mean over the samples and `tallies` `(K, while_trained)` the sums that the data set's scorer asks for,
    each measured before its own batch's update. `ended` says for each lane that stopped within the epoch why: its loss
    is not finite, or it failed.
    """

    loss: Array
    tallies: Array
    steps: Sequence[int]
    step_loss: Array
    gradient_norm: Array
    output_gradient_norm: Array
    watched: "Watched"
    ended: dict[int, "Ended"]


@dataclass(frozen=True)
class Watched:
    """What was watched at the logged steps of an epoch.

    `layer_norms` `(K, L)` are means of the gradient's norm over the steps logged, by the names in `layers`;
    `too_large` and `too_small` `(K,)` count, over the steps logged, the entries of the output layer's update, lr times
    gradient, that are above 1 in absolute value, and those below 1e-7 but not 0.
    """

    layers: Sequence[str]
    layer_norms: Array
    too_large: Array
    too_small: Array


@dataclass(frozen=True)
class Units:
    """The hidden units on a few test samples, per lane `(K,)`; NaN if the network has no units of that kind.

    `dead`: share of ReLU units (for images: maps) that are 0 on all of them. `saturated`: share of sigmoid
    and tanh values within a hundredth of the function's ends.
    """

    dead: Array
    saturated: Array


@dataclass(frozen=True)
class Ended:
    """Why a lane stopped early: at which step of the epoch (from 0), and whether it failed or diverged."""

    step: int
    why: str
    failed: bool


@dataclass(frozen=True)
class Evaluation:
    """The network on a set of `rows` samples, per lane; NaN for lanes that were not evaluated.

    `loss` `(K,)` is the mean, `tallies` `(K, when_tested)` are the sums that the scorer of the set asks for.
    """

    loss: Array
    tallies: Array
    rows: int
    failed: dict[int, str]


class Probe(Protocol):
    """One lane on the whole of a small training set, whose weights stay as they are."""

    def gradient(self) -> dict[str, Array]:
        """The gradient as coded, the mistake included, by public names; a second call shows state left by the first."""
        ...


class Engine(Protocol):
    """Trains K lanes side by side; a lane keeps its number, 0..K-1, whichever others are still in training."""

    def train_epoch(self, orders: Sequence[Array], logged: Sequence[int]) -> Epoch:
        """Train every active lane on the rows `orders[lane]` `(N,)`, batch after batch; log the steps named."""
        ...

    def evaluate(self, rows: int | None = None) -> Evaluation:
        """Evaluate on the test set or, with `rows`, on the first rows of the training set."""
        ...

    def evaluate_lane(self, lane: int) -> Evaluation:
        """Evaluate one lane on the test set, whether it is still in training or not; NaN for the others."""
        ...

    def units(self) -> Units:
        """The hidden units of the lanes in training, on the first rows of the test set."""
        ...

    def drop(self, lanes: Sequence[int]) -> None:
        """Stop training these lanes; their weights stay as they are."""
        ...

    def weights(self, lane: int) -> dict[str, Array]:
        """The lane's weights by their public names and shapes."""
        ...

    def outputs(self, lane: int) -> Array:
        """The lane's outputs p on the test set, `(N, units)`, in the units in which the files give the targets."""
        ...
