"""An architecture as the NumPy engine computes it: where each weight lies, and the layers of one batch size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ablate.backends.numpy import layers
from ablate.problem import models

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Slot:
    """A parameter's place in a lane's flat vector of weights, and its shape there.

    `order[i]` is the index in the public, flattened tensor of the i-th number here.
    """

    parameter: models.Parameter
    start: int
    shape: tuple[int, ...]
    order: Array

    @property
    def span(self) -> slice:
        return slice(self.start, self.start + self.parameter.size)

    def view(self, flat: Array) -> Array:
        """This parameter of every lane: `(K, P)` gives `(K, *shape)`, sharing memory."""
        return flat[:, self.span].reshape(flat.shape[0], *self.shape)


# A convolution's activations of so many samples stay in the caches; a dense network's are small.
IMAGES_AT_ONCE, VECTORS_AT_ONCE = 75, 1024
# From so many images on, a batch is worth cutting for two processes.
WORTH_CUTTING = 32
# Sums over a batch are made of so many partial sums at most: as many processes can work on one trial.
SHARES = 4


class Plan:
    """The layout of an architecture: phases of every image, slots of every parameter, order of the steps."""

    def __init__(self, architecture: models.Architecture, bug: str) -> None:
        self.architecture, self.bug = architecture, bug
        self.stages = models.pools_first(architecture.stages)
        self.orders = _phase_orders(self.stages)
        self.slots: dict[str, Slot] = {}
        for stage, order in zip(self.stages, self.orders, strict=True):
            for parameter in stage.parameters:
                shape, places = _internal(stage, parameter, order, self.takes_images)
                start = sum(slot.parameter.size for slot in self.slots.values())
                self.slots[parameter.name] = Slot(parameter, start, shape, places)
        self.size = sum(slot.parameter.size for slot in self.slots.values())
        self.convolves = any(isinstance(stage.layer, models.Conv) for stage in self.stages)
        source = models.fit_indices(architecture.sample, architecture.fitted) if len(architecture.fitted) == 3 else None
        self.source = None if source is None else self._image_source(source)

    def parts(self, count: int) -> Sequence[slice]:
        """Samples in as few nearly equal parts as can be computed at once."""
        return _cut(count, self._pieces(count))

    def _pieces(self, count: int) -> int:
        if self.convolves:
            return max(-(-count // IMAGES_AT_ONCE), 2 if count >= WORTH_CUTTING else 1)
        return -(-count // VECTORS_AT_ONCE)

    def shares(self, count: int) -> Sequence[Sequence[slice]]:
        """The parts dealt out to at most SHARES, neighbours together.

        Each share adds up its own parts in turn, and the shares are added in turn: so a sum does not depend on who
        computed what.
        """
        return _dealt(count, self._pieces(count))

    @property
    def weighted_layers(self) -> list[str]:
        """The layers with parameters, in the order in which they lie in the flat vector."""
        return [stage.name for stage in self.stages if stage.name]

    @cached_property
    def layer_spans(self) -> list[slice]:
        """Where each of them lies."""
        starts = [self.slots[f"{name}.weight"].start for name in self.weighted_layers]
        return [slice(start, stop) for start, stop in pairwise([*starts, self.size])]

    @property
    def takes_images(self) -> bool:
        """Whether the first layer that cares about shape wants images rather than flat vectors."""
        shaped = (s.layer for s in self.stages if isinstance(s.layer, models.Conv | models.Pool | models.Dense))
        return not isinstance(next(shaped), models.Dense) or self.architecture.sample != self.architecture.fitted

    def _image_source(self, source: Array) -> Array:
        """`models.fit_indices` for every channel, `(P, H, C, W/P)`, and D where a zero stands."""
        channels, h, w = self.architecture.sample
        offsets = np.arange(channels)[None, :, None] * (h * w)
        whole = np.where(source[:, None, :] < h * w, source[:, None, :] + offsets, channels * h * w)
        return _by_phase(whole, self.orders[0])

    def flatten(self, weights: dict[str, Array] | Any, dtype: np.dtype[Any]) -> Array:
        """A lane's public tensors as its flat vector `(P,)`."""
        flat = np.empty(self.size, dtype)
        for name, slot in self.slots.items():
            flat[slot.span] = np.asarray(weights[name]).ravel()[slot.order]
        return flat

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """A lane's flat vector `(P,)` as its public tensors, in the architecture's order."""
        weights = {}
        for parameter in self.architecture.parameters:
            slot = self.slots[parameter.name]
            tensor = np.empty(parameter.size, flat.dtype)
            tensor[slot.order] = flat[slot.span]
            weights[parameter.name] = tensor.reshape(parameter.shape)
        return weights


