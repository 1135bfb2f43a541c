"""The CUDA backend on a GPU: its numbers against NumPy's, its epochs, lanes, memory, and NVIDIA's own checkers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done, environment
from helpers import aimed, assert_same, load, settings, train_alone, train_together
from test_gradients import AIMED

import ablate
from ablate.backends.cuda import compile
from ablate.backends.cuda.backend import open_device
from ablate.backends.cuda.device import Buffer, Device, DeviceError, DeviceMemoryError
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.epochs import MOST_BLOCKS, Persistent, Stepwise
from ablate.backends.cuda.layout import Layout
from ablate.backends.cuda.memory import Batch
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset
from ablate.problem.mistakes import MISTAKES
from ablate.records import results
from ablate.training.loop import Orders

pytestmark = pytest.mark.gpu

# By dtype: the largest difference of a tensor, relative to its largest value, after ten steps.
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}

TEN_STEPS = ["batch_size=10", "data.train_limit=100", "data.test_limit=50", "epochs=1", "lr=0.05"]
# Every kind of layer and every activation.
EVERYTHING = [
    "model.fit=null",
    "model.layers=[{conv: 4, kernel: 3}, tanh, {pool: 2}, {conv: 6, kernel: 2}, sigmoid, {dense: 12}, {divide: 2.0},"
    " relu, {dense: classes}]",
]
LOSSES = [
    *(["loss=ce"], ["loss=mse"], ["loss=mse", "model.output=sigmoid"], ["loss=bce"], ["loss=mae"], ["loss=hinge"]),
    *(["loss=focal", "loss.gamma=2"], ["loss=focal", "loss.gamma=0.5"], ["loss=label_smoothing"]),
    ["loss=focal", "model.output=sigmoid", "loss.alpha=0.25"],
    *(["loss=squared_hinge", "lr=0.005"], ["loss=kl", "loss.smoothing=0.2"], ["loss=reverse_kl"]),
    ["loss=ce", "loss.class_weights=[0.5,1,2,1,1,3,1,0,1,1]"],
    *(["loss=ce", "loss.reduction=sum", "lr=0.005"], ["residual=y-p"], ["update_sign=plus"], ["output_lr=0.2"]),
]
NAIVE = [
    ["loss=ce", "loss.from_logits=false", "loss.eps_log=1e-10"],
    ["loss=ce", "loss.from_logits=false", "loss.eps_sum=1e-8"],
    *(
        [f"loss={name}", "loss.from_logits=false"]
        for name in ("mse", "bce", "mae", "hinge", "focal", "label_smoothing", "kl", "reverse_kl")
    ),
]
OPTIMIZERS = [
    *(["optimizer=momentum"], ["optimizer=momentum", "optimizer.momentum=0.5"]),
    *([f"optimizer={name}", "lr=0.001"] for name in ("adam", "rmsprop", "adagrad", "adamw", "nesterov")),
    ["optimizer=adadelta", "optimizer.weight_decay=0.1", "lr=1"],
    ["optimizer.clip_norm=0.3", "optimizer.clip_value=0.1"],
    ["schedule=cosine", "schedule.warmup=0.5"],
    ["optimizer=adam", "optimizer.beta1=0.5", "optimizer.epsilon=1e-4", "lr=0.001"],
]
# name: what a network computes; the lanes of each are all losses and optimisers.
NETWORKS = {
    "everything": EVERYTHING,
    "lenet5": ["model=lenet5"],
    "relu before the output": ["model=softmax_regression", "model.logits=relu"],
    "straight through": ["model=softmax_regression", "model.logits=straight_through_relu"],
}


@pytest.fixture(scope="module")
def gpu() -> Device:
    """The GPU, or the reason why there is none to be tested."""
    try:
        return open_device("gpu")
    except DeviceError as error:
        pytest.skip(str(error))


def _trials(*common: str, lanes: Sequence[Sequence[str]], backend: str = "cuda") -> list[Settings]:
    return [settings(*common, *each, f"backend={backend}", "device=gpu") for each in lanes]


def _assert_near(common: Sequence[str], lanes: Sequence[Sequence[str]], data: Dataset | None = None) -> None:
    """NumPy and the GPU come to the same weights and metrics, each lane for itself."""
    trials = _trials(*common, lanes=lanes)
    tolerance = TOLERANCES[trials[0].dtype]
    host = train_together(_trials(*common, lanes=lanes, backend="numpy"), data)
    far = []
    for lane, one, other in zip(lanes, host, train_together(trials, data), strict=True):
        apart = max(_apart(one.final[name], other.final[name]) for name in one.final)
        moved = max(_apart(one.final[name], one.initial[name]) for name in one.final)
        assert moved > 10 * tolerance, f"{lane}: nothing was learned that could differ"
        assert [record[:2] for record in one.records] == [record[:2] for record in other.records]
        if not apart <= tolerance:
            far.append(f"{' '.join(lane)}: {apart:.1e}")
    assert not far, f"relative differences above {tolerance}: {', '.join(far)}"


def _apart(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float(np.abs(one - other).max() / max(np.abs(one).max(), 1e-12))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_gpu_learns_what_numpy_learns(gpu: Device, network: str, dtype: str) -> None:
    lanes = [*LOSSES, *NAIVE, *OPTIMIZERS] if network == "everything" else [*LOSSES[:4], *OPTIMIZERS[2:3]]
    _assert_near([*NETWORKS[network], *TEN_STEPS, f"dtype={dtype}"], lanes)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("task", AIMED)
def test_the_gpu_learns_targets_that_are_no_classes(gpu: Device, task: str, dtype: str) -> None:
    data = aimed(task, 5, 3, rows=100, test_rows=50)
    data = replace(
        data, **{name: getattr(data, name).astype(dtype) for name in ("x_train", "y_train", "x_test", "y_test")}
    )
    common = ["model=mlp", "model.hidden=8", "batch_size=10", "epochs=1", "lr=0.05", f"dtype={dtype}"]
    _assert_near([*common, "data=npz", f"data.task={task}"], AIMED[task], data)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bug", [name for name in MISTAKES.names() if name != "none"])
def test_the_gpu_makes_the_same_mistakes(gpu: Device, bug: str, dtype: str) -> None:
    _assert_near([*EVERYTHING, *TEN_STEPS, f"bug={bug}", f"dtype={dtype}"], [["loss=ce"], ["loss=mse"], ["loss=focal"]])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("network", ["everything", "lenet5"])
def test_one_launch_an_epoch_is_many_launches_bit_for_bit(gpu: Device, network: str, dtype: str) -> None:
    # A last batch that is smaller.
    common = [*NETWORKS[network], *TEN_STEPS, "data.train_limit=95", f"dtype={dtype}"]
    trials = _trials(*common, lanes=[*LOSSES[:5], *OPTIMIZERS])
    dataset = load(trials[0])
    net = ablate.prepare(trials[0], dataset).architecture
    lanes = [ablate.prepare(trial, dataset).lane() for trial in trials]
    told = []
    for way in (Persistent(gpu), Stepwise()):
        engine = CudaEngine(net, dataset, lanes, 10, gpu, way)
        orders = Orders(trials, len(dataset.y_train), 10)
        epochs = [engine.train_epoch(orders.next(), [0, 2]) for _ in range(2)]
        weights = [engine.weights(lane) for lane in range(len(lanes))]
        # Every bit: as it stands, an array is printed with eight digits.
        with np.printoptions(floatmode="unique", threshold=sys.maxsize):
            told.append(repr((epochs, engine.evaluate(), engine.units())) + _bits(weights))
    assert told[0] == told[1]


def _bits(weights: Sequence[Any]) -> str:
    return "".join(tensor.tobytes().hex() for lane in weights for tensor in lane.values())


def test_a_lane_is_the_same_whoever_is_beside_it(gpu: Device) -> None:
    trials = _trials(*EVERYTHING, *TEN_STEPS, lanes=[*LOSSES[:10], *OPTIMIZERS])[:16]
    alone = [train_alone(trial) for trial in trials]
    for count in (4, 16):
        for one, other in zip(alone[:count], train_together(trials[:count]), strict=True):
            assert_same(one, other)


def test_a_lane_that_diverges_touches_no_other(gpu: Device) -> None:
    lanes = [["loss=ce"], ["loss=mse", "lr=3e38"], ["loss=hinge", "lr=3e38"], ["loss=mse"]]
    trials = _trials(*EVERYTHING, *TEN_STEPS, lanes=lanes)
    together = train_together(trials)
    host = train_together(_trials(*EVERYTHING, *TEN_STEPS, lanes=lanes, backend="numpy"))
    for trial, each in zip(trials, together, strict=True):
        assert_same(train_alone(trial), each)
    ended = [each.summary.not_finite_step for each in together if each.summary]
    assert ended == [each.summary.not_finite_step for each in host if each.summary]
    assert [step is None for step in ended] == [True, False, False, True]


# Tens of megabytes a lane, and little work.
LARGE = ["model=mlp", "model.hidden=1000", "batch_size=1400", "data.train_limit=1400", "data.test_limit=20", "epochs=1"]


def test_lanes_that_the_memory_has_no_room_for_take_turns(gpu: Device, caplog: pytest.LogCaptureFixture) -> None:
    trials = _trials(*LARGE, lanes=[[f"seed={seed}"] for seed in range(8)])
    roomy = train_together(trials)
    assert "take turns" not in caplog.text
    net = ablate.prepare(trials[0]).architecture
    one = Batch.bytes(Layout(net, MISTAKES.get("none"), 1400), 1400, np.dtype("float32"))
    state = 4 * net.size * 4 * len(trials)
    taken = _all_but(gpu, state + int(3.5 * one) + (32 << 20))
    narrow = train_together(trials)
    del taken
    assert re.search(r"the device has room for [1-7] of 8 lanes at once: they take turns", caplog.text)
    for each, other in zip(roomy, narrow, strict=True):
        assert_same(each, other)


def _all_but(gpu: Device, left: int) -> list[Buffer]:
    """All memory but so many bytes: not always to be had in one piece."""
    taken: list[Buffer] = []
    piece = gpu.free_memory() - left
    # The driver hands memory out in pieces of 2 MiB.
    while piece > 2 << 20:
        try:
            taken.append(gpu.allocate((piece,), np.uint8))
            piece = gpu.free_memory() - left
        except DeviceMemoryError:
            piece //= 2
    return taken


def test_memory_is_given_back(gpu: Device) -> None:
    trials = _trials(*LARGE, lanes=[["loss=ce"]])
    train_together(trials)
    before = gpu.free_memory()
    for _ in range(3):
        train_together(trials)
    assert gpu.free_memory() >= before - (10 << 20)


def test_a_launch_that_fills_the_gpu_comes_to_its_end(gpu: Device, ablate_process: Callable[..., Done]) -> None:
    """Blocks of the persistent kernel wait for each other: were one left outside, it would run for ever."""
    trial = settings("model=lenet5", "batch_size=300", "data.train_limit=300", "backend=cuda", "device=gpu")
    prepared = ablate.prepare(trial)
    engine = CudaEngine(prepared.architecture, prepared.dataset, [prepared.lane()], 300, gpu)
    lanes = max(1, engine.way.most_lanes(engine.network) // MOST_BLOCKS)
    seeds = ",".join(map(str, range(lanes)))
    done = ablate_process(
        "-m", "backend=cuda", "device=gpu", "model=lenet5", "batch_size=300", "data.train_limit=300",
        "data.test_limit=20", "epochs=1", "check=false", "tracking=none", f"seed={seeds}",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")


def test_backend_is_a_factor_of_a_sweep(gpu: Device, tmp_path: Path, ablate_process: Callable[..., Done]) -> None:
    done = ablate_process(
        "-m", "backend=numpy,cuda", "loss=ce,mse", "model=mlp", "epochs=2", "data.train_limit=200",
        "data.test_limit=100", "tracking=none", "seed=0",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    rows = results.load(folder)
    assert sorted(zip(rows["backend"], rows["loss"], strict=True)) == [
        (backend, loss) for backend in ("cuda", "numpy") for loss in ("ce", "mse")
    ]
    assert set(rows["status"]) == {"finished"}


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_finds_nothing(gpu: Device, tmp_path: Path, tool: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(compile.nvcc_path()).parent)])
    sanitizer = shutil.which("compute-sanitizer", path=path)
    if sanitizer is None:
        pytest.skip("compute-sanitizer was not found: it comes with the CUDA toolkit")
    small = [*(each.replace("=100", "=20") for each in TEN_STEPS), "check=false", "tracking=none"]
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all",
         sys.executable, "-m", "ablate", "backend=cuda", "device=gpu", *small],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not support this machine's GPU")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards", done.stdout + done.stderr)
