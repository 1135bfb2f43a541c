"""The CUDA backend: our own kernels, on a GPU through PyCUDA or emulated on the CPU."""

import functools

from ablate.backends.cuda.device import Device, DeviceError
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.probe import Probe

__all__ = ["CudaEngine", "Device", "DeviceError", "Probe", "device"]


@functools.cache
def device(name: str) -> Device:
    """`gpu` or `emulated`, the same one all through this process.

    Raises DeviceError, one line, where it cannot be had: it says what is missing.
    """
    try:
        if name == "emulated":
            from ablate.backends.cuda.emulated import Emulated

            return Emulated()
        from ablate.backends.cuda.gpu import Gpu

        return Gpu()
    except DeviceError as error:
        raise DeviceError(f"backend=cuda: {error}") from None
