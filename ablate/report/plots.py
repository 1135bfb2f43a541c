"""The picture of a report: training loss, test loss and test score of every cell, by epoch or by step."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ablate.records.scores import Task
from ablate.report.cells import Cell, Curve, Study

Array = np.ndarray[Any, np.dtype[Any]]
Axes = Any  # matplotlib's own annotations do not pass a strict check

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
MOST_LINES, MOST_COLUMNS, MOST_FACETS = len(COLOURS), 4, 16
LOG_DECADES = 1.0
LOG_EPOCHS = 200
RISE = 1e5
DPI = 100
MOST_NAMES = 24
PALETTE = 64
# The losses that are drawn, with what they are called; after one epoch there is one test loss a trial, and no curve.
TRAIN, TEST = "train/loss", "test/loss"
CALLED = {TRAIN: "training loss", TEST: "test loss"}


@dataclass(frozen=True)
class Layout:
    """Which factors make the lines of a facet, and which the facets: the last ones make the lines."""

    lines: Sequence[str]
    facets: Sequence[str]


def layout(factors: Mapping[str, Sequence[str]], cells: Sequence[Mapping[str, str]]) -> Layout:
    """As many of the last factors as give at most `MOST_LINES` lines, or the last alone; the rest make the facets.

    Where that would be too many facets, all cells share one. `cells` are the combinations of levels that there are.
    """
    keys = list(factors)
    first = max(len(keys) - 1, 0)
    while first > 0 and _combinations(cells, keys[first - 1 :]) <= MOST_LINES:
        first -= 1
    if _combinations(cells, keys[:first]) > MOST_FACETS:
        first = 0
    return Layout(keys[first:], keys[:first])


def _combinations(cells: Sequence[Mapping[str, str]], keys: Sequence[str]) -> int:
    return len({tuple(cell[key] for key in keys) for cell in cells})


def draw(study: Study) -> bytes:
    """A study as a picture, a PNG."""
    picture = _Picture(study)
    canvas: Any = FigureCanvasAgg(picture.figure)
    canvas.draw()
    data = io.BytesIO()
    # A palette makes the file a third as large, and lines lose nothing by it.
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(PALETTE).save(data, "PNG", optimize=True)
    return data.getvalue()


class _Picture:
    def __init__(self, study: Study) -> None:
        self.study = study
        self.by_step = max(trial.row["epochs"] for trial in study.trials) <= 1
        self.levels = [cell.levels for cell in study.cells]
        self.layout = layout(study.factors, self.levels)
        self.styles = _styles(self.layout.lines, study)
        self.is_mixed = len({cell.task.name for cell in study.cells}) > 1
        self.facets = self._facets()
        self.kinds = (TRAIN,) if self.by_step else (TRAIN, TEST)
        self.losses = {(kind, id(cell)): self._losses(cell, kind) for kind in self.kinds for cell in study.cells}
        self.figure = self._figure()

    def _facets(self) -> list[tuple[str, list[Cell]]]:
        """The cells by facet, with the facet's title. The scores of two tasks have no axis in common."""
        found: dict[str, list[Cell]] = {}
        for cell in self.study.cells:
            task = f"{cell.task.name} " if self.is_mixed else ""
            found.setdefault(f"{task}{_named(cell, self.layout.facets)}".strip(), []).append(cell)
        return list(found.items())

    def _losses(self, cell: Cell, kind: str) -> list[Curve]:
        if self.by_step:
            return [_smooth(trial.steps("step/loss")) for trial in cell.trials]
        return [trial.epochs(kind) for trial in cell.trials]

    def _scores(self, cell: Cell) -> list[Curve]:
        return [trial.epochs(f"test/{cell.task.score}") for trial in cell.trials]

    def _lowest_score(self, task: Task) -> float:
        """Where the axis of a task's scores begins: at 0, or below where R² is, but at -1 at the lowest."""
        if task.score == "accuracy":
            return 0.0
        curves = [curve for cell in self.study.cells if cell.task is task for curve in self._scores(cell)]
        return max(-1.0, min((y for curve in curves for y in curve.y if y is not None and y < 0), default=0.0))

    def _figure(self) -> Figure:
        """A column a facet, losses above score; further rows where there are more facets than fit side by side.

        A single facet has its panels side by side.
        """
        panels = len(self.kinds) + 1
        alone = len(self.facets) == 1
        columns = 1 if alone else self._columns()
        rows = math.ceil(len(self.facets) / columns)
        legend = self._legend()
        width = 4.2 * panels if alone else max(7.5, 3.1 * columns + 0.6)
        height = 3.6 if alone else (0.4 + 2.0 * panels) * rows
        legend_rows = math.ceil(len(legend) / _legend_columns(legend, width)) if legend else 0
        height += 0.25 * legend_rows + 0.35
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        axes: Axes = figure.subplots(*((1, panels) if alone else (panels * rows, columns)), squeeze=False)
        axes = axes.T if alone else axes
        # The panels of each facet, the losses first.
        places = [divmod(number, columns) for number in range(rows * columns)]
        of_facets = [axes[panels * row : panels * (row + 1), column] for row, column in places]
        for (title, members), (*losses, score) in zip(self.facets, of_facets, strict=False):
            wrapped = "\n".join(textwrap.wrap(title.replace("=", "\x00"), 34)).replace("\x00", "=")
            losses[0].set_title(wrapped, fontsize=8)
            for kind, loss in zip(self.kinds, losses, strict=True):
                self._loss(loss, kind, members)
            self._score(score, members)
        for spare in of_facets[len(self.facets) :]:
            for axis in spare:
                axis.axis("off")
        self._label(of_facets, columns)
        self._scale([loss for *losses, _ in of_facets[: len(self.facets)] for loss in losses])
        for (_, members), (*losses, _) in zip(self.facets, of_facets, strict=False):
            for kind, loss in zip(self.kinds, losses, strict=True):
                self._marks(loss, kind, members)
        if legend:
            figure.legend(
                handles=legend,
                loc="outside lower center",
                ncols=_legend_columns(legend, width),
                fontsize=9,
                frameon=False,
            )
        return figure

    def _columns(self) -> int:
        """Side by side as many facets as the last of their factors has levels, further factors while they fit."""
        columns = 1
        for first in reversed(range(len(self.layout.facets))):
            wider = _combinations(self.levels, self.layout.facets[first:])
            if wider > MOST_COLUMNS:
                break
            columns = wider
        return columns if columns > 1 else min(MOST_COLUMNS, len(self.facets))

    def _loss(self, axis: Axes, kind: str, members: Sequence[Cell]) -> None:
        for cell in members:
            style = self.styles[_named(cell, self.layout.lines)]
            curves = self.losses[kind, id(cell)]
            for curve in curves:
                _line(axis, curve, style, thin=len(curves) > 1)
            if len(curves) > 1:
                _line(axis, _mean(curves), style)

    def _marks(self, axis: Axes, kind: str, members: Sequence[Cell]) -> None:
        """A cross where a line breaks off, at its last finite value or at the edge of the picture."""
        top = axis.get_ylim()[1]
        for cell in members:
            style = self.styles[_named(cell, self.layout.lines)]
            for curve in self.losses[kind, id(cell)]:
                last = [(x, min(y, top)) for x, y in zip(curve.x, curve.y, strict=True) if y is not None]
                if last and curve.y[-1] is None:
                    axis.plot(*last[-1], "X", color=style["color"], ms=8, mec="white", clip_on=False, zorder=5)

    def _score(self, axis: Axes, members: Sequence[Cell]) -> None:
        if self.by_step:
            self._dots(axis, members)
            return
        for cell in members:
            style = self.styles[_named(cell, self.layout.lines)]
            curves = self._scores(cell)
            for curve in curves:
                _line(axis, curve, style, thin=len(curves) > 1)
            if len(curves) > 1:
                _line(axis, _mean(curves), style)
        axis.set_ylim(self._lowest_score(members[0].task) - 0.02, 1.02)
        self._x(axis)

    def _dots(self, axis: Axes, members: Sequence[Cell]) -> None:
        """After one epoch there is one score a trial: a dot, its cells below each other."""
        names = list(self.styles)
        for cell in members:
            name = _named(cell, self.layout.lines)
            height = len(names) - 1 - names.index(name)
            axis.plot(
                cell.scores,
                [height] * len(cell.scores),
                "o",
                color=self.styles[name]["color"],
                markersize=6,
                alpha=0.6,
                markeredgewidth=0,
            )
        axis.set_yticks(range(len(names)), [_short(name) for name in reversed(names)], fontsize=7)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_xlim(self._lowest_score(members[0].task) - 0.02, 1.02)
        axis.grid(alpha=0.25)

    def _x(self, axis: Axes) -> None:
        longest = max(trial.row["epochs"] for trial in self.study.trials)
        if not self.by_step and longest > LOG_EPOCHS:
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(left=0)
        else:
            axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(alpha=0.25)

    def _label(self, facets: Sequence[Sequence[Axes]], columns: int) -> None:
        """Words at the axes; only the first of a row has them at its left, as all of a task share their scales."""
        names = [f"test {members[0].task.called}" for _, members in self.facets]
        for number, ((*losses, score), name) in enumerate(zip(facets, names, strict=False)):
            called = [*(CALLED[kind] for kind in self.kinds), "" if self.by_step else name]
            for loss in losses:
                self._x(loss)
                loss.set_xlabel("step" if self.by_step else "epoch", fontsize=8)
            score.set_xlabel(name if self.by_step else "epoch", fontsize=8)
            for axis, words in zip((*losses, score), called, strict=True):
                axis.tick_params(labelsize=7)
                if number % columns == 0 or (axis is score and self.is_mixed):
                    axis.set_ylabel(words, fontsize=9)
                else:
                    axis.tick_params(labelleft=False)

    def _scale(self, axes: Sequence[Axes]) -> None:
        """One scale for all losses: logarithmic where they span decades, and cut where one rises without bound."""
        curves = [curve for found in self.losses.values() for curve in found]
        every = np.array([y for curve in curves for y in curve.y if y is not None], dtype=np.float64)
        values = every[every > 0]
        if len(values) < len(every) or not len(values):
            return  # A loss of the user's own that goes below zero: neither cut nor logarithmic.
        first = [curve.y[0] for curve in curves if curve.y and curve.y[0]]
        top = min(values.max(), RISE * float(np.median(first))) if first else values.max()
        low = values.min()
        if math.log10(top / low) > LOG_DECADES:
            for axis in axes:
                axis.set_yscale("log")
                axis.set_ylim(low / 1.5, top * 1.5)
        else:
            for axis in axes:
                axis.set_ylim(0.0, top * 1.05)

    def _legend(self) -> list[Line2D]:
        # More names than these would cover the picture; the table beside it has them all.
        if not self.layout.lines or len(self.styles) > MOST_NAMES:
            return []
        return [Line2D([], [], label=name, linewidth=2, **style) for name, style in self.styles.items()]


