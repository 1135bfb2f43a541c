"""What the user sees: a live table while a sweep trains, plain lines where there is no terminal, the results."""

import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.config.settings import shown
from ablate.diagnosis.checks import Check
from ablate.records import folder as records
from ablate.trials.trial import Trial, cohorts, factors

COLOURS = {
    "trained": "green",
    "plateau": "yellow",
    "slow": "yellow",
    "stuck": "magenta",
    "collapsed": "red",
    "diverged": "red",
    "ascending": "red",
    "failed": "bold red",
}
_BARS = "▁▂▃▄▅▆▇█"
_REFRESH_SECONDS = 0.25


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Values as a row of bars, the lowest and highest spanning the height; the last `width` means of equal runs."""
    if not values:
        return ""
    edges = [round(i * len(values) / min(width, len(values))) for i in range(min(width, len(values)) + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


class Progress:
    """Follows the trials' folders and shows how far they are, until it is stopped."""

    def __init__(self, console: Console, sweep: Path, trials: Sequence[Trial]) -> None:
        self.console, self.trials, self.keys = console, trials, factors(trials)
        self.folders = {trial.number: sweep / str(trial.number) for trial in trials}
        self.rows: dict[int, Mapping[str, Any]] = {}

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held by default."""

    def newly_ended(self) -> list[Trial]:
        """Trials that ended since the last call."""
        ended = []
        for trial in self.trials:
            if trial.number not in self.rows:
                row = records.read_result(self.folders[trial.number])
                if row is not None:
                    self.rows[trial.number] = row
                    ended.append(trial)
        return ended

    def label(self, trial: Trial) -> str:
        """A trial by its factors and seed, as the user would write them."""
        values = [f"{key}={shown(trial.value(key))}" for key in self.keys]
        return " ".join([*values, f"seed={trial.settings.seed}"])


class LiveTable(Progress):
    """A table that redraws itself: a row a lane with epoch, losses, accuracy and a sparkline of the loss."""

    def __init__(self, console: Console, sweep: Path, trials: Sequence[Trial]) -> None:
        super().__init__(console, sweep, trials)
        self.last: dict[int, Mapping[str, Any]] = {}
        self.tails = {number: records.Tail(folder) for number, folder in self.folders.items()}
        self.losses: dict[int, list[float]] = {trial.number: [] for trial in trials}
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveTable":
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__(None, None, None)

    def table(self) -> Table:
        self.newly_ended()
        # Those in training first; a large sweep shows as many rows as the window holds.
        ordered = sorted(self.trials, key=lambda trial: (trial.number in self.rows, trial.number))
        room = max(3, self.console.size.height - 6)
        titles = ["trial", *self.keys, "seed", "epoch", "train loss", "test loss", "test acc.", "loss", ""]
        rows = [self._row(trial) for trial in ordered[:room]]
        table = fitting(self.console, titles, rows, spare=("test loss", "seed", "train loss"))
        if len(ordered) > room:
            table.caption = f"{len(self.rows)} of {len(self.trials)} trials have ended"
        return table

    def _row(self, trial: Trial) -> list[str | Text]:
        last = self._follow(trial)
        row = self.rows.get(trial.number)
        return [
            str(trial.number),
            *[shown(trial.value(key)) for key in self.keys],
            str(trial.settings.seed),
            f"{last.get('epoch', 0)}/{trial.settings.epochs}",
            figure(last.get("train/loss")),
            figure(last.get("test/loss")),
            percent(last.get("test/accuracy")),
            sparkline(self.losses[trial.number]),
            _verdict(row) if row else Text("training" if last else "waiting", "dim"),
        ]

    def _follow(self, trial: Trial) -> Mapping[str, Any]:
        """The trial's last epoch record; the training losses go into its sparkline."""
        for record in self.tails[trial.number].read():
            if "test/loss" in record:
                self.last[trial.number] = record
                loss = record.get("train/loss", record["test/loss"])
                if loss is not None:
                    self.losses[trial.number].append(loss)
        return self.last.get(trial.number, {})


