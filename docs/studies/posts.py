"""Answers to four posts, from real runs: writes `docs/posts/`.

    ABLATE_DATA=<folder with mnist/> python -m docs.studies.posts                # all pages
    ABLATE_DATA=<folder with mnist/> python -m docs.studies.posts digit_mlp      # one of them
    python -m docs.studies.posts --runs FOLDER --reuse                           # from the runs that are there

Each preset is run once, into FOLDER/<preset> (default runs/posts). Every figure on a page is computed from them; the
text is in `templates/<page>.md.j2`.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ablate.problem.data import loading as data
from ablate.records.sweep_folder import SweepFolder
from ablate.report import cells, text
from ablate.report.cells import Cell, Replicate, Study
from ablate.report.page import write as write_report
from benchmarks.machine import processor
from benchmarks.templates import render
from docs.studies import named

PAGES = Path(__file__).resolve().parents[1] / "posts"
TEMPLATES = Path(__file__).resolve().parent / "templates"

# A run that is not a preset as it stands: the same, with other keys.
RUNS: Mapping[str, Sequence[str]] = {
    "xor_sigmoid": [
        *("experiment=xor_softmax", "loss=mse", "model.output=sigmoid", "model.units=1"),
        *("residual=y-p", "lr=0.002"),
    ],
}


def arguments(name: str) -> Sequence[str]:
    return RUNS.get(name, [f"experiment={name}"])


def run(name: str, folder: Path) -> None:
    """Run a preset into a fresh folder, and note how long the whole command took."""
    shutil.rmtree(folder, ignore_errors=True)
    words = [sys.executable, "-m", "ablate", *arguments(name), "tracking=none", f"hydra.sweep.dir={folder}"]
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    (folder / "wall.json").write_text(json.dumps({"seconds": time.perf_counter() - start, "machine": machine()}))


def machine() -> str:
    """The processor in words, without this machine's name."""
    return f"{len(os.sched_getaffinity(0))} cores of an {processor()}, NumPy {np.__version__}"


# Figures


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def metric(trial: Replicate, name: str) -> dict[int, float | None]:
    """A metric by epoch, of every epoch."""
    return {record["epoch"]: record[name] for record in trial.folder.read_metrics() if name in record}


def first(trial: Replicate, name: str, level: float) -> float:
    """The first epoch at whose end a metric is at or above a level; infinite where none is."""
    return next((e for e, value in metric(trial, name).items() if value is not None and value >= level), math.inf)


def epochs(values: Sequence[float]) -> str:
    """The median of some numbers of epochs, with how many never got there."""
    never = sum(math.isinf(value) for value in values)
    if never == len(values):
        return "never"
    shown = f"{statistics.median([value for value in values if math.isfinite(value)]):g}"
    return f"{shown} ({never} of {len(values)} never)" if never else shown


def each(values: Iterable[float]) -> str:
    """Shares of the seeds, in their order: `96.6 % · 96.5 % · 97.0 %`."""
    return " · ".join(map(percent, values))


