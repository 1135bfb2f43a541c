"""Compiling the kernels, and a cache of the results."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate.backends.cuda.declarations import header
from ablate.backends.cuda.device import DeviceError, sources

# The longest compilation seen, of a persistent kernel by nvcc, took a quarter of a minute.
COMPILE_SECONDS = 600
# Sanitizers for the emulation, to look for a bug in a kernel: `address` or `races`.
SANITIZE = "ABLATE_CUDA_SANITIZE"
_SANITIZERS = {
    "": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O0"),
    # The host library defines the functions that this instrumentation calls, so no sanitizer is linked; calls to C
    # functions must stay calls to be observed (`cuda/host/races.cpp`).
    "races": ("-fsanitize=thread", "-nodefaultlibs", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-g"),
}
# The flags and the additional files of the emulation's runtime in each case; the runtime is not examined itself.
_HOST = {"": ((), ()), "address": (("-fsanitize=address", "-g"), ()), "races": (("-g",), ("races.cpp",))}


def kernel_names(file: str) -> list[str]:
    """The names of the kernels in a file of `cuda/`, in order."""
    return re.findall(r"^KERNEL (\w+)", (sources() / file).read_text(encoding="utf-8"), re.MULTILINE)


def cubin(file: str, constants: Mapping[str, str], target: str) -> Path:
    """A file of `cuda/` as device code for a GPU, `target` (`sm_90` for an H100).

    Raises DeviceError if there is no nvcc, or with the first line of nvcc's complaint.
    """
    return _kept(cubin_command(file, constants, target), ".cubin")


def cubin_command(file: str, constants: Mapping[str, str], target: str) -> list[str]:
    """The nvcc command of `cubin`, to run in `sources()`, without its output file.

    Raises DeviceError if there is no nvcc.
    """
    # nvcc takes a bare comma for the end of a definition.
    defines = [f"-D{name}={value}".replace(",", "\\,") for name, value in constants.items()]
    options = ["-std=c++17", f"-arch={target}", "-cubin", "-Werror", "all-warnings", "-include", str(declared())]
    return [nvcc_path(), *options, *defines, file]


def nvcc_path() -> str:
    """The CUDA compiler. Raises DeviceError if there is none."""
    folders = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT") if name in os.environ]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    found = shutil.which("nvcc", path=path)
    if found is None:
        raise DeviceError("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to its folder")
    return found


def is_sanitized() -> bool:
    """Whether kernels run under a sanitizer."""
    return bool(os.environ.get(SANITIZE))


def shared_library(file: str, constants: Mapping[str, str]) -> Path:
    """A file of `cuda/` for the emulation: every kernel NAME has a function `launch_NAME`.

    Raises DeviceError if there is no g++, or with the first line of its complaint.
    """
    launchers = "".join(f"LAUNCHER({name})\n" for name in kernel_names(file))
    # Without the folder that they lie in, so that two copies of the same sources share what is compiled.
    defines = [f"-D{name}={value}" for name, value in constants.items()]
    included = [word for path in ("host/cuda_host.hpp", declared(), file) for word in ("-include", str(path))]
    return _kept([*_gxx(), *_SANITIZERS[_sanitizer()], "-x", "c++", *defines, *included, "-"], ".so", launchers)


def host_library() -> Path:
    """The emulation's runtime: fibres, barriers, memory. Race detection must not watch the runtime itself."""
    flags, files = _HOST[_sanitizer()]
    return _kept([*_gxx(), *flags, *(f"host/{name}" for name in ("cuda_host.cpp", *files))], ".so")


def _gxx() -> list[str]:
    found = shutil.which("g++")
    if found is None:
        raise DeviceError("g++ was not found: device=emulated compiles the kernels with it; install g++")
    # Contraction into fused operations would make the same source round differently.
    return [found, "-O1", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off"]


def _sanitizer() -> str:
    wanted = os.environ.get(SANITIZE, "")
    if wanted not in _SANITIZERS:
        raise DeviceError(f"{SANITIZE}={wanted}: expected {' or '.join(filter(None, _SANITIZERS))}")
    if wanted == "address" and not hasattr(ctypes.CDLL(None), "__asan_init"):
        raise DeviceError(
            f"{SANITIZE}=address: AddressSanitizer must come first in the process; start with"
            ' LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"'
            " ASAN_OPTIONS=detect_leaks=0"
        )
    return wanted


def declared() -> Path:
    """The generated header (`declarations.header`) as a file to include; its name contains a digest of its content."""
    text = header()
    path = _cache() / f"declared-{hashlib.sha256(text.encode()).hexdigest()[:16]}.cuh"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch) / path.name
            made.write_text(text, encoding="utf-8")
            made.replace(path)
    except OSError as error:
        raise _unkept(path.parent, error) from None
    return path


def _cache() -> Path:
    import pooch  # imported here, to keep it out of every start

    return Path(pooch.os_cache("ablate")) / "cuda"


def _unkept(folder: Path, error: OSError) -> DeviceError:
    return DeviceError(f"{folder}: compiled kernels cannot be kept there ({error.strerror})")


def _kept(command: Sequence[str], suffix: str, text: str = "") -> Path:
    """The output of a compiler, from the cache if sources, command and compiler are the same.

    Its digest lies beside it: a file that a crash or a full disk has cut short is compiled again.
    """
    digest = hashlib.sha256("\0".join([_sources_digest(), _version(command[0]), *command, text]).encode()).hexdigest()
    folder = _cache()
    kept = folder / f"{digest[:32]}{suffix}"
    seal = kept.with_suffix(f"{suffix}.sha256")
    if _is_whole(kept, seal):
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made, sealed = Path(scratch) / f"made{suffix}", Path(scratch) / "sealed"
            _compile([*command, "-o", str(made)], text)
            if not made.exists():
                raise DeviceError(f"{Path(command[0]).name} says that it has compiled the kernels, and has not")
            sealed.write_text(hashlib.sha256(made.read_bytes()).hexdigest(), encoding="ascii")
            made.replace(kept)
            sealed.replace(seal)
    except OSError as error:
        raise _unkept(folder, error) from None
    return kept


def _is_whole(kept: Path, seal: Path) -> bool:
    try:
        return seal.read_text(encoding="ascii") == hashlib.sha256(kept.read_bytes()).hexdigest()
    except (OSError, UnicodeDecodeError):
        return False


def _compile(command: Sequence[str], text: str) -> None:
    done = _run(command, text)
    if done.returncode != 0:
        # The last message, of the linker's driver, is the least informative.
        lines = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("collect2")]
        said = [line for line in lines if "error" in line.lower() or "space" in line.lower()]
        first = (said or lines or [f"exit code {done.returncode}"])[0]
        raise DeviceError(f"{Path(command[0]).name} cannot compile the kernels: {first.strip()}")


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    # AddressSanitizer, preloaded into this process, would make the compiler take twice as long.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=sources(),
            env=env,
            timeout=COMPILE_SECONDS,
        )
    except OSError as error:
        raise DeviceError(f"{command[0]}: cannot be started ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{command[0]}: no answer within {COMPILE_SECONDS} seconds") from None


@functools.cache
def _sources_digest() -> str:
    files = sorted(path for path in sources().rglob("*") if path.is_file())
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


@functools.cache
def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout
