"""What a measurement was made on: the processor, the versions, and which BLAS kernels ran."""

import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

PACKAGES = ("numpy", "torch", "scikit-learn", "mlflow", "hydra-core")
SWITCH = "OPENBLAS_CORETYPE"
AVX512_KERNELS = ("skylakex", "cooperlake", "sapphirerapids")


def described() -> dict[str, Any]:
    """Hardware and software, without this machine's name."""
    asked = os.environ.get(SWITCH, "not set")
    return {
        "processor": f"{len(os.sched_getaffinity(0))} cores of an {processor()}, {platform.system()}",
        "versions": f"Python {platform.python_version()}, " + ", ".join(filter(None, map(_version, PACKAGES))),
        "blas": f"{_blas()['internal_api']} {_blas()['version']}, {kernels()} kernels ({SWITCH} {asked})",
        "torch": _torch(),
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def kernels() -> str:
    """The BLAS kernels that NumPy's products run, by the library's own name for them."""
    return str(_blas().get("architecture", "unknown"))


def is_avx512(name: str) -> bool:
    """Whether kernels of this name use AVX-512; else a case's lower target holds."""
    return name.split()[0].lower() in AVX512_KERNELS


def _blas() -> dict[str, Any]:
    """NumPy's own library, whatever others are loaded."""
    np.dot(np.ones(1), np.ones(1))
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return (
        next((each for each in found if "numpy" in each["filepath"]), found[0])
        if found
        else {"internal_api": "BLAS", "version": "unknown"}
    )


def _version(package: str) -> str | None:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return None


def _torch() -> str | None:
    """The instructions that PyTorch's own kernels use, which `OPENBLAS_CORETYPE` leaves alone."""
    if find_spec("torch") is None:
        return None
    import torch

    return str(torch.backends.cpu.get_cpu_capability())
