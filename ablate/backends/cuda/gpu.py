"""The GPU, through PyCUDA, which is imported here only, and only when a trial asks for it."""

import atexit
import functools
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ablate.backends.cuda import compile
from ablate.backends.cuda.device import THREADS, Array, Buffer, Device, DeviceError, DeviceMemoryError

T = TypeVar("T")

WARP = 32
# The granularity in which registers are allocated to a warp, and bytes of shared memory to a block.
REGISTERS_AT_ONCE, SHARED_AT_ONCE = 256, 256


class _Card:
    """PyCUDA's driver module and the first device, whose primary context is current in the thread that made this.

    Raises DeviceError if there is no PyCUDA, driver or GPU.
    """

    def __init__(self) -> None:
        self.driver = _driver()
        self.device = _first_device(self.driver)
        try:
            self.context = self.device.retain_primary_context()
            self.context.push()
        except self.driver.Error as error:
            raise _unusable(error) from None
        self.thread = threading.get_ident()
        # Why the context is unusable, once it is.
        self.lost = ""
        self.unwanted: list[object] = []
        atexit.register(self.let_go, "device=gpu: this process ends")

    def attribute(self, name: str) -> int:
        """The value of a device attribute, named as in `CUdevice_attribute` without the prefix."""
        return int(self.device.get_attribute(getattr(self.driver.device_attribute, name)))

    def ask(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        """Call PyCUDA; a driver error is raised as DeviceError that says what was being done."""
        if self.lost:
            raise DeviceError(self.lost)
        try:
            return function(*arguments)
        except self.driver.Error as error:
            raise self.told(what, error) from None

    def told(self, what: str, error: Exception) -> DeviceError:
        """A driver error as one line."""
        # A failed kernel is reported by whichever call comes next.
        self._settle()
        line = self.lost or f"{what}: {_line(error)}"
        return DeviceMemoryError(line) if isinstance(error, self.driver.MemoryError) else DeviceError(line)

    def free(self, allocation: object) -> None:
        """Free memory in the thread of the context, whichever thread dropped the last reference to it."""
        if self.lost:
            return
        self.unwanted.append(allocation)
        if threading.get_ident() == self.thread:
            self._settle()
            self.unwanted.clear()

    def let_go(self, why: str) -> None:
        """Give up the context, and everything in its memory with it."""
        if not self.lost:
            self.lost = why
            # Explicitly, while the object lives: its destructor calls what primary contexts refuse.
            self.context.detach()

    def _settle(self) -> None:
        """Wait for the kernels, and give up the context if one failed.

        After a failure nothing works, not even freeing, and PyCUDA would warn about every allocation it cannot free.
        """
        if self.lost or threading.get_ident() != self.thread:
            return
        try:
            self.context.synchronize()
        except self.driver.Error as error:
            self.let_go(f"device=gpu: a kernel failed ({_line(error)}): this process cannot use the GPU any more")


@functools.cache
def _card() -> _Card:
    """One for the whole process."""
    return _Card()


def _driver() -> Any:
    try:
        with warnings.catch_warnings():
            # PyCUDA warns about a driver older than itself, and then raises an error that says the same.
            warnings.simplefilter("ignore")
            import pycuda.driver as driver
    except ImportError as error:
        raise DeviceError(
            f"device=gpu needs PyCUDA and the GPU's driver ({_line(error)}): see docs/cuda.md, or use device=emulated"
        ) from None
    return driver


def _first_device(driver: Any) -> Any:
    try:
        driver.init()
        if driver.Device.count() == 0:
            raise DeviceError("device=gpu: there is no GPU here; use device=emulated or backend=numpy")
        return driver.Device(0)
    except driver.Error as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> DeviceError:
    return DeviceError(f"device=gpu: no GPU can be used ({_line(error)}); use device=emulated or backend=numpy")


def check() -> None:
    """Raise DeviceError if there is no PyCUDA, driver, GPU or nvcc.

    This does not create a context: another process may need the whole GPU.
    """
    _first_device(_driver())
    compile.nvcc_path()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Memory:
    """An allocation that is freed with the last reference to this."""

    def __init__(self, card: _Card, allocation: Any) -> None:
        self.card, self.allocation = card, allocation

    def __del__(self) -> None:
        allocation, self.allocation = self.allocation, None
        self.card.free(allocation)


class GpuKernel:
    """A kernel in a loaded module; see `device.Kernel`."""

    def __init__(self, name: str, function: Any, card: _Card, real: str) -> None:
        self.name, self.function, self.card = name, function, card
        # Format characters of Python's `struct`: an address, 32 bits, and the module's `real`.
        self.letters = {Buffer: "P", int: "i", bool: "i", float: real}
        self.prepared = ""

    @functools.cached_property
    def resident(self) -> int:
        """Computed from what a block needs of a multiprocessor; PyCUDA does not expose the driver's own answer."""
        # Nor is `pycuda.tools.OccupancyRecord` (PyCUDA 2026.1) right on today's devices. It does not round a warp's
        # registers up: with 73 a thread it says 7 blocks where 6 fit, and a grid that waits for the seventh never ends.
        # And it says 8 blocks at most, and takes a block's limit of shared memory for all that a multiprocessor has:
        # on sm_90, down to a ninth of what fits. The tests compare what is reckoned here with NVIDIA's own calculator.
        attribute = self.card.attribute
        registers, shared = self.card.ask(f"kernel {self.name}", self._needs)
        limits = [
            attribute("MAX_REGISTERS_PER_MULTIPROCESSOR")
            // max(THREADS // WARP * _up(registers * WARP, REGISTERS_AT_ONCE), 1),
            attribute("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR")
            // max(_up(shared + attribute("RESERVED_SHARED_MEMORY_PER_BLOCK"), SHARED_AT_ONCE), 1),
            attribute("MAX_THREADS_PER_MULTIPROCESSOR") // THREADS,
            attribute("MAX_BLOCKS_PER_MULTIPROCESSOR"),
        ]
        return min(limits) * attribute("MULTIPROCESSOR_COUNT")

    def __call__(self, blocks: int, lanes: int, *arguments: Buffer | int | float) -> None:
        # Without `ask`, which would cost more than the call: this runs for every operation of a step.
        if self.card.lost:
            raise DeviceError(self.card.lost)
        wanted = "".join([self.letters[type(argument)] for argument in arguments])
        if wanted != self.prepared:
            self.prepared = wanted
            self.function.prepare(wanted)
        values = [argument.address if isinstance(argument, Buffer) else argument for argument in arguments]
        try:
            self.function.prepared_call((blocks, lanes, 1), (THREADS, 1, 1), *values)
        except self.card.driver.Error as error:
            raise self.card.told(f"kernel {self.name} on {blocks} x {lanes} blocks", error) from None

    def _needs(self) -> tuple[int, int]:
        """Registers per thread, and bytes of shared memory per block."""
        return int(self.function.num_regs), int(self.function.shared_size_bytes)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


class Gpu(Device):
    """See `device.Device`. Raises DeviceError if there is no GPU, driver, PyCUDA or nvcc."""

    def __init__(self) -> None:
        self.card = _card()
        compile.nvcc_path()
        self.driver = self.card.driver
        self.target = "sm_{}{}".format(*self.card.device.compute_capability())
        self.loaded: dict[tuple[object, ...], tuple[Any, Mapping[str, GpuKernel]]] = {}

    def free_memory(self) -> int:
        return int(self.card.ask("device=gpu", self.driver.mem_get_info)[0])

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        allocation = self.card.ask(f"device=gpu: {size} bytes cannot be allocated", self.driver.mem_alloc, max(size, 1))
        return Buffer(int(allocation), shape, dtype, _Memory(self.card, allocation))

    def write(self, buffer: Buffer, values: Array) -> None:
        values = np.ascontiguousarray(values, buffer.dtype)
        assert values.nbytes == buffer.bytes, f"{values.shape} does not fill {buffer.shape}"
        self.card.ask("device=gpu", self.driver.memcpy_htod, buffer.address, values)

    def read(self, buffer: Buffer) -> Array:
        values = np.empty(buffer.shape, buffer.dtype)
        self.card.ask("device=gpu", self.driver.memcpy_dtoh, values, buffer.address)
        return values

    def compile(self, file: str, constants: Mapping[str, str]) -> Path:
        return compile.cubin(file, constants, self.target)

    def kernels(self, file: str, constants: Mapping[str, str]) -> Mapping[str, GpuKernel]:
        key = (file, *sorted(constants.items()))
        if key not in self.loaded:
            self.loaded[key] = self.card.ask(f"device=gpu: {file}", self._load, file, constants)
        return self.loaded[key][1]

    def _load(self, file: str, constants: Mapping[str, str]) -> tuple[Any, Mapping[str, GpuKernel]]:
        module = self.driver.module_from_file(str(self.compile(file, constants)))
        real = "d" if constants.get("REAL") == "double" else "f"
        names = compile.kernel_names(file)
        return module, {name: GpuKernel(name, module.get_function(name), self.card, real) for name in names}
