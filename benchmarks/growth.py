"""How cost grows with the number of trials, the size of a batch and the size of the training set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.rounds import Samples, alternate
from benchmarks.work import Work

LENET5, SOFTMAX = "LeNet-5", "softmax regression"
_DIGITS = {LENET5: ("model=lenet5", "epochs=2"), SOFTMAX: ("model=softmax_regression", "epochs=20")}
_MNIST = ("model=lenet5", "data=mnist", "data.test_limit=1000", "epochs=2")


def _on_digits(network: str, lanes: int) -> Work:
    return Work(*_DIGITS[network], lanes=lanes)


@dataclass(frozen=True)
class Growth:
    """One axis: what grows, from where to where, and the work at a point of it, by network."""

    title: str
    axis: str
    points: Sequence[int]
    works: Mapping[str, Callable[[int], Work]]


GROWTHS: Mapping[str, Growth] = {
    "trials": Growth(
        "Trials of a sweep on digits, both cores",
        "trials",
        (1, 2, 4, 8, 16, 32, 64),
        {network: partial(_on_digits, network) for network in _DIGITS},
    ),
    "batch": Growth(
        "Batch size, one trial on 6,000 images of MNIST",
        "samples a batch",
        (8, 16, 32, 64, 128, 256, 512, 1024),
        {LENET5: lambda batch: Work(*_MNIST, "data.train_limit=6000", f"batch_size={batch}")},
    ),
    "rows": Growth(
        "Size of the training set, one trial on MNIST, batch 300",
        "images",
        (1000, 2000, 5000, 10000, 20000, 60000),
        {LENET5: lambda rows: Work(*_MNIST, f"data.train_limit={rows}")},
    ),
}


def measure(rounds: int) -> Samples:
    """Seconds an epoch, all trials together, by `growth/network/point`."""
    works = {
        f"{name}/{network}/{point}": make(point)
        for name, growth in GROWTHS.items()
        for network, make in growth.works.items()
        for point in growth.points
    }
    return alternate({label: partial(_epoch, work) for label, work in works.items()}, rounds)


def _epoch(work: Work) -> float:
    return work.on_all_cores() * len(work.trials)


def plot(name: str, curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Seconds an epoch against what grows, both logarithmic, one curve a network and setting."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    growth = GROWTHS[name]
    figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for number, (label, points) in enumerate(curves.items()):
        axes.plot(list(points), list(points.values()), marker="os^D"[number % 4], label=label)
    axes.set(xscale="log", yscale="log", xlabel=growth.axis, ylabel="seconds an epoch", title=growth.title)
    axes.set_xticks(growth.points, minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
