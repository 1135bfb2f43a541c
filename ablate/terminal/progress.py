"""How far a sweep is: a live table while it trains, plain lines where there is no terminal."""

import threading
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.records import scores
from ablate.records.scores import heading, task_of
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import Record, Row
from ablate.terminal.tables import figure, fitting, is_explained, verdict
from ablate.trials.factors import cell, factors, written
from ablate.trials.trial import Trial

_BARS = "▁▂▃▄▅▆▇█"
_REFRESH_SECONDS = 0.25


def sparkline(values: Sequence[float | None], width: int = 16) -> str:
    """Values as a row of bars, the lowest and highest spanning the height: the means of `width` equal runs at most.

    A run without a value is blank.
    """
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)] if count else []
    runs = [[value for value in values[a:b] if value is not None] for a, b in pairwise(edges)]
    means = [sum(run) / len(run) if run else None for run in runs]
    low, high = (of((mean for mean in means if mean is not None), default=0.0) for of in (min, max))
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if mean is None else _BARS[round((mean - low) * scale)] for mean in means)


class Progress:
    """Follows the trials' folders and shows how far they are, until it is stopped."""

    def __init__(self, console: Console, sweep: SweepFolder, trials: Sequence[Trial]) -> None:
        self.console, self.trials, self.keys = console, trials, factors(trials)
        self.folders = {trial.number: sweep.trial(trial.number) for trial in trials}
        self.rows: dict[int, Row] = {}

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held by default."""

    def newly_ended(self) -> list[Trial]:
        """Trials that ended since the last call."""
        ended = []
        for trial in self.trials:
            if trial.number not in self.rows:
                row = self.folders[trial.number].read_result()
                if row is not None:
                    self.rows[trial.number] = row
                    ended.append(trial)
        return ended

    def label(self, trial: Trial) -> str:
        """A trial by its factors and seed, as the user would write them."""
        return written(cell(trial, [*self.keys, "seed"]))


class LiveTable(Progress):
    """A table that redraws itself: a row a lane with epoch, losses, accuracy and a sparkline of the loss."""

    def __init__(self, console: Console, sweep: SweepFolder, trials: Sequence[Trial]) -> None:
        super().__init__(console, sweep, trials)
        self.last: dict[int, Record] = {}
        self.tails = {number: folder.tail() for number, folder in self.folders.items()}
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
        scored = heading(trial.settings.data.learned for trial in self.trials)
        titles = ["trial", *self.keys, "seed", "epoch", "train loss", "test loss", scored, "loss", ""]
        rows = [self._row(trial) for trial in ordered[:room]]
        table = fitting(self.console, titles, rows, spare=("test loss", "seed", "train loss"))
        if len(ordered) > room:
            table.caption = f"{len(self.rows)} of {len(self.trials)} trials have ended"
        return table

    def _row(self, trial: Trial) -> list[str | Text]:
        last = self._follow(trial)
        row, task = self.rows.get(trial.number), trial.settings.data.learned
        return [
            str(trial.number),
            *cell(trial, self.keys).values(),
            str(trial.settings.seed),
            f"{last.get('epoch', 0)}/{trial.settings.epochs}",
            figure(last.get("train/loss")),
            figure(last.get("test/loss")),
            task.written(last.get(f"test/{task.score}")),
            sparkline(self.losses[trial.number]),
            verdict(row) if row else Text("training" if last else "waiting", "dim"),
        ]

    def _follow(self, trial: Trial) -> Record:
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

    def __init__(self, console: Console, sweep: SweepFolder, trials: Sequence[Trial]) -> None:
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
            line = f"trial {trial.number} ({self.label(trial)}): {_ended(row)}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _ended(row: Row) -> str:
    """The verdict with the score and, where it is worth a line, the reason; a score that the reason says, once."""
    why, scored = f": {row['why']}" if is_explained(row) else "", scores.written(row)
    told = "" if scored in why else f", test {task_of(row).called} {scored}"
    return f"{verdict(row).plain}{told}{why}"


def progress(console: Console, sweep: SweepFolder, trials: Sequence[Trial]) -> Progress:
    """The live table on a terminal, plain lines elsewhere."""
    return LiveTable(console, sweep, trials) if console.is_terminal else PlainLines(console, sweep, trials)
