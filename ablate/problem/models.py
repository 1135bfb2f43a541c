"""Architectures as data: a list of layers, the shapes they lead to, and the parameters they own.

Shapes here are of one sample: `(C, H, W)` for images, `(D,)` for vectors.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ablate.config import schema as config
from ablate.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    """Valid convolution (cross-correlation) of stride 1: `(C, H, W) -> (channels, H-kernel+1, W-kernel+1)`."""

    channels: int
    kernel: int


@dataclass(frozen=True)
class Pool:
    """Max-pooling over `size` x `size` windows side by side; the gradient goes to a window's first maximum."""

    size: int


@dataclass(frozen=True)
class Dense:
    """Affine map of the flattened input: `(D,) -> (units,)`."""

    units: int


@dataclass(frozen=True)
class Divide:
    """Division of every value by a constant (post D's net/78.5)."""

    divisor: float


@dataclass(frozen=True)
class Activation:
    """An element-wise function: `relu`, `sigmoid`, `tanh`, or `straight_through_relu` (gradient of the identity)."""

    function: str


Layer = Conv | Pool | Dense | Divide | Activation


@dataclass(frozen=True)
class Parameter:
    """One tensor of weights: its public name and shape, and the fans that its initial scale depends on."""

    name: str
    shape: Shape
    fan_in: int
    fan_out: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")


