"""Layers as data, each declared once: how it is written, its output shape, its parameters.

Shapes are of one sample: `(C, H, W)` for images, `(D,)` for vectors. A layer that does not fit raises ValueError with
the reason. How a layer is computed is left to the backends.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from ablate.errors import ConfigError
from ablate.problem.activations import ACTIVATIONS, Activation, constant_names, hidden, hidden_names
from ablate.problem.near import did_you_mean
from ablate.problem.registry import Registry

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """The weight tensor of a layer for a given input shape, and the fans that its initial scale depends on."""

    shape: Shape
    fan_in: int
    fan_out: int


class Layer(ABC):
    """A kind of layer with its sizes, without a place in a network.

    Its parameters are named after `key` (`conv1`).
    """

    key: ClassVar[str] = ""

    @abstractmethod
    def after(self, before: Shape) -> Shape:
        """Its output shape. Raises ValueError if the layer does not fit."""

    def weights(self, before: Shape) -> Weights | None:
        """Its weights for this input shape, None if it has none; there is one bias for each output or map."""
        return None

    @property
    def is_elementwise(self) -> bool:
        """Whether it maps every number by itself and keeps the shape."""
        return False

    @property
    def is_monotone(self) -> bool:
        """Whether it is element-wise and non-decreasing, so that max-pooling may be moved before it."""
        return False


class Written(Protocol):
    """A mapping that may be an entry of `model.layers`.

    `key` is the key that identifies it, `example` one way to write it.
    """

    key: ClassVar[str]
    example: ClassVar[str]

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        """The layers that an entry stands for. Raises ValueError if the entry is not understood."""
        ...


LAYERS: Registry[type[Written]] = Registry("model.layers")
W = TypeVar("W", bound=type[Written])


def declare(layer: W) -> W:
    """Class decorator: register a way of writing layers under its key."""
    LAYERS.add(layer.key, layer)
    return layer


def _only(entry: Mapping[str, Any], *keys: str) -> list[Any]:
    """The values of these keys. Raises ValueError if the entry has other keys, or lacks one."""
    if set(entry) != set(keys):
        raise ValueError("not understood")
    return [entry[key] for key in keys]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value} is not a whole number above 0")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{value} is not a number from 0 and below 1")
    return float(value)


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value} is not a whole number from 0")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise ValueError(f"{value} is not a number above 0")
    return float(value)


@dataclass(frozen=True)
class Activate(Layer):
    """An activation, written as its bare name, or with the number that it depends on, `{leaky_relu: 0.2}`."""

    activation: Activation

    def after(self, before: Shape) -> Shape:
        return before

    @property
    def is_elementwise(self) -> bool:
        return self.activation.is_elementwise

    @property
    def is_monotone(self) -> bool:
        return self.activation.is_monotone


@declare
@dataclass(frozen=True)
class Conv(Layer):
    """Convolution (cross-correlation) of an image with `padding` zeros on each side.

    `(C, H, W) -> (channels, (H + 2 padding - kernel) // stride + 1, ...)`, the width alike.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0

    key: ClassVar[str] = "conv"
    example: ClassVar[str] = "{conv: 6, kernel: 5}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        others = {"stride": 1, "padding": 0, **entry}
        channels, kernel, stride, padding = _only(others, "conv", "kernel", "stride", "padding")
        yield cls(_count(channels), _count(kernel), _count(stride), _natural(padding))

    def after(self, before: Shape) -> Shape:
        _, height, width = _image(before)
        if self.kernel > min(height, width) + 2 * self.padding:
            padded = f" padded by {self.padding}" if self.padding else ""
            raise ValueError(f"with kernel {self.kernel} does not fit into {height}x{width}{padded}")
        down, across = (side + 2 * self.padding - self.kernel for side in (height, width))
        return self.channels, down // self.stride + 1, across // self.stride + 1

    @property
    def is_dense(self) -> bool:
        """Whether its window stops at every pixel, and only where it lies inside of the image."""
        return self.stride == 1 and self.padding == 0

    def covers(self, before: Shape) -> bool:
        """Whether its kernel is as large as its input, so that it is an affine map of it."""
        return self.padding == 0 and before[1:] == (self.kernel, self.kernel)

    def weights(self, before: Shape) -> Weights:
        maps, taps = before[0], self.kernel * self.kernel
        return Weights((self.channels, maps, self.kernel, self.kernel), taps * maps, taps * self.channels)


@dataclass(frozen=True)
class Windows(Layer):
    """One number for each of the non-overlapping `size` x `size` windows of a map; what fills no window is dropped."""

    size: int

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        (size,) = _only(entry, cls.key)
        yield cls(_count(size))

    def after(self, before: Shape) -> Shape:
        maps, height, width = _image(before)
        if self.size > min(height, width):
            raise ValueError(f"of size {self.size} does not fit into {height}x{width}")
        return maps, height // self.size, width // self.size


@declare
@dataclass(frozen=True)
class Pool(Windows):
    """The maximum of each window; the gradient goes to the first maximum."""

    key: ClassVar[str] = "pool"
    example: ClassVar[str] = "{pool: 2}"


