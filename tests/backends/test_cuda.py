"""The CUDA engine, its kernels emulated on the CPU: epochs, lanes, memory, sanitisers, checks and the cache."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done, run_as_process, run_in_process
from helpers import assert_same, load, noise, settings, train_alone, train_together

import ablate
from ablate.backends.cuda import backend, compile, epochs, memory, network
from ablate.backends.cuda import engine as engines
from ablate.backends.cuda.device import Device, DeviceError, DeviceMemoryError
from ablate.backends.cuda.emulated import Emulated
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.memory import Batch
from ablate.backends.cuda.probe import CudaProbe
from ablate.backends.engine import Lane
from ablate.backends.numpy.engine import NumpyEngine
from ablate.config.settings import Settings
from ablate.diagnosis import checks as check
from ablate.problem.data.dataset import Dataset
from ablate.problem.optimizers import MOST_CONSTANTS
from ablate.problem.schedules import Constant

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation compiles the kernels with g++")

Array = np.ndarray[Any, np.dtype[Any]]

EMULATED = ["backend=cuda", "device=emulated"]
EXACT = ["dtype=float64", "init.bias=same"]
MLP = ["model=mlp", "model.hidden=[6,5]", "model.activation=tanh"]


def cohort(*common: str) -> list[Settings]:
    cases = [
        ["loss=ce"],
        ["loss=mse", "optimizer=adam", "optimizer.clip_norm=0.01"],
        ["loss=hinge", "seed=1", "schedule=inverse_time", "schedule.warmup=0.5"],
        ["loss=ce", "lr=3e38"],
        ["loss=bce"],
    ]
    return [settings(*EMULATED, *common, *case) for case in cases]


def engine(trials: Sequence[Settings], dataset: Dataset, way: type[Any], device: Device) -> CudaEngine:
    prepared = [ablate.prepare(trial, dataset) for trial in trials]
    lanes = [trial.lane() for trial in prepared]
    made = epochs.Persistent(device) if way is epochs.Persistent else way()
    return CudaEngine(prepared[0].architecture, dataset, lanes, prepared[0].batch_size, device, made)


CONVOLVES = [
    "model.layers=[{conv: 3, kernel: 3}, {pool: 2}, relu, {dense: 7}, tanh, {dense: classes}]",
    "model.fit=null",
]


@pytest.mark.parametrize("common", [[*MLP, "batch_size=8"], [*CONVOLVES, "batch_size=9"]], ids=["vectors", "images"])
def test_the_persistent_kernel_computes_what_the_reference_kernels_do(
    common: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "ELEMENTS", 1 / 64)  # so small a network has several blocks a lane then
    trials = cohort(*common)
    dataset = noise((1, 6, 6), 4, rows=21, test_rows=11)
    dataset = replace(dataset, x_train=dataset.x_train.astype(np.float32), x_test=dataset.x_test.astype(np.float32))
    order = [np.random.default_rng(trial.seed).permutation(21) for trial in trials]
    clear = engine(trials, dataset, epochs.Stepwise, Emulated())
    steps = [clear.train_epoch(order, [0, 2]) for _ in range(3)]
    for shuffle in range(6):
        monkeypatch.setattr(epochs, "MULTIPLICATIONS", 1 if shuffle % 2 else 10**9)  # a launch a step, or one of all
        device = Emulated()
        device.shuffle = shuffle
        persistent = engine(trials, dataset, epochs.Persistent, device)
        for one in steps:
            other = persistent.train_epoch(order, [0, 2])
            assert one.ended == other.ended
            np.testing.assert_array_equal(one.loss, other.loss)
            np.testing.assert_array_equal(one.step_loss, other.step_loss)
            np.testing.assert_array_equal(one.gradient_norm, other.gradient_norm)
            np.testing.assert_array_equal(one.watched.too_small, other.watched.too_small)
        for lane in range(len(trials)):
            for name, tensor in clear.weights(lane).items():
                np.testing.assert_array_equal(persistent.weights(lane)[name], tensor, err_msg=name)


COMMON = [*MLP, "data.train_limit=50", "data.test_limit=20", "batch_size=16", "epochs=3"]


def test_a_lane_is_the_trial_alone() -> None:
    """Whatever its neighbours are, one that diverges among them."""
    trials = cohort(*COMMON)
    together = train_together(trials)
    assert [each.summary.not_finite_step is None for each in together if each.summary] == [
        True,
        True,
        True,
        False,
        True,
    ]
    for trial, one in zip(trials, together, strict=True):
        assert_same(one, train_alone(trial))


@pytest.mark.parametrize("shuffle", ["1", "2"])
def test_the_order_in_which_threads_run_changes_nothing(monkeypatch: pytest.MonkeyPatch, shuffle: str) -> None:
    trials = cohort(*COMMON)[:2]
    before = train_together(trials)
    monkeypatch.setenv("ABLATE_CUDA_SHUFFLE", shuffle)
    monkeypatch.setattr(backend, "open_device", lambda name: Emulated())
    for one, other in zip(before, train_together(trials), strict=True):
        assert_same(one, other)


def test_lenet5_through_the_command_line_is_numpys(tmp_path: Path) -> None:
    """Every loss on the curves, by either backend, to 1e-4."""
    arguments = ["backend=numpy,cuda", "device=emulated", "loss=ce,mse", "data.train_limit=64", "epochs=2"]
    done = run_in_process(tmp_path, "-m", *arguments, "data.test_limit=64", "workers=1", "tracking=none")
    assert done.code == 0, done
    curves = ablate.load(next((tmp_path / "runs").iterdir()), curves=True)
    losses = curves[curves["metric"].str.endswith("/loss")]
    table = losses.pivot(index=["loss", "metric", "step", "epoch"], columns="backend", values="value")
    assert len(table) > 10
    assert not table.isna().any().any()
    np.testing.assert_allclose(table["cuda"], table["numpy"], rtol=0, atol=1e-4)


class Small(Emulated):
    """A device with room for two lanes' arrays of a batch."""

    room = 0

    def free_memory(self) -> int:
        return self.room


