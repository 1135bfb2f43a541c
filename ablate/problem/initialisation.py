"""Initialisations of the weights, each declared once."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from ablate.problem.models import Parameter
from ablate.problem.registry import Choice, Group
from ablate.problem.section import InsteadOfZero, Positive

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
    also_called: ClassVar[tuple[str, ...]] = ("glorot", "xavier", "xavier_uniform")

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
    also_called: ClassVar[tuple[str, ...]] = ("gaussian", "random_normal")

    scale: Annotated[Positive, InsteadOfZero("init=zeros starts all weights at 0")] = Field(
        0.01, description="normal: standard deviation of the weights; uniform: their largest absolute value"
    )

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, self.scale, parameter.shape)


@INITS.declare
class He(Init):
    """Normal of mean 0 and variance 2 / fan_in, for ReLU (He et al., 2015)."""

    name: Literal["he"] = "he"
    also_called: ClassVar[tuple[str, ...]] = ("kaiming", "he_normal", "kaiming_normal")

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, math.sqrt(2 / parameter.fan_in), parameter.shape)


@INITS.declare
class Lecun(Init):
    """Normal of mean 0 and variance 1 / fan_in (LeCun et al., 1998)."""

    name: Literal["lecun"] = "lecun"
    also_called: ClassVar[tuple[str, ...]] = ("lecun_normal",)

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.normal(0.0, math.sqrt(1 / parameter.fan_in), parameter.shape)


@INITS.declare
class Uniform(Init):
    """Uniform within ±scale."""

    name: Literal["uniform"] = "uniform"

    scale: Positive = 0.05

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return rng.uniform(-self.scale, self.scale, parameter.shape)


@INITS.declare
class Zeros(Init):
    """All 0."""

    name: Literal["zeros"] = "zeros"

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        return np.zeros(parameter.shape)


@INITS.declare
class Orthogonal(Init):
    """Orthonormal rows or columns, whichever are fewer, of the tensor as a matrix (Saxe et al., 2014).

    The rows of the matrix are the first axis: a dense layer's inputs, a convolution's output maps. It is the factor Q
    of a matrix of normal numbers that has at least as many rows as columns, with the signs for which R has a positive
    diagonal: so it is unique, and uniform among all such matrices. A bias is a unit vector.
    """

    name: Literal["orthogonal"] = "orthogonal"

    def draw(self, parameter: Parameter, rng: np.random.Generator) -> Array:
        rows = parameter.shape[0] if len(parameter.shape) > 1 else 1
        columns = parameter.size // rows
        drawn = rng.normal(size=(max(rows, columns), min(rows, columns)))
        # With several threads the last bits would depend on their number.
        with threadpool_limits(1, user_api="blas"):
            q, r = np.linalg.qr(drawn)
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        return np.asarray(q if rows >= columns else q.T).reshape(parameter.shape)
