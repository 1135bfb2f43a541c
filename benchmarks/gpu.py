"""An epoch on the GPU: ours against PyTorch on the same card, and how much of the card's arithmetic is reached.

    ABLATE_DATA=<folder with mnist/> python -m benchmarks.gpu                  # prints the tables
    python -m benchmarks.gpu --accuracy 10 --into docs/cuda.md                 # and puts them into that page
    python -m benchmarks.gpu --device emulated --limit 64                      # without a GPU: the agreement alone

LeNet-5 on MNIST, float32 without TF32 on both sides. First everybody trains a few updates from the same weights over
the same rows, and whoever's losses differ ends the run. Then all of them have one turn in each round, after one that
only warms up. The data is on the device and the order is drawn before the clock starts; the clock stops when the device
has ended. Ours counts losses and accuracies and logs its steps meanwhile, as a user's training does; nobody evaluates
the test set.
"""

import argparse
import datetime
import importlib.util
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

import ablate
from ablate.backends.cuda.backend import open_device
from ablate.backends.cuda.compile import nvcc_path
from ablate.backends.cuda.device import Device, DeviceError
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.epochs import Persistent, Stepwise, Way
from ablate.backends.engine import Engine
from ablate.errors import ConfigError
from ablate.training.loop import Orders, Silent, Summary, train
from ablate.trials.prepared import PreparedTrial, engine
from benchmarks import machine, marks
from benchmarks.agreement import DisagreementError, difference
from benchmarks.page import Rows, duration, percent
from benchmarks.roofline import gflop
from benchmarks.rounds import Samples, alternate

if TYPE_CHECKING:
    from benchmarks.work import Work

Array = np.ndarray[Any, np.dtype[Any]]

MNIST_ROWS, BATCH = 60_000, 300
SEEDS = range(3)
# A turn lasts as many epochs as this takes: one epoch of ours is short.
LEAST_SECONDS = 0.2
# By how much a peer's loss may differ from ours after so many updates, relative to it.
WITHIN = {1: 1e-5, 10: 1e-3}
BATCHES_CHECKED, EPOCHS_CHECKED = 2, 6
# At the rate that is timed, ten updates amplify a rounding to more than any bound that would still find a mistake.
RATE_CHECKED = "lr=0.01"
# What is aimed at: so many times as fast as a peer with one lane, and a share of the card's rate from some lanes on.
FASTER = {"eager": 10.0, "CUDA graphs": 3.0}
SHARE, SHARE_FROM = 0.3, 16
# Cores for float32 in a multiprocessor where they are not 128, by compute capability.
CORES, CORES_OTHERWISE = {(7, 0): 64, (7, 5): 64, (8, 0): 64}, 128


class Runner(Protocol):
    """Trains its lanes on a device, from their initial weights on."""

    def epoch(self, orders: Sequence[Array]) -> None:
        """Train for an epoch, and wait for its end."""
        ...

    def losses(self, orders: Sequence[Array]) -> Array:
        """Train for an epoch; the losses before its updates, `(S, K)`."""
        ...


@dataclass(frozen=True)
class Contender:
    """Who takes part: `kind` is `ours`, or a kind of peer."""

    kind: str
    variant: str
    lanes: int
    make: Callable[["Work"], Runner]

    @property
    def name(self) -> str:
        """As in the table."""
        who = "ours" if self.kind == "ours" else f"PyTorch {self.kind}"
        return f"{who}, {self.variant}, {self.lanes} lane{'s' * (self.lanes > 1)}"


class Ours:
    """Our engine with one of its ways through an epoch."""

    def __init__(self, work: "Work", device: Device, way: Way, lanes: int) -> None:
        first, members = work.prepared[0], [trial.lane() for trial in work.prepared[:lanes]]
        self.engine = CudaEngine(work.architecture, work.dataset, members, work.batch, device, way)
        self.steps = first.steps_per_epoch
        self.logged = range(0, self.steps, first.log_every)

    def epoch(self, orders: Sequence[Array]) -> None:
        ended = self.engine.train_epoch(orders, self.logged).ended
        if ended:
            raise RuntimeError(f"a lane of ours ended, so that less was trained: {ended}")

    def losses(self, orders: Sequence[Array]) -> Array:
        return self.engine.train_epoch(orders, range(self.steps)).step_loss.T


@dataclass(frozen=True)
class Card:
    """The GPU, and the float32 operations a second that it has by its data."""

    told: str
    flops: float


# Measuring


