"""An architecture as the kernels see it: layers by their C++ types, and where parameters and partial sums lie."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.problem import models

Array = np.ndarray[Any, np.dtype[Any]]

# So many threads of a lane can work on the gradient of a layer's weights; see `cuda/conv.cuh` on partial sums.
WEIGHT_THREADS = 4096


@dataclass(frozen=True)
class Layer:
    """A layer: its type in `cuda/*.cuh`, numbers of a sample before and after, parameters and partial sums.

    `weights` and `parameters` count numbers (the biases are the rest), `start` is where the parameters start in a
    lane's flat vector, `shares` how many partial sums its gradient has. `function` is the activation's.
    """

    type: str
    before: int
    after: int
    maps: int
    weights: int
    parameters: int
    start: int
    shares: int
    function: str | None

    @property
    def places(self) -> int:
        """Pixels of a map; 1 of a vector's unit."""
        return self.after // self.maps

    @property
    def is_relu(self) -> bool:
        return self.function in ("relu", "straight_through_relu")


class Plan:
    """The layers of an architecture for batches of at most `batch_size`; weights in the public order."""

    def __init__(self, architecture: models.Architecture, bug: str, batch_size: int) -> None:
        self.architecture, self.bug, self.batch_size = architecture, bug, batch_size
        stages = models.pools_first(architecture.stages)
        self.divisors = [stage.layer.divisor for stage in stages if isinstance(stage.layer, models.Divide)]
        self.layers: list[Layer] = []
        for stage in stages:
            self.layers.append(self._layer(stage))
        self.lowest = next(index for index, layer in enumerate(self.layers) if layer.parameters)

    @property
    def size(self) -> int:
        """Parameters of a lane."""
        return self.architecture.size

    @property
    def partials(self) -> int:
        """Numbers of all partial sums of a lane."""
        return sum(layer.shares * layer.parameters for layer in self.layers)

    @property
    def weighted_layers(self) -> list[str]:
        return [stage.name for stage in self.architecture.stages if stage.name]

    @property
    def edges(self) -> list[int]:
        """Where each weighted layer's parameters start, and the end of the last."""
        return [*(layer.start for layer in self.layers if layer.parameters), self.size]

    @property
    def output_start(self) -> int:
        return self.edges[-2]

    @property
    def fitted(self) -> int:
        return math.prod(self.architecture.fitted)

    @property
    def sample(self) -> int:
        return math.prod(self.architecture.sample)

    @property
    def logits(self) -> int:
        return self.layers[-1].after

    @property
    def misread(self) -> tuple[int, int]:
        """Which of `ablate.bugs` that concern a whole batch to make: `Misread` of `cuda/update.cuh`."""
        return int(self.bug == "bias_gradient"), int(self.bug == "stale_gradients")

    def fit(self) -> Array:
        """For each number of the network's input its place in a row of the data set; the row's length for a zero."""
        if self.architecture.sample == self.architecture.fitted:
            return np.arange(self.sample)
        channels, height, width = self.architecture.sample
        places = models.fit_indices(self.architecture.sample, self.architecture.fitted).ravel()
        offsets = np.arange(channels)[:, None] * (height * width)
        return np.where(places < height * width, places + offsets, self.sample).ravel()

    @staticmethod
    def real(dtype: np.dtype[Any]) -> dict[str, str]:
        """The type of a number, which every kernel is compiled with."""
        return {"REAL": "double" if dtype.itemsize == 8 else "float"}

    @property
    def divided(self) -> dict[str, str]:
        """The constants that layers divide by, where there are any."""
        return {"DIVISORS": ",".join(map(repr, self.divisors))} if self.divisors else {}

    def flatten(self, weights: Mapping[str, Array], dtype: np.dtype[Any]) -> Array:
        """A lane's public tensors as its flat vector."""
        flat = [np.asarray(weights[parameter.name]).ravel() for parameter in self.architecture.parameters]
        return np.concatenate(flat).astype(dtype)

    def unflatten(self, flat: Array) -> dict[str, Array]:
        """A lane's flat vector as its public tensors."""
        ends = np.cumsum([parameter.size for parameter in self.architecture.parameters])
        parts = np.split(flat, ends[:-1])
        return {
            parameter.name: part.reshape(parameter.shape).copy()
            for parameter, part in zip(self.architecture.parameters, parts, strict=True)
        }

    def _layer(self, stage: models.Stage) -> Layer:
        last = self.layers[-1] if self.layers else None
        start = last.start + last.parameters if last else 0
        before, after = math.prod(stage.before), math.prod(stage.after)
        weights, parameters = (
            (stage.parameters[0].size, sum(p.size for p in stage.parameters)) if stage.name else (0, 0)
        )
        shares = self._shares(stage, weights)
        return Layer(
            type=self._type(stage, shares),
            before=before,
            after=after,
            maps=stage.after[0],
            weights=weights,
            parameters=parameters,
            start=start,
            shares=shares,
            function=stage.layer.function if isinstance(stage.layer, models.Activation) else None,
        )

    def _shares(self, stage: models.Stage, weights: int) -> int:
        if not weights:
            return 0
        # A thread takes a row of taps, or one input, for up to eight outputs.
        together = 8 * stage.layer.kernel if isinstance(stage.layer, models.Conv) else 8
        return min(self.batch_size, max(1, WEIGHT_THREADS * together // weights))

    def _type(self, stage: models.Stage, shares: int) -> str:
        count = math.prod(stage.before)
        match stage.layer:
            case models.Conv(channels, kernel):
                maps, height, width = stage.before
                return f"Conv<{maps},{height},{width},{channels},{kernel},{shares}>"
            case models.Pool(size):
                maps, height, width = stage.before
                return f"Pool<{maps},{height},{width},{size}>"
            case models.Dense(units):
                return f"Dense<{count},{units},{shares}>"
            case models.Divide():
                # Divisors are numbered as they come.
                number = sum(layer.type.startswith(_DIVIDES) for layer in self.layers)
                return f"Elementwise<{self._bugged(f'Divide<{number}>', 'missing_divisor')},{count}>"
            case models.Activation(function):
                name = _FUNCTIONS[function]
                return f"Elementwise<{self._bugged(name, 'missing_activation_derivative')},{count}>"

    def _bugged(self, function: str, bug: str) -> str:
        return f"WithoutDerivative<{function}>" if self.bug == bug else function


_FUNCTIONS = {"relu": "Relu", "straight_through_relu": "StraightThroughRelu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
_DIVIDES = ("Elementwise<Divide", "Elementwise<WithoutDerivative<Divide")
