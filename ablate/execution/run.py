"""Running a sweep from Python: `ablate.run`."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from ablate.errors import ConfigError
from ablate.execution import sweep as execution
from ablate.execution.prepare import Sweep, prepare
from ablate.records.sweep_folder import SweepFolder
from ablate.trials.trial import Trial


def run(trials: Iterable[Trial], folder: str | Path | None = None) -> Sweep:
    """Train trials as the command does, with the same checks, records and report, and print nothing.

    `trials` come from `ablate.compose`, from one call or several; they are numbered anew, in the order given. The
    folder is a new one under `runs/` unless one is given, which must not hold a sweep yet. The returned sweep has
    `results` and `curves` as data frames; a failed trial has its row, too. Raises ConfigError before anything is
    created if a trial is refused, and KeyboardInterrupt after the results so far have been written.
    """
    numbered = _numbered(trials)
    path = Path("runs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}" if folder is None else Path(folder)
    if any(trial.is_begun for trial in SweepFolder(path).trials()):
        raise ConfigError(f"{folder}: it holds a sweep already; give another folder, or none for a new one in runs/")
    sweep = prepare(path.absolute(), numbered)
    if execution.run(sweep, Console(quiet=True)) == execution.INTERRUPTED:
        raise KeyboardInterrupt
    return sweep


def _numbered(trials: Iterable[Trial]) -> list[Trial]:
    given = list(trials) if isinstance(trials, Iterable) else [trials]
    if not given or not all(isinstance(trial, Trial) for trial in given):
        raise ConfigError(f"trials={given}: expected one or more trials, such as ablate.compose('lr=0.1,0.5') gives")
    if any(trial.settings.dry_run for trial in given):
        raise ConfigError("dry_run=true: ablate.run trains; to check without training, use ablate.prepare")
    return [replace(trial, number=number) for number, trial in enumerate(given)]