def _legend_columns(legend: Sequence[Line2D], width: float) -> int:
    """As many as fit side by side, made even over the rows that it takes."""
    longest = max((len(str(line.get_label())) for line in legend), default=1)
    most = max(1, int(width / (0.085 * longest + 0.55)))
    return max(1, math.ceil(len(legend) / max(1, math.ceil(len(legend) / most))))


def _named(cell: Cell, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={cell.levels[key]}" for key in keys)


def _short(name: str) -> str:
    """A cell's name on an axis: its levels without their keys."""
    return " ".join(part.partition("=")[2] for part in name.split(", "))


def _styles(keys: Sequence[str], study: Study) -> dict[str, dict[str, Any]]:
    """Colour and dash of each line. Of two factors the last has the colours, the other the dashes, if they suffice."""
    names = list(dict.fromkeys(_named(cell, keys) for cell in study.cells))
    if len(keys) == 2 and len(study.factors[keys[0]]) <= len(STYLES):
        dashes, colours = study.factors[keys[0]], _colours(len(study.factors[keys[1]]))
        found = {_named(cell, keys): cell.levels for cell in study.cells}
        return {
            name: {
                "color": colours[study.factors[keys[1]].index(found[name][keys[1]])],
                "linestyle": STYLES[list(dashes).index(found[name][keys[0]])],
            }
            for name in names
        }
    return {name: {"color": colour, "linestyle": "-"} for name, colour in zip(names, _colours(len(names)), strict=True)}


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib import colormaps

    return list(colormaps["turbo"](np.linspace(0.03, 0.97, count)))


def _line(axis: Axes, curve: Curve, style: Mapping[str, Any], thin: bool = False) -> None:
    y = [math.nan if value is None else value for value in curve.y]
    axis.plot(curve.x, y, linewidth=0.7 if thin else 1.7, alpha=0.45 if thin else 1.0, **style)


def _mean(curves: Sequence[Curve]) -> Curve:
    """The mean over the seeds at every x that all of them have, with a finite value."""
    tables = [{x: y for x, y in zip(c.x, c.y, strict=True) if y is not None} for c in curves]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return Curve(shared, [sum(table[x] for table in tables) / len(tables) for x in shared])


def _smooth(curve: Curve) -> Curve:
    """A running mean over a twentieth of a noisy curve, over what there is of it at the ends."""
    y = [value for value in curve.y if value is not None]
    half = len(y) // 40
    windows = [y[max(0, place - half) : place + half + 1] for place in range(len(y))]
    return Curve(curve.x, [*(sum(window) / len(window) for window in windows), *([None] * (len(curve.x) - len(y)))])
