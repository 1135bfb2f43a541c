"""The page and the tables on the terminal, from the figures alone."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ablate.report import markdown
from benchmarks import growth, machine
from benchmarks.agreement import LOSSES_WITHIN, WEIGHTS_WITHIN
from benchmarks.cases import CASES, DIFFERENCE, OURS, Limit, Race
from benchmarks.roofline import SIDE, WORKS

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
# Races whose products are those of a roofline's work, and the cores they have.
FLOORS = {
    "lenet5_mnist": ("lenet5_mnist_core", 2),
    "lenet5_mnist_core": ("lenet5_mnist_core", 1),
    "lenet5_sweep": ("lenet5_mnist_core", 2),
    "digits": ("digits", 2),
    "softmax": ("softmax", 1),
    "xor": ("xor", 2),
}


@dataclass(frozen=True)
class Rows:
    """A table: its head and its lines of text; a cell may have several lines."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        return markdown.table(self.head, self.lines)

    def rich(self, title: str) -> Table:
        table = Table(*self.head, title=title, show_lines=True)
        for line in self.lines:
            table.add_row(*line)
        return table


# Figures


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def medians(measured: Mapping[str, Any]) -> dict[str, float]:
    return {name: statistics.median(figures) for name, figures in measured["samples"].items()}


def ratios(measured: Mapping[str, Any], peer: str) -> list[float]:
    """How many times as fast as a peer ours was, round by round."""
    samples = measured["samples"]
    return [theirs / ours for theirs, ours in zip(samples[peer], samples[OURS], strict=True)]


def measured_of(results: Results, kind: type) -> Iterator[tuple[Any, str, Mapping[str, Any]]]:
    """Each case of a kind with each setting it was measured in."""
    for name, case in CASES.items():
        if isinstance(case, kind):
            for setting, measured in results.get(name, {}).items():
                yield case, setting, measured


def met(is_met: bool) -> str:
    return "yes" if is_met else "no"


# Tables


def races(results: Results) -> Rows:
    """Ours and every peer, and the ratio to the best."""
    lines = []
    for case, setting, measured in measured_of(results, Race):
        middle = medians(measured)
        best = min(case.peers, key=lambda peer: middle[peer])
        against = ratios(measured, best)
        ratio = statistics.median(against)
        target = case.target and case.target[not machine.is_avx512(setting)]
        peers = [
            f"{peer}: {duration(middle[peer])} ({statistics.median(ratios(measured, peer)):.2f})" for peer in case.peers
        ]
        lines.append(
            [
                case.title,
                setting,
                duration(middle[OURS]),
                "\n".join(peers),
                f"{ratio:.2f} ({min(against):.2f} to {max(against):.2f})",
                f"{target:g}" if target else "–",
                met(ratio >= target) if target else "–",
                str(measured["rounds"]),
            ]
        )
    return Rows(["case", "BLAS kernels", "ours", "peers (ratio)", "ratio to the best", "target", "met", "n"], lines)


def limits(results: Results) -> Rows:
    """What shall stay below a limit."""
    lines = []
    for case, setting, measured in measured_of(results, Limit):
        figures = measured["samples"][case.figure]
        middle = statistics.median(figures)
        lines.append(
            [
                case.title,
                setting,
                f"{middle:.2f} {case.unit} ({min(figures):.2f} to {max(figures):.2f})",
                f"{case.most:g} {case.unit}",
                met(middle < case.most),
                str(measured["rounds"]),
            ]
        )
    return Rows(["case", "BLAS kernels", "measured", "limit", "met", "n"], lines)


def floors(results: Results) -> Rows:
    """How long the products alone would take at the processor's best rate, and how long ours takes."""
    lines = []
    for race, (work, cores) in FLOORS.items():
        for setting, measured in results.get("roofline", {}).items():
            if setting not in results.get(race, {}):
                continue
            figures, ours = medians(measured), medians(results[race][setting])[OURS]
            operations, rate = figures[f"{work}/gflop"], figures[f"peak/{cores}"]
            floor = operations / rate
            lines.append(
                [
                    CASES[race].title,
                    setting,
                    f"{operations:.3g}",
                    f"{rate:.0f}",
                    duration(floor),
                    duration(ours),
                    percent(floor / ours),
                ]
            )
    return Rows(["case", "BLAS kernels", "GFLOP", "GFLOP/s at best", "floor", "ours", "floor / ours"], lines)


def parts(results: Results) -> Rows:
    """Where the time goes on one core."""
    lines = []
    for work in WORKS:
        for setting, measured in results.get("roofline", {}).items():
            figures = {
                part: medians(measured)[f"{work}/{part}"]
                for part in ("total", "timed", "products", "rest of the layers")
            }
            timed, products, layers = figures["timed"], figures["products"], figures["rest of the layers"]
            shares = [products / timed, layers / timed, 1 - (products + layers) / timed]
            cost = f"{timed / figures['total'] - 1:+.0%}"
            network = CASES[work].title.partition(":")[0]
            lines.append([network, setting, duration(figures["total"]), *map(percent, shares), cost])
    head = ["work", "BLAS kernels", "seconds", "products", "rest of the layers", "all else", "cost of the stopwatches"]
    return Rows(head, lines)


def grown(results: Results, name: str) -> dict[str, dict[int, float]]:
    """Seconds an epoch by what grows, for each network and setting."""
    return {
        f"{network}, {setting}": {
            point: statistics.median(measured["samples"][f"{name}/{network}/{point}"])
            for point in growth.GROWTHS[name].points
        }
        for network in growth.GROWTHS[name].works
        for setting, measured in results.get("growth", {}).items()
    }