def contenders(device: str, lanes: Sequence[int]) -> list[Contender]:
    """Ours and the peers, on a GPU or, for the emulated device, on the CPU."""
    from benchmarks import gpu_peers

    gpu_peers.plain_float32()
    here = open_device(device)
    ways = [("persistent", count, Persistent(here)) for count in lanes] + [("stepwise", 1, Stepwise())]
    mine = [
        Contender("ours", variant, count, partial(Ours, device=here, way=way, lanes=count))
        for variant, count, way in ways
    ]
    others = gpu_peers.makers("cpu" if device == "emulated" else "cuda", lanes)
    return [*mine, *(Contender(*other) for other in others)]


def work(rows: int, batch: int, lanes: int, *words: str) -> "Work":
    """So many lanes on the first rows of MNIST."""
    from benchmarks.work import Work

    return Work("model=lenet5", "data=mnist", f"data.train_limit={rows}", f"batch_size={batch}", *words, lanes=lanes)


def orders(whole: "Work", lanes: int, epochs: int) -> list[list[Array]]:
    """What each lane meets in each epoch."""
    drawn = Orders([trial.settings for trial in whole.trials[:lanes]], whole.rows, whole.batch)
    return [drawn.next() for _ in range(epochs)]


def losses(contender: Contender, small: "Work") -> Array:
    """The losses before each update, `(updates, K)`, from the initial weights on."""
    runner = contender.make(small)
    return np.concatenate([runner.losses(order) for order in orders(small, contender.lanes, EPOCHS_CHECKED)])


def agreeing(everybody: Sequence[Contender], small: "Work") -> tuple[list[Contender], Rows, list[str]]:
    """Those that compute what ours does, by how much they differ, and who could not take part.

    Ours with the most lanes is what the others are held to, lane by lane. Raises DisagreementError.
    """
    from benchmarks.gpu_peers import CaptureError

    widest = max((each for each in everybody if each.kind == "ours"), key=lambda each: each.lanes)
    ours = losses(widest, small)
    kept, lines, notes = [], [], []
    for each in everybody:
        try:
            theirs = losses(each, small)
        except CaptureError as error:
            notes.append(f"{each.name}: left out, it cannot be captured ({error})")
            continue
        found = {update: _difference(ours[:, : each.lanes], theirs, update) for update in (0, *WITHIN)}
        for update, most in {0: WITHIN[1], **WITHIN}.items():
            if not found[update] <= most:
                raise DisagreementError(f"{each.name}: its loss after {update} updates differs by {found[update]:.1e}")
        kept.append(each)
        lines.append([each.name, *(f"{figure:.1e}" for figure in found.values())])
    return kept, Rows(["relative difference of the loss", "at first", *map(_after, WITHIN)], lines), notes


def measured(taking_part: Sequence[Contender], whole: "Work", rounds: int) -> Samples:
    """Everybody's seconds an epoch, of all their lanes together."""
    turns = {each.name: partial(_seconds, each.make(whole), orders(whole, each.lanes, 1)[0]) for each in taking_part}
    return alternate(turns, rounds)


def accuracies(epochs: int, device: str, rows: int, batch: int) -> Rows:
    """The test accuracy after some epochs, three seeds, ours and NumPy's."""
    # Few rows are for trying this command out: then few are tested, too.
    limits = [f"data.train_limit={rows}", *([f"data.test_limit={rows}"] if rows < MNIST_ROWS else [])]
    words = ["model=lenet5", "data=mnist", *limits, f"batch_size={batch}", f"epochs={epochs}", f"device={device}"]
    lines, reached = [], []
    for backend in ("numpy", "cuda"):
        first, *others = ablate.compose(*words, f"backend={backend}", f"seed={','.join(map(str, SEEDS))}")
        one = ablate.prepare(first.settings)
        cohort = [one, *(ablate.prepare(trial.settings, one.dataset) for trial in others)]
        figures = [summary.test_accuracy for summary in trained(cohort)]
        reached.append(figures)
        lines.append([backend, *(f"{figure:.2%}" for figure in figures), f"{statistics.mean(figures):.2%}"])
    apart = abs(statistics.mean(reached[0]) - statistics.mean(reached[1]))
    # Twice the standard error of a difference of means.
    noise = 2 * (sum(statistics.variance(figures) for figures in reached) / len(SEEDS)) ** 0.5
    within = f"{_yes(apart <= noise)}: {apart:.2%} apart, noise {noise:.2%}"
    lines.append(["within noise", *[""] * len(SEEDS), within])
    return Rows([f"test accuracy, {epochs} epochs", *(f"seed {seed}" for seed in SEEDS), "mean"], lines)


def trained(trials: Sequence[PreparedTrial]) -> list[Summary]:
    """How each trial of a cohort ends."""
    summaries = Summaries()
    with threadpool_limits(1, user_api="blas"):
        train(trials, engine(trials), summaries)
    return [summaries.by_lane[lane] for lane in range(len(trials))]


