"""The operations of the NumPy engine, forward and backward, for K lanes at once.

Layout. A batch of n samples lies innermost, so that every copy and element-wise operation runs over long
contiguous rows. Vectors are `(K, D, n)`. Images are `(K, P, H, C, W/P, n)`: a row's columns are stored by
their residue modulo P (its *phases*), in an order in which max-pooling compares contiguous blocks. P is the
product of the pool sizes still to come, or 1 where a shape does not divide.

Convolution is a row im2col: only the horizontal shifts of a row are copied; the k rows a window covers lie
one after the other, so each output row of a phase is one matrix product over a view. Weights are kept in the
order of that product, `(kernel row, kernel column, input map, output map)`; those of a dense layer as `(output,
input)`, which makes its product with rows of the data set fastest.

An operation is wired once: it is given the array it reads and allocates the arrays it writes, and `connect` gives it
the array that will hold the gradient of its output. `forward` and `backward` then take no arguments and allocate
nothing. An operation may overwrite the gradient it is given. The first operation with weights needs no gradient of its
input: it is wired by `connect_parameters` and run by `backward_parameters` alone.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.lib.stride_tricks import as_strided
from threadpoolctl import threadpool_info

from ablate.problem.activations import Activation, as_integers
from ablate.problem.dropout import Uniform

Array = np.ndarray[Any, np.dtype[Any]]


class Operation(Protocol):
    """One operation of a network, wired for one batch size."""

    y: Array

    def forward(self) -> None:
        """Compute `y` from the input array."""
        ...

    def connect(self, d: Array) -> Array:
        """Take `d`, which will hold the gradient of `y`, and return the array that will hold the input's gradient."""
        ...

    def backward(self) -> None:
        """Compute the gradients of input and parameters from the gradient of `y`."""
        ...


def phase_order(sizes: Sequence[int]) -> list[int]:
    """The residues modulo P in the order in which they are stored, if pools of these sizes are still to come."""
    order = [0]
    for size in reversed(sizes):
        order = [size * residue + offset for offset in range(size) for residue in order]
    return order


# Two ways to fast products, of which one applies. Built for AVX-512, OpenBLAS has kernels for small matrices. The one
# for a transposed factor, as in a convolution's gradient and in a dense layer on rows of the data set, is used for up
# to SMALL_RESULT numbers in the result, so larger products are cut. Without these kernels a product with few maps
# spends its time on packing the other factor, so several rows are computed at once, superfluous zeros included.
SMALL_RESULT = 1200
MOST_BLOCKS, FEWEST_SAMPLES = 4, 8
WIDE_ENOUGH = 24
_SMALL_KERNELS = ("SkylakeX", "Cooperlake", "Sapphirerapids")


@cache
def _has_small_kernels() -> bool:
    return any(library.get("architecture") in _SMALL_KERNELS for library in threadpool_info())


