"""The two ways through an epoch: one launch per operation, or a persistent kernel. Their numbers are the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ablate.backends.cuda.declarations import NORM_PARTS
from ablate.backends.cuda.device import THREADS, Buffer, Device, DeviceError, Kernel
from ablate.backends.cuda.memory import Rows
from ablate.backends.cuda.network import Network, Order

Array = np.ndarray[Any, np.dtype[Any]]

# The limit of the grid's second dimension.
MOST_LANES = 65535
# Forward multiplications per launch: some seconds in the emulation, milliseconds on a GPU. Between launches Ctrl-C
# takes effect, and a display's watchdog does not fire.
MULTIPLICATIONS = 2_000_000_000
# With more blocks per lane, waiting for each other costs more than they save.
MOST_BLOCKS = 64


class Log:
    """An epoch's log on the device: by lane, step and logged step.

    `losses` `(K, S)` and `tallies` `(K, S, while_trained)` are sums over a step's batch, `ended` `(K,)` the step whose
    loss is not finite, else S; `squares` `(K, columns, layers)` sums of squares of the gradient, `counts`
    `(K, columns, 2)` as in `backends.engine.Watched`; `columns` names the column of each step.
    """

    def __init__(
        self, device: Device, lanes: int, layers: int, steps: int, logged: Sequence[int], tallies: int
    ) -> None:
        self.steps, self.logged = steps, logged
        self.losses = device.allocate((lanes, steps), np.float64)
        self.tallies = device.allocate((lanes, steps, tallies), np.float64)
        self.ended = device.put(np.full(lanes, steps), np.int32)
        self.squares = device.allocate((lanes, max(len(logged), 1), layers), np.float64)
        self.counts = device.allocate((lanes, max(len(logged), 1), 2), np.int32)
        columns = np.full(steps, -1)
        columns[list(logged)] = range(len(logged))
        self.columns = device.put(columns, np.int32)


@dataclass(frozen=True)
class Pass:
    """One pass of all lanes over the training set, to be trained wave after wave."""

    rows: Rows
    order: Order
    rates: Buffer
    corrections: Buffer
    log: Log
    batch_size: int
    # Steps of the training before this pass.
    done: int


class Way(Protocol):
    """How an epoch is launched."""

    def most_lanes(self, network: Network) -> int:
        """How many lanes can be trained at once, memory apart."""
        ...

    def train(self, network: Network, slots: Buffer, work: Pass) -> None:
        """Train the lanes in `slots` over the whole pass."""
        ...


class Stepwise:
    """The reference kernels, one launch per operation: the oracle for the persistent kernel."""

    def most_lanes(self, network: Network) -> int:
        return MOST_LANES

    def train(self, network: Network, slots: Buffer, work: Pass) -> None:
        columns = {step: column for column, step in enumerate(work.log.logged)}
        for step, first in enumerate(range(0, work.rows.count, work.batch_size)):
            n = min(work.batch_size, work.rows.count - first)
            network.forward(slots, work.rows, work.order, first, n, work.done + step)
            network.differentiate(slots, n, work.done + step)
            self._finish(network, slots, work, step, columns.get(step), n)

    def _finish(self, network: Network, slots: Buffer, work: Pass, step: int, column: int | None, n: int) -> None:
        batch, lanes, layout, log = network.batch, network.lanes, network.layout, work.log
        read = (batch.values, batch.predicted, batch.targets, batch.p, work.rows.facts)
        into = (log.losses, log.tallies, log.ended)
        network.around["tally_batch"](1, slots.count, slots, *read, *into, log.steps, step, n)
        rates = (work.rates, work.rates.shape[1])
        if column is not None:
            layers = len(layout.edges) - 1
            watched = (lanes.gradient, layout.size, network.edges, layers, *rates, max(len(log.logged), 1), column)
            network.after["watch"](layers, slots.count, slots, log.ended, step, *watched, log.squares, log.counts)
        if lanes.clip_norms:
            squared = (lanes.rules, lanes.gradient, layout.size, lanes.norm_parts)
            network.after["square"](NORM_PARTS, slots.count, slots, log.ended, step, *squared)
        state = (lanes.gradient, lanes.norm_parts, lanes.first, lanes.second)
        rule = (lanes.rules, *rates, work.corrections, *state)
        blocks = -(-layout.size // THREADS)
        network.after["update"](
            blocks, slots.count, slots, log.ended, step, log.steps, *rule, lanes.theta, layout.size, layout.output_start
        )


class Persistent:
    """The persistent kernel: launches of many steps, whose blocks wait for each other."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def most_lanes(self, network: Network) -> int:
        return min(MOST_LANES, self._kernel(network).resident)

    def train(self, network: Network, slots: Buffer, work: Pass) -> None:
        kernel = self._kernel(network)
        blocks = max(1, min(MOST_BLOCKS, kernel.resident // slots.count, network.most_blocks(work.batch_size)))
        if blocks * slots.count > kernel.resident:
            raise DeviceError(f"{blocks * slots.count} blocks that wait for each other, of which {kernel.resident} fit")
        outputs, errors = (
            self.device.put(np.array([buffer.address for buffer in buffers], np.uint64), np.uint64)
            for buffers in (network.batch.outputs, network.batch.errors)
        )
        at_once = max(
            1, MULTIPLICATIONS // (network.layout.architecture.multiplications * work.batch_size * slots.count)
        )
        for first in range(0, work.log.steps, at_once):
            arrived = self.device.put(np.zeros(slots.count), np.uint32)
            steps = (first, min(first + at_once, work.log.steps))
            fields = self._fields(network, slots, work, (outputs, errors, arrived), steps)
            addresses = [field.address if isinstance(field, Buffer) else field for field in fields]
            kernel(blocks, slots.count, self.device.put(np.array(addresses, np.uint64), np.uint64))

    def _kernel(self, network: Network) -> Kernel:
        return self.device.kernels("epoch.cu", network.whole)["train_epoch"]

    def _fields(
        self, network: Network, slots: Buffer, work: Pass, tables: Sequence[Buffer], part: tuple[int, int]
    ) -> list[Buffer | int]:
        """`Training` of `cuda/epoch.cu`, field by field."""
        batch, lanes, layout, log = network.batch, network.lanes, network.layout, work.log
        rows = work.rows
        data = [slots, rows.x, rows.known, rows.facts, network.fit, work.order.orders, work.order.order_of]
        losses = [lanes.kinds, lanes.constants, lanes.class_weights, lanes.is_mean]
        rules = [lanes.rules, work.rates, work.corrections]
        state = [lanes.theta, lanes.gradient, lanes.norm_parts, lanes.first, lanes.second]
        arrays = [batch.partial, batch.targets, batch.p, batch.values, batch.predicted]
        logs = [log.losses, log.tallies, log.ended, log.columns, network.edges, log.squares, log.counts]
        sizes = [work.rows.count, work.batch_size, log.steps, *part, layout.partials, log.squares.shape[1]]
        sizes += [len(layout.edges) - 1, work.done, work.rates.shape[1]]
        return [*data, *losses, *rules, *state, *arrays, *logs, *tables, lanes.keys, *sizes]
