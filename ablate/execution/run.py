"""Running a sweep from Python: `ablate.run`."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from ablate.execution import sweep as execution
from ablate.execution.prepare import Sweep, prepare
from ablate.trials.trial import Trial


def run(trials: Sequence[Trial], folder: str | Path | None = None) -> Sweep:
    """Train trials as the command does, with the same checks, records and report, and print nothing.

    `trials` come from `ablate.compose`. The folder is a new one under `runs/` unless one is given. The returned sweep
    has `results` and `curves` as data frames; a failed trial has its row, too. Raises ConfigError before anything is
    created if a trial is refused, and KeyboardInterrupt after the results so far have been written.
    """
    path = Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}" if folder is None else Path(folder)
    sweep = prepare(path.absolute(), trials)
    if execution.run(sweep, Console(quiet=True)) == execution.INTERRUPTED:
        raise KeyboardInterrupt
    return sweep
