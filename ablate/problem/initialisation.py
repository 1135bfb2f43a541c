"""Initialisations of the weights, each declared once."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ablate.problem.models import Parameter
from ablate.problem.registry import Choice, Group
from ablate.problem.section import Positive

Array = np.ndarray[Any, np.dtype[np.float64]]


class Init(Choice):
    """An option of the group `init`."""

    bias: Literal["zero", "same"] = Field("zero", description="biases start at zero, or drawn like the weights")

    @abstractmethod
    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        """A tensor of the parameter's shape."""

    def weights(self, parameters: Sequence[Parameter], rng: np.random.Generator) -> dict[str, Array]:
        """A trial's initial weights in float64, drawn tensor by tensor from the input on, weight before bias.

        Biases are 0, and nothing is drawn for them, or they are drawn like the weights.
        """
        return {
            parameter.name: np.zeros(parameter.shape)
            if parameter.is_bias and self.bias == "zero"
            else self.draw(parameter, rng)
            for parameter in parameters
        }


INITS: Group[Init] = Group("init")


@INITS.declare
class GlorotUniform(Init):
    """Uniform within ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    name: Literal["glorot_uniform"] = "glorot_uniform"

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        bound = math.sqrt(6 / (parameter.fan_in + parameter.fan_out))
        return rng.uniform(-bound, bound, parameter.shape)


@INITS.declare
class Uniform01(Init):
    """Uniform in [0, 1)."""

    name: Literal["uniform01"] = "uniform01"

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.random(parameter.shape)


@INITS.declare
class Normal(Init):
    """Normal of mean 0."""

    name: Literal["normal"] = "normal"

    scale: Positive = Field(0.01, description="normal: standard deviation of the weights")

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.scale, parameter.shape)