def growth_rows(results: Results, name: str) -> Rows:
    curves = grown(results, name)
    lines = [
        [f"{point:,}", *(duration(curve[point]) for curve in curves.values())] for point in growth.GROWTHS[name].points
    ]
    return Rows([growth.GROWTHS[name].axis, *curves], lines)


def agreements(results: Results) -> Rows:
    """How far each peer's numbers are from ours after an update."""
    largest: dict[str, float] = {}
    for _, _, measured in measured_of(results, Race):
        for name, figure in medians(measured).items():
            if name.startswith(DIFFERENCE):
                peer = name.removeprefix(DIFFERENCE)
                largest[peer] = max(largest.get(peer, 0.0), figure)
    return Rows(["peer", "largest relative difference"], [[peer, f"{figure:.1e}"] for peer, figure in largest.items()])


# The whole


def write(results: Results, into: Path) -> None:
    """Write the page, and its plots into the folder of its name."""
    plots = into.with_suffix("")
    if results.get("growth"):
        for name in growth.GROWTHS:
            growth.plot(name, grown(results, name), plots / f"{name}.png")
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text("\n\n".join(_sections(results, plots.name)) + "\n", encoding="utf-8")


def print_tables(results: Results, console: Console) -> None:
    for line in _head(results):
        console.print(line, highlight=False, markup=False)
    tables = {"Seconds per trial and epoch": races, "Limits": limits, "Floors": floors, "One core": parts}
    for title, make in tables.items():
        if (rows := make(results)).lines:
            console.print(rows.rich(title))


def _head(results: Results) -> list[str]:
    """When and on what it was measured."""
    every = [measured for case in results.values() for measured in case.values()]
    dates = sorted({measured["date"] for measured in every})
    return [
        f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}." if dates else "Nothing was measured.",
        *_told("Hardware: ", (measured["machine"]["processor"] for measured in every)),
        *_told("Versions: ", (measured["machine"]["versions"] for measured in every)),
        *_told("NumPy's products: ", (measured["machine"]["blas"] for measured in every)),
        *_told("PyTorch's instructions: ", (measured["machine"]["torch"] or "–" for measured in every)),
    ]


def _told(what: str, values: Iterable[str]) -> list[str]:
    return [f"{what}{'; '.join(dict.fromkeys(values))}."]


def _sections(results: Results, plots: str) -> Iterator[str]:
    yield "# Benchmarks"
    yield (
        "Made by `python -m benchmarks`, with `pip install -e .[benchmarks]` and with `ABLATE_DATA` naming a folder "
        "that holds `mnist/`. Some of the cases only: `python -m benchmarks xor digits`. Their names: "
        + ", ".join(f"`{name}`" for name in CASES)
        + "."
    )
    yield "\n".join(f"- {line}" for line in _head(results))
    yield (
        "Figures are medians of n rounds; in brackets stand the smallest and the largest. In a round ours and every "
        "peer have one turn, after one round that only warms up. The races run twice, with two sets of OpenBLAS "
        "kernels: SkylakeX and its kin use AVX-512, Haswell AVX2. `OPENBLAS_CORETYPE`, which chooses them, does not "
        "concern PyTorch, whose products come from other libraries."
    )
    yield from _against(results)
    yield from _near(results)
    yield from _growing(results, plots)
    yield from _checked(results)


def _against(results: Results) -> Iterator[str]:
    yield "## Against others"
    yield (
        "Seconds per trial and epoch. Ours is a training as users have it, with the checks before it, evaluation "
        "after every epoch, watching and local records; MLflow is off. The peers are bare training loops. A ratio "
        "above 1 means that ours is faster; it is the median of the rounds' ratios. The target holds against the "
        "fastest peer; it is lower for some cases where the kernels use AVX2."
    )
    yield races(results).markdown()
    if (rows := limits(results)).lines:
        yield "## Limits"
        yield "Commands run in an empty folder, from the start of Python to its end, MLflow and report included."
        yield rows.markdown()


def _near(results: Results) -> Iterator[str]:
    if not results.get("roofline"):
        return
    yield "## How near to the processor's limits"
    yield (
        "The floor is the time that an epoch's matrix products would take at the best rate of the same cores, "
        f"measured with a float32 product of side {SIDE}. It counts the passes forward and backward over the training "
        "set; what ours does on the test set, and everything else, comes on top."
    )
    yield floors(results).markdown() if floors(results).lines else "The cases themselves were not measured."
    yield (
        "Where the time goes, per trial and epoch on one core. Products are all calls of `numpy.matmul`; the rest of "
        "the layers is element-wise work and copies; all else is loss, update, records, the checks before training, "
        "and Python between the layers. The stopwatches slow down short steps, by as much as the last column says."
    )
    yield parts(results).markdown()


def _growing(results: Results, plots: str) -> Iterator[str]:
    if not results.get("growth"):
        return
    yield "## How cost grows"
    yield (
        "Seconds an epoch, all trials together. The checks before training are part of it, and their cost does not "
        "shrink with the training. On MNIST the test set is cut to 1,000 images here."
    )
    for name, each in growth.GROWTHS.items():
        yield f"### {each.title}"
        yield f"![seconds an epoch by {each.axis}]({plots}/{name}.png)"
        yield growth_rows(results, name).markdown()


def _checked(results: Results) -> Iterator[str]:
    yield "## How the peers were checked"
    yield (
        "Before a case is timed, every peer starts with our initial weights and makes one update with the first batch "
        f"of the training set. The losses before and after it must equal ours within {LOSSES_WITHIN:g}, and all "
        f"weights after it within {WEIGHTS_WITHIN:g} of a tensor's largest number; otherwise the case stops. "
        "scikit-learn draws its own weights when it is timed; its network is checked with ours put in their place."
    )
    yield agreements(results).markdown()
