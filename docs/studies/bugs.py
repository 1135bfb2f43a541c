"""Writes docs/bugs.md and docs/bugs.png, the zoo of known mistakes, from a sweep of `experiment=bugs`.

python -m ablate experiment=bugs
python -m docs.studies.bugs runs/<sweep>

The text is in `templates/bugs.md.j2`.
"""

import argparse
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablate.commands import explain
from ablate.config.settings import shown
from ablate.diagnosis.advice import Known
from ablate.diagnosis.checks import Check
from ablate.problem.mistakes import MISTAKES, Mistake
from ablate.records.sweep_folder import SweepFolder
from benchmarks.templates import render
from docs.studies import named

PAGES = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).resolve().parent / "templates" / "bugs.md.j2"
COLUMNS = 4
HEAD = ["mistake", "guess", "gradient error", "descent cosine", "verdict", "test accuracy"]
PRESET = "bugs"


@dataclass(frozen=True)
class Found:
    """One mistake: its trials, the first seed's before all."""

    name: str
    trials: Sequence[Known]

    @property
    def check(self) -> Check:
        check = self.trials[0].check
        assert check is not None
        return check

    @property
    def verdicts(self) -> str:
        """Every verdict with its number of seeds, the commonest first."""
        counts = Counter(str(trial.row["verdict"]) for trial in self.trials).most_common()
        return ", ".join(name if len(counts) == 1 else f"{name} ({count})" for name, count in counts)

    @property
    def accuracies(self) -> str:
        mine = sorted(float(trial.row["test_accuracy"] or 0) for trial in self.trials)
        return f"{mine[0]:.1%} to {mine[-1]:.1%}"

    @property
    def bug(self) -> Mistake | None:
        """The mistake as ablate has it; None for one that is made by other keys."""
        return MISTAKES.get(self.name) if self.name in MISTAKES.names() else None

    @property
    def keys(self) -> str:
        """What the command line says to make it."""
        return f"bug={self.name}" if self.bug else _keys(self.trials[0].config)

    @property
    def why(self) -> str:
        """The first seed's reason for its verdict, without what the check adds to it."""
        return str(self.trials[0].row["why"]).partition("; the check before training found")[0]


def read(sweep: Path) -> list[Found]:
    """The sweep's trials, by mistake in the order of the preset; the lowest seed of each first."""
    trials = [explain.read(folder.path) for folder in SweepFolder(sweep).trials() if folder.is_begun]
    trials.sort(key=lambda trial: (int(trial.row["trial"]), int(trial.row["seed"])))
    found: dict[str, list[Known]] = {}
    for trial in trials:
        found.setdefault(_name(trial), []).append(trial)
    return [Found(name, members) for name, members in found.items()]


def _name(trial: Known) -> str:
    return named.name(PRESET, lambda key: shown(trial.row["overrides"].get(key)))


def page(found: Sequence[Found]) -> str:
    """The whole page."""
    return render(TEMPLATE, right=found[0], wrong=found[1:], head=HEAD, rows=[_row(one) for one in found])


def _row(one: Found) -> list[str]:
    check = one.check
    guess = check.guess or ("left out" if check.left_out else "nothing")
    error, cosine = _figure(check.gradient_error, ".1e"), _figure(check.descent_cosine, ".2f")
    return [f"`{one.name}`", guess, error, cosine, one.verdicts, one.accuracies]


def _figure(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _keys(config: Mapping[str, Any]) -> str:
    plain = {"update_sign": "minus", "residual": "p-y"}
    changed = [f"{key}={config[key]}" for key, usual in plain.items() if config[key] != usual]
    return " ".join(changed) or f"model.logits={config['model']['logits']}"


def sheet(found: Sequence[Found]) -> bytes:
    """A small plot of each mistake's loss beside the right one's, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    right, wrong = found[0], found[1:]
    rows = -(-len(wrong) // COLUMNS)
    figure = Figure(figsize=(9.6, 1.75 * rows), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axis, one in zip(axes.flat, wrong, strict=False):
        for trial in right.trials:
            axis.plot(*_curve(trial), color="0.7", linewidth=0.8)
        for trial in one.trials:
            steps, losses = _curve(trial)
            axis.plot(steps, losses, color="C3", linewidth=0.8)
            if len(losses) < len(_curve(right.trials[0])[1]):
                axis.plot(steps[-1:] if len(steps) else [0], losses[-1:] if len(losses) else [2.3], "x", color="C3")
        axis.set_title(one.name, fontsize=8)
        axis.set_yscale("log")
        axis.set_ylim(0.05, 2000)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(wrong) :]:
        axis.axis("off")
    for axis in axes[-1][: len(wrong) - COLUMNS * (rows - 1)]:
        axis.set_xlabel("step", fontsize=7)
    for line in axes:
        line[0].set_ylabel("loss", fontsize=7)
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(24).save(small, format="png", optimize=True)
    return small.getvalue()


def _curve(trial: Known, width: int = 8) -> tuple[list[int], list[float]]:
    """Steps and the running mean of their losses, as far as they are finite."""
    points = [(record["step"], record["step/loss"]) for record in trial.metrics if "step/loss" in record]
    known = [(step, loss) for step, loss in points if loss is not None]
    means = [float(np.mean([loss for _, loss in known[max(0, i - width + 1) : i + 1]])) for i in range(len(known))]
    return [step for step, _ in known], means


def main() -> None:
    """Write the page and its picture into a folder, `docs/` unless another is named."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.bugs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="the folder of a finished sweep of experiment=bugs")
    parser.add_argument("--into", type=Path, default=PAGES, help="the folder of the page and its picture, docs/")
    given = parser.parse_args()
    sweep: Path = given.sweep
    found = read(sweep)
    if not found or found[0].name != "right":
        parser.error(f"{sweep}: not the folder of a sweep of experiment=bugs")
    (given.into / "bugs.md").write_text(page(found), encoding="utf-8")
    (given.into / "bugs.png").write_bytes(sheet(found))


if __name__ == "__main__":
    main()
