"""The emulated device: the same kernels, compiled for the CPU by g++, with threads as fibres (`cuda/host/`)."""

import ctypes
import functools
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ablate.backends.cuda import compile
from ablate.backends.cuda.device import THREADS, Array, Buffer, Device, DeviceError, DeviceMemoryError

# This number and the number of the launch seed the order in which threads run.
SHUFFLE = "ABLATE_CUDA_SHUFFLE"
# As many blocks as a small device holds; a launch may have more, unless its blocks wait for each other.
RESIDENT = 16


def _loaded(library: Path, mode: int = ctypes.DEFAULT_MODE) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library), mode=mode)
    except OSError as error:
        raise DeviceError(f"the compiled kernels cannot be loaded: {error}") from None


@functools.cache
def _host(library: str) -> ctypes.CDLL:
    # The kernels' libraries find the runtime's functions here.
    host = _loaded(Path(library), ctypes.RTLD_GLOBAL)
    host.host_allocate.restype, host.host_allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    host.host_free.argtypes = [ctypes.c_void_p]
    return host


class _Memory:
    """A separate allocation, so that a sanitizer sees where it ends; it is filled with NaN."""

    def __init__(self, host: ctypes.CDLL, size: int) -> None:
        self.address = host.host_allocate(max(size, 1))
        if not self.address:
            raise DeviceMemoryError(f"device=emulated: {size} bytes cannot be allocated")
        weakref.finalize(self, host.host_free, self.address)


class EmulatedKernel:
    """A kernel as a function of a shared library; see `device.Kernel`."""

    resident = RESIDENT

    def __init__(self, name: str, function: Any, device: "Emulated", real: type[Any]) -> None:
        self.name, self.device, self.real = name, device, real
        self.function = function
        self.function.restype = ctypes.c_char_p

    def __call__(self, blocks: int, lanes: int, *arguments: Buffer | int | float) -> None:
        values = [self._value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        grid, block = (ctypes.c_uint * 3)(blocks, lanes, 1), (ctypes.c_uint * 3)(THREADS, 1, 1)
        error = self.function(grid, block, ctypes.c_uint(self.device.next_seed()), pointers)
        if error is not None:
            raise DeviceError(f"kernel {self.name}: {error.decode()}")

    def _value(self, argument: Buffer | int | float) -> Any:
        if isinstance(argument, Buffer):
            return ctypes.c_uint64(argument.address)
        return ctypes.c_int32(argument) if isinstance(argument, int) else self.real(argument)


def _shuffle() -> int:
    written = os.environ.get(SHUFFLE, "0")
    if not written.isdecimal():
        raise DeviceError(f"{SHUFFLE}={written}: expected a whole number from 0")
    return int(written)


class Emulated(Device):
    """See `device.Device`. Raises DeviceError if there is no g++."""

    def __init__(self) -> None:
        self.host = _host(str(compile.host_library()))
        self.loaded: dict[tuple[object, ...], Mapping[str, EmulatedKernel]] = {}
        self.launches, self.shuffle = 0, _shuffle()

    def next_seed(self) -> int:
        self.launches += 1
        return (self.shuffle * 1_000_003 + self.launches) & 0xFFFFFFFF

    def free_memory(self) -> int:
        # Includes what the page cache would give up.
        return int(psutil.virtual_memory().available)

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        dtype = np.dtype(dtype)
        memory = _Memory(self.host, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return Buffer(memory.address, shape, dtype, memory)

    def write(self, buffer: Buffer, values: Array) -> None:
        values = np.ascontiguousarray(values, buffer.dtype)
        assert values.nbytes == buffer.bytes, f"{values.shape} does not fill {buffer.shape}"
        ctypes.memmove(buffer.address, values.ctypes.data, buffer.bytes)

    def read(self, buffer: Buffer) -> Array:
        values = np.empty(buffer.shape, buffer.dtype)
        ctypes.memmove(values.ctypes.data, buffer.address, buffer.bytes)
        return values

    def compile(self, file: str, constants: Mapping[str, str]) -> Path:
        return compile.shared_library(file, constants)

    def kernels(self, file: str, constants: Mapping[str, str]) -> Mapping[str, EmulatedKernel]:
        key = (file, *sorted(constants.items()))
        if key not in self.loaded:
            self.loaded[key] = self._load(file, constants)
        return self.loaded[key]

    def _load(self, file: str, constants: Mapping[str, str]) -> Mapping[str, EmulatedKernel]:
        library = _loaded(self.compile(file, constants))
        real = ctypes.c_double if constants.get("REAL") == "double" else ctypes.c_float
        return {
            name: EmulatedKernel(name, library[f"launch_{name}"], self, real) for name in compile.kernel_names(file)
        }
