"""One network that is not trained: its loss at slightly changed weights, and its gradient as coded."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ablate.backends.engine import Lane
from ablate.backends.numpy.group import Group
from ablate.backends.numpy.layout import Layout
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture

Array = np.ndarray[Any, np.dtype[Any]]


class NumpyProbe:
    """The loss of one lane on the whole of a small training set, as a function of its weights.

    Names and shapes of weights are the public ones. The loss is the mean over the samples or their sum, as the lane's
    reduction says.
    """

    def __init__(self, architecture: Architecture, dataset: Dataset, lane: Lane) -> None:
        self.layout = Layout(architecture)
        self.lane = lane
        rows = len(dataset.y_train)
        self.group = Group(self.layout, dataset, {0: lane}, rows, ProcessGroup())
        self.rows = np.arange(rows)[None]
        self.scale = 1 / rows if lane.loss.reduction == "mean" else 1.0
        self.places = {
            name: np.argsort(placement.order) + placement.start for name, placement in self.layout.placements.items()
        }

    def loss(self) -> float:
        """The loss at the current weights."""
        return float(self.group.losses_of(self.rows)[0] * self.scale)

    def logits(self) -> Array:
        """The logits at the current weights, `(1, C, N)`."""
        return self.group.logits(self.rows)

    def targets(self) -> Array:
        """The one-hot targets, `(1, C, N)`."""
        return self.group.targets(self.rows)

    def loss_at(self, name: str, index: int, step: float) -> float:
        """The loss with one weight changed by `step`: `index` counts in the public tensor, flattened."""
        theta, place = self.group.theta[0], self.places[name][index]
        before = theta[place]
        theta[place] = before + step
        try:
            return self.loss()
        finally:
            theta[place] = before

    def loss_along(self, direction: Mapping[str, Array], step: float) -> float:
        """The loss with all weights changed by `step` times a direction."""
        before = self.group.theta.copy()
        self.group.theta[0] += step * self.layout.flatten(direction, before.dtype)
        try:
            return self.loss()
        finally:
            self.group.theta[...] = before

    def gradient(self) -> dict[str, Array]:
        """The gradient as coded, the mistake included, by public names; a second call shows state left by the first."""
        self.group.differentiate(self.rows)
        return self.layout.unflatten(self.group.gradient[0].copy())
