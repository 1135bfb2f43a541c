"""The local record: everything is written to the trials' folders before it goes anywhere else."""

import logging
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from typing import IO, Any

import numpy as np
import orjson

from ablate.backends.engine import Engine
from ablate.diagnosis import verdicts
from ablate.diagnosis.causes import Cause, causes
from ablate.diagnosis.checks import Check
from ablate.diagnosis.evidence import evidence
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import Row, TrialFolder
from ablate.training.loop import Summary
from ablate.trials.factors import level
from ablate.trials.prepared import PreparedTrial
from ablate.trials.trial import Trial

log = logging.getLogger("ablate")

Array = np.ndarray[Any, np.dtype[Any]]

FLUSH_SECONDS = 0.5
PREDICTIONS_ROWS = 100
WHY_CHARACTERS = 600


def finite(value: float) -> float | None:
    """A number as JSON can represent it: None if it is not finite."""
    return value if math.isfinite(value) else None


class Metrics:
    """The metrics of each trial: written after an epoch, at most every half second, and at the end."""

    def __init__(self, folders: Sequence[TrialFolder]) -> None:
        self.files: list[IO[bytes]] = [folder.open_metrics() for folder in folders]
        self.held: list[tuple[Sequence[int], int, int, Mapping[str, Array]]] = []
        self.flushed = time.monotonic()

    def add(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        """Add one record for each of these lanes: by name, an array with an element for every lane."""
        self.held.append((tuple(lanes), step, epoch, values))
        # An epoch's records come all at once, the test set's last.
        if "test/loss" in values and time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is held; a number that is not finite becomes null."""
        lines: list[list[bytes]] = [[] for _ in self.files]
        for lanes, step, epoch, values in self.held:
            form = _form(step, epoch, tuple(values))
            rows = list(zip(*[_numbers(column) for column in values.values()], strict=True))
            for lane in lanes:
                lines[lane].append(form % rows[lane])
        self.held.clear()
        for file, mine in zip(self.files, lines, strict=True):
            if mine:
                file.write(b"".join(mine))
                file.flush()
        self.flushed = time.monotonic()

    def close(self) -> None:
        self.flush()
        for file in self.files:
            file.close()


def _form(step: int, epoch: int, names: Sequence[str]) -> bytes:
    """A record as a line of JSON, with placeholders for the numbers; encoding the names every time would cost more."""
    places = b",".join(orjson.dumps(name) + b":%b" for name in names)
    return b'{"step":%d,"epoch":%d,' % (step, epoch) + places + b"}\n"


def _numbers(column: Array) -> list[bytes]:
    """A column of numbers as JSON writes them."""
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


class Recorder:
    """Observes the training of a chunk and writes each trial's folder; see `ablate.training.loop.Observer`.

    Elapsed time is divided evenly among the lanes that are in training at the time.
    """

    def __init__(self, sweep: SweepFolder, trials: Sequence[Trial], prepared: Sequence[PreparedTrial]) -> None:
        self.trials, self.prepared = trials, prepared
        self.checks: Sequence[Check | None] = [None for _ in trials]
        self.folders = [sweep.trial(trial.number) for trial in trials]
        self.written = Metrics(self.folders)
        self.seconds = dict.fromkeys(range(len(trials)), 0.0)
        self.unfinished = set(self.seconds)
        self.clock = time.perf_counter()

    def checked(self, checks: Sequence[Check | None]) -> None:
        """Write what the checks found, trial by trial; the clock of training starts here."""
        self.checks = checks
        for lane, (folder, check) in enumerate(zip(self.folders, checks, strict=True)):
            if check is not None:
                folder.write_check(check)
                figures = {"gradient_error": check.gradient_error, "descent_cosine": check.descent_cosine}
                found = {name: value for name, value in figures.items() if value is not None}
                if found:
                    alike = {f"check/{name}": np.full(len(checks), value) for name, value in found.items()}
                    self.metrics([lane], 0, 0, alike)
        self.clock = time.perf_counter()

    def begin(self, engine: Engine) -> None:
        """Write every trial's initial weights."""
        for lane, folder in enumerate(self.folders):
            folder.write_initial_weights(engine.weights(lane))

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        self.written.add(lanes, step, epoch, values)

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        self._share_time()
        folder = self.folders[lane]
        folder.write_final_weights(engine.weights(lane))
        if summary.test_rows <= PREDICTIONS_ROWS and summary.error is None:
            folder.write_predictions(engine.outputs(lane))
        check = self.checks[lane]
        found = verdicts.verdict(summary, check, partial(self._causes, lane, summary))
        row = _row_of_summary(self.trials[lane], summary, found, self.seconds[lane])
        row["is_flagged"] = check is not None and not check.is_right
        self.written.flush()
        self.unfinished.discard(lane)
        folder.write_result(row)

    def _causes(self, lane: int, summary: Summary, verdict: str) -> Sequence[Cause]:
        """Measure the evidence in a trial that went badly, write it, and say to what it points."""
        # A trial that has ended keeps its result, whatever goes wrong in looking for its causes: a user's loss may
        # raise anything.
        try:
            found = evidence(self.prepared[lane], summary)
            self.folders[lane].write_evidence(found)
            return causes(found, self.trials[lane].settings, verdict)
        except Exception as error:
            log.debug("%s", traceback.format_exc())
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            log.warning("trial %d: its evidence could not be measured: %s", self.trials[lane].number, said)
            return ()

    def fail(self, why: str) -> None:
        """Mark every trial that has not finished as failed for this reason."""
        self._share_time()
        self.close()
        for lane in sorted(self.unfinished):
            close(self.folders[lane], self.trials[lane], "failed", "failed", why)
        self.unfinished.clear()

    def close(self) -> None:
        """Flush and close the metrics."""
        self.written.close()

    def _share_time(self) -> None:
        now = time.perf_counter()
        for lane in self.unfinished:
            self.seconds[lane] += (now - self.clock) / len(self.unfinished)
        self.clock = now


def close(folder: TrialFolder, trial: Trial, status: str, verdict: str, why: str) -> None:
    """Write the row of a trial that did not run to its end, with the last metrics it recorded."""
    last: dict[str, Any] = {}
    for record in folder.read_metrics():
        last.update({name: value for name, value in record.items() if value is not None})
    figures = {name: last.get(name.replace("_", "/", 1)) for name in _figures(trial)}
    row = _row(trial, status, verdict, why, figures, last.get("epoch", 0))
    del row["is_flagged"]
    folder.write_result(row)


def _row_of_summary(trial: Trial, summary: Summary, verdict: verdicts.Verdict, seconds: float) -> Row:
    status = "failed" if summary.error is not None else "finished"
    figures = {name: finite(summary.figures.get(name.replace("_", "/", 1), math.nan)) for name in _figures(trial)}
    row = _row(trial, status, verdict.name, verdict.why, figures, summary.epochs)
    row["seconds"] = round(seconds, 3)
    return row


def _figures(trial: Trial) -> tuple[str, ...]:
    """The figures in a trial's row, each a metric of that name with a slash."""
    return ("test_accuracy", "test_loss", "train_accuracy", "train_loss", *trial.settings.data.learned.result_columns)


def _row(trial: Trial, status: str, verdict: str, why: str, figures: Mapping[str, float | None], epochs: int) -> Row:
    if not epochs:
        # What was measured is the untrained network.
        figures = dict.fromkeys(figures)
    # One line for a table; a user's own error may be of any length.
    line, task = " ".join(why.split()), trial.settings.data.learned
    row: Row = {
        "trial": trial.number,
        "status": status,
        "verdict": verdict,
        "is_flagged": False,
        "why": line if len(line) <= WHY_CHARACTERS else f"{line[:WHY_CHARACTERS]} ...",
        "overrides": {key: level(trial, key) for key in trial.overrides},
        "choices": dict(trial.choices),
        "seed": trial.settings.seed,
        "test_accuracy": figures["test_accuracy"],
        "test_loss": figures["test_loss"],
        "train_accuracy": figures["train_accuracy"],
        "train_loss": figures["train_loss"],
        "epochs": epochs,
        "seconds": None,
    }
    if not task.has_classes:
        row |= {"task": task.name, "scores": {name: figures[name] for name in task.result_columns}}
    return row