@cache
def _cut(count: int, pieces: int) -> Sequence[slice]:
    edges = np.linspace(0, count, pieces + 1).round().astype(int).tolist()
    return tuple(slice(start, stop) for start, stop in pairwise(edges))


@cache
def _dealt(count: int, pieces: int) -> Sequence[Sequence[slice]]:
    parts = _cut(count, pieces)
    return [parts[share] for share in _cut(pieces, min(pieces, SHARES))]


def _phase_orders(stages: Sequence[models.Stage]) -> list[list[int]]:
    """For each stage the phases of the image it reads: by the pools to come where all widths divide, else one."""
    sizes = [
        [later.layer.size for later in stages[index:] if isinstance(later.layer, models.Pool)]
        for index in range(len(stages))
    ]
    divides = all(
        stage.before[2] % math.prod(to_come) == 0
        for stage, to_come in zip(stages, sizes, strict=True)
        if len(stage.before) == 3
    )
    return [layers.phase_order(to_come if divides else []) for to_come in sizes]


def _by_phase(images: Array, order: list[int]) -> Array:
    """`(H, C, W, ...)` as images are stored: `(P, H, C, W/P, ...)`."""
    height, maps, width, *rest = images.shape
    split = images.reshape(height, maps, width // len(order), len(order), *rest)
    return np.moveaxis(split, 3, 0)[order]


def _is_whole(stage: models.Stage) -> bool:
    """A convolution whose kernel covers its whole input is a dense layer."""
    return isinstance(stage.layer, models.Conv) and stage.after[1:] == (1, 1)


def _internal(
    stage: models.Stage, parameter: models.Parameter, order: list[int], images: bool
) -> tuple[tuple[int, ...], Array]:
    """The shape a parameter has in the engine, and the public index of each of its numbers."""
    places = np.arange(parameter.size).reshape(parameter.shape)
    if parameter.is_bias:
        return parameter.shape, places
    if isinstance(stage.layer, models.Conv) and not _is_whole(stage):
        outputs = parameter.shape[0]
        return (parameter.size // outputs, outputs), places.transpose(2, 3, 1, 0).ravel()
    if isinstance(stage.layer, models.Conv):
        outputs = parameter.shape[0]
        places = _by_phase(places.transpose(2, 1, 3, 0), order)
    else:
        outputs = parameter.shape[1]
        if images and len(stage.before) == 3:
            maps, height, width = stage.before
            by_pixel = places.reshape(maps, height, width, outputs)
            places = _by_phase(by_pixel.transpose(1, 0, 2, 3), order)
    return (outputs, parameter.size // outputs), places.reshape(-1, outputs).T.ravel()


# What a backward pass with one of `ablate.bugs` forgets.
_LEFT_OUT: dict[str, tuple[type, ...]] = {
    "missing_activation_derivative": (layers.Relu, layers.Sigmoid, layers.Tanh),
    "missing_divisor": (layers.Divide,),
}


class Network:
    """The layers of one batch size, wired: K lanes, n samples, inputs shared by the lanes or one set each.

    `indices` `(K or 1, n)` are the rows to read, to be filled in before `forward`; `z` `(K, units, n)` are the
    logits; `dz` is filled in before `backward`, which writes `gradient` `(K, P)`.
    """

    def __init__(self, plan: Plan, theta: Array, gradient: Array, rows: Array, sources: int, n: int) -> None:
        self.indices = np.zeros((sources, n), np.intp)
        self.gradient = gradient
        self.layers: list[layers.Layer] = []
        self._views = {name: (slot.view(theta), slot.view(gradient)) for name, slot in plan.slots.items()}
        images = plan.takes_images and plan.source is not None
        first = (
            layers.GatherImages(rows, self.indices, plan.source)
            if images and plan.source is not None
            else layers.Gather(rows, self.indices)
        )
        self.layers.append(first)
        pending: list[models.Stage] = []
        for stage, order in zip(plan.stages, plan.orders, strict=True):
            if pending and not isinstance(stage.layer, models.Pool):
                self._add_bias(pending.pop())
            if self._add(stage, order):
                pending.append(stage)
        for stage in pending:
            self._add_bias(stage)
        z = self.layers[-1].y
        self.z = z
        self.dz = np.zeros((theta.shape[0], *z.shape[1:]), theta.dtype)
        self.forwards: list[Callable[[], None]] = [layer.forward for layer in self.layers]
        self.backwards = self._connect(_LEFT_OUT.get(plan.bug, ()))

    def _add(self, stage: models.Stage, order: list[int]) -> bool:
        """Append a stage's layer; True where its bias is still to be added, after any pooling."""
        x = self.layers[-1].y
        if isinstance(stage.layer, models.Divide | models.Activation) and isinstance(
            self.layers[-1], layers.Relu | layers.Sigmoid | layers.Tanh
        ):
            # Backward, a function needs the values it gave: what follows in place works on a copy.
            self.layers.append(layers.Copy(x))
            x = self.layers[-1].y
        match stage.layer:
            case models.Conv(_, kernel) if not _is_whole(stage):
                weight, gradient = self._views[f"{stage.name}.weight"]
                self.layers.append(layers.Conv(x, weight, gradient, kernel, order))
                return True
            case models.Conv() | models.Dense():
                weight, weight_gradient = self._views[f"{stage.name}.weight"]
                bias, bias_gradient = self._views[f"{stage.name}.bias"]
                kind: type[layers.Dense] = layers.Dense if isinstance(stage.layer, models.Dense) else layers.WholeConv
                self.layers.append(kind(x, weight, bias, (weight_gradient, bias_gradient)))
            case models.Pool(size):
                self.layers.append(layers.Pool(x, size, order))
            case models.Divide(divisor):
                self.layers.append(layers.Divide(x, divisor))
            case models.Activation(function):
                self.layers.append(layers.activation(function, x))
        return False

    def _add_bias(self, stage: models.Stage) -> None:
        self.layers.append(layers.Bias(self.layers[-1].y, *self._views[f"{stage.name}.bias"]))

    def _connect(self, left_out: tuple[type, ...]) -> list[Callable[[], None]]:
        first = next(i for i, layer in enumerate(self.layers) if isinstance(layer, layers.Conv | layers.Dense))
        steps: list[Callable[[], None]] = []
        d = self.dz
        for layer in reversed(self.layers[first + 1 :]):
            d = layer.connect(d)
            if not isinstance(layer, left_out):
                steps.append(layer.backward)
        lowest = self.layers[first]
        assert isinstance(lowest, layers.Conv | layers.Dense)
        lowest.connect_parameters(d)
        return [*steps, lowest.backward_parameters]

    def forward(self) -> None:
        for step in self.forwards:
            step()

    def dead(self) -> list[Array]:
        """For each ReLU, which of its units `(K, D)` (of images: maps) are 0 for all samples of `forward`."""
        relus = [layer.y for layer in self.layers if isinstance(layer, layers.Relu)]
        return [np.asarray(~(y > 0).any(axis=(1, 2, 4, 5) if y.ndim == 6 else 2)) for y in relus]

    def saturated(self) -> list[Array]:
        """For each sigmoid or tanh, which of its values are near its ends `(K, ...)`."""
        parts = []
        for layer in self.layers:
            if isinstance(layer, layers.Sigmoid):
                parts.append(np.abs(layer.y - 0.5) > 0.49)
            elif isinstance(layer, layers.Tanh):
                parts.append(np.abs(layer.y) > 0.98)
        return [part.reshape(len(part), -1) for part in parts]

    def backward(self) -> None:
        for step in self.backwards:
            step()