@dataclass(frozen=True)
class Stage:
    """A layer in its place: the shape of one sample before and after, its name and parameters if it has any."""

    layer: Layer
    before: Shape
    after: Shape
    name: str | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Architecture:
    """A checked network: every stage from the fitted input to the logits.

    `sample` is the shape the data set gives, `fitted` the shape the first layer sees, `units` the number of
    logits (the classes, or 1), `output_layer` the name of the last dense layer.
    """

    sample: Shape
    fitted: Shape
    stages: tuple[Stage, ...]
    units: int
    classes: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(parameter for stage in self.stages for parameter in stage.parameters)

    @property
    def size(self) -> int:
        """How many numbers the parameters are."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def multiplications(self) -> int:
        """Products of weights and activations that one sample takes forward."""
        weights = ((stage, stage.parameters[0]) for stage in self.stages if stage.parameters)
        return sum(weight.size * math.prod(stage.after[1:]) for stage, weight in weights)

    @property
    def output_layer(self) -> str:
        return next(stage.name for stage in reversed(self.stages) if stage.name)


def build(model: config.Model, output: str, sample: Shape, classes: int) -> Architecture:
    """Read the layers of `model` for samples of shape `sample`.

    Raises ConfigError, naming the layer, where a layer is not understood or its shapes do not fit.
    """
    units = _output_units(model, output, classes)
    layers = list(_read_layers(model.layers))
    dense = [index for index, layer in enumerate(layers) if isinstance(layer, _AnyDense)]
    if not layers or not dense or dense[-1] != len(layers) - 1:
        raise ConfigError("model.layers: the last layer must be {dense: classes}, which gives the logits")
    if model.logits != "linear":
        layers.append(Activation(model.logits))
    fitted = _fit_shape(sample, model.fit)
    stages = tuple(_stages(layers, fitted, units))
    last = next(stage for stage in reversed(stages) if stage.name)
    if last.after != (units,):
        raise ConfigError(
            f"model.layers: {last.name} gives {last.after[0]} outputs, {units} are needed; write {{dense: classes}}"
        )
    return Architecture(sample, fitted, stages, units, classes)


@dataclass(frozen=True)
class _AnyDense:
    """A dense layer as written: a number of units, or `classes` (None) for as many as there are outputs."""

    units: int | None


def _output_units(model: config.Model, output: str, classes: int) -> int:
    units = classes if model.units is None else model.units
    if units == 1 and (output != "sigmoid" or classes != 2):
        raise ConfigError(
            f"model.units=1: one unit needs a sigmoid output and two classes, not {output} with {classes} classes"
            " (model.output=sigmoid with loss=mse or loss=bce, data=xor)"
        )
    if units not in (1, classes):
        raise ConfigError(
            f"model.units={units}: the data has {classes} classes, so {classes} units (or null) are needed"
        )
    return units


_FUNCTIONS = ("relu", "sigmoid", "tanh")
_WRITTEN = (
    "relu, sigmoid, tanh, {conv: 6, kernel: 5}, {pool: 2}, {dense: 84}, {divide: 2.0}, {hidden: [30], activation: tanh}"
)


def _read_layers(written: Sequence[Any]) -> Iterator[Layer | _AnyDense]:
    for position, entry in enumerate(written):
        try:
            match entry:
                case str() if entry in _FUNCTIONS:
                    yield Activation(entry)
                case {"conv": channels, "kernel": kernel, **rest} if not rest:
                    yield Conv(_count(channels), _count(kernel))
                case {"pool": size, **rest} if not rest:
                    yield Pool(_count(size))
                case {"dense": "classes", **rest} if not rest:
                    yield _AnyDense(None)
                case {"dense": units, **rest} if not rest:
                    yield _AnyDense(_count(units))
                case {"divide": divisor, **rest} if not rest:
                    yield Divide(_positive(divisor))
                case {"hidden": hidden, "activation": str(function), **rest} if not rest.keys() - {"divisor"}:
                    yield from _hidden(hidden, function, _positive(rest.get("divisor", 1.0)))
                case _:
                    raise ValueError("not understood")
        except ValueError as error:
            raise ConfigError(f"model.layers[{position}]={entry}: {error}; a layer is one of {_WRITTEN}") from None


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value} is not a whole number above 0")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{value} is not a number above 0")
    return float(value)


def _hidden(hidden: Any, function: str, divisor: float) -> Iterator[Layer | _AnyDense]:
    if function not in _FUNCTIONS:
        raise ValueError(f"{function} is not one of {', '.join(_FUNCTIONS)}")
    for units in hidden if isinstance(hidden, list) else [hidden]:
        yield _AnyDense(_count(units))
        if divisor != 1.0:
            yield Divide(divisor)
        yield Activation(function)


def _fit_shape(sample: Shape, side: int | None) -> Shape:
    if side is None:
        return sample
    if len(sample) != 3:
        raise ConfigError(f"model.fit={side}: images are needed, the data gives vectors of {sample[0]}; use model=mlp")
    channels, height, width = sample
    if max(height, width) > side:
        raise ConfigError(f"model.fit={side}: the images are {height}x{width}, larger than {side}x{side}")
    return (channels, side, side)


def fit_indices(sample: Shape, fitted: Shape) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Where each pixel of the fitted image comes from.

    Returns `(H, W)` indices into a flattened `(h, w)` image, or `h*w` for a zero: whole-number repetition of
    pixels first, then zero padding, the odd row or column at the bottom and right.
    """
    (_, h, w), (_, height, width) = sample, fitted
    times = min(height // h, width // w)
    source = np.arange(h * w, dtype=np.intp).reshape(h, w).repeat(times, 0).repeat(times, 1)
    top, left = (height - h * times) // 2, (width - w * times) // 2
    indices = np.full((height, width), h * w, np.intp)
    indices[top : top + h * times, left : left + w * times] = source
    return indices


def _stages(layers: Sequence[Layer | _AnyDense], shape: Shape, units: int) -> Iterator[Stage]:
    count: Counter[str] = Counter()
    for written in layers:
        layer = Dense(written.units or units) if isinstance(written, _AnyDense) else written
        stage = _stage(layer, shape, count)
        yield stage
        shape = stage.after


def _stage(layer: Layer, before: Shape, count: Counter[str]) -> Stage:
    match layer:
        case Conv(channels, kernel):
            count["conv"] += 1
            name = f"conv{count['conv']}"
            if len(before) != 3:
                raise ConfigError(f"model.layers: {name} needs an image, it is given a vector of {before[0]}")
            maps, height, width = before
            if kernel > min(height, width):
                raise ConfigError(f"model.layers: {name} with kernel {kernel} does not fit into {height}x{width}")
            after = (channels, height - kernel + 1, width - kernel + 1)
            fans = (kernel * kernel * maps, kernel * kernel * channels)
            return _weighted(layer, before, after, name, (channels, maps, kernel, kernel), fans)
        case Dense(outputs):
            count["dense"] += 1
            inputs = math.prod(before)
            return _weighted(layer, before, (outputs,), f"dense{count['dense']}", (inputs, outputs), (inputs, outputs))
        case Pool(size):
            count["pool"] += 1
            if len(before) != 3:
                raise ConfigError(
                    f"model.layers: pool{count['pool']} needs an image, it is given a vector of {before[0]}"
                )
            maps, height, width = before
            if size > min(height, width):
                raise ConfigError(
                    f"model.layers: pool{count['pool']} of size {size} does not fit into {height}x{width}"
                )
            return Stage(layer, before, (maps, height // size, width // size), None, ())
        case _:
            return Stage(layer, before, before, None, ())


def _weighted(layer: Layer, before: Shape, after: Shape, name: str, shape: Shape, fans: tuple[int, int]) -> Stage:
    weight = Parameter(f"{name}.weight", shape, *fans)
    bias = replace(weight, name=f"{name}.bias", shape=(after[0],))
    return Stage(layer, before, after, name, (weight, bias))


def pools_first(stages: Sequence[Stage]) -> list[Stage]:
    """Max-pooling moved before the element-wise layers it follows.

    They are all non-decreasing, so the maximum is the same, and they then run over a fraction of the values.
    Pooling of single pixels is left out.
    """
    moved: list[Stage] = []
    for stage in stages:
        if stage.layer == Pool(1):
            continue
        place = len(moved)
        if isinstance(stage.layer, Pool):
            while place and isinstance(moved[place - 1].layer, Activation | Divide):
                place -= 1
        moved.insert(place, stage)
    # The shapes between moved layers change with their order.
    ordered, shape = [], stages[0].before
    for stage in moved:
        is_local = isinstance(stage.layer, Activation | Divide)
        after = shape if is_local else stage.after
        ordered.append(Stage(stage.layer, shape, after, stage.name, stage.parameters))
        shape = after
    return ordered


def initial_weights(
    architecture: Architecture, init: config.Init, rng: np.random.Generator
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Draw a trial's initial weights in float64, tensor by tensor from the input on, weight before bias.

    `glorot_uniform`: uniform within ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010); `uniform01`:
    uniform in [0, 1); `normal`: mean 0, deviation `init.scale`. Biases are 0 and draw nothing, or the same.
    """
    weights = {}
    for parameter in architecture.parameters:
        if parameter.is_bias and init.bias == "zero":
            weights[parameter.name] = np.zeros(parameter.shape)
        elif init.name == "glorot_uniform":
            bound = math.sqrt(6 / (parameter.fan_in + parameter.fan_out))
            weights[parameter.name] = rng.uniform(-bound, bound, parameter.shape)
        elif init.name == "uniform01":
            weights[parameter.name] = rng.random(parameter.shape)
        else:
            weights[parameter.name] = rng.normal(0.0, init.scale or 0.0, parameter.shape)
    return weights