def span(values: Sequence[float]) -> str:
    """The smallest and the largest, or the one there is: `0.6815 to 0.691`."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Figures:
    """What a page tells of one cell, or of several together."""

    cells: Sequence[Cell]

    @property
    def trials(self) -> list[Replicate]:
        """By seed."""
        return sorted((trial for cell in self.cells for trial in cell.trials), key=lambda trial: trial.row["seed"])

    @property
    def count(self) -> int:
        return len(self.trials)

    @property
    def accuracies(self) -> str:
        """Test accuracy at the end, seed by seed."""
        return each(trial.row["test_accuracy"] for trial in self.trials)

    @property
    def lowest(self) -> str:
        return percent(min(min(cell.scores) for cell in self.cells))

    @property
    def highest(self) -> str:
        return percent(max(max(cell.scores) for cell in self.cells))

    @property
    def loss(self) -> str:
        """Training loss at the end."""
        return span([trial.row["train_loss"] for trial in self.trials])

    @property
    def epochs(self) -> int:
        return int(self.trials[0].row["epochs"])

    @property
    def verdicts(self) -> str:
        """How often each verdict was given: `trained 9, plateau 1`."""
        names = [trial.row["verdict"] for cell in self.cells for trial in cell.trials]
        ordered = dict.fromkeys(sorted(names, key=names.count, reverse=True))
        return ", ".join(f"{name} {names.count(name)}" for name in ordered)

    @property
    def verdict(self) -> str:
        """The verdicts as a report has them: `trained` where there is but one."""
        return text.verdicts(self.cells[0])

    def epochs_to(self, name: str, level: float) -> str:
        """The epoch at whose end a metric is at or above a level, the median over the seeds."""
        return epochs([first(trial, name, level) for trial in self.trials])


def find(study: Study, **levels: str) -> Figures:
    """The one cell with these levels; dots in keys are written as two underscores."""
    wanted = {key.replace("__", "."): level for key, level in levels.items()}
    [found] = [cell for cell in study.cells if wanted.items() <= cell.levels.items()]
    return Figures([found])


def ran(study: Study, preset: str) -> dict[str, Any]:
    """What was run, how long it took and on what, and what came out."""
    wall = json.loads((study.trials[0].folder.path.parent / "wall.json").read_text(encoding="utf-8"))
    return {
        "command": command(preset),
        "facts": text.facts(study),
        "cells": named.described(preset) if "cell" in study.factors else None,
        "reads_mnist": study.trials[0].config["data"]["name"] == "mnist",
        "seconds": f"{wall['seconds']:.0f}",
        "machine": wall["machine"],
        "seeds": min(len(cell.trials) for cell in study.cells),
        "table": text.table(study),
    }


def command(name: str) -> str:
    return f"python -m ablate {' '.join(arguments(name))}"


# What each page is told


def lenet5(studies: Mapping[str, Study]) -> dict[str, Any]:
    signs, logits = studies["lenet5_mnist"], studies["lenet5_logits"]
    right = [("minus", "p-y"), ("plus", "y-p")]
    wrong = [cell for cell in signs.cells if (cell.levels["update_sign"], cell.levels["residual"]) not in right]
    settings = [(loss, lr) for loss in ("mse", "ce") for lr in ("0.1", "0.5")]
    plus = {each: find(signs, update_sign="plus", residual="y-p", loss=each[0], lr=each[1]) for each in settings}
    linear, relu = (
        {each: find(logits, model__logits=kind, loss=each[0], lr=each[1]).accuracies for each in settings}
        for kind in ("linear", "straight_through_relu")
    )
    return {
        "signs": ran(signs, "lenet5_mnist"),
        "logits": ran(logits, "lenet5_logits"),
        "wrong": Figures(wrong),
        "plus": [[*each, figures.accuracies] for each, figures in plus.items()],
        "gamble": plus["ce", "0.5"],
        "by_logits": [[*each, linear[each], relu[each]] for each in settings],
    }


def xor(studies: Mapping[str, Study]) -> dict[str, Any]:
    study = named.by_cell(studies["xor_softmax"], "xor_softmax")
    climbing = [cell for cell in study.cells if cell.levels["residual"] == "p-y"]
    return {
        "run": ran(study, "xor_softmax"),
        "theirs": {"command": command("xor_sigmoid"), "figures": Figures(studies["xor_sigmoid"].cells)},
        "factors": list(study.factors),
        "ends": [[*cell.levels.values(), *_end(cell)] for cell in study.cells],
        "climbing": Figures(climbing),
        "slow_climb": find(study, cell="softmax_ce", residual="p-y", lr="0.001"),
        "fast_climb": find(study, cell="softmax_ce", residual="p-y", lr="0.5"),
        "capped": [Figures([cell]) for cell in climbing if cell.levels["cell"] == "softmax_ce_eps"],
        "low": find(study, cell="softmax_ce", residual="y-p", lr="0.001"),
        "sigmoid": find(study, cell="one_sigmoid_mse", residual="y-p", lr="0.001"),
        "fine": Figures([cell for cell in study.cells if cell not in climbing and cell.levels["lr"] != "0.001"]),
    }


def _end(cell: Cell) -> list[str]:
    """Loss and outputs after the last epoch."""
    outputs = [trial.folder.read_predictions() for trial in cell.trials]
    exact = sum(bool(np.isin(found, (0.0, 1.0)).all()) for found in outputs)
    confidence = [list(metric(trial, "test/confidence").values())[-1] or math.nan for trial in cell.trials]
    losses = [trial.row["train_loss"] for trial in cell.trials]
    spread = f"{min(losses):.4g} to {max(losses):.4g}"
    return [spread, f"{min(confidence):.6g}", f"{exact} of {len(cell.trials)}", text.verdicts(cell)]


def softmax(studies: Mapping[str, Study]) -> dict[str, Any]:
    study = named.by_cell(studies["softmax_mnist"], "softmax_mnist")
    forms: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in study.cells:
        rest = tuple(level for key, level in cell.levels.items() if key != "loss.from_logits")
        forms.setdefault(rest, {})[cell.levels["loss.from_logits"]] = cell
    apart = max(
        abs(a.row["test_accuracy"] - b.row["test_accuracy"])
        for pair in forms.values()
        for a, b in zip(pair["true"].trials, pair["false"].trials, strict=True)
    )
    stable = {rest: pair["true"] for rest, pair in forms.items()}
    seconds, fastest = min(
        ((second, cell) for cell in stable.values() for second in _seconds_to_target(cell)), key=lambda found: found[0]
    )
    relu, linear = (
        find(study, model__logits=kind, loss="ce", loss__from_logits="true", cell="sgd_2e-1")
        for kind in ("relu", "linear")
    )
    return {
        "run": ran(study, "softmax_mnist"),
        "apart": f"{100 * apart:.2f}",
        "rows": [[*rest, *_speed(cell, has_relu="relu" in rest)] for rest, cell in stable.items()],
        "slow": find(study, model__logits="relu", loss="ce", loss__from_logits="true", cell="sgd_1e-3"),
        "fastest": {
            "seconds": f"{seconds:.2g}",
            "cell": fastest.levels["cell"],
            "logits": fastest.levels["model.logits"],
        },
        "every": Figures(study.cells),
        "relu": relu,
        "linear": linear,
        "dead": _dead_logits(relu.cells[0]),
        "bce": Figures([cell for rest, cell in stable.items() if rest[1:] == ("relu", "bce")]),
    }


TARGET = 0.91


def _seconds_to_target(cell: Cell) -> list[float]:
    """Seconds of training and evaluation up to the target, of the trials that reach it."""
    reached = ((trial.row, first(trial, "test/accuracy", TARGET)) for trial in cell.trials)
    return [row["seconds"] * epoch / row["epochs"] for row, epoch in reached if math.isfinite(epoch)]


def _speed(cell: Cell, has_relu: bool) -> list[str]:
    seconds = _seconds_to_target(cell)
    best = [max(value or 0 for value in metric(trial, "test/accuracy").values()) for trial in cell.trials]
    return [
        Figures([cell]).accuracies,
        each(best),
        Figures([cell]).epochs_to("test/accuracy", TARGET),
        f"{statistics.median(seconds):.2g}" if seconds else "–",
        _dead_logits(cell) if has_relu else "",
        text.verdicts(cell),
    ]


def _dead_logits(cell: Cell) -> str:
    """Of each seed, how many logits are 0 behind their ReLU for every test image."""
    return " · ".join(str(_dead(trial)) for trial in cell.trials)


def _dead(trial: Replicate) -> int:
    images, weights = _images(json.dumps(trial.config["data"])), trial.folder.read_final_weights()
    logits = images @ weights["dense1.weight"] + weights["dense1.bias"]
    return int((logits.max(axis=0) <= 0).sum())


@cache
def _images(keys: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The test images of a data set, as vectors."""
    loaded = data.load(**json.loads(keys), dtype=np.dtype("float32")).x_test
    return loaded.reshape(len(loaded), -1)