class Summaries(Silent):
    """Keeps how each lane of a training ends."""

    def __init__(self) -> None:
        self.by_lane: dict[int, Summary] = {}

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        self.by_lane[lane] = summary


def _difference(ours: Array, theirs: Array, update: int) -> float:
    return difference(ours[update], theirs[update])


def _after(updates: int) -> str:
    return f"after {updates} update{'s' * (updates > 1)}"


def _seconds(runner: Runner, order: Sequence[Array]) -> float:
    """Seconds an epoch, over one epoch at least."""
    epochs, start = 0, time.perf_counter()
    while not epochs or time.perf_counter() - start < LEAST_SECONDS:
        runner.epoch(order)
        epochs += 1
    return (time.perf_counter() - start) / epochs


# What it was measured on


def card() -> Card:
    """The first GPU by the driver's own words. Its rate is computed: cores, at their highest clock, 2 a cycle."""
    import pycuda.driver as driver

    gpu, limits = driver.Device(0), driver.device_attribute
    processors, hertz = gpu.get_attribute(limits.MULTIPROCESSOR_COUNT), 1e3 * gpu.get_attribute(limits.CLOCK_RATE)
    cores = CORES.get(gpu.compute_capability(), CORES_OTHERWISE)
    flops = processors * cores * 2 * hertz
    rate = f"{processors} multiprocessors x {cores} x 2 x {hertz / 1e9:.3f} GHz = {flops / 1e12:.1f} TFLOP/s"
    return Card(f"{gpu.name()}, {gpu.total_memory() / 2**30:.0f} GiB, float32 as computed: {rate}", flops)


def described(told: str) -> list[str]:
    """Date, hardware, driver, versions and command."""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {metadata.version(name)}" for name in ("numpy", "torch")]
    if told:
        from benchmarks.gpu_peers import versions as of_torch

        versions += [f"PyCUDA {metadata.version('pycuda')}", of_torch(), f"nvcc {_nvcc_version()}"]
    hardware = filter(None, [told, f"{machine.processor()}, {platform.system()}"])
    return [
        f"Measured {datetime.date.today():%Y-%m-%d}.",
        f"Hardware: {'; '.join(hardware)}.",
        *([f"Driver: {_driver_version()}."] if told else []),
        f"Versions: {', '.join(versions)}.",
        f"Command: `python -m benchmarks.gpu {' '.join(sys.argv[1:])}`.".replace(" `.", "`."),
    ]


def _driver_version() -> str:
    import pycuda.driver as driver

    number = driver.get_driver_version()
    told = f"CUDA {number // 1000}.{number % 1000 // 10}"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
        return f"{lines[0]}, {told}" if lines else told
    return told


def _nvcc_version() -> str:
    told = subprocess.run([nvcc_path(), "--version"], capture_output=True, text=True).stdout
    return next((line.rpartition(" V")[2] for line in told.splitlines() if "release" in line), "of an unknown version")


# Tables


def fastest(taking_part: Sequence[Contender], samples: Samples, kind: str, lanes: int) -> str | None:
    """The name of the quickest of a kind with so many lanes."""
    names = [each.name for each in taking_part if (each.kind, each.lanes) == (kind, lanes)]
    return min(names, key=lambda name: statistics.median(samples[name]), default=None)


def table(taking_part: Sequence[Contender], samples: Samples, operations: float, flops: float) -> Rows:
    """Everybody's epoch, and for ours whether the aims are reached; `operations` are a lane's in an epoch."""
    lines = []
    for each in taking_part:
        figures = samples[each.name]
        middle = statistics.median(figures)
        share = each.lanes * operations / middle / flops
        rivals = {
            "eager": (fastest(taking_part, samples, "eager", 1), 1),
            "CUDA graphs": (fastest(taking_part, samples, "CUDA graphs", 1), 1),
            "vmap": (fastest(taking_part, samples, "vmap", each.lanes), each.lanes),
        }
        ratios = {
            kind: _ratio(samples, each, rival, lanes)
            for kind, (rival, lanes) in rivals.items()
            if rival and each.kind == "ours"
        }
        lines.append(
            [
                each.name,
                f"{duration(middle)} ({duration(min(figures))} to {duration(max(figures))})",
                duration(middle / each.lanes),
                percent(share),
                *(f"{ratios[kind]:.1f}" if kind in ratios else "–" for kind in rivals),
                "\n".join(_aims(each, ratios, share)) or "–",
                str(len(figures)),
            ]
        )
    against = ["times eager's speed", "times CUDA graphs'", "times vmap's"]
    return Rows(["who", "an epoch", "a lane and epoch", "of float32's rate", *against, "aims reached", "n"], lines)