@declare
@dataclass(frozen=True)
class AvgPool(Windows):
    """The mean of each window."""

    key: ClassVar[str] = "avg_pool"
    example: ClassVar[str] = "{avg_pool: 2}"


@declare
@dataclass(frozen=True)
class Dense(Layer):
    """Affine map of the flattened input: `(D,) -> (units,)`. For `{dense: classes}` `units` is None."""

    units: int | None

    key: ClassVar[str] = "dense"
    example: ClassVar[str] = "{dense: 84}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        (units,) = _only(entry, "dense")
        yield cls(None if units == "classes" else _count(units))

    def after(self, before: Shape) -> Shape:
        assert self.units is not None, "the number of classes is not filled in"
        return (self.units,)

    def weights(self, before: Shape) -> Weights:
        inputs, (outputs,) = math.prod(before), self.after(before)
        return Weights((inputs, outputs), inputs, outputs)


@declare
@dataclass(frozen=True)
class Divide(Layer):
    """Division of every value by a constant (net/78.5 in docs/posts/digit_mlp.md)."""

    divisor: float

    key: ClassVar[str] = "divide"
    example: ClassVar[str] = "{divide: 2.0}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        (divisor,) = _only(entry, "divide")
        yield cls(_positive(divisor))

    def after(self, before: Shape) -> Shape:
        return before

    @property
    def is_elementwise(self) -> bool:
        return True

    @property
    def is_monotone(self) -> bool:
        return True


@declare
class Hidden:
    """Shorthand for dense layers, each with an activation.

    The activation's input may first be divided by a constant, and its output may pass through dropout.

    The number that the activation depends on is written by its name, `slope: 0.2`; null stands for its own default.
    """

    key: ClassVar[str] = "hidden"
    example: ClassVar[str] = "{hidden: [30], activation: tanh}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        names = constant_names()
        others = {"divisor": 1.0, "dropout": 0.0, **dict.fromkeys(names), **entry}
        units, function, divisor, rate, *numbers = _only(others, "hidden", "activation", "divisor", "dropout", *names)
        if not isinstance(function, str):
            raise ValueError("not understood")
        given = {name: _positive(number) for name, number in zip(names, numbers, strict=True) if number is not None}
        activation, divisor, rate = hidden(function, given), _positive(divisor), _share(rate)
        for each in units if isinstance(units, list) else [units]:
            yield Dense(_count(each))
            if divisor != 1.0:
                yield Divide(divisor)
            yield Activate(activation)
            if rate:
                yield Dropout(rate)


# Declared after `hidden`, an entry of which may have this key too.
@declare
@dataclass(frozen=True)
class Dropout(Layer):
    """Each number is set to 0 with probability `rate` in a training step, else divided by 1 - rate.

    Which ones is drawn as `problem.dropout` says. When the network is evaluated it changes nothing.
    """

    rate: float

    key: ClassVar[str] = "dropout"
    example: ClassVar[str] = "{dropout: 0.5}"

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Iterator[Layer]:
        (rate,) = _only(entry, "dropout")
        if _share(rate):
            yield cls(float(rate))

    def after(self, before: Shape) -> Shape:
        return before

    @property
    def is_elementwise(self) -> bool:
        return True


def _image(before: Shape) -> Shape:
    if len(before) != 3:
        raise ValueError(f"needs an image, it is given a vector of {before[0]}")
    return before


def read_layers(written: Sequence[Any]) -> Iterator[Layer]:
    """The layers of `model.layers`. Raises ConfigError, which names the entry, if one is not understood."""
    for position, entry in enumerate(written):
        try:
            yield from _read(entry)
        except ValueError as error:
            examples = [*hidden_names(), *(layer.example for layer in LAYERS)]
            allowed = f"a layer is one of {', '.join(examples)}"
            raise ConfigError(f"model.layers[{position}]={entry}: {error}; {allowed}") from None


def _read(entry: Any) -> Iterator[Layer]:
    if isinstance(entry, str) and entry in hidden_names():
        return iter([Activate(ACTIVATIONS.get(entry))])
    if isinstance(entry, Mapping) and len(entry) == 1 and next(iter(entry)) in hidden_names():
        return iter([_activate(*entry.items())])
    found = [layer for layer in LAYERS if isinstance(entry, Mapping) and layer.key in entry]
    if not found:
        word = str(next(iter(entry), "") if isinstance(entry, Mapping) else entry)
        meant = did_you_mean(word, [*hidden_names(), *LAYERS.names()], ACTIVATIONS.also_called)
        raise ValueError("not understood" + (f" ({meant})" if meant else ""))
    return found[0].read(entry)


def _activate(written: tuple[str, Any]) -> Activate:
    """An activation with the number that it depends on."""
    name, number = written
    keys = list(ACTIVATIONS.get(name).constants)
    if len(keys) != 1:
        raise ValueError(f"{name} takes no number: write {name}")
    return Activate(hidden(name, {keys[0]: _positive(number)}))
