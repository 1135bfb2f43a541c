"""The NumPy engine: lanes in groups, and one group after the other trains an epoch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ablate.backends.engine import Epoch, Evaluation, Lane, Units, Watched
from ablate.backends.numpy.group import Group
from ablate.backends.numpy.layout import Layout
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture

Array = np.ndarray[Any, np.dtype[Any]]

# Lanes in a group. Small dense networks cost Python calls, which stacked lanes share; one convolution fills the caches.
STACKED_DENSE = 64
STACKED_IMAGES = 1


class NumpyEngine:
    """K lanes of one architecture on one data set; see `ablate.backends.engine.Engine`.

    Lane invariance: a lane's numbers do not depend on the other lanes, nor on the size of the process group. So every
    product is one GEMM per lane, always of the same shape; no sum runs over lanes; micro-batches depend on the batch
    size only, and their sums are added in a fixed order (`Layout.partial_sums`).
    """

    def __init__(
        self,
        architecture: Architecture,
        dataset: Dataset,
        lanes: Sequence[Lane],
        batch_size: int,
        processes: ProcessGroup | None = None,
    ) -> None:
        assert len({lane.mistake for lane in lanes}) == 1, "the lanes of a cohort share their mistake"
        self.layout = Layout(architecture)
        self.dataset, self.lanes, self.batch_size = dataset, lanes, batch_size
        self.processes = processes or ProcessGroup()
        stacked = STACKED_IMAGES if self.layout.takes_images else STACKED_DENSE
        self.groups = [
            self._group(range(start, min(start + stacked, len(lanes)))) for start in range(0, len(lanes), stacked)
        ]

    def train_epoch(self, orders: Sequence[Array], logged: Sequence[int]) -> Epoch:
        lanes = len(self.lanes)
        loss = np.full(lanes, np.nan)
        tallies = np.full((lanes, self.dataset.scorers["train"].while_trained), np.nan)
        steps = np.full((3, lanes, len(logged)), np.nan)
        layers = self.layout.weighted_layers
        watched = Watched(layers, np.zeros((lanes, len(layers))), np.zeros(lanes, int), np.zeros(lanes, int))
        epoch = Epoch(loss, tallies, logged, steps[0], steps[1], steps[2], watched, ended={})
        for group in self.groups:
            group.train_epoch(orders, epoch)
        return epoch

    def evaluate(self, rows: int | None = None) -> Evaluation:
        return self._evaluate(self.groups, rows)

    def evaluate_lane(self, lane: int) -> Evaluation:
        return self._evaluate([self._alone(lane)], None)

    def units(self) -> Units:
        dead, saturated = np.full((2, len(self.lanes)), np.nan)
        for group in self.groups:
            group.units(Units(dead, saturated))
        return Units(dead, saturated)

    def drop(self, lanes: Sequence[int]) -> None:
        for group in self.groups:
            group.retire([lane for lane in lanes if lane in group.active])

    def weights(self, lane: int) -> dict[str, Array]:
        group = next(group for group in self.groups if lane in group.members)
        return self.layout.unflatten(group.flat_weights(lane))

    def outputs(self, lane: int) -> Array:
        return self.dataset.in_file_units(self._alone(lane).outputs())

    def _group(self, lanes: Sequence[int]) -> Group:
        return Group(
            self.layout, self.dataset, {lane: self.lanes[lane] for lane in lanes}, self.batch_size, self.processes
        )

    def _alone(self, lane: int) -> Group:
        """The lane with its current weights, in a group of its own, whether it is still in training or not."""
        member = replace(self.lanes[lane], weights=self.weights(lane))
        return Group(self.layout, self.dataset, {lane: member}, self.batch_size, self.processes)

    def _evaluate(self, groups: Sequence[Group], rows: int | None) -> Evaluation:
        lanes, split = len(self.lanes), "test" if rows is None else "train"
        count = len(self.dataset.y_test if rows is None else self.dataset.y_train)
        tallies = np.full((lanes, self.dataset.scorers[split].when_tested), np.nan)
        total = Evaluation(np.full(lanes, np.nan), tallies, count if rows is None else min(rows, count), {})
        for group in groups:
            group.evaluate(split, total)
        return total
