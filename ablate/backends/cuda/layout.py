"""An architecture as the kernels see it: layers by their C++ types, and where parameters and partial sums lie."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.problem.activations import Activation
from ablate.problem.layers import Activate, AvgPool, Conv, Dense, Divide, Dropout, Pool
from ablate.problem.mistakes import Mistake
from ablate.problem.models import Architecture, Stage, fit_indices, pools_first

Array = np.ndarray[Any, np.dtype[Any]]

# Threads of a lane that can work on the gradient of a layer's weights; see `cuda/conv.cuh` on partial sums.
WEIGHT_THREADS = 4096


@dataclass(frozen=True)
class DeviceLayer:
    """A stage as the kernels see it: its type in `cuda/*.cuh`, its sizes, its parameters and partial sums.

    `before` and `after` count the values of a sample, `weights` and `parameters` the numbers of its tensors (the rest
    are biases). `start` is where the parameters start in a lane's flat vector, `shares` the number of partial sums of
    its gradient, `activation` that of an element-wise layer.
    """

    type: str
    before: int
    after: int
    maps: int
    weights: int
    parameters: int
    start: int
    shares: int
    activation: Activation | None

    @property
    def places(self) -> int:
        """Pixels per map; 1 for a vector."""
        return self.after // self.maps

    @property
    def can_die(self) -> bool:
        return self.activation is not None and self.activation.can_die

    @property
    def reach(self) -> tuple[float, float] | None:
        """Middle and reach of a bounded activation (`Activation.reach`)."""
        return self.activation.reach if self.activation else None


class Layout:
    """The layers of an architecture for batches of at most `batch_size`; weights in the public order."""

    def __init__(self, architecture: Architecture, mistake: Mistake, batch_size: int) -> None:
        self.architecture, self.mistake, self.batch_size = architecture, mistake, batch_size
        stages = pools_first(architecture.stages)
        # The numbers that layers without weights depend on: divisors, slopes.
        self.numbers: list[float] = []
        self.layers: list[DeviceLayer] = []
        for stage in stages:
            self.layers.append(self._layer(stage))
        self.lowest = next(index for index, layer in enumerate(self.layers) if layer.parameters)

    @property
    def size(self) -> int:
        """The number of parameters of a lane."""
        return self.architecture.size

    @property
    def partials(self) -> int:
        """The total length of all partial sums of a lane."""
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
    def objective(self) -> dict[str, str]:
        """The hooks of the objective with which the kernels are compiled."""
        return {"OBJECTIVE": self.mistake.objective_kernel}

    @property
    def backward(self) -> dict[str, str]:
        """The hooks of the backward pass with which the kernels are compiled."""
        return {"BACKWARD": self.mistake.backward_kernel}

    def fit(self) -> Array:
        """For each value of the network's input, its index in a row of the data set; the row's length for a zero."""
        if self.architecture.sample == self.architecture.fitted:
            return np.arange(self.sample)
        channels, height, width = self.architecture.sample
        places = fit_indices(self.architecture.sample, self.architecture.fitted).ravel()
        offsets = np.arange(channels)[:, None] * (height * width)
        return np.where(places < height * width, places + offsets, self.sample).ravel()

    @staticmethod
    def real(dtype: np.dtype[Any]) -> dict[str, str]:
        """The floating-point type with which every kernel is compiled."""
        return {"REAL": "double" if dtype.itemsize == 8 else "float"}

    @property
    def numbered(self) -> dict[str, str]:
        """The numbers that layers without weights depend on, if there are any."""
        return {"NUMBERS": ",".join(map(repr, self.numbers))} if self.numbers else {}

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

    def _layer(self, stage: Stage) -> DeviceLayer:
        last = self.layers[-1] if self.layers else None
        start = last.start + last.parameters if last else 0
        before, after = math.prod(stage.before), math.prod(stage.after)
        weights, parameters = (
            (stage.parameters[0].size, sum(p.size for p in stage.parameters)) if stage.name else (0, 0)
        )
        shares = self._shares(stage, weights)
        return DeviceLayer(
            type=self._type(stage, shares),
            before=before,
            after=after,
            maps=stage.after[0],
            weights=weights,
            parameters=parameters,
            start=start,
            shares=shares,
            activation=stage.layer.activation if isinstance(stage.layer, Activate) else None,
        )

    def _shares(self, stage: Stage, weights: int) -> int:
        if not weights:
            return 0
        # A thread takes a row of taps, or one tap or input, for up to eight outputs.
        together = 8 * stage.layer.kernel if isinstance(stage.layer, Conv) and stage.layer.is_dense else 8
        return min(self.batch_size, max(1, WEIGHT_THREADS * together // weights))

    def _type(self, stage: Stage, shares: int) -> str:
        count = math.prod(stage.before)
        match stage.layer:
            case Conv(channels, kernel, stride, padding):
                maps, height, width = stage.before
                if stage.layer.is_dense:
                    return f"Conv<{maps},{height},{width},{channels},{kernel},{shares}>"
                return f"StridedConv<{maps},{height},{width},{channels},{kernel},{stride},{padding},{shares}>"
            case Pool(size):
                maps, height, width = stage.before
                return f"Pool<{maps},{height},{width},{size}>"
            case AvgPool(size):
                maps, height, width = stage.before
                return f"AvgPool<{maps},{height},{width},{size}>"
            case Dense(units):
                return f"Dense<{count},{units},{shares}>"
            case Divide(divisor):
                return f"Elementwise<{self._with_numbers('Divide', [divisor])},{count}>"
            case Dropout(rate):
                number = sum(layer.type.startswith("Dropout<") for layer in self.layers)
                self.numbers.append(rate)
                return f"Dropout<{count},{number},{len(self.numbers) - 1}>"
            case Activate(activation) if activation.is_elementwise:
                function = self._with_numbers(str(activation.kernel), list(activation.constants.values()))
                return f"Elementwise<{function},{count}>"
            case Activate(activation):
                units = stage.before[0]
                return f"{activation.kernel}<{units},{count // units}>"
            case _:
                raise NotImplementedError(f"{stage.layer}: there is no kernel for this layer")

    def _with_numbers(self, kernel: str, numbers: Sequence[float]) -> str:
        """A struct with the place of its first number among those of all layers, if it has any."""
        first = len(self.numbers)
        self.numbers += numbers
        return f"{kernel}<{first}>" if numbers else kernel
