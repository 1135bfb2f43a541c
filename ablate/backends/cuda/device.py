"""What the engine asks of a device: memory, kernels compiled from `cuda/*.cu`, and launches."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ablate.backends.engine import OutOfMemoryError
from ablate.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]

# As in `cuda/common.cuh`.
THREADS = 128


class DeviceError(ConfigError):
    """A device or a compiler is not available, or failed: one line for the user."""


class DeviceMemoryError(DeviceError, OutOfMemoryError):
    """The device has less memory than was requested."""


@dataclass(frozen=True)
class Buffer:
    """Memory on a device: where it starts, and what it holds. `owner` keeps it allocated."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object

    @property
    def count(self) -> int:
        """The length of the leading axis."""
        return self.shape[0]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> "Buffer":
        """A part of the leading axis, sharing memory."""
        row = self.bytes // max(self.shape[0], 1)
        return Buffer(self.address + start * row, (stop - start, *self.shape[1:]), self.dtype, self.owner)


class Kernel(Protocol):
    """A compiled `__global__` function."""

    @property
    def resident(self) -> int:
        """How many blocks of THREADS threads the device holds at once."""
        ...

    def __call__(self, blocks: int, lanes: int, *arguments: Buffer | int | float) -> None:
        """Launch on the grid `(blocks, lanes)`. Integers go as 32 bits, floats as the module's `real`."""
        ...


class Device(Protocol):
    """A place where kernels run. Its methods raise DeviceError, one line, if something fails."""

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""
        ...

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        """Uninitialised memory. Raises DeviceMemoryError if there is too little."""
        ...

    def put(self, values: Array, dtype: Any) -> Buffer:
        """Memory with these values."""
        buffer = self.allocate(values.shape, dtype)
        self.write(buffer, values)
        return buffer

    def write(self, buffer: Buffer, values: Array) -> None:
        """Copy values of the buffer's size to the device."""
        ...

    def read(self, buffer: Buffer) -> Array:
        """Copy a buffer to the host, after everything that was launched has ended."""
        ...

    def compile(self, file: str, constants: Mapping[str, str]) -> Path:
        """Compile a file of `cuda/` with constants by -D, or find it in the cache. May be called from any thread."""
        ...

    def kernels(self, file: str, constants: Mapping[str, str]) -> Mapping[str, Kernel]:
        """The kernels of a file, by name."""
        ...


def sources() -> Path:
    """The folder of the kernels: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "cuda"
    return inside if inside.is_dir() else package.parent / "cuda"
