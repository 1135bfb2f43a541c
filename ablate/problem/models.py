"""Architectures as data: layers in their places, the shapes between them, and their parameters.

Shapes here are of one sample: `(C, H, W)` for images, `(D,)` for vectors.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.activations import ACTIVATIONS, constant_names, having, hidden_names
from ablate.problem.layers import Activate, AvgPool, Dense, Layer, Pool, Shape, read_layers
from ablate.problem.outputs import OUTPUTS
from ablate.problem.section import Called, Count, Fraction, OneOf, Positive, Section
from ablate.problem.tasks import CLASSIFICATION, Task


class Model(Section):
    """A list of layers, and what follows the last of them."""

    layers: list[Any] = Field(description="the layers from the input on; see docs/models.md")
    output: Annotated[str, OneOf(lambda: ["auto", *OUTPUTS.names()])] = Field(
        "auto",
        description="what turns logits into outputs (auto: the one that loss and task need)",
    )
    logits: Literal["linear", "relu", "straight_through_relu"] = Field(
        "linear", description="what the logits pass through before the output"
    )
    units: Count | None = Field(
        None, description="output units (null: one a class; 1: a single sigmoid unit for two classes)"
    )
    fit: Count | None = Field(
        None,
        description="side to which images are brought by repeating pixels, then zero padding (null: as they are)",
    )
    hidden: Annotated[list[Count] | Count | None, Called("hidden_layer_sizes", "hidden_size", "hidden_units")] = Field(
        None, description="mlp: units of the hidden layers, e.g. [64,32]"
    )
    activation: Annotated[str, OneOf(hidden_names)] = Field(
        "sigmoid", description="mlp: what the hidden layers pass through"
    )
    slope: Positive | None = Field(None, description="mlp, leaky_relu: its slope below 0 (null: 0.01)")
    alpha: Positive | None = Field(None, description="mlp, elu: minus its lower bound (null: 1)")
    dropout: Fraction = Field(
        0.0, description="mlp: share of each hidden layer's units that are set to 0 in a training step"
    )
    preactivation_divisor: Positive = Field(
        1.0, description="mlp: hidden pre-activations are divided by this before the activation"
    )


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
    """A layer in its place: the shape of one sample before and after it, and its name and parameters if it has any."""

    layer: Layer
    before: Shape
    after: Shape
    name: str | None
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Architecture:
    """The checked layers of a network: every stage from the fitted input to the logits.

    `sample` is the shape of a sample in the data set, `fitted` the shape that the first layer sees, `units` the number
    of logits (the classes, or 1), `output_layer` the name of the last dense layer.
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
        """The number of parameters, all tensors together."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def multiplications(self) -> int:
        """Multiplications of weights and activations in one sample's forward pass."""
        weights = ((stage, stage.parameters[0]) for stage in self.stages if stage.parameters)
        return sum(weight.size * math.prod(stage.after[1:]) for stage, weight in weights)

    @property
    def output_layer(self) -> str:
        return next(stage.name for stage in reversed(self.stages) if stage.name)


def build(model: Model, output: str, sample: Shape, classes: int, task: Task = CLASSIFICATION) -> Architecture:
    """Read the layers of `model` for samples of shape `sample`, and as many classes, or targets, of a task.

    Raises ConfigError, which names the layer, if one is not understood or its shapes do not fit.
    """
    units = task.units(model.units, output, classes)
    _check_constants(model)
    layers = list(read_layers(model.layers))
    if not layers or not isinstance(layers[-1], Dense):
        raise ConfigError("model.layers: the last layer must be {dense: classes}, which gives the logits")
    if model.logits != "linear":
        layers.append(Activate(ACTIVATIONS.get(model.logits)))
    fitted = _fit_shape(sample, model.fit)
    stages = tuple(_stages(layers, fitted, units))
    last = next(stage for stage in reversed(stages) if stage.name)
    if last.after != (units,):
        raise ConfigError(
            f"model.layers: {last.name} gives {last.after[0]} outputs, {units} are needed; write {{dense: classes}}"
        )
    return Architecture(sample, fitted, stages, units, classes)


def _stages(layers: Sequence[Layer], shape: Shape, units: int) -> Iterator[Stage]:
    count: Counter[str] = Counter()
    for written in layers:
        layer = Dense(units) if written == Dense(None) else written
        count[layer.key] += 1
        stage = _stage(layer, shape, f"{layer.key}{count[layer.key]}")
        yield stage
        shape = stage.after


def _stage(layer: Layer, before: Shape, name: str) -> Stage:
    try:
        after, weights = layer.after(before), layer.weights(before)
    except ValueError as error:
        raise ConfigError(f"model.layers: {name} {error}") from None
    if weights is None:
        return Stage(layer, before, after, None, ())
    weight = Parameter(f"{name}.weight", weights.shape, weights.fan_in, weights.fan_out)
    bias = replace(weight, name=f"{name}.bias", shape=(after[0],))
    return Stage(layer, before, after, name, (weight, bias))


def _check_constants(model: Model) -> None:
    """Refuse a number that the activation does not depend on."""
    own = ACTIVATIONS.get(model.activation).constants
    for key in constant_names():
        value = getattr(model, key, None)
        if value is not None and key not in own:
            raise ConfigError(
                f"model.{key}={value}: model.activation={model.activation} has no {key};"
                f" it belongs to model.activation={' or '.join(having(key))}"
            )


def _fit_shape(sample: Shape, side: int | None) -> Shape:
    if side is None:
        return sample
    if len(sample) != 3:
        sides = {channels: math.isqrt(sample[0] // channels) for channels in (1, 3)}
        square = [f"[{channels},{a},{a}]" for channels, a in sides.items() if channels * a * a == sample[0] > 3]
        shaped = f", or data.shape={square[0].replace('[1,', '[')} if each is an image" if square else ""
        raise ConfigError(
            f"model.fit={side}: images are needed, the data gives vectors of {sample[0]}; use model=mlp{shaped}"
        )
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


def pools_first(stages: Sequence[Stage]) -> list[Stage]:
    """Move max-pooling before the element-wise layers that it follows, as long as they are non-decreasing.

    The maximum is the same, and those layers process fewer values. Pooling of single pixels is dropped.
    """
    moved: list[Stage] = []
    for stage in stages:
        if stage.layer in (Pool(1), AvgPool(1)):
            continue
        place = len(moved)
        if isinstance(stage.layer, Pool):
            while place and moved[place - 1].layer.is_monotone:
                place -= 1
        moved.insert(place, stage)
    # The shapes between moved layers change with their order.
    ordered, shape = [], stages[0].before
    for stage in moved:
        after = shape if stage.layer.is_elementwise else stage.after
        ordered.append(Stage(stage.layer, shape, after, stage.name, stage.parameters))
        shape = after
    return ordered