def digit_mlp(studies: Mapping[str, Study]) -> dict[str, Any]:
    study = named.by_cell(studies["digit_mlp"], "digit_mlp")
    posts = find(study, bug="missing_divisor", output_lr="0.1", cell="softmax_ce")
    fourth = {
        name: each(metric(trial, f"{name}/accuracy")[4] or 0 for trial in posts.trials) for name in ("train", "test")
    }
    return {
        "run": ran(study, "digit_mlp"),
        "factors": list(study.factors),
        "rows": [[*cell.levels.values(), *_learning(cell)] for cell in study.cells],
        "posts": posts,
        "fourth": fourth,
        "correct": find(study, bug="none", output_lr="0.1", cell="softmax_ce"),
        "large_rate": find(study, bug="missing_divisor", output_lr="10", cell="softmax_ce"),
        "fastest": [_fastest(study, name) for name in study.factors["cell"]],
    }


def _learning(cell: Cell) -> list[str]:
    trials = cell.trials
    fourth = [(metric(t, "train/accuracy").get(4), metric(t, "test/accuracy").get(4)) for t in trials]
    known = [(a, b) for a, b in fourth if a is not None and b is not None]
    out_of_range = (
        statistics.median([sum(value or 0 for value in metric(t, name).values()) for t in trials])
        for name in ("watch/too_large", "watch/too_small")
    )
    return [
        *(Figures([cell]).epochs_to("train/accuracy", level) for level in (0.88, 0.95)),
        *(f"{statistics.median([pair[i] for pair in known]):.1%}" if known else "–" for i in (0, 1)),
        cell.task.written(cell.mean),
        *(f"{count:,.0f}" for count in out_of_range),
        text.verdicts(cell),
    ]


