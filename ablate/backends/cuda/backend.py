"""The CUDA backend as the program sees it."""

import contextlib
import functools
import getpass
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ablate.backends.backend import Backend
from ablate.backends.cuda.compile import is_sanitized
from ablate.backends.cuda.device import Device, DeviceError
from ablate.backends.engine import Engine, Lane, Probe
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.layers import Activate, AvgPool, Conv, Dense, Divide, Dropout, Pool
from ablate.problem.losses import Loss
from ablate.problem.mistakes import Mistake
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer

GPU, EMULATED = "gpu", "emulated"
# The layers that `cuda/*.cuh` has structs for (`layout.py` names them).
LAYERS = (Activate, AvgPool, Conv, Dense, Divide, Dropout, Pool)


class CudaBackend(Backend):
    """`backend=cuda`: kernels compiled from `cuda/*.cu`."""

    name: ClassVar[str] = "cuda"
    devices: ClassVar[tuple[str, ...]] = (GPU, EMULATED)
    cause_of_death: ClassVar[str] = "a kernel that writes outside its arrays? docs/cuda.md says how to find it"

    fault: ClassVar[str] = "the mathematics is right, a kernel is not (docs/cuda.md says how to look for it)"
    possessive: ClassVar[str] = "the CUDA kernels'"

    def unavailable(self, device: str) -> str | None:
        try:
            check(device)
        except DeviceError as error:
            return str(error)
        return None

    def refusal(self, loss: Loss, optimizer: Optimizer, architecture: Architecture, mistake: Mistake) -> str | None:
        if loss.is_foreign:
            return f"loss={loss.name}: your own loss has no CUDA kernel; use backend=numpy for it"
        layers = [stage.layer for stage in architecture.stages]
        activations = [layer.activation for layer in layers if isinstance(layer, Activate)]
        kernels = {f"loss={loss.name}": loss.kernel, f"optimizer={optimizer.name}": optimizer.kernel}
        kernels |= {f"bug={mistake.name}": mistake.backward_kernel if mistake.has_kernel else None}
        kernels |= {f"model.activation={each.name}": each.kernel for each in activations}
        kernels |= {f"model.layers: {layer}": None for layer in layers if not isinstance(layer, LAYERS)}
        missing = [named for named, kernel in kernels.items() if kernel is None]
        return f"{missing[0]}: it has no CUDA kernel; use backend=numpy for it" if missing else None

    def engine(
        self,
        architecture: Architecture,
        dataset: Dataset,
        lanes: Sequence[Lane],
        batch_size: int,
        device: str,
        processes: ProcessGroup | None = None,
    ) -> Engine:
        from ablate.backends.cuda.engine import CudaEngine

        return CudaEngine(architecture, dataset, lanes, batch_size, open_device(device))

    def probe(self, architecture: Architecture, dataset: Dataset, lane: Lane, device: str) -> Probe:
        from ablate.backends.cuda.probe import CudaProbe

        return CudaProbe(architecture, dataset, lane, open_device(device))

    def most_processes(self, device: str) -> int | None:
        # One GPU takes all lanes.
        return 1 if device == GPU else None

    def stays_in_process(self) -> bool:
        # A sanitizer ends the process in which it finds something, and joblib would wait for that process for ever.
        return is_sanitized()

    def turn(self, device: str) -> contextlib.AbstractContextManager[object]:
        # One process at a time uses the GPU: each takes as much memory as there is, and blocks that wait for each other
        # must all be resident.
        if device != GPU:
            return contextlib.nullcontext()
        from filelock import FileLock

        return FileLock(Path(tempfile.gettempdir()) / f"ablate-gpu-{getpass.getuser()}.lock")


@functools.cache
def open_device(name: str) -> Device:
    """The device `gpu` or `emulated`, one of each per process.

    Raises DeviceError, one line that says what is missing, if it is not available.
    """
    with _told():
        if name == EMULATED:
            from ablate.backends.cuda.emulated import Emulated

            return Emulated()
        from ablate.backends.cuda.gpu import Gpu

        return Gpu()


def check(name: str) -> None:
    """Raise DeviceError if a device is not available; other processes may use it afterwards."""
    if name == EMULATED:
        open_device(name)
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
