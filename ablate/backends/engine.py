"""What a backend is to the rest of the program: lanes in, numbers out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ablate.errors import ConfigError
from ablate.problem.losses import Loss, Objective
from ablate.problem.mistakes import Mistake
from ablate.problem.optimizers import Optimizer

Array = np.ndarray[Any, np.dtype[Any]]


class OutOfMemoryError(ConfigError):
    """A device has less memory than was asked for; fewer lanes at once may fit."""


# Hidden units are watched on so many rows of the test set.
WATCHED_ROWS = 50


@dataclass(frozen=True)
class Lane:
    """What distinguishes one trial from its neighbours in a cohort.

    `rate` and `output_rate` carry the sign of the update and of the residual. `objective` is the loss over its output
    function, the mistake included. The lanes of a cohort share their mistake.
    """

    weights: Mapping[str, Array]
    loss: Loss
    objective: Objective
    optimizer: Optimizer
    rate: float
    output_rate: float
    mistake: Mistake

    @property
    def objective_key(self) -> object:
        """Equal for lanes whose objectives compute the same and may be asked in one call."""
        return id(self) if self.loss.is_foreign else (str(self.loss), self.objective.output)


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set. Arrays `(K,)` and `(K, S)` for S logged steps; NaN for lanes not trained.

    `loss` and `accuracy` are means over the samples as they were met. `ended` says of each lane that stopped
    within the epoch why: its loss is not finite, or it failed.
    """

    loss: Array
    accuracy: Array
    steps: Sequence[int]
    step_loss: Array
    gradient_norm: Array
    output_gradient_norm: Array
    watched: "Watched"
    ended: dict[int, "Ended"]


@dataclass(frozen=True)
class Watched:
    """What the logged steps of an epoch looked like from inside.

    `layer_norms` `(K, L)` are means of the gradient's norm over the steps logged, by the names in `layers`;
    `too_large` and `too_small` `(K,)` count numbers of the output layer's update, lr times gradient, above 1,
    and below 1e-7 but not 0, over the steps logged.
    """

    layers: Sequence[str]
    layer_norms: Array
    too_large: Array
    too_small: Array


@dataclass(frozen=True)
class Units:
    """The hidden units on a few test samples, per lane `(K,)`; NaN where a network has none of a kind.

    `dead`: share of ReLU units (for images: maps) that are 0 on all of them. `saturated`: share of sigmoid
    and tanh values within a hundredth of the function's ends.
    """

    dead: Array
    saturated: Array


@dataclass(frozen=True)
class Ended:
    """A lane's untimely end: at which step of the epoch (from 0), and whether it failed or diverged."""

    step: int
    why: str
    failed: bool


@dataclass(frozen=True)
class Evaluation:
    """The network on a set of samples, per lane: arrays `(K,)`, and `predicted` `(K, classes)` counts."""

    loss: Array
    accuracy: Array
    confidence: Array
    predicted: Array
    failed: dict[int, str]


class Probe(Protocol):
    """One lane on the whole of a small training set, held still."""

    def gradient(self) -> dict[str, Array]:
        """The gradient as coded, its mistake included, by public names; a second call shows what the first left."""
        ...


class Engine(Protocol):
    """Trains K lanes side by side; lanes are numbered 0..K-1 for ever, whichever are still in training."""

    def train_epoch(self, orders: Sequence[Array], logged: Sequence[int]) -> Epoch:
        """Train every lane on the rows `orders[lane]` `(N,)`, batch after batch; log the steps named."""
        ...

    def evaluate(self, rows: int | None = None) -> Evaluation:
        """The test set; or, with `rows`, the first rows of the training set."""
        ...

    def evaluate_lane(self, lane: int) -> Evaluation:
        """The test set for one lane, whether it is still in training or not; NaN for the others."""
        ...

    def units(self) -> Units:
        """How the hidden units of the lanes in training stood when the test set was last evaluated."""
        ...

    def drop(self, lanes: Sequence[int]) -> None:
        """Train these lanes no further; their weights stay as they are."""
        ...

    def weights(self, lane: int) -> dict[str, Array]:
        """The lane's weights by their public names and shapes."""
        ...

    def outputs(self, lane: int) -> Array:
        """The lane's outputs p on the test set, `(N, units)`."""
        ...