def _fastest(study: Study, name: str) -> dict[str, str]:
    """Of a cell of the preset the setting that reaches 95 % first."""
    scored = [
        (cell, [first(trial, "train/accuracy", 0.95) for trial in cell.trials])
        for cell in study.cells
        if cell.levels["cell"] == name
    ]
    cell, best = min(scored, key=lambda item: statistics.median(item[1]))
    setting = ", ".join(f"`{key}={level}`" for key, level in cell.levels.items() if key != "cell")
    return {"cell": name, "epochs": epochs(best), "setting": setting}


# page: the runs that it tells of, and what it is told.
POSTS: Mapping[str, tuple[Sequence[str], Callable[[Mapping[str, Study]], dict[str, Any]]]] = {
    "lenet5_mnist": (("lenet5_mnist", "lenet5_logits"), lenet5),
    "xor_softmax": (("xor_softmax", "xor_sigmoid"), xor),
    "softmax_mnist": (("softmax_mnist",), softmax),
    "digit_mlp": (("digit_mlp",), digit_mlp),
}


def write(page: str, runs: Path) -> None:
    """Write one page and its pictures from finished runs."""
    presets, told = POSTS[page]
    studies = {}
    PAGES.mkdir(parents=True, exist_ok=True)
    for preset in presets:
        write_report([runs / preset], runs / preset)
        studies[preset] = cells.read([runs / preset])
        if preset not in RUNS:
            shutil.copyfile(SweepFolder(runs / preset).curves, PAGES / f"{preset}.png")
    rendered = render(TEMPLATES / f"{page}.md.j2", page=page, **told(studies))
    (PAGES / f"{page}.md").write_text(rendered, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.posts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"any of {', '.join(POSTS)} (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs/posts"), help="where the runs are kept")
    parser.add_argument("--reuse", action="store_true", help="take the runs that are there")
    given = parser.parse_args()
    if wrong := [page for page in given.pages if page not in POSTS]:
        parser.error(f"{wrong[0]}: no such page; choose from {', '.join(POSTS)}")
    for page in given.pages or POSTS:
        for preset in POSTS[page][0]:
            folder = given.runs.absolute() / preset
            if not (given.reuse and (folder / "wall.json").is_file()):
                run(preset, folder)
        write(page, given.runs.absolute())
        print(PAGES / f"{page}.md")


if __name__ == "__main__":
    main()
