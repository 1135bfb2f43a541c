"""A sweep from its checked trials to its results: trained, recorded and reported."""

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from rich.console import Console

from ablate import interrupts
from ablate.config.trackers import MlflowTracking
from ablate.errors import in_a_line
from ablate.execution import pool
from ablate.execution.describe import describe
from ablate.execution.prepare import Sweep
from ablate.records import results, tracking
from ablate.records.files import from_here
from ablate.records.recorder import close
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import EndedTrial
from ablate.terminal.progress import progress
from ablate.terminal.tables import is_explained, print_results
from ablate.trials.factors import factors

log = logging.getLogger("ablate")

FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130


def run(sweep: Sweep, console: Console) -> int:
    """Train the sweep, keep going when a trial fails, and end with one table.

    Returns the exit code: 0, 1 if a trial failed, 130 if the user interrupted.
    """
    create(sweep)
    with _log_file(sweep.folder), interrupts.terminable():
        say_notices(sweep)
        tracker = tracker_of(sweep)
        interrupted = False
        try:
            tracker.start()
            with progress(console, sweep.folder, sweep.trials):
                for _ in pool.train(sweep):
                    results.write(sweep.folder, sweep.trials)
        except KeyboardInterrupt:
            interrupted = True
        with interrupts.ignored():
            if interrupted:
                get_reusable_executor().shutdown(wait=True, kill_workers=True)
                console.print("interrupted: writing the results so far")
            _close_unfinished(sweep, interrupted)
            results.write(sweep.folder, sweep.trials)
            # Before the tracker ends, whose thread delivers meanwhile. A process that has trained draws the report.
            report = _report(sweep.folder, 1 if interrupted else min(sweep.workers, len(sweep.trials)))
            with console.status("sending the rest to MLflow (Ctrl-C has to wait for it)"):
                tracker.finish()
            ended = results.write(sweep.folder, sweep.trials)
    print_results(console, ended, sweep.factors or factors(ended))
    _print_places(console, sweep, tracker, report)
    _print_next(console, ended)
    if interrupted:
        return INTERRUPTED
    own = {trial.number for trial in sweep.trials}
    failed = (trial.row["trial"] for trial in ended if trial.row["status"] == "failed")
    return FINISHED if own.isdisjoint(failed) else SOME_FAILED


def say_notices(sweep: Sweep) -> None:
    """Say how the data were taken, where that is not as they stand in their files."""
    for line in sweep.notices:
        log.warning("%s", line)


def create(sweep: Sweep) -> None:
    """Create the sweep's folder and those of its trials. Raises ConfigError if that fails."""
    sweep.folder.create(sweep.trials)
    for number, trial in sweep.prepared.items():
        if trial.dataset.notices:
            sweep.folder.trial(number).write_notices(trial.dataset.notices)
    describe(sweep)


def tracker_of(sweep: Sweep) -> tracking.Tracker:
    """The tracker that delivers the sweep to MLflow, or one that does nothing."""
    settings = sweep.trials[0].settings.tracking
    if not isinstance(settings, MlflowTracking):
        return tracking.Tracker()
    return tracking.MlflowTracker(settings, sweep.folder, sweep.trials, sweep.factors, sweep.prepared)


def _close_unfinished(sweep: Sweep, interrupted: bool) -> None:
    name = "interrupted" if interrupted else "failed"
    why = "interrupted before its end" if interrupted else "it ended without a result"
    for trial in sweep.trials:
        folder = sweep.folder.trial(trial.number)
        if folder.read_result() is None:
            close(folder, trial, name, name, why)


@contextlib.contextmanager
def _log_file(folder: SweepFolder) -> Iterator[None]:
    handler = logging.FileHandler(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        log.debug("started: %s", " ".join(sys.argv[1:]) or "defaults")
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _report(folder: SweepFolder, workers: int) -> Path | None:
    """Write the report. If that fails, the sweep is unaffected: one line, and no report."""
    try:
        [path] = Parallel(n_jobs=workers)([delayed(_write_report)(folder)])
        return Path(path)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        log.warning("no report: %s", in_a_line(error))
        return None


def _write_report(folder: SweepFolder) -> Path:
    from ablate.report import page

    return page.write([folder.path], folder.path)


def _print_next(console: Console, ended: Sequence[EndedTrial]) -> None:
    """The command that explains the first trial that did not train, and tries what may help it."""
    asking = [trial for trial in ended if is_explained(trial.row)]
    if asking:
        place = from_here(asking[0].folder.path)
        console.print(f"why      python -m ablate.explain {place}", highlight=False, markup=False, soft_wrap=True)


def _print_places(console: Console, sweep: Sweep, tracker: tracking.Tracker, report: Path | None) -> None:
    console.print(f"\nresults  {from_here(sweep.folder.results)}", highlight=False, soft_wrap=True)
    if report:
        console.print(f"report   {from_here(report)}", highlight=False, soft_wrap=True)
    if tracker.how:
        console.print(f"curves   {tracker.how}", highlight=False, markup=False, soft_wrap=True)