class PlainLines(Progress):
    """One line as each trial ends, for logs and pipes."""

    def __init__(self, console: Console, sweep: Path, trials: Sequence[Trial]) -> None:
        super().__init__(console, sweep, trials)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> "PlainLines":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stopping.wait(_REFRESH_SECONDS):
            self._print()
        self._print()

    def _print(self) -> None:
        for trial in self.newly_ended():
            row = self.rows[trial.number]
            line = f"trial {trial.number} ({self.label(trial)}): {_verdict(row).plain}, test accuracy"
            line = f"{line} {percent(row['test_accuracy'])}"
            if row["verdict"] != "trained" or row.get("is_flagged"):
                line = f"{line}: {row['why']}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress(console: Console, sweep: Path, trials: Sequence[Trial]) -> Progress:
    """The live table on a terminal, plain lines elsewhere."""
    return LiveTable(console, sweep, trials) if console.is_terminal else PlainLines(console, sweep, trials)


def fitting(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str | Text]], spare: Sequence[str]
) -> Table:
    """A table as wide as the terminal at most: where it is narrower, the spare columns go, the first named first."""
    gone = 0
    while True:
        kept = [place for place, title in enumerate(titles) if title not in spare[:gone]]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place in kept:
            number = titles[place] in _NUMBERS
            table.add_column(Text(titles[place]), justify="right" if number else "left", no_wrap=True)
        for row in rows:
            # As text, so that brackets in a user's value are no markup.
            table.add_row(*[cell if isinstance(cell := row[place], Text) else Text(cell) for place in kept])
        wanted = console.measure(table, options=console.options.update(width=10_000, max_width=10_000)).maximum
        if wanted <= console.width or gone == len(spare):
            return table
        gone += 1


_NUMBERS = ("trial", "seed", "epoch", "epochs", "test acc.", "test loss", "train loss", "seconds")


def _verdict(row: Mapping[str, Any]) -> Text:
    # A trial that was interrupted is no failure of its own.
    name = "interrupted" if row["status"] == "killed" else row["verdict"]
    return Text(name, COLOURS.get(name, ""))


def print_results(console: Console, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """The results table, best first, and below it why those that did not train did not."""
    ordered = sorted(
        rows, key=lambda row: (-(row["test_accuracy"] or 0), row["test_loss"] or float("inf"), row["trial"])
    )
    titles = ["trial", *keys, "seed", "verdict", "test acc.", "test loss", "train loss", "epochs", "seconds"]
    cells: list[list[str | Text]] = [
        [
            str(row["trial"]),
            *[shown(row["overrides"].get(key)) for key in keys],
            str(row["seed"]),
            _verdict(row),
            percent(row["test_accuracy"]),
            figure(row["test_loss"]),
            figure(row["train_loss"]),
            str(row["epochs"]),
            figure(row["seconds"]),
        ]
        for row in ordered
    ]
    console.print(fitting(console, titles, cells, spare=("seconds", "epochs", "train loss", "test loss")))
    reasons: dict[str, list[int]] = {}
    for row in ordered:
        if row["verdict"] != "trained" or row.get("is_flagged"):
            reasons.setdefault(f"{_verdict(row).plain}: {row['why']}", []).append(row["trial"])
    for reason, numbers in reasons.items():
        named = f"{'trial' if len(numbers) == 1 else 'trials'} {', '.join(map(str, sorted(numbers)))}"
        console.print(f"{named} {reason}", markup=False, highlight=False, soft_wrap=True)


PIPE_WIDTH = 200


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """A reader that has seen enough, such as `head`, is no reason to fail."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """The terminal; where there is none, lines wide enough for a table, and nowhere if the output is closed."""
    if sys.stdout is None:
        return Console(file=io.StringIO())
    return _Terminal() if sys.stdout.isatty() else _Terminal(width=PIPE_WIDTH)


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
        levels = dict.fromkeys(shown(trial.value(key)) for trial in trials)
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
            values = " ".join(f"{key}={shown(trial.value(key))}" for key in [*keys, "seed"])
            console.print(f"  trial {trial.number}: {values}", markup=False, highlight=False, soft_wrap=True)
