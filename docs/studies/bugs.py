"""Writes docs/bugs.md and docs/bugs.png, the zoo of known mistakes, from a sweep of `experiment=bugs`.

python -m ablate experiment=bugs
python -m docs.bugs runs/<sweep>
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
from ablate.problem.mistakes import MISTAKES
from ablate.records.sweep_folder import SweepFolder
from ablate.report import markdown
from benchmarks import named

HERE = Path(__file__).resolve().parent
COLUMNS = 4
HEAD = ["mistake", "guess", "gradient error", "descent cosine", "verdict", "test accuracy"]
PRESET = "bugs"

# mistake: (what was written, the fix); those injected by `bug=` have theirs in ablate/problem/mistakes.py.
_OWN_KEYS = {
    "update_sign_plus": ("the update adds the gradient: `w += lr * g`", "subtract it: `update_sign=minus`"),
    "residual_y-p": (
        "the output error is written `y - p`, the negative of the gradient, and the update subtracts it",
        "write `p - y`, or keep `y - p` and add it: `residual=p-y` or `update_sign=plus`",
    ),
    "logits_relu": (
        "the logits pass through a ReLU before the softmax, forward and backward",
        "leave the logits as they are: `model.logits=linear`; a class whose logit is below 0 gets no gradient",
    ),
    "logits_straight_through": (
        "the logits pass through a ReLU, and the backward pass does not know of it",
        "leave the logits as they are: `model.logits=linear`; here it does little harm",
    ),
}

# What a person sees in the picture.
CURVES = {
    "update_sign_plus": "It climbs from the first step until it is no number any more.",
    "residual_y-p": "The same climb: one wrong sign is like the other.",
    "diagonal_jacobian": "It ends within the first steps, no finite number any more.",
    "missing_activation_derivative": "It falls and lags behind, with some seeds far. It looks healthy.",
    "missing_divisor": "It falls and lags behind. The hidden layer's steps are ten times as long as the rate says.",
    "sum_for_mean": "It jumps into the thousands at once, then lies flat at ln 10 = 2.3, the loss of a guess.",
    "bias_gradient": "It cannot be told from the right one. Only the check sees this mistake.",
    "stale_gradients": "After the first jump, which the right one has too, it stays at the loss of a guess.",
    "unshifted_softmax": "There is none: the very first loss is no number.",
    "double_softmax": "It lies flat from the start, at the loss of a guess.",
    "swapped_labels": "It falls as it should. Only the test accuracy tells: it is nearly 0, far below a guess.",
    "logits_relu": "It falls much more slowly, and stays far above the right one.",
    "logits_straight_through": "It cannot be told from the right one.",
}


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
    right, wrong = found[0], found[1:]
    lines = [
        "# The zoo of known mistakes",
        "",
        "Every mistake here has been made in earnest by somebody. Each was made on purpose, alone, in the same small",
        f"network, and trained with {len(right.trials)} seeds: 64 raw pixels, 30 ReLU units on net / 10, weights in",
        f"[0, 1), softmax with cross-entropy, batches of 32, a rate of 0.1, {right.trials[0].config['epochs']} epochs",
        f"of the built-in digits. Without a mistake that network reaches {right.accuracies} on the test set.",
        "To make the page again:",
        "",
        "```sh",
        "python -m ablate experiment=bugs",
        "python -m docs.bugs runs/<sweep>",
        "```",
        "",
        "`guess` is what the [checks before training](checks.md) say of it, from numbers alone.",
        "",
        markdown.table(HEAD, [_row(one) for one in found]),
        "",
        "Loss step by step, on a logarithmic scale: in red with the mistake, one line a seed, in grey without.",
        "A cross marks where the loss was no finite number any more.",
        "",
        "![Thirteen small plots of the training loss, one for each mistake](bugs.png)",
    ]
    for one in wrong:
        lines += ["", *_section(one)]
    return "\n".join(lines) + "\n"


def _row(one: Found) -> list[str]:
    check = one.check
    guess = check.guess or ("left out" if check.left_out else "nothing")
    error, cosine = _figure(check.gradient_error, ".1e"), _figure(check.descent_cosine, ".2f")
    return [f"`{one.name}`", guess, error, cosine, one.verdicts, one.accuracies]


def _figure(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _section(one: Found) -> list[str]:
    first = one.trials[0]
    if one.name in MISTAKES.names():
        bug = MISTAKES.get(one.name)
        written, fix, keys = bug.mistake, bug.fix, f"bug={one.name}"
    else:
        (written, fix), keys = _OWN_KEYS[one.name], _keys(first.config)
    return [
        f"## {one.name}",
        "",
        f"**Written:** {written}. (`{keys}`)",
        "",
        f"**The checks say:** {_said(one.check)}",
        "",
        f"**The curve:** {CURVES[one.name]}",
        "",
        f"**The verdict:** {one.verdicts}; with seed {first.row['seed']}: *{_why(first)}*.",
        "",
        f"**The fix:** {fix}.",
    ]


def _keys(config: Mapping[str, Any]) -> str:
    plain = {"update_sign": "minus", "residual": "p-y"}
    changed = [f"{key}={config[key]}" for key, usual in plain.items() if config[key] != usual]
    return " ".join(changed) or f"model.logits={config['model']['logits']}"


def _said(check: Check) -> str:
    if check.left_out:
        return f"left out: {check.left_out}."
    figures = f"gradient error {check.gradient_error:.1e}, descent cosine {check.descent_cosine:.2f}"
    if check.guess is None:
        return (
            f"nothing ({figures}): the gradient is the derivative of this loss, only it is not the loss that was meant."
        )
    worst = check.worst
    assert worst is not None
    place = f"{worst.tensor}[{', '.join(str(index) for index in worst.index)}]"
    beside = f"; worst entry {place}: analytic {worst.analytic:.4g}, numeric {worst.numeric:.4g}"
    return f"**{check.guess}** ({figures}{beside if (check.gradient_error or 0) > 1e-4 else ''})."


def _why(trial: Known) -> str:
    """The verdict's reason without what the check adds to it."""
    return str(trial.row["why"]).partition("; the check before training found")[0]


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
    """Write the page and its picture beside this file."""
    parser = argparse.ArgumentParser(prog="python -m docs.bugs", description=__doc__)
    parser.add_argument("sweep", type=Path, help="the folder of a finished sweep of experiment=bugs")
    sweep: Path = parser.parse_args().sweep
    found = read(sweep)
    if not found or found[0].name != "right":
        parser.error(f"{sweep}: not the folder of a sweep of experiment=bugs")
    (HERE / "bugs.md").write_text(page(found), encoding="utf-8")
    (HERE / "bugs.png").write_bytes(sheet(found))


if __name__ == "__main__":
    main()
