"""Tables: results, the checks before training, a sweep's plan."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ablate.config.settings import shown
from ablate.diagnosis.checks import Check
from ablate.records import scores
from ablate.records.scores import HEADINGS, heading, rank, score, task_of
from ablate.records.trial_folder import EndedTrial, Row
from ablate.trials.cohorts import cohorts
from ablate.trials.factors import cell, factors, level, written
from ablate.trials.trial import Trial

COLOURS = {
    "trained": "green",
    "plateau": "yellow",
    "slow": "yellow",
    "stuck": "magenta",
    "collapsed": "red",
    "diverged": "red",
    "ascending": "red",
    "failed": "bold red",
    "interrupted": "dim",
}


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def verdict(row: Row) -> Text:
    return Text(row["verdict"], COLOURS.get(row["verdict"], ""))


def is_explained(row: Row) -> bool:
    """Whether why a trial ended as it did is worth a line."""
    return row["verdict"] != "trained" or row.get("is_flagged", False)


def fitting(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str | Text]], spare: Sequence[str]
) -> Table:
    """A table as wide as the terminal at most: where it is narrower, the spare columns go, the first named first."""
    gone = 0
    while True:
        kept = [place for place, title in enumerate(titles) if title not in spare[:gone]]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place in kept:
            number = titles[place].split(" / ")[0] in _NUMBERS
            table.add_column(Text(titles[place]), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            # As text, so that brackets in a user's value are no markup.
            table.add_row(*[word if isinstance(word := row[place], Text) else Text(word) for place in kept])
        wanted = console.measure(table, options=console.options.update(width=10_000, max_width=10_000)).maximum
        if wanted <= console.width or gone == len(spare):
            return table
        gone += 1


_NUMBERS = {
    *("trial", "seed", "epoch", "epochs", "test loss", "train loss", "seconds"),
    *HEADINGS,
}


def print_results(console: Console, ended: Sequence[EndedTrial], keys: Sequence[str]) -> None:
    """The results table, best first, and below it why those that did not train did not."""
    ordered = sorted(ended, key=lambda trial: _rank(trial.row))
    scored = heading(task_of(trial.row) for trial in ended)
    titles = ["trial", *keys, "seed", "verdict", scored, "test loss", "train loss", "epochs", "seconds"]
    cells: list[list[str | Text]] = [
        [
            str(row["trial"]),
            *cell(trial, keys).values(),
            str(row["seed"]),
            verdict(row),
            scores.written(row),
            figure(row["test_loss"]),
            figure(row["train_loss"]),
            str(row["epochs"]),
            figure(row["seconds"]),
        ]
        for trial in ordered
        for row in [trial.row]
    ]
    console.print(fitting(console, titles, cells, spare=("seconds", "epochs", "train loss", "test loss")))
    reasons: dict[str, list[int]] = {}
    for trial in ordered:
        if is_explained(trial.row):
            reasons.setdefault(f"{verdict(trial.row).plain}: {trial.row['why']}", []).append(trial.row["trial"])
    for reason, numbers in reasons.items():
        named = f"{'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, sorted(numbers)))}"
        console.print(f"{named} {reason}", markup=False, highlight=False, soft_wrap=True)


def _rank(row: Row) -> tuple[tuple[int, float], float, int]:
    return rank(row, score(row)), row["test_loss"] or math.inf, row["trial"]


def print_check(console: Console, check: Check) -> None:
    """A table of the tensors, the worst entry, and what it means."""
    if check.left_out:
        console.print(f"  left out: {check.left_out}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("tensor", "checked", "gradient error", "descent cosine"):
        table.add_column(column, justify="left" if column == "tensor" else "right")
    for tensor in check.tensors:
        table.add_row(tensor.name, str(len(tensor.entries)), f"{tensor.error:.1e}", figure(tensor.cosine))
    if check.gradient_error is not None:
        table.add_row("all", "", f"{check.gradient_error:.1e}", figure(check.descent_cosine), style="bold")
    if check.tensors:
        console.print(table)
    if check.worst is not None:
        worst = check.worst
        place = f"{worst.tensor}[{', '.join(str(index) for index in worst.index)}]"
        line = f"  worst entry {place}: analytic {worst.analytic:.6g}, numeric {worst.numeric:.6g}"
        console.print(line, markup=False, highlight=False)
    if check.predicted is not None and check.actual is not None:
        line = f"  one small step: the loss should change by {check.predicted:.3g} and changes by {check.actual:.3g}"
        console.print(line, markup=False, highlight=False)
    for words in filter(None, (check.note, check.large)):
        console.print(f"  {words}", markup=False, highlight=False, soft_wrap=True)
    if check.is_right:
        console.print("  the gradient is the derivative of the loss, and a step descends", style="green")
    else:
        console.print(Text(f"  {check.guess}: {check.advice}", "red"), soft_wrap=True)


def print_plan(console: Console, trials: Sequence[Trial]) -> None:
    """What a sweep would do: its factors, its trials and its cohorts."""
    keys = factors(trials)
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    console.print(f"{count}, factors: {', '.join(keys) or 'none'}", highlight=False)
    for key in keys:
        levels = dict.fromkeys(shown(level(trial, key)) for trial in trials)
        console.print(f"  {key}: {', '.join(levels)}", markup=False, highlight=False)
    for number, cohort in enumerate(cohorts(trials)):
        settings = cohort[0].settings
        console.print(
            f"cohort {number}: {len(cohort)} trials of {cohort[0].choices.get('model', 'one model')} on"
            f" {settings.data.name}, {settings.epochs} epochs, {settings.dtype}, {settings.backend}",
            markup=False,
            highlight=False,
        )
        for trial in sorted(cohort, key=lambda trial: trial.number):
            values = written(cell(trial, [*keys, "seed"]))
            console.print(f"  trial {trial.number}: {values}", markup=False, highlight=False, soft_wrap=True)
