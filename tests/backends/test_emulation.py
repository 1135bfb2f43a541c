"""The emulation of CUDA on the CPU: right kernels come out right, and each planted fault (`faults/*.cu`) is found.

A sanitiser is chosen when the emulation is loaded, so each has processes of its own: this file as a program.
"""

import ctypes
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ablate.backends.cuda import compile
from ablate.backends.cuda.device import THREADS, sources
from ablate.backends.cuda.emulated import Emulated

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation compiles the kernels with g++")

Array = np.ndarray[Any, np.dtype[Any]]

FAULTS = Path(__file__).resolve().parent / "faults"
ROOT = FAULTS.parents[2]
SEEDS = [1, 2, 3, 4]
SIZES = [1, 31, 33, 127, 1000]
BLOCKS = [1, 2, 5]
# Not a sanitiser: without the switch between fibres that is written for one processor.
PORTABLE = "portable"
MODES = ["", "address", "races", PORTABLE]


def job(name: str, n: int, blocks: int = 1, lanes: int = 1, threads: int = THREADS, **more: Any) -> dict[str, Any]:
    """A launch: x has n random numbers a lane, y `size` and `numbers` 8 a lane, which start as told.

    Where `y` is None nobody has written it. `right=False` takes the kernel with its fault.
    """
    standard = {"seed": 1, "size": n, "y": None, "numbers": [0] * 8, "right": True}
    return {"name": name, "n": n, "blocks": blocks, "lanes": lanes, "threads": threads, **standard, **more}


def numbers_of(task: dict[str, Any]) -> Array:
    """x of a launch: (lanes, n), small integers, whose sums float32 holds exactly."""
    shape = (task["lanes"], task["n"])
    return np.random.default_rng(task["n"]).integers(1, 100, shape).astype(np.float32)


@functools.cache
def device() -> Emulated:
    return Emulated()


@functools.cache
def kernels(is_right: bool) -> Any:
    # The cache of compiled kernels knows what lies in `cuda/`, not these.
    texts = b"".join(path.read_bytes() for path in sorted(FAULTS.glob("*.cu")))
    constants = {"FAULTS": hashlib.sha256(texts).hexdigest()[:16], **({"RIGHT": "1"} if is_right else {})}
    return device().kernels(str(FAULTS / "all.cu"), constants)


def launch(task: dict[str, Any]) -> dict[str, Any]:
    host, lanes = device(), task["lanes"]
    x = numbers_of(task)
    shapes = [(x.shape, np.float32), ((lanes, task["size"]), np.float32), ((lanes, 8), np.uint32)]
    buffers = [host.allocate(shape, dtype) for shape, dtype in shapes]
    host.write(buffers[0], x)
    if task["y"] is not None:
        host.write(buffers[1], np.full((lanes, task["size"]), task["y"]))
    host.write(buffers[2], np.tile(np.array(task["numbers"]), (lanes, 1)))
    arguments = [ctypes.c_uint64(buffer.address) for buffer in buffers]
    passed = [*arguments[:2], ctypes.c_int(task["n"]), arguments[2]]
    error = kernels(task["right"])[task["name"]].function(
        (ctypes.c_uint * 3)(task["blocks"], lanes, 1),
        (ctypes.c_uint * 3)(task["threads"], 1, 1),
        ctypes.c_uint(task["seed"]),
        (ctypes.c_void_p * 4)(*[ctypes.addressof(each) for each in passed]),
    )
    y, numbers = (host.read(buffer).tolist() for buffer in buffers[1:])
    return {"error": error and error.decode(), "y": y, "numbers": numbers}