def _blocks(rows: int, columns: int, most: int) -> int:
    """The best number of equal parts into which to cut the rows of a product, each computed by itself."""
    if not _has_small_kernels():
        return 1
    counts = (parts for parts in range(1, most + 1) if rows % parts == 0)
    return next((parts for parts in counts if rows // parts * columns <= SMALL_RESULT), 1)


def _together(rows: int, maps: int) -> int:
    """The best number of output rows, of that many maps, to compute with one product."""
    if _has_small_kernels():
        return 1
    return max(
        count for count in range(1, rows + 1) if rows % count == 0 and (count == 1 or count * maps <= WIDE_ENOUGH)
    )


@runtime_checkable
class Weighted(Operation, Protocol):
    """An operation with parameters, which can skip the gradient of its input."""

    def connect_parameters(self, d: Array) -> None:
        """Like `connect`, for the parameters' gradients only."""
        ...

    def backward_parameters(self) -> None:
        """Like `backward`, for the parameters' gradients only."""
        ...


class Gather:
    """Rows of the data set: `(K or 1, n)` indices into `(N, D)` give vectors `(K or 1, D, n)`."""

    def __init__(self, rows: Array, indices: Array) -> None:
        self.rows, self.indices = rows, indices
        self.taken = np.empty((*indices.shape, rows.shape[1]), rows.dtype)
        self.y = self.taken.transpose(0, 2, 1)

    def forward(self) -> None:
        np.take(self.rows, self.indices, axis=0, out=self.taken, mode="clip")

    def connect(self, d: Array) -> Array:
        return d

    def backward(self) -> None:
        """Data has no gradient."""


class GatherImages(Gather):
    """Rows of the data set as images in the engine's layout, fitted to the network's input.

    `source` `(P, H, C, W/P)` holds each pixel's index in a flattened sample, or D for a zero.
    """

    def __init__(self, rows: Array, indices: Array, source: Array) -> None:
        super().__init__(rows, indices)
        lanes, n = indices.shape
        self.source = source.ravel()
        self.turned = np.zeros((lanes, rows.shape[1] + 1, n), rows.dtype)
        self.y = np.empty((lanes, *source.shape, n), rows.dtype)
        self.flat = self.y.reshape(lanes, -1, n)

    def forward(self) -> None:
        super().forward()
        self.turned[:, :-1] = self.taken.transpose(0, 2, 1)
        np.take(self.turned, self.source, axis=1, out=self.flat, mode="clip")


def _in_blocks(a: Array, blocks: int) -> Array:
    """Vectors `(K, D, n)` as `(K, blocks, D, n/blocks)`, sharing memory."""
    lanes, size, n = a.shape
    return a.reshape(lanes, size, blocks, n // blocks).transpose(0, 2, 1, 3)


class Dense:
    """y = W x + b with W `(K, O, D)` and b `(K, O)`."""

    def __init__(self, x: Array, weight: Array, bias: Array, gradients: tuple[Array, Array]) -> None:
        lanes, units, _ = weight.shape
        self.x = x.reshape(x.shape[0], -1, x.shape[-1])
        self.x_turned = self.x.transpose(0, 2, 1)
        self.weight, self.turned = weight, weight.transpose(0, 2, 1)
        self.bias = bias[:, :, None]
        self.weight_gradient, self.bias_gradient = gradients
        self.ones = np.ones(x.shape[-1], x.dtype)
        self.flat = np.empty((lanes, units, x.shape[-1]), x.dtype)
        self.y = self.flat
        lies_turned = self.x.strides[-1] != self.x.itemsize
        blocks = _blocks(x.shape[-1], units, x.shape[-1] // FEWEST_SAMPLES) if lies_turned else 1
        self.by_block = weight[:, None], *(_in_blocks(whole, blocks) for whole in (self.x, self.flat))

    def forward(self) -> None:
        weight, x, into = self.by_block
        np.matmul(weight, x, out=into)
        np.add(self.flat, self.bias, out=self.flat)

    def connect_parameters(self, d: Array) -> None:
        self.d = d.reshape(self.flat.shape)

    def connect(self, d: Array) -> Array:
        self.connect_parameters(d)
        self.dx = np.empty((d.shape[0], *self.x.shape[1:]), d.dtype)
        return self.dx

    def backward(self) -> None:
        self.backward_parameters()
        np.matmul(self.turned, self.d, out=self.dx)

    def backward_parameters(self) -> None:
        np.matmul(self.d, self.x_turned, out=self.weight_gradient)
        np.matmul(self.d, self.ones, out=self.bias_gradient)


class WholeConv(Dense):
    """A convolution whose kernel covers its whole input: a dense layer whose output is images of one pixel."""

    def __init__(self, x: Array, weight: Array, bias: Array, gradients: tuple[Array, Array]) -> None:
        super().__init__(x, weight, bias, gradients)
        self.y = self.flat.reshape(self.flat.shape[0], 1, 1, -1, 1, x.shape[-1])


class Conv:
    """Valid convolution without its bias, W `(K, k·k·C, O)`: images `(.., C, ..)` to images `(.., O, ..)`."""

    def __init__(self, x: Array, weight: Array, gradient: Array, kernel: int, order: list[int]) -> None:
        lanes, _, maps_out = weight.shape
        shared, phases, height, maps, width, n = x.shape
        self.x, self.weight, self.gradient, self.kernel = x, weight, gradient, kernel
        rows = height - kernel + 1
        out = (phases * width - kernel + 1) // phases
        self.columns = np.empty((shared, phases, height, kernel, maps, out, n), x.dtype)
        # Column `to` of the input, kernel column `shift` to the right of an output column of a phase.
        reached = [(place, shift, order[place] + shift) for place in range(phases) for shift in range(kernel)]
        self.shifts = [
            (place, shift, order.index(to % phases), to // phases)
            for place, shift, to in sorted(reached, key=lambda reach: reach[1])
        ]
        self.copies = [
            (self.columns[:, place, :, shift], x[:, phase, :, :, first : first + out])
            for place, shift, phase, first in self.shifts
        ]
        self.y = np.empty((lanes, phases, rows, maps_out, out, n), x.dtype)
        self._wire_products(_together(rows, maps_out), rows, out * n)

    def _wire_products(self, together: int, rows: int, size: int) -> None:
        """Views for products that compute `together` neighbouring output rows at once, forward and in the gradient."""
        lanes, taps, maps_out = self.weight.shape
        shared, phases = self.columns.shape[:2]
        groups, a_row = rows // together, taps // self.kernel
        seen, made = taps + (together - 1) * a_row, together * maps_out
        blocks = _blocks(seen, made, MOST_BLOCKS)
        s = self.columns.strides
        self.windows = as_strided(
            self.columns,
            (shared, phases, groups, blocks, seen // blocks, size),
            (s[0], s[1], together * s[2], seen // blocks * s[4], s[4], self.columns.itemsize),
            writeable=False,
        )
        self.whole_windows = self.windows.reshape(shared, phases, groups, seen, size)
        self.flat = self.y.reshape(lanes, phases, groups, made, size)
        # The same weights for each of the rows, each one input row further down; zeros elsewhere.
        self.spread = np.zeros((lanes, seen, made), self.weight.dtype)
        self.turned = self.spread.transpose(0, 2, 1)[:, None, None]
        places = [
            (slice(None), slice(row * a_row, row * a_row + taps), slice(row * maps_out, (row + 1) * maps_out))
            for row in range(together)
        ]
        self.spread_parts = [self.spread[place] for place in places]
        self.by_group = np.empty((lanes, phases * groups, seen, made), self.weight.dtype)
        self.products = self.by_group.reshape(lanes, phases, groups, blocks, seen // blocks, made)
        self.summed = np.empty((lanes, seen, made), self.weight.dtype)
        self.summed_parts = [self.summed[place] for place in places]

    def forward(self) -> None:
        for into, origin in self.copies:
            np.copyto(into, origin)
        for part in self.spread_parts:
            np.copyto(part, self.weight)
        np.matmul(self.turned, self.whole_windows, out=self.flat)

    def connect_parameters(self, d: Array) -> None:
        self.d_turned = d.reshape(self.flat.shape).swapaxes(-1, -2)[:, :, :, None]

    def connect(self, d: Array) -> Array:
        self.connect_parameters(d)
        self.dx = np.empty((d.shape[0], *self.x.shape[1:]), d.dtype)
        lanes, phases, rows, maps_out, *_ = self.y.shape
        self._connect_products(d.reshape(lanes, phases, rows, maps_out, -1))
        self._connect_sums()
        return self.dx

    def _connect_products(self, d: Array) -> None:
        """Products for the gradient of each input row by kernel column, from the output rows that used it."""
        lanes, phases, rows, maps_out, size = d.shape
        k, maps, height = self.kernel, self.x.shape[3], self.x.shape[2]
        # The weights as these need them: (kernel column, input map | kernel row reversed, output map).
        self.reversed = np.empty((lanes, k, maps, k, maps_out), d.dtype)
        weight = self.reversed.reshape(lanes, 1, 1, k * maps, k * maps_out)
        # As wide as the input, so that whole rows of all maps can be shifted and added at once.
        self.d_columns = np.zeros((lanes, phases, height, k * maps, self.x.shape[4] * self.x.shape[5]), d.dtype)
        into = self.d_columns[..., :size]
        stacked = d.reshape(lanes, phases, rows * maps_out, size)
        self.d_products = []
        for row in range(height):
            first, last = max(0, row - k + 1), min(row, rows - 1)
            if last - first + 1 < k:
                tap = k - 1 - row + first
                taps = slice(tap * maps_out, (tap + last - first + 1) * maps_out)
                seen = stacked[:, :, first * maps_out : (last + 1) * maps_out]
                self.d_products.append((weight[:, 0, :, :, taps], seen, into[:, :, row]))
        if rows >= k:
            s = d.strides
            seen = as_strided(d, (lanes, phases, rows - k + 1, k * maps_out, size), s, writeable=False)
            self.d_products.append((weight, seen, into[:, :, k - 1 : rows]))

    def _connect_sums(self) -> None:
        """Where the part of each kernel column is added: a whole row of maps, shifted by some columns."""
        lanes, phases, height, *_, n = self.dx.shape
        rows = self.dx.reshape(lanes, phases, height, -1)
        parts = self.d_columns.reshape(lanes, phases, height, self.kernel, -1)
        length = rows.shape[-1]
        moved = [
            (rows[:, phase, :, first * n :], parts[:, place, :, shift, : length - first * n], first)
            for place, shift, phase, first in self.shifts
        ]
        # Kernel column 0 reaches every phase once, unmoved: it is written, the others are added.
        assert all(first == 0 for *_, first in moved[:phases])
        self.firsts = [(into, part) for into, part, _ in moved[:phases]]
        self.others = [(into, part) for into, part, _ in moved[phases:]]

    def backward(self) -> None:
        self.backward_parameters()
        lanes, _, maps_out = self.weight.shape
        k, maps = self.kernel, self.x.shape[3]
        self.reversed[...] = self.weight.reshape(lanes, k, k, maps, maps_out).transpose(0, 2, 3, 1, 4)[:, :, :, ::-1]
        for weight, d, into in self.d_products:
            np.matmul(weight, d, out=into)
        for into, part in self.firsts:
            np.copyto(into, part)
        for into, part in self.others:
            np.add(into, part, out=into)

    def backward_parameters(self) -> None:
        np.matmul(self.windows, self.d_turned, out=self.products)
        np.add.reduce(self.by_group, axis=1, out=self.summed)
        np.copyto(self.gradient, self.summed_parts[0])
        for part in self.summed_parts[1:]:
            np.add(self.gradient, part, out=self.gradient)


class StridedConv:
    """Valid convolution without its bias whose window moves by `stride` pixels, on images of one phase.

    W is `(K, k·k·C, O)` as in `Conv`; every window is copied, and each output row is a product of its own.
    """

    def __init__(self, x: Array, weight: Array, gradient: Array, kernel: int, stride: int) -> None:
        lanes, taps, maps_out = weight.shape
        shared, phases, height, maps, width, n = x.shape
        assert phases == 1, "a layout with a stride has one phase"
        rows, out = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        self.x, self.gradient = x, gradient
        self.weight, self.turned = weight[:, None], weight.transpose(0, 2, 1)[:, None]
        self.steps = [
            (i, j, slice(i, i + stride * (rows - 1) + 1, stride), slice(j, j + stride * (out - 1) + 1, stride))
            for i in range(kernel)
            for j in range(kernel)
        ]
        self.columns = np.empty((shared, rows, kernel, kernel, maps, out, n), x.dtype)
        self.windows = self.columns.reshape(shared, rows, taps, out * n)
        self.y = np.empty((lanes, 1, rows, maps_out, out, n), x.dtype)
        self.flat = self.y.reshape(lanes, rows, maps_out, out * n)
        self.by_row = np.empty((lanes, rows, taps, maps_out), x.dtype)

    def forward(self) -> None:
        for i, j, down, across in self.steps:
            np.copyto(self.columns[:, :, i, j], self.x[:, 0, down, :, across])
        np.matmul(self.turned, self.windows, out=self.flat)

    def connect_parameters(self, d: Array) -> None:
        self.d = d.reshape(self.flat.shape)
        self.d_turned = self.d.swapaxes(-1, -2)

    def connect(self, d: Array) -> Array:
        self.connect_parameters(d)
        self.d_columns = np.empty((d.shape[0], *self.columns.shape[1:]), d.dtype)
        self.d_windows = self.d_columns.reshape(d.shape[0], *self.windows.shape[1:])
        self.dx = np.empty((d.shape[0], *self.x.shape[1:]), d.dtype)
        return self.dx

    def backward(self) -> None:
        self.backward_parameters()
        np.matmul(self.weight, self.d, out=self.d_windows)
        self.dx.fill(0)
        for i, j, down, across in self.steps:
            self.dx[:, 0, down, :, across] += self.d_columns[:, :, i, j]

    def backward_parameters(self) -> None:
        np.matmul(self.windows, self.d_turned, out=self.by_row)
        np.add.reduce(self.by_row, axis=1, out=self.gradient)


class Pad:
    """Zeros on each side of images of one phase."""

    def __init__(self, x: Array, padding: int) -> None:
        lanes, phases, height, maps, width, n = x.shape
        assert phases == 1, "a layout with padding has one phase"
        self.x = x
        self.inner = np.s_[:, :, padding : padding + height, :, padding : padding + width]
        self.y = np.zeros((lanes, 1, height + 2 * padding, maps, width + 2 * padding, n), x.dtype)

    def forward(self) -> None:
        np.copyto(self.y[self.inner], self.x)

    def connect(self, d: Array) -> Array:
        self.d = d[self.inner]
        self.dx = np.empty(self.d.shape, d.dtype)
        return self.dx

    def backward(self) -> None:
        np.copyto(self.dx, self.d)


class Bias:
    """Adds one number per map, in place; it runs after pooling, where there are fewer values."""

    def __init__(self, x: Array, bias: Array, gradient: Array) -> None:
        self.y = x
        self.bias, self.gradient = bias[:, None, None, :, None, None], gradient
        # Whole rows of numbers to add: broadcasting one number within a short row would be slower.
        self.row = np.empty((bias.shape[0], 1, 1, *x.shape[3:]), x.dtype)
        lanes, phases, rows, maps, *_ = x.shape
        self.shape = (lanes, phases * rows, maps, -1)
        self.ones = np.ones(x.shape[4] * x.shape[5], x.dtype)
        self.by_row = np.empty((lanes, phases * rows, maps), x.dtype)

    def forward(self) -> None:
        np.copyto(self.row, self.bias)
        np.add(self.y, self.row, out=self.y)

    def connect(self, d: Array) -> Array:
        self.d = d.reshape(self.shape)
        return d

    def backward(self) -> None:
        np.matmul(self.d, self.ones, out=self.by_row)
        np.add.reduce(self.by_row, axis=1, out=self.gradient)


def _across(x: Array, size: int) -> list[Array]:
    """The first, the second, ... column of every window of an image, in its layout."""
    phases, width = x.shape[1], x.shape[4]
    if phases % size == 0:
        block = phases // size
        return [x[:, t * block : (t + 1) * block] for t in range(size)]
    out = width // size
    return [x[:, :, :, :, t : t + size * out : size] for t in range(size)]


class Pool:
    """Max-pooling, width first, then height. Backward, the gradient replaces the values in the input."""

    def __init__(self, x: Array, size: int) -> None:
        _, phases, height, _, width, _ = x.shape
        self.x = x
        self.cropped = [] if phases % size == 0 else [x[:, :, :, :, width // size * size :]]
        rows = height // size
        self.cropped.append(x[:, :, rows * size :])
        self.across = _Maximum(_across(x, size))
        down = self.across.y[:, :, : rows * size]
        self.down = _Maximum([down[:, :, t::size] for t in range(size)])
        self.y = self.down.y

    def forward(self) -> None:
        self.across.forward()
        self.down.forward()

    def connect(self, d: Array) -> Array:
        self.down.connect(d.reshape(self.y.shape))
        self.across.connect(self.across.y)
        return self.x

    def backward(self) -> None:
        self.down.backward()
        self.across.backward()
        for rest in self.cropped:
            rest.fill(0)


class _Maximum:
    """The maximum of two or more arrays; backward, the gradient goes to the first of the largest."""

    def __init__(self, parts: list[Array]) -> None:
        self.parts = parts
        self.running = [np.empty(parts[0].shape, parts[0].dtype) for _ in parts[1:]]
        self.y = self.running[-1]
        self.scratch = np.empty(parts[0].shape, parts[0].dtype)

    def forward(self) -> None:
        before = self.parts[0]
        for part, into in zip(self.parts[1:], self.running, strict=True):
            np.maximum(before, part, out=into)
            before = into

    def connect(self, d: Array) -> None:
        self.gradient, self.mask = as_integers(d), as_integers(self.scratch)
        self.shift = d.itemsize * 8 - 1
        largest = [self.parts[0], *self.running]
        # From the last part to the second: each takes its share of the gradient, and the rest is passed on.
        self.duels = [
            (part, before, as_integers(part), as_integers(self.parts[0]) if before is self.parts[0] else self.gradient)
            for part, before in zip(reversed(self.parts[1:]), reversed(largest[:-1]), strict=True)
        ]

    def backward(self) -> None:
        # The sign bit of (largest so far - part), spread over the word, masks where the part is larger.
        for part, before, taken, rest in self.duels:
            np.subtract(before, part, out=self.scratch)
            np.right_shift(self.mask, self.shift, out=self.mask)
            np.bitwise_and(self.mask, self.gradient, out=taken)
            np.bitwise_xor(self.gradient, taken, out=rest)


class AvgPool:
    """The mean of every window: sums of its columns, then of its rows."""

    def __init__(self, x: Array, size: int) -> None:
        self.x, self.size, self.rows = x, size, x.shape[2] // size
        self.across = _across(x, size)
        self.sums = np.empty(self.across[0].shape, x.dtype)
        self.down = self._down(self.sums)
        self.y = np.empty(self.down[0].shape, x.dtype)

    def _down(self, a: Array) -> list[Array]:
        """The first, the second, ... row of every window."""
        return [a[:, :, t : t + self.size * (self.rows - 1) + 1 : self.size] for t in range(self.size)]

    def forward(self) -> None:
        for parts, into in ((self.across, self.sums), (self.down, self.y)):
            np.add(parts[0], parts[1], out=into)
            for part in parts[2:]:
                np.add(into, part, out=into)
        np.divide(self.y, self.size * self.size, out=self.y)

    def connect(self, d: Array) -> Array:
        self.d = d.reshape((d.shape[0], *self.y.shape[1:]))
        self.dx = np.empty((d.shape[0], *self.x.shape[1:]), d.dtype)
        self.into = [row for column in _across(self.dx, self.size) for row in self._down(column)]
        return self.dx

    def backward(self) -> None:
        np.divide(self.d, self.size * self.size, out=self.d)
        if self.dx.size > len(self.into) * self.d.size:
            self.dx.fill(0)
        for part in self.into:
            np.copyto(part, self.d)


class Activate:
    """An activation, in place."""

    def __init__(self, x: Array, activation: Activation) -> None:
        self.activation, self.y = activation, x
        self.values = self._arranged(x)
        self.x = np.empty(self.values.shape, x.dtype) if activation.needs_input else self.values
        self.work = activation.workspace(self.values)

    def _arranged(self, a: Array) -> Array:
        """The array with the units on its second last axis, where an activation over the units needs them."""
        return a if self.activation.is_elementwise or a.ndim == 3 else a.swapaxes(-3, -2)

    def forward(self) -> None:
        if self.activation.needs_input:
            np.copyto(self.x, self.values)
        self.activation.apply(self.values, self.work)

    def connect(self, d: Array) -> Array:
        self.d = self._arranged(d.reshape(self.y.shape))
        return d

    def backward(self) -> None:
        self.activation.backpropagate(self.d, self.x, self.values, self.work)


class Copy:
    """A copy of x."""

    def __init__(self, x: Array) -> None:
        self.x, self.y = x, np.empty(x.shape, x.dtype)

    def forward(self) -> None:
        np.copyto(self.y, self.x)

    def connect(self, d: Array) -> Array:
        return d

    def backward(self) -> None:
        """The gradient passes unchanged."""


class Dropout:
    """x times a mask of zeros and of 1 / (1 - rate), which has to be drawn before; evaluating, of ones.

    `layer` counts the dropout layers, `places` is `Layout.unit_places`; `draws` as in `Network`.
    """

    def __init__(self, x: Array, rate: float, layer: int, places: Array | None, draws: Sequence[Uniform]) -> None:
        self.x, self.rate, self.layer, self.places = x, rate, layer, places
        self.y = np.empty((len(draws), *x.shape[1:]), x.dtype)
        self.lanes_of = {draw: [lane for lane, each in enumerate(draws) if each is draw] for draw in draws}
        lanes = 1 if len(self.lanes_of) == 1 else len(draws)
        self.mask = np.empty((lanes, *x.shape[1:]), x.dtype)
        self.by_unit = self.mask.reshape(lanes, -1, x.shape[-1])
        self.scale = x.dtype.type(1 / (1 - rate))
        self.numbers = np.empty((x.shape[-1], self.by_unit.shape[1]))

    def draw(self, drawn_at: tuple[int, int] | None) -> None:
        """Draw the masks for a step and the place of the first sample in its batch."""
        if drawn_at is None:
            self.mask.fill(1)
            return
        step, first = drawn_at
        for draw, lanes in self.lanes_of.items():
            draw.fill(self.numbers, step, self.layer, first * self.numbers.shape[1])
            kept = (self.numbers >= self.rate).T
            np.multiply(kept if self.places is None else kept[self.places], self.scale, out=self.by_unit[lanes[0]])
            if len(self.mask) > 1:
                self.mask[lanes[1:]] = self.mask[lanes[0]]

    def forward(self) -> None:
        np.multiply(self.x, self.mask, out=self.y)

    def connect(self, d: Array) -> Array:
        self.d = d.reshape(self.y.shape)
        return d

    def backward(self) -> None:
        np.multiply(self.d, self.mask, out=self.d)


class Divide:
    """x / divisor in place."""

    def __init__(self, x: Array, divisor: float) -> None:
        self.y, self.divisor = x, x.dtype.type(divisor)

    def forward(self) -> None:
        np.divide(self.y, self.divisor, out=self.y)

    def connect(self, d: Array) -> Array:
        self.d = d
        return d

    def backward(self) -> None:
        np.divide(self.d, self.divisor, out=self.d)
