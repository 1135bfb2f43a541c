"""The CUDA backend: our own kernels, on a GPU through PyCUDA or emulated on the CPU."""

import contextlib
import functools
from collections.abc import Iterator

from ablate.backends.cuda.compile import is_sanitized
from ablate.backends.cuda.device import Device, DeviceError, DeviceMemoryError
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.probe import Probe

__all__ = ["CudaEngine", "Device", "DeviceError", "DeviceMemoryError", "Probe", "check", "device", "is_sanitized"]


@functools.cache
def device(name: str) -> Device:
    """`gpu` or `emulated`, the same one all through this process.

    Raises DeviceError, one line, where it cannot be had: it says what is missing.
    """
    with _told():
        if name == "emulated":
            from ablate.backends.cuda.emulated import Emulated

            return Emulated()
        from ablate.backends.cuda.gpu import Gpu

        return Gpu()


def check(name: str) -> None:
    """Raise DeviceError where a device cannot be had; other processes may use it afterwards."""
    if name == "emulated":
        device(name)
        return
    from ablate.backends.cuda import gpu

    with _told():
        gpu.check()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"backend=cuda: {error}") from None
