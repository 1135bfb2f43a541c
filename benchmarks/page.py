"""The page and the tables on the terminal, from the figures alone; the page's text is in `benchmarks.md.j2`."""

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
from benchmarks.templates import render

TEMPLATE = Path(__file__).resolve().parent / "benchmarks.md.j2"

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
    into.write_text(text(results, plots.name), encoding="utf-8")


def text(results: Results, plots: str) -> str:
    """The whole page; `plots` is the folder of its pictures, as it is linked."""
    return render(
        TEMPLATE,
        cases=list(CASES),
        head=_head(results),
        races=races(results),
        limits=limits(results),
        roofline=bool(results.get("roofline")),
        side=SIDE,
        floors=floors(results),
        parts=parts(results),
        growths=_growths(results),
        plots=plots,
        losses_within=LOSSES_WITHIN,
        weights_within=WEIGHTS_WITHIN,
        agreements=agreements(results),
    )


def _growths(results: Results) -> list[dict[str, Any]]:
    if not results.get("growth"):
        return []
    return [
        {"name": name, "title": each.title, "axis": each.axis, "rows": growth_rows(results, name)}
        for name, each in growth.GROWTHS.items()
    ]


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
