"""One network held still: its loss at weights moved a little, and its gradient as coded."""

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

    Names and shapes of weights are the public ones. The loss is the objective that the lane's reduction
    means: the mean over the samples, or their sum.
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
        """The objective at the weights as they are."""
        return float(self.group.losses_of(self.rows)[0] * self.scale)

    def logits(self) -> Array:
        """The logits at the weights as they are, `(1, C, N)`."""
        return self.group.logits(self.rows)

    def loss_at(self, name: str, index: int, step: float) -> float:
        """The objective with one weight moved: `index` counts in the public tensor, flattened."""
        theta, place = self.group.theta[0], self.places[name][index]
        before = theta[place]
        theta[place] = before + step
        try:
            return self.loss()
        finally:
            theta[place] = before

    def loss_along(self, direction: Mapping[str, Array], step: float) -> float:
        """The objective with all weights moved by `step` times a direction."""
        before = self.group.theta.copy()
        self.group.theta[0] += step * self.layout.flatten(direction, before.dtype)
        try:
            return self.loss()
        finally:
            self.group.theta[...] = before

    def gradient(self) -> dict[str, Array]:
        """The gradient as coded, bug included, by public names; calling it twice shows what was left from before."""
        self.group.differentiate(self.rows)
        return self.layout.unflatten(self.group.gradient[0].copy())