def _ratio(samples: Samples, ours: Contender, rival: str, lanes: int) -> float:
    """How many times as fast as a peer of so many lanes ours trains a lane: the median of the rounds'."""
    pairs = zip(samples[rival], samples[ours.name], strict=True)
    return statistics.median((theirs / lanes) / (mine / ours.lanes) for theirs, mine in pairs)


def _aims(each: Contender, ratios: Mapping[str, float], share: float) -> Iterator[str]:
    """The aims that hold for a contender, each with whether it is reached; the reference kernels have none."""
    if (each.kind, each.variant) != ("ours", "persistent"):
        return
    if each.lanes == 1:
        for kind, aim in FASTER.items():
            yield f"{aim:g} x {kind}: {_yes(ratios[kind] >= aim) if kind in ratios else 'not measured'}"
    if each.lanes >= SHARE_FROM:
        yield f"{percent(SHARE)} of float32: {_yes(share >= SHARE)}"


def _yes(is_reached: bool) -> str:
    return "yes" if is_reached else "no"


# The command


def run(given: argparse.Namespace) -> str:
    """Check, measure and print; the page's text."""
    rows, batch, lanes = given.limit, min(BATCH, given.limit // BATCHES_CHECKED), given.lanes
    taking_part, differences, notes = agreeing(
        contenders(given.device, lanes), work(BATCHES_CHECKED * batch, batch, max(lanes), RATE_CHECKED)
    )
    tables, told = {"Everybody computes the same": differences}, ""
    if given.device == "gpu":
        whole, here = work(rows, batch, max(lanes)), card()
        samples = measured(taking_part, whole, given.rounds)
        told, operations = here.told, gflop(whole)
        title = f"LeNet-5, MNIST, {rows:,} rows, batch {batch}, {operations:.0f} GFLOP a lane and epoch"
        tables[title] = table(taking_part, samples, 1e9 * operations, here.flops)
    if given.accuracy:
        tables["Accuracy"] = accuracies(given.accuracy, given.device, rows, batch)
    lines = [*described(told), *(f"{note}." for note in notes)]
    console = Console(width=None if sys.stdout.isatty() else 180)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    for title, made in tables.items():
        console.print(made.rich(title))
    sections = [f"{title}:\n\n{made.markdown()}" for title, made in tables.items()]
    return "\n\n".join(["\n".join(f"- {line}" for line in lines), *sections])


def missing(device: str) -> str | None:
    """What this machine lacks, in one line."""
    try:
        open_device(device)
    except DeviceError as error:
        return str(error)
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is missing: pip install -e '.[benchmarks]'"
    import torch

    return "PyTorch sees no GPU here" if device == "gpu" and not torch.cuda.is_available() else None


def arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", help="how many of ours and of vmap's, 1,4,16,64 if not given; emulated 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, help="a page with the lines <!-- gpu --> and <!-- end of gpu -->")
    parser.add_argument("--device", choices=("gpu", "emulated"), default="gpu")
    parser.add_argument("--limit", type=int, default=MNIST_ROWS, metavar="ROWS", help="train on the first rows only")
    parser.add_argument("--accuracy", type=int, metavar="EPOCHS", help="also train three seeds, ours and NumPy's")
    given = parser.parse_args()
    try:
        words = given.lanes or ("1" if given.device == "emulated" else "1,4,16,64")
        given.lanes = sorted({int(word) for word in words.split(",")})
    except ValueError:
        parser.error(f"--lanes {given.lanes}: numbers and commas, please")
    if given.lanes[0] < 1 or given.rounds < 1:
        parser.error("--lanes and --rounds are 1 at least")
    if not 2 <= given.limit <= MNIST_ROWS or given.limit % (BATCH if given.limit > 2 * BATCH else 2):
        parser.error(f"--limit {given.limit}: an even number up to {2 * BATCH}, or a multiple of {BATCH}")
    if given.into:
        try:
            marks.around(given.into, "gpu")  # before an hour's measuring, not after it
        except ValueError as error:
            parser.error(str(error))
    return given


def main() -> int:
    """Check, measure, print, and write where a page is named; 2 where something is missing, 1 for a disagreement."""
    given = arguments()
    if lacking := missing(given.device):
        print(f"benchmarks.gpu: {lacking}", file=sys.stderr)
        return 2
    try:
        text = run(given)
    except (ConfigError, DeviceError, DisagreementError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 1 if isinstance(error, DisagreementError) else 2
    if given.into:
        marks.put(given.into, "gpu", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