def process(tasks: Sequence[dict[str, Any]], mode: str) -> subprocess.CompletedProcess[str]:
    """These launches in a process of their own; what came out is its output, as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), compile.SANITIZE: "" if mode == PORTABLE else mode}
    if mode == "address":
        found = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
        environment |= {"LD_PRELOAD": found.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [sys.executable, __file__, mode],
        input=json.dumps(tasks),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run(tasks: Sequence[dict[str, Any]], mode: str = "") -> list[dict[str, Any]]:
    if not mode:
        return [launch(task) for task in tasks]
    done = process(tasks, mode)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fault(name: str, **more: Any) -> dict[str, Any]:
    """A launch of a kernel of `faults/`, right or wrong, and large enough that its fault shows."""
    sizes = {
        "no_lane_barrier": (250, 500),
        "no_fence": (250, 3),
        "no_atomic": (250, 1),
        "no_second_barrier": (512, 256),
    }
    sizes |= {"unwritten_tile": (256, 2), "overwritten": (256, 2), "overflow": (100, 100), "out_of_bounds": (250, 250)}
    n, size = sizes.get(name, (256, 256))
    return job(name, n, **{"blocks": 2, "size": size, "y": 0 if name == "no_atomic" else None, **more})


def reverse(x: Array) -> Array:
    return x.reshape(-1, THREADS)[:, ::-1].ravel()


# What a kernel of `faults/` gives if it is right, from x (n).
RIGHT = {
    "out_of_bounds": lambda x: 2 * x,
    "out_of_tile": lambda x: np.roll(x.reshape(-1, THREADS), -1, axis=1).ravel(),
    "overflow": lambda x: np.full_like(x, 1e14),
    "no_barrier": reverse,
    "no_second_barrier": lambda x: reverse(x[:256]) + reverse(x[256:]),
    "overwritten": lambda x: x[1::THREADS],
    "some_at_barrier": lambda x: x,
    "two_barriers": lambda x: x,
    "no_atomic": lambda x: x.sum(keepdims=True),
    "no_lane_barrier": lambda x: np.concatenate([2 * x, 2 * x[::-1]]),
    "no_fence": lambda x: np.array([x.sum(), x[:128].sum(), x[128:].sum()]),
    "half_a_warp": lambda x: x[np.arange(len(x)) ^ 16],
    "stranger_in_warp": lambda x: np.where(np.arange(len(x)) % 32 < 16, x[np.arange(len(x)) ^ 8], x),
    "waits_for_ever": lambda x: x,
    "unwritten_tile": lambda x: x.reshape(-1, THREADS).sum(axis=1),
    "unwritten_memory": lambda x: x,
}


# What a sanitiser says of a fault.
ADDRESS = {
    "out_of_bounds": r"heap-buffer-overflow[\s\S]*WRITE of size 4[\s\S]*out_of_bounds\.cu:6",
    "out_of_tile": r"heap-buffer-overflow[\s\S]*READ of size 4[\s\S]*out_of_tile\.cu:11",
    "overflow": r"overflow\.cu:6:\d+: runtime error: signed integer overflow",
}
RACES = {
    "no_barrier": ("writes in no_barrier.cu:4", "reads in no_barrier.cu:8"),
    "no_second_barrier": ("reads in no_second_barrier.cu:8", "writes in no_second_barrier.cu:6"),
    "overwritten": ("reads in overwritten.cu:6", "writes in overwritten.cu:10"),
    "no_atomic": ("writes in no_atomic.cu:7", "in no_atomic.cu:7"),
    "no_lane_barrier": ("writes in no_lane_barrier.cu:3", "reads in no_lane_barrier.cu:10"),
    "no_fence": ("writes in no_fence.cu:8", "reads in no_fence.cu:17"),
}


def right_ones() -> list[dict[str, Any]]:
    return [fault(name, seed=seed) for name in RIGHT for seed in SEEDS]


def wrong_ones(mode: str) -> list[dict[str, Any]]:
    """What the sanitiser is to find; AddressSanitizer ends the process then."""
    if mode == "address":
        return [fault(name, right=False, apart=True) for name in ADDRESS]
    # Whether a race is found does not hang on the order.
    return [fault(name, right=False, seed=seed) for name in RACES for seed in SEEDS] if mode == "races" else []


Done = list[tuple[dict[str, Any], dict[str, Any]]]


@functools.cache
def all_done(mode: str) -> tuple[Done, Done, Done]:
    """The launches of a mode and what came out, in one process: to load a sanitiser takes longer than to run them."""
    groups = right_ones(), primitives(), wrong_ones(mode)
    done = iter(run([task for group in groups for task in group], mode))
    right, ours, wrong = ([(task, next(done)) for task in group] for group in groups)
    return right, ours, wrong


@pytest.mark.parametrize("mode", MODES)
def test_put_right_they_come_out_right(mode: str) -> None:
    for task, done in all_done(mode)[0]:
        assert done["error"] is None, f"{task}: {done['error']}"
        np.testing.assert_array_equal(done["y"][0], RIGHT[task["name"]](numbers_of(task)[0]), err_msg=str(task))


def test_address_and_undefined_behaviour() -> None:
    found = all_done("address")[2]
    assert [task["name"] for task, _ in found] == list(ADDRESS)
    for task, end in found:
        assert end["code"] != 0, task
        assert re.search(ADDRESS[task["name"]], end["said"]), end["said"]


def test_races() -> None:
    found = all_done("races")[2]
    assert len(found) == len(RACES) * len(SEEDS)
    for task, done in found:
        assert done["error"] is not None, task
        assert done["error"].startswith("race: "), done["error"]
        for part in RACES[task["name"]]:
            assert part in done["error"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("some_at_barrier", r"the barrier in some_at_barrier\.cu:6 is reached by 64 of 128 threads of block [01]"),
        (
            "two_barriers",
            r"threads of block [01] wait at the barriers in two_barriers\.cu:\d and in two_barriers\.cu:\d",
        ),
        (
            "half_a_warp",
            r"the exchange in half_a_warp\.cu:6 is not reached by lanes 0, 1, .*, 15 of warp \d of block [01], "
            r"which its mask names",
        ),
        ("waits_for_ever", r"thread 0 of block [01] waits for ever in waits_for_ever\.cu:8"),
    ],
)
def test_threads_that_do_not_meet(name: str, message: str) -> None:
    for done in run([fault(name, right=False, seed=seed, blocks=blocks) for seed in range(4) for blocks in (1, 2)]):
        assert re.fullmatch(message, done["error"] or ""), done["error"]


@pytest.mark.parametrize("name", ["unwritten_tile", "unwritten_memory", "stranger_in_warp"])
def test_what_nobody_wrote_is_not_a_number(name: str) -> None:
    for done in run([fault(name, right=False, seed=seed) for seed in SEEDS]):
        assert done["error"] is None
        assert np.isnan(done["y"]).any()


@pytest.mark.parametrize("name", ["no_barrier", "no_second_barrier", "no_lane_barrier"])
def test_some_order_shows_a_missing_barrier(name: str) -> None:
    tasks = [fault(name, right=False, seed=seed) for seed in SEEDS]
    right = RIGHT[name](numbers_of(tasks[0])[0])
    assert not all(np.array_equal(done["y"][0], right) for done in run(tasks))


def test_a_seed_is_an_order() -> None:
    orders = [done["y"][0] for done in run([job("order", 640, 5, seed=seed) for seed in [*range(10), 0]])]
    assert orders[0] == orders[-1]
    assert len({tuple(order) for order in orders}) == 10
    first = [order.index(0) for order in orders]
    assert len(set(first)) > 5, "the same thread begins under most seeds"
    assert all(sorted(order) == list(range(640)) for order in orders)


def test_an_error_leaves_nothing_behind() -> None:
    process = psutil.Process()
    tasks = [fault(name, right=False) for name in ("some_at_barrier", "half_a_warp")] + [fault("no_barrier")]
    run(tasks)
    before = process.memory_info().rss
    for _ in range(100):
        done = run(tasks)
        assert done[0]["error"]
        assert done[1]["error"]
        assert done[2]["error"] is None
    assert process.memory_info().rss - before < 50e6


def neighbours(x: Array, lane: Array) -> Array:
    """What an exchange brings from these lanes of the thread's own warp; NaN where there is no such thread."""
    from_thread = np.arange(len(x)) // 32 * 32 + lane
    return np.where(from_thread < len(x), x[np.minimum(from_thread, len(x) - 1)], np.nan)


