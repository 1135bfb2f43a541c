"""Every kernel compiles for real GPUs: by nvcc, without a warning and without spilled registers."""

import functools
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import aimed, noise, settings

import ablate
from ablate.backends.cuda import compile
from ablate.backends.cuda.device import DeviceError
from ablate.backends.cuda.emulated import Emulated
from ablate.backends.cuda.engine import CudaEngine

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation, which tells what is compiled, needs g++"),
]

# name: (overrides, shape of a sample, classes): every layer, in the shapes of the posts and in others
NETWORKS: dict[str, tuple[list[str], tuple[int, ...], int]] = {
    "lenet5": (["model=lenet5", "batch_size=300"], (1, 28, 28), 10),
    "numbers": (
        [
            *("model=mlp", "model.activation=tanh", "model.preactivation_divisor=78.5", "batch_size=64"),
            *("data=npz", "data.task=regression", "loss=huber"),
        ],
        (784,),
        10,
    ),
    "one unit, mistakes, and the other layers": (
        [
            "model.layers=[{conv: 3, kernel: 3, stride: 2, padding: 1}, {leaky_relu: 0.2}, {avg_pool: 2}, softmax,"
            " {dropout: 0.3}, {dense: 3}, elu, selu, softplus, softsign, identity, {dense: classes}]",
            "model.fit=null",
            "model.units=1",
            "loss=bce",
            "bug=missing_activation_derivative",
            "model.logits=straight_through_relu",
        ],
        (1, 9, 9),
        2,
    ),
}
Wanted = list[tuple[str, dict[str, str]]]


class Recorder(Emulated):
    """A device that compiles nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: Wanted = []

    def compile(self, file: str, constants: Mapping[str, str]) -> Path:
        if (file, constants) not in self.wanted:
            self.wanted.append((file, dict(constants)))
        return Path()

    def kernels(self, file: str, constants: Mapping[str, str]) -> Any:
        self.compile(file, constants)
        return dict.fromkeys(compile.kernel_names(file), SimpleNamespace(resident=8))


def wanted(name: str, dtype: str) -> Wanted:
    """The files, with their constants, that a training of this network compiles."""
    given, shape, classes = NETWORKS[name]
    trial = settings(*given)
    task = trial.data.learned
    dataset = noise(shape, classes, rows=300) if task.has_classes else aimed(task.name, shape[0], classes, 300)
    dataset = type(dataset)(**{**vars(dataset), "x_train": dataset.x_train.astype(dtype)})
    prepared, device = ablate.prepare(trial, dataset), Recorder()
    CudaEngine(prepared.architecture, dataset, [prepared.lane()], prepared.batch_size, device)
    return device.wanted


@functools.cache
def compiled(command: Sequence[str]) -> str:
    """What nvcc says while it compiles a file, verbosely; it must succeed. Kept with what is compiled."""
    what = "\0".join([compile._sources_digest(), compile._version(command[0]), *command])
    kept = compile._cache() / f"said-{hashlib.sha256(what.encode()).hexdigest()[:32]}.txt"
    if not kept.exists():
        done = compile._run([*command, "-Xptxas", "-v", "-o", os.devnull])
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "warning" not in said.lower(), said
        kept.with_suffix(f".{os.getpid()}").write_text(said, encoding="utf-8")
        kept.with_suffix(f".{os.getpid()}").replace(kept)
    return kept.read_text(encoding="utf-8")


def assert_compiles(file: str, constants: Mapping[str, str], architecture: str) -> None:
    # Networks share what does not depend on their layers.
    said = compiled(tuple(compile.cubin_command(file, constants, architecture)))
    kernels = re.findall(r"Compiling entry function '(\w+)' for '(\w+)'", said)
    assert kernels, said
    assert {name for name, _ in kernels} == set(compile.kernel_names(file))
    assert {target for _, target in kernels} == {architecture}
    # No loop over layers, units or samples may read its numbers back from memory.
    assert set(re.findall(r"(\d+) bytes (?:stack frame|spill)", said)) == {"0"}, f"{file} {constants}\n{said}"


# What takes the most registers for the first and the last architecture, each other network for one of them.
@pytest.mark.parametrize(
    ("name", "dtype", "architecture"),
    [
        ("lenet5", "float32", "sm_75"),
        ("lenet5", "float32", "sm_90"),
        ("numbers", "float64", "sm_80"),
        ("one unit, mistakes, and the other layers", "float32", "sm_90"),
    ],
)
def test_every_kernel_compiles(name: str, dtype: str, architecture: str) -> None:
    files = wanted(name, dtype)
    assert {file for file, _ in files} == {path.name for path in compile.sources().glob("*.cu")}
    for file, constants in files:
        assert constants["REAL"] == {"float32": "float", "float64": "double"}[dtype]
        assert_compiles(file, constants, architecture)


def test_what_does_not_compile_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match=r"^nvcc cannot compile the kernels: .*Nothing") as error:
        compile.cubin("layers.cu", {"REAL": "float", "CAPACITY": "1", "STAGES": "Nothing"}, "sm_90")
    assert len(str(error.value).splitlines()) == 1


def test_cubins_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = compile.cubin("units.cu", {"REAL": "float"}, "sm_90")
    stamp = made.stat().st_mtime_ns
    assert compile.cubin("units.cu", {"REAL": "float"}, "sm_90") == made
    assert made.stat().st_mtime_ns == stamp
    assert compile.cubin("units.cu", {"REAL": "float"}, "sm_80") != made