def test_lanes_that_do_not_fit_take_turns(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    trials = cohort(*COMMON)
    before = train_together(trials)
    one = engine(trials, load(trials[0]), epochs.Stepwise, backend.open_device("emulated"))
    size = Batch.bytes(one.layout, one.capacity, np.dtype(np.float32))
    monkeypatch.setattr(Small, "room", 3 * size)  # a tenth of it is kept free
    monkeypatch.setattr(backend, "open_device", lambda name: Small())
    after = train_together(trials)
    assert "the device has room for 2 of 5 lanes at once: they take turns" in caplog.text
    for one_, other in zip(before, after, strict=True):
        assert_same(one_, other)


def test_a_cohort_too_large_for_the_device_is_trained_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["-m", *EMULATED, *COMMON, "lr=0.1,0.2,0.3,0.4,0.5", "workers=1", "tracking=none", "check=false"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    assert run_in_process(whole, *arguments).code == 0
    right = engines.CudaEngine

    def small(architecture: Any, dataset: Dataset, lanes: Sequence[Any], batch_size: int, device: Device) -> Any:
        if len(lanes) > 2:
            raise DeviceMemoryError("too many")
        return right(architecture, dataset, lanes, batch_size, device)

    monkeypatch.setattr(engines, "CudaEngine", small)
    assert run_in_process(halves, *arguments).code == 0
    assert "too many: 5 trials are trained in halves" in caplog.text
    left, other = (sorted(folder.glob("runs/*/*/final.npz")) for folder in (whole, halves))
    assert len(left) == len(other) == 5
    for one, two in zip(left, other, strict=True):
        np.testing.assert_equal(dict(np.load(one)), dict(np.load(two)))


class Tiny(Emulated):
    """A device without room for one lane."""

    def free_memory(self) -> int:
        return 1000


def test_no_room_for_one_lane() -> None:
    trials, device = cohort(*COMMON), Tiny()
    dataset = load(trials[0])
    with pytest.raises(DeviceMemoryError, match=r"a lane needs .* choose a smaller batch_size"):
        engine(trials, dataset, epochs.Stepwise, device)


def test_gradient_of_the_first_batch_by_the_reference_kernels() -> None:
    trial = settings(*EMULATED, *EXACT, *MLP, "shuffle=false", "batch_size=7", "lr=1", "epochs=1")
    dataset = noise((4,), 5, rows=7)
    prepared = ablate.prepare(trial, dataset)
    architecture = prepared.architecture
    ours = CudaProbe(architecture, dataset, prepared.lane(), backend.open_device("emulated")).gradient()
    numpy = NumpyEngine(architecture, dataset, [prepared.lane()], 7)
    before = numpy.weights(0)
    numpy.train_epoch([np.arange(7)], [])
    for name, tensor in numpy.weights(0).items():
        np.testing.assert_allclose(ours[name], before[name] - tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("overrides", ["model=mlp", "model=mlp data=xor loss=mse model.output=sigmoid", "model=lenet5"])
def test_the_checks_find_nothing_in_the_kernels(overrides: str) -> None:
    trial = settings(*EMULATED, *overrides.split())
    found = check.check(ablate.prepare(trial))
    assert found.is_right
    assert found.gradient_error is not None
    assert 0 < found.gradient_error < 1e-6


@pytest.mark.parametrize("bug", ["stale_gradients", "bias_gradient", "missing_activation_derivative"])
def test_the_checks_name_a_known_mistake_in_the_kernels(bug: str) -> None:
    trial = settings(*EMULATED, "model=mlp", f"bug={bug}")
    assert check.check(ablate.prepare(trial)).guess == bug


@pytest.mark.parametrize("key", ["optimizer.clip_norm", "optimizer.clip_value", "optimizer.weight_decay", "schedule"])
def test_the_checks_name_an_update_that_leaves_something_out(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipping too, with a limit that this trial's gradients never reach."""
    right = CudaEngine.__init__

    def wrong(self: CudaEngine, architecture: Any, dataset: Dataset, lanes: Sequence[Lane], *more: Any) -> None:
        lane, (_, _, option) = lanes[0], key.partition(".")
        without = lane.optimizer.model_copy(update={option: 0.0})
        pace = lane.pace if option else replace(lane.pace, schedule=Constant())
        right(self, architecture, dataset, [replace(lane, optimizer=without, pace=pace)], *more)

    monkeypatch.setattr(CudaEngine, "__init__", wrong)
    trial = settings(*EMULATED, "model=mlp", f"{key}=100" if "." in key else "schedule=cosine")
    found = check.check(ablate.prepare(trial))
    assert found.guess == "kernel"
    assert "after 3 updates" in str(found.advice)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_checks_name_a_wrong_update_rule(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which no gradient shows: here a constant of the rule is a thousandth off on the device."""
    right = memory.padded

    def wrong(numbers: Sequence[float], count: int) -> tuple[float, ...]:
        return (0.9 * 1.001, 0.0, 0.0) if count == MOST_CONSTANTS else right(numbers, count)

    monkeypatch.setattr(memory, "padded", wrong)
    trial = settings(*EMULATED, "model=mlp", f"optimizer={optimizer}")
    found = check.check(ablate.prepare(trial))
    assert found.guess == "kernel"
    assert found.advice is not None
    assert "after 3 updates" in found.advice


def test_the_checks_blame_a_kernel_for_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory gives that nobody has written."""
    right = CudaProbe.gradient
    monkeypatch.setattr(CudaProbe, "gradient", lambda probe: {k: v * np.nan for k, v in right(probe).items()})
    trial = settings(*EMULATED, "model=mlp")
    assert check.check(ablate.prepare(trial)).guess == "kernel"


def test_the_checks_name_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CudaProbe.gradient

    def wrong(probe: CudaProbe) -> dict[str, Array]:
        gradient = right(probe)
        gradient["dense1.weight"][3:] *= 1.5
        return gradient

    monkeypatch.setattr(CudaProbe, "gradient", wrong)
    trial = settings(*EMULATED, "model=mlp")
    found = check.check(ablate.prepare(trial))
    assert found.guess == "kernel"
    assert found.advice is not None
    assert "the mathematics is right" in found.advice


SANITIZED = [
    "-m",
    *EMULATED,
    "model.layers=[{conv: 3, kernel: 3}, {pool: 2}, relu, {dense: 7}, tanh, {divide: 2.0}, {dense: classes}]",
    "model.fit=null",
    "data.train_limit=37",
    "data.test_limit=11",
    "batch_size=14",
    "epochs=2",
    "log_every=1",
    "check=false",
    "workers=1",
    "tracking=none",
    "loss=ce,bce",
    "optimizer=momentum,adam",
    "optimizer.clip_norm=0.1",
]


def sanitized(folder: Path, sanitizer: str) -> Done:
    """A sweep whose kernels, the persistent one included, run under a sanitiser."""
    # The interpreter is not linked with either; AddressSanitizer looks for C++'s exceptions when it starts.
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    preload = {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
    changes = preload if sanitizer == "address" else {}
    return run_as_process(folder, *SANITIZED, ABLATE_CUDA_SANITIZE=sanitizer, ABLATE_CUDA_SHUFFLE="3", **changes)


@pytest.mark.parametrize("sanitizer", ["address", "races"])
def test_a_sweep_under_a_sanitizer(tmp_path: Path, sanitizer: str) -> None:
    done = sanitized(tmp_path, sanitizer)
    assert (done.code, done.err) == (0, ""), done
    assert "failed" not in done.out


def test_sums_over_more_samples_than_31_bits_of_shares_times_samples() -> None:
    """The share of a sample is reckoned in 64 bits."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70_000, 1)).astype(np.float32)
    dataset = Dataset("many", "many", x, (x[:, 0] > 0).astype(np.int64), x[:10], np.arange(10) % 2, 2)
    common = ["model=softmax_regression", "model.units=1", "loss=bce", "batch_size=70000", "epochs=1"]
    ours, numpy = (train_alone(settings(*common, *backend), dataset) for backend in (EMULATED, []))
    for name, tensor in numpy.final.items():
        np.testing.assert_allclose(ours.final[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_batch_too_large_for_the_kernels() -> None:
    """Their places in an array are numbers of 31 bits."""
    trial = settings(*EMULATED, "model=mlp", "model.hidden=[3]")
    dataset = load(trial)
    prepared = ablate.prepare(trial, dataset)
    with pytest.raises(DeviceError, match=r"batch_size=40000000: .* choose a smaller batch_size"):
        CudaEngine(prepared.architecture, dataset, [prepared.lane()], 40_000_000, backend.open_device("emulated"))


@pytest.mark.parametrize("damage", [b"", b"cut short"])
def test_a_damaged_kernel_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = compile.shared_library("units.cu", {"REAL": "float"})
    whole = made.read_bytes()
    made.write_bytes(damage)
    assert compile.shared_library("units.cu", {"REAL": "float"}).read_bytes() == whole


def test_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = compile.shared_library("units.cu", {"REAL": "float"})
    stamp = made.stat().st_mtime_ns
    assert compile.shared_library("units.cu", {"REAL": "float"}) == made
    assert made.stat().st_mtime_ns == stamp
    assert compile.shared_library("units.cu", {"REAL": "double"}) != made


def test_two_copies_of_the_kernels_share_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compile.shared_library("units.cu", {"REAL": "float"}), compile.host_library()
    shutil.copytree(compile.sources(), tmp_path / "cuda")
    monkeypatch.setattr(compile, "sources", lambda: tmp_path / "cuda")
    assert (compile.shared_library("units.cu", {"REAL": "float"}), compile.host_library()) == made
