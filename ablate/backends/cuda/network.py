"""A network on a device: its kernels, the arrays of a batch, and the launches of its passes."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.backends.cuda.device import THREADS, Buffer, Device, Kernel
from ablate.backends.cuda.layout import Layout
from ablate.backends.cuda.memory import Batch, Lanes, Rows

# Roughly this many elements per thread, so that there are fewer blocks to start.
ELEMENTS = 4
# The number of a step in which nothing is dropped.
EVALUATION = -1


@dataclass(frozen=True)
class Order:
    """The orders in which rows are visited, `orders` `(U, N)`, and which of them each lane uses, `order_of` `(K,)`."""

    orders: Buffer
    order_of: Buffer


class Network:
    """The reference kernels, one launch per operation, on the arrays of a batch.

    `slots` `(L,)` name the lane in each slot of the batch's arrays; n is the number of samples in this batch.
    """

    # Created once it is known for how many lanes there is room.
    batch: Batch

    def __init__(self, device: Device, layout: Layout, lanes: Lanes, capacity: int, dtype: np.dtype[Any]) -> None:
        self.layout, self.lanes = layout, lanes
        real = layout.real(dtype)
        own = real | {"CAPACITY": str(capacity)}
        around = {"SAMPLE": str(layout.sample), "FITTED": str(layout.fitted), "LOGITS": str(layout.logits)}
        around["SCORING"] = lanes.scoring
        layers = {"STAGES": ",".join(layer.type for layer in layout.layers)} | layout.numbered
        # The constants with which the persistent kernel is compiled.
        self.whole = own | around | layers | {"LOWEST": str(layout.lowest)} | layout.objective | layout.backward
        wanted = {
            "batch": ("batch.cu", own | around | layout.objective),
            "layers": ("layers.cu", own | layers | layout.backward),
            "update": ("update.cu", real),
            "units": ("units.cu", real),
        }
        modules = _compiled(device, wanted)
        self.around, self.after, self.units = modules["batch"], modules["update"], modules["units"]
        self.layers = modules["layers"]
        self.fit = device.put(layout.fit(), np.int32)
        self.edges = device.put(np.array(layout.edges), np.int32)

    def most_blocks(self, n: int) -> int:
        """The number of blocks per lane for which the largest layer has work."""
        return _blocks(n * max(layer.after for layer in self.layout.layers))

    def forward(self, slots: Buffer, rows: Rows, order: Order, first: int, n: int, step: int = EVALUATION) -> None:
        """Compute the logits of n rows, from position `first` of each lane's order on; a training step drops units."""
        batch, blocks = self.batch, _blocks(n * self.layout.fitted)
        gathered = (rows.x, rows.known, self.fit, order.orders, order.order_of, rows.count, first)
        self.around["gather_rows"](blocks, slots.count, slots, *gathered, batch.outputs[0], batch.targets, n)
        for number, layer in enumerate(self.layout.layers):
            x, y = batch.outputs[number : number + 2]
            blocks = _blocks(n * layer.after)
            self.layers["forward"](blocks, slots.count, slots, number, x, self.lanes.theta, y, n, self.lanes.keys, step)

    def lose(self, slots: Buffer, n: int) -> None:
        """Compute the losses, predictions and confidences of a batch after `forward`."""
        batch, lanes = self.batch, self.lanes
        z, seen = batch.outputs[-1], batch.errors[-1]
        into = (batch.p, seen, batch.values, batch.confidence, batch.predicted)
        kinds = (lanes.kinds, lanes.constants, lanes.class_weights)
        self.around["loss_value"](_blocks(n), slots.count, slots, *kinds, z, batch.targets, *into, n)

    def differentiate(self, slots: Buffer, n: int, step: int) -> None:
        """Compute losses, predictions and the lanes' gradient of a batch after `forward` for the same step."""
        batch, lanes = self.batch, self.lanes
        kinds = (lanes.kinds, lanes.constants, lanes.class_weights, lanes.is_mean)
        into = (batch.p, batch.errors[-1], batch.values, batch.predicted)
        self.around["loss_gradient"](_blocks(n), slots.count, slots, *kinds, batch.outputs[-1], batch.targets, *into, n)
        for number in reversed(range(self.layout.lowest, len(self.layout.layers))):
            self._backward(slots, number, n, step)
        partial = (batch.partial, self.layout.partials)
        self.layers["add_partial"](_blocks(self.layout.size), slots.count, slots, *partial, lanes.gradient, n)

    def _backward(self, slots: Buffer, number: int, n: int, step: int) -> None:
        batch, layout, layer = self.batch, self.layout, self.layout.layers[number]
        x, y = batch.outputs[number : number + 2]
        dx, dy = batch.errors[number : number + 2]
        if number > layout.lowest:
            read = (slots, number, x, y, dy, self.lanes.theta)
            self.layers["input_gradient"](_blocks(n * layer.before), slots.count, *read, dx, n, self.lanes.keys, step)
        if layer.parameters:
            blocks = _blocks(layer.shares * layer.weights)
            self.layers["parameter_gradient"](blocks, slots.count, number, x, dy, batch.partial, layout.partials, n)

    def tally(self, slots: Buffer, rows: Rows, n: int) -> None:
        """Add a batch of these rows after `lose` to the lanes' sums and counts."""
        batch, lanes = self.batch, self.lanes
        read = (batch.values, batch.confidence, batch.predicted, batch.targets, batch.p, rows.facts)
        into = (lanes.sums, lanes.sums.shape[1], lanes.counts, lanes.counts.shape[1])
        self.around["tally_rows"](1, slots.count, slots, *read, *into, n)

    def count_units(self, slots: Buffer, n: int) -> None:
        """Count dead units and saturated values after `forward` on n rows, and add them to the lanes' counts."""
        lanes = self.lanes
        for number, layer in enumerate(self.layout.layers, start=1):
            read = (slots, self.batch.outputs[number], self.batch.capacity, layer.maps, layer.places, n)
            if layer.can_die:
                self.units["count_dead"](_blocks(layer.maps), slots.count, *read, lanes.dead)
            if layer.reach:
                self.units["count_saturated"](
                    _blocks(n * layer.after), slots.count, *read, *layer.reach, lanes.saturated
                )


def _blocks(elements: int) -> int:
    return max(1, math.ceil(elements / (ELEMENTS * THREADS)))


def _compiled(device: Device, wanted: Mapping[str, tuple[str, Mapping[str, str]]]) -> dict[str, Mapping[str, Kernel]]:
    """Compile several files in parallel: a compiler is a process of its own."""
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(device.compile, file, constants) for file, constants in wanted.values()]:
            future.result()
    return {name: device.kernels(file, constants) for name, (file, constants) in wanted.items()}
