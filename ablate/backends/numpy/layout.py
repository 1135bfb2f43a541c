"""Where an architecture's images and weights lie in the NumPy engine, and how a batch is cut into parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ablate.backends.numpy.operations import phase_order
from ablate.problem.layers import Conv, Dense, Dropout, Windows
from ablate.problem.models import Architecture, Parameter, Stage, fit_indices, pools_first

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Placement:
    """A parameter's place in a lane's flat vector of weights, and its shape there.

    `order[i]` is the index in the public, flattened tensor of the i-th number here.
    """

    parameter: Parameter
    start: int
    shape: tuple[int, ...]
    order: Array

    @property
    def span(self) -> slice:
        return slice(self.start, self.start + self.parameter.size)

    def view(self, flat: Array) -> Array:
        """This parameter of every lane: `(K, P)` gives `(K, *shape)`, sharing memory."""
        return flat[:, self.span].reshape(flat.shape[0], *self.shape)


# With this many samples a network's activations stay in the caches; those of a dense network are small.
IMAGES_AT_ONCE, VECTORS_AT_ONCE = 75, 1024
# A batch of at least this many images is worth cutting for two processes.
WORTH_CUTTING = 32
# Sums over a batch have at most this many partial sums, and at most as many processes can work on one trial.
PARTIAL_SUMS = 4


class Layout:
    """The layout of an architecture: stages in order, phases of every image, placement of every parameter."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.stages = pools_first(architecture.stages)
        self.orders = _phase_orders(self.stages)
        self.placements: dict[str, Placement] = {}
        for stage, order in zip(self.stages, self.orders, strict=True):
            for parameter in stage.parameters:
                shape, places = _internal(stage, parameter, order, self.takes_images)
                start = sum(placement.parameter.size for placement in self.placements.values())
                self.placements[parameter.name] = Placement(parameter, start, shape, places)
        self.size = sum(placement.parameter.size for placement in self.placements.values())
        self.drops = any(isinstance(stage.layer, Dropout) for stage in self.stages)
        self.convolves = any(isinstance(stage.layer, Conv) for stage in self.stages)
        source = fit_indices(architecture.sample, architecture.fitted) if len(architecture.fitted) == 3 else None
        self.source = None if source is None else self._image_source(source)

    def micro_batches(self, count: int) -> Sequence[slice]:
        """Samples, cut into as few nearly equal parts as fit into the caches."""
        return _cut(count, self._pieces(count))

    def _pieces(self, count: int) -> int:
        if self.convolves:
            return max(-(-count // IMAGES_AT_ONCE), 2 if count >= WORTH_CUTTING else 1)
        return -(-count // VECTORS_AT_ONCE)

    def partial_sums(self, count: int) -> Sequence[Sequence[slice]]:
        """The micro-batches of each partial sum of a batch, at most PARTIAL_SUMS of them, neighbours together.

        The micro-batches of a partial sum are added in turn, and then the partial sums in turn, so that the result does
        not depend on which process computed what.
        """
        return _dealt(count, self._pieces(count))

    @property
    def weighted_layers(self) -> list[str]:
        """The layers with parameters, in the order in which they lie in the flat vector."""
        return [stage.name for stage in self.stages if stage.name]

    @cached_property
    def layer_spans(self) -> list[slice]:
        """Where each of them lies."""
        starts = [self.placements[f"{name}.weight"].start for name in self.weighted_layers]
        return [slice(start, stop) for start, stop in pairwise([*starts, self.size])]

    @cached_property
    def bias_spans(self) -> list[slice]:
        """Where the biases lie."""
        return [placement.span for placement in self.placements.values() if placement.parameter.is_bias]

    def unit_places(self, stage: Stage, order: list[int]) -> Array | None:
        """The public index of each number that a stage reads, as they lie in memory; None if they lie in that order."""
        if len(stage.before) < 3 or not self.takes_images:
            return None
        places = np.arange(math.prod(stage.before)).reshape(stage.before)
        return _by_phase(places.transpose(1, 0, 2), order).ravel()

    @property
    def takes_images(self) -> bool:
        """Whether the first layer that is not element-wise needs images rather than flat vectors."""
        shaped = next(stage.layer for stage in self.stages if not stage.layer.is_elementwise)
        return not isinstance(shaped, Dense) or self.architecture.sample != self.architecture.fitted

    def _image_source(self, source: Array) -> Array:
        """`fit_indices` for every channel, `(P, H, C, W/P)`, with D for a zero."""
        channels, h, w = self.architecture.sample
        offsets = np.arange(channels)[None, :, None] * (h * w)
        whole = np.where(source[:, None, :] < h * w, source[:, None, :] + offsets, channels * h * w)
        return _by_phase(whole, self.orders[0])

    def flatten(self, weights: dict[str, Array] | Any, dtype: np.dtype[Any]) -> Array:
        """A lane's public tensors as its flat vector `(P,)`."""
        flat = np.empty(self.size, dtype)
        for name, placement in self.placements.items():
            flat[placement.span] = np.asarray(weights[name]).ravel()[placement.order]
        return flat

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """A lane's flat vector `(P,)` as its public tensors, in the architecture's order."""
        weights = {}
        for parameter in self.architecture.parameters:
            placement = self.placements[parameter.name]
            tensor = np.empty(parameter.size, flat.dtype)
            tensor[placement.order] = flat[placement.span]
            weights[parameter.name] = tensor.reshape(parameter.shape)
        return weights


@cache
def _cut(count: int, pieces: int) -> Sequence[slice]:
    edges = np.linspace(0, count, pieces + 1).round().astype(int).tolist()
    return tuple(slice(start, stop) for start, stop in pairwise(edges))


@cache
def _dealt(count: int, pieces: int) -> Sequence[Sequence[slice]]:
    parts = _cut(count, pieces)
    return [parts[share] for share in _cut(pieces, min(pieces, PARTIAL_SUMS))]


def _phase_orders(stages: Sequence[Stage]) -> list[list[int]]:
    """For each stage the phases of the image it reads: from the pools still to come, or one.

    One, if a width does not divide, or if a convolution has a stride or padding.
    """
    sizes = [
        [later.layer.size for later in stages[index:] if isinstance(later.layer, Windows)]
        for index in range(len(stages))
    ]
    divides = all(stage.layer.is_dense for stage in stages if isinstance(stage.layer, Conv)) and all(
        stage.before[2] % math.prod(to_come) == 0
        for stage, to_come in zip(stages, sizes, strict=True)
        if len(stage.before) == 3
    )
    return [phase_order(to_come if divides else []) for to_come in sizes]


def _by_phase(images: Array, order: list[int]) -> Array:
    """`(H, C, W, ...)` as images are stored: `(P, H, C, W/P, ...)`."""
    height, maps, width, *rest = images.shape
    split = images.reshape(height, maps, width // len(order), len(order), *rest)
    return np.moveaxis(split, 3, 0)[order]


def is_whole(stage: Stage) -> bool:
    """Whether a stage is a convolution whose kernel covers its whole input: it is computed as a dense layer."""
    return isinstance(stage.layer, Conv) and stage.layer.covers(stage.before)


def _internal(stage: Stage, parameter: Parameter, order: list[int], images: bool) -> tuple[tuple[int, ...], Array]:
    """The shape a parameter has in the engine, and the public index of each of its numbers."""
    places = np.arange(parameter.size).reshape(parameter.shape)
    if parameter.is_bias:
        return parameter.shape, places
    if isinstance(stage.layer, Conv) and not is_whole(stage):
        outputs = parameter.shape[0]
        return (parameter.size // outputs, outputs), places.transpose(2, 3, 1, 0).ravel()
    if isinstance(stage.layer, Conv):
        outputs = parameter.shape[0]
        places = _by_phase(places.transpose(2, 1, 3, 0), order)
    else:
        assert isinstance(stage.layer, Dense), f"{stage.layer}: the NumPy engine knows no order for its weights"
        outputs = parameter.shape[1]
        if images and len(stage.before) == 3:
            maps, height, width = stage.before
            by_pixel = places.reshape(maps, height, width, outputs)
            places = _by_phase(by_pixel.transpose(1, 0, 2, 3), order)
    return (outputs, parameter.size // outputs), places.reshape(-1, outputs).T.ravel()