def primitives() -> list[dict[str, Any]]:
    """Launches of the kernels of `faults/primitives.cu`."""
    start = [0, 0, 10**6, 0, 0, 0, 0, 0]
    tasks = []
    for n in SIZES:
        for blocks in BLOCKS:
            tasks.append(job("sums", n, blocks, lanes=2, size=1, y=0, numbers=start, seed=n))
            tasks.append(job("rounds", n, blocks, lanes=2, size=2 * n, seed=n))
            # Blocks that are no whole number of warps.
            tasks.append(job("exchanges", n * blocks, blocks, threads=n, size=3 * n * blocks, seed=n))
    for seed in SEEDS:
        tasks.append(job("partial_exchanges", 256, 2, seed=seed))
        tasks.append(job("within_warps", 128, seed=seed))
        tasks.append(job("instantiations", 640, 5, size=5, seed=seed))
    return [*tasks, job("slow", 12_000, 2, threads=32, size=1)]


@pytest.mark.parametrize("mode", MODES)
def test_primitives_against_numpy(mode: str) -> None:
    for task, done in all_done(mode)[1]:
        x, n, threads = numbers_of(task), task["n"], task["threads"]
        assert done["error"] is None, f"{task}: {done['error']}"
        y, at = np.array(done["y"], np.float32), np.arange(n)
        if task["name"] == "sums":
            np.testing.assert_array_equal(y[:, 0], x.sum(axis=1))
            for values, (count, largest, smallest, last, *_) in zip(x, done["numbers"], strict=True):
                assert (count, largest, smallest) == (n, values.max(), values.min())
                assert last in values
        elif task["name"] == "rounds":
            np.testing.assert_array_equal(y[:, n:], np.roll(x, -7, axis=1) + 7)
            np.testing.assert_array_equal(y[:, :n], np.roll(x, -6, axis=1) + 6)
        elif task["name"] == "exchanges":
            lane = np.arange(threads) % 32
            down, fifth, other = y[0].reshape(3, -1, threads)
            for block, values in enumerate(x[0].reshape(-1, threads)):
                np.testing.assert_array_equal(down[block], neighbours(values, np.where(lane < 29, lane + 3, lane)))
                np.testing.assert_array_equal(fifth[block], neighbours(values, np.full(threads, 5)))
                np.testing.assert_array_equal(other[block], neighbours(values, lane ^ 1))
        elif task["name"] == "partial_exchanges":
            np.testing.assert_array_equal(y[0], x[0][at ^ 2] + 5 * (at % 2 == 0))
        elif task["name"] == "within_warps":
            np.testing.assert_array_equal(y[0], x[0][at // 32 * 32 + (at + 1) % 32])
        elif task["name"] == "instantiations":
            np.testing.assert_array_equal(y[0], 2003 * x[0][::THREADS])
        else:
            assert y[0, 0] == 1


def load_portable() -> None:
    """The runtime that is loaded first is what the kernels' libraries find."""
    source = str(sources() / "host" / "cuda_host.cpp")
    made = compile._kept([*compile._gxx(), "-DHOST_PORTABLE", source], ".so")
    ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL)


def apart(task: dict[str, Any]) -> dict[str, Any]:
    """The launch in a process of its own, as a copy of this one: how it ended, and what it said as it did."""
    with tempfile.TemporaryFile("w+") as said:
        if not (child := os.fork()):
            os.dup2(said.fileno(), 2)
            launch(task)
            os._exit(0)
        _, code = os.waitpid(child, 0)
        said.seek(0)
        return {"code": code, "said": said.read()}


if __name__ == "__main__":
    if PORTABLE in sys.argv:
        load_portable()
    given = json.load(sys.stdin)
    kernels(False)
    json.dump([apart(task) if "apart" in task else launch(task) for task in given], sys.stdout)
