"""The CUDA engine: all lanes in one launch if the device has room for them, else in waves."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ablate.backends.cuda.device import Buffer, Device, DeviceError, DeviceMemoryError
from ablate.backends.cuda.epochs import Log, Pass, Persistent, Way
from ablate.backends.cuda.layout import Layout
from ablate.backends.cuda.memory import Batch, Lanes, Rows, corrections
from ablate.backends.cuda.network import Network, Order
from ablate.backends.engine import WATCHED_ROWS, Ended, Epoch, Evaluation, Lane, Units, Watched
from ablate.problem import models
from ablate.problem.data.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

log = logging.getLogger("ablate")

# The arrays of a batch hold at least this many samples, for evaluation.
EVALUATED = 256
# Fragmentation: not all free memory can be allocated.
SHARE_OF_MEMORY = 0.9


class CudaEngine:
    """K lanes of one architecture on one data set; see `ablate.backends.engine.Engine`.

    Data, order and weights stay on the device; sums come back once per epoch. A lane's numbers do not depend on the
    other lanes. Raises DeviceError if the device or a compiler is not available, DeviceMemoryError if not even one
    lane fits.
    """

    def __init__(
        self,
        architecture: models.Architecture,
        dataset: Dataset,
        lanes: Sequence[Lane],
        batch_size: int,
        device: Device,
        way: Way | None = None,
    ) -> None:
        assert len({lane.mistake for lane in lanes}) == 1, "the lanes of a cohort share their mistake"
        dtype = dataset.x_train.dtype
        self.device, self.members, self.dataset, self.batch_size = device, lanes, dataset, batch_size
        self.layout = Layout(architecture, lanes[0].mistake, batch_size)
        self.capacity = max(batch_size, min(len(dataset.y_test), EVALUATED))
        self._check_bounds()
        self.train_rows = Rows(device, dataset.x_train, dataset.y_train, dataset.scorers["train"])
        self.test_rows = Rows(device, dataset.x_test, dataset.y_test, dataset.scorers["test"])
        self.way = way or Persistent(device)
        self.lanes = Lanes(device, self.layout, lanes, dataset)
        self.network = Network(device, self.layout, self.lanes, self.capacity, dtype)
        self.network.batch = self._batch(dtype)
        self.active = list(range(len(lanes)))
        self.steps_done = 0

    def _check_bounds(self) -> None:
        """The kernels index the values of a layer in a batch with 31 bits."""
        widest = max(self.layout.fitted, *(layer.after for layer in self.layout.layers))
        if self.capacity * widest >= 2**31:
            raise DeviceError(
                f"batch_size={self.batch_size}: {self.capacity} samples of {widest} numbers are more than a kernel"
                " counts, 2^31; choose a smaller batch_size"
            )

    def _batch(self, dtype: np.dtype[Any]) -> Batch:
        """Arrays for as many lanes at once as the device has room for besides an epoch's order and log of all lanes."""
        wanted, steps = len(self.members), -(-self.train_rows.count // self.batch_size)
        one = Batch.bytes(self.layout, self.capacity, dtype)
        a_step = 4 * dtype.itemsize + 24 + 8 * (len(self.layout.edges) + self.train_rows.scorer.while_trained)
        of_epoch = wanted * (4 * self.train_rows.count + a_step * steps)
        room = int(self.device.free_memory() * SHARE_OF_MEMORY) - of_epoch
        fitting = min(wanted, room // one, self.way.most_lanes(self.network))
        while fitting > 0:
            try:
                batch = Batch(self.device, self.layout, fitting, self.capacity, dtype, self.train_rows)
            except DeviceMemoryError:
                fitting //= 2
                continue
            if fitting < wanted:
                log.warning("the device has room for %d of %d lanes at once: they take turns", fitting, wanted)
            return batch
        raise DeviceMemoryError(
            f"a lane needs {one / 1e6:.0f} MB of the device's memory, {self.device.free_memory() / 1e6:.0f} are free;"
            " choose a smaller batch_size"
        )

    def train_epoch(self, orders: Sequence[Array], logged: Sequence[int]) -> Epoch:
        steps = -(-self.train_rows.count // self.batch_size)
        order = self._order(orders)
        corrected = self.device.put(corrections(self.members, self.steps_done, steps), self.dataset.x_train.dtype)
        tallies = self.train_rows.scorer.while_trained
        written = Log(self.device, len(self.members), len(self.layout.edges) - 1, steps, logged, tallies)
        rates = self.lanes.rates
        if not self.lanes.schedule.are_constant:
            rates = self.device.put(self.lanes.schedule.table(self.steps_done, steps), self.dataset.x_train.dtype)
        work = Pass(self.train_rows, order, rates, corrected, written, self.batch_size, self.steps_done)
        for slots in self._waves(self.active):
            self.way.train(self.network, slots, work)
        self.steps_done += steps
        epoch = self._epoch(written)
        self.drop(list(epoch.ended))
        return epoch

    def evaluate(self, rows: int | None = None) -> Evaluation:
        source = self.test_rows if rows is None else self.train_rows
        return self._evaluate(self.active, source, source.count if rows is None else min(rows, source.count))

    def evaluate_lane(self, lane: int) -> Evaluation:
        return self._evaluate([lane], self.test_rows, self.test_rows.count)

    def units(self) -> Units:
        n = min(WATCHED_ROWS, self.test_rows.count)
        none = np.zeros(len(self.members))
        self.device.write(self.lanes.dead, none)
        self.device.write(self.lanes.saturated, none)
        for slots in self._waves(self.active):
            self.network.forward(slots, self.test_rows, self._as_they_come(self.test_rows), 0, n)
            self.network.count_units(slots, n)
        mortal = sum(layer.maps for layer in self.layout.layers if layer.can_die)
        bounded = n * sum(layer.after for layer in self.layout.layers if layer.reach)
        return Units(self._share(self.lanes.dead, mortal), self._share(self.lanes.saturated, bounded))

    def drop(self, lanes: Sequence[int]) -> None:
        self.active = [lane for lane in self.active if lane not in lanes]

    def weights(self, lane: int) -> dict[str, Array]:
        return self.layout.unflatten(self.device.read(self.lanes.theta.rows(lane, lane + 1))[0])

    def outputs(self, lane: int) -> Array:
        parts = []
        (slots,) = self._waves([lane])
        for n in self._evaluated(slots, self.test_rows, self.test_rows.count):
            outputs = self.device.read(self.network.batch.p.rows(0, 1))
            parts.append(outputs.reshape(self.capacity, self.layout.logits)[:n])
        return self.dataset.in_file_units(np.concatenate(parts))

    def gradient(self, lane: int) -> dict[str, Array]:
        """The lane's gradient of the first batch of the training set, by the reference kernels."""
        n = min(self.batch_size, self.train_rows.count)
        for slots in self._waves([lane]):
            self.network.forward(slots, self.train_rows, self._as_they_come(self.train_rows), 0, n, step=0)
            self.network.differentiate(slots, n, step=0)
        return self.layout.unflatten(self.device.read(self.lanes.gradient.rows(lane, lane + 1))[0])

    def _waves(self, lanes: Sequence[int]) -> Iterator[Buffer]:
        """The lanes in waves, each as large as the arrays of a batch allow."""
        at_once = self.network.batch.lanes
        for start in range(0, len(lanes), at_once):
            slots = self.lanes.active.rows(0, len(lanes[start : start + at_once]))
            self.device.write(slots, np.array(lanes[start : start + at_once]))
            yield slots

    def _order(self, orders: Sequence[Array]) -> Order:
        """The lanes' orders on the device, each once."""
        distinct = list({id(order): order for order in orders}.values())
        places = {id(order): place for place, order in enumerate(distinct)}
        order_of = np.array([places[id(order)] for order in orders])
        return Order(self.device.put(np.stack(distinct), np.int32), self.device.put(order_of, np.int32))

    def _as_they_come(self, rows: Rows) -> Order:
        return Order(rows.plain, self.lanes.as_they_come)

    def _evaluated(self, slots: Buffer, rows: Rows, count: int) -> Iterator[int]:
        """Compute the first rows' losses and outputs batch by batch, and yield the size of each batch."""
        for first in range(0, count, self.capacity):
            n = min(self.capacity, count - first)
            self.network.forward(slots, rows, self._as_they_come(rows), first, n)
            self.network.lose(slots, n)
            yield n

    def _evaluate(self, lanes: Sequence[int], rows: Rows, count: int) -> Evaluation:
        self.device.write(self.lanes.sums, np.zeros(self.lanes.sums.shape))
        self.device.write(self.lanes.counts, np.zeros(self.lanes.counts.shape))
        for slots in self._waves(lanes):
            for n in self._evaluated(slots, rows, count):
                self.network.tally(slots, rows, n)
        sums, counts = self.device.read(self.lanes.sums), self.device.read(self.lanes.counts)
        loss = np.full(len(self.members), np.nan)
        tallies = np.full((len(self.members), rows.scorer.when_tested), np.nan)
        loss[lanes] = sums[lanes, 0] / count
        tallies[lanes] = np.hstack([sums[lanes, 1:], counts[lanes, : rows.scorer.counted]])
        return Evaluation(loss, tallies, count, failed={})

    def _share(self, counted: Buffer, of: int) -> Array:
        shares = np.full(len(self.members), np.nan)
        if of:
            shares[self.active] = self.device.read(counted)[self.active] / of
        return shares

    def _epoch(self, written: Log) -> Epoch:
        """An epoch's record from its log; NaN for lanes that were not trained."""
        lanes, logged, layers = len(self.members), written.logged, self.layout.weighted_layers
        losses, counted, ended = (self.device.read(each) for each in (written.losses, written.tallies, written.ended))
        loss, tallies = np.full(lanes, np.nan), np.full((lanes, counted.shape[2]), np.nan)
        steps = np.full((3, lanes, len(logged)), np.nan)
        watched = Watched(layers, np.zeros((lanes, len(layers))), np.zeros(lanes, int), np.zeros(lanes, int))
        sizes = np.full(written.steps, self.batch_size)
        sizes[-1] = self.train_rows.count - self.batch_size * (written.steps - 1)
        epoch = Epoch(loss, tallies, logged, steps[0], steps[1], steps[2], watched, ended={})
        squares, counts = self.device.read(written.squares), self.device.read(written.counts)
        for lane in self.active:
            seen = sum(step <= ended[lane] for step in logged)
            means = losses[lane] / sizes
            norms = np.sqrt(squares[lane, :seen])
            epoch.step_loss[lane, :seen] = means[list(logged[:seen])]
            epoch.gradient_norm[lane, :seen] = np.sqrt(squares[lane, :seen].sum(axis=1))
            epoch.output_gradient_norm[lane, :seen] = norms[:, -1]
            watched.layer_norms[lane] = norms.sum(axis=0) / max(len(logged), 1)
            watched.too_large[lane], watched.too_small[lane] = counts[lane, :seen].sum(axis=0)
            if ended[lane] < written.steps:
                step = int(ended[lane])
                epoch.ended[lane] = Ended(step, f"the loss is {means[step]}", failed=False)
            else:
                loss[lane] = losses[lane].sum() / self.train_rows.count
                tallies[lane] = counted[lane].sum(axis=0)
        return epoch
