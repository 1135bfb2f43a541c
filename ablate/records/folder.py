"""The local record of a trial: what is written to its folder first, before anything else hears of it."""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from ablate.backends.engine import Engine
from ablate.diagnosis import verdicts as diagnose
from ablate.diagnosis.checks import Check
from ablate.diagnosis.measure import Entry, TensorCheck
from ablate.training.loop import Summary
from ablate.trials.trial import Trial

Array = np.ndarray[Any, np.dtype[Any]]

METRICS, RESULT, DELIVERY, CHECK = "metrics.jsonl", "result.json", "mlflow.json", "check.json"
FLUSH_SECONDS = 0.5
PREDICTIONS_ROWS = 100
WHY_CHARACTERS = 600


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def finite(value: float) -> float | None:
    """A number as JSON can hold it: None where it is not finite."""
    return value if math.isfinite(value) else None


class Metrics:
    """The growing `metrics.jsonl` of each trial: written after an epoch, at most every half second, and at the end."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.files: list[IO[bytes]] = [(folder / METRICS).open("wb") for folder in folders]
        self.held: list[tuple[Sequence[int], int, int, Mapping[str, Array]]] = []
        self.flushed = time.monotonic()

    def add(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        """One record of each of these lanes: by name, an array with a place for every lane."""
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
    """A record as a line of JSON, with places for the numbers; to write the names anew each time would cost more."""
    places = b",".join(orjson.dumps(name) + b":%b" for name in names)
    return b'{"step":%d,"epoch":%d,' % (step, epoch) + places + b"}\n"


def _numbers(column: Array) -> list[bytes]:
    """A column of numbers as JSON writes them."""
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


class Recorder:
    """Listens to a cohort's training and writes each trial's folder; see `ablate.train.Observer`.

    Elapsed time is shared out evenly over the lanes that are in training at the time.
    """

    def __init__(self, sweep: Path, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self.checks: Sequence[Check | None] = [None for _ in trials]
        self.folders = [sweep / str(trial.number) for trial in trials]
        self.written = Metrics(self.folders)
        self.seconds = dict.fromkeys(range(len(trials)), 0.0)
        self.unfinished = set(self.seconds)
        self.clock = time.perf_counter()

    def checked(self, checks: Sequence[Check | None]) -> None:
        """Write what was found before training, trial by trial; the clock of training starts here."""
        self.checks = checks
        for lane, (folder, check) in enumerate(zip(self.folders, checks, strict=True)):
            if check is not None:
                replace_file(folder / CHECK, json.dumps(asdict(check)))
                figures = {"gradient_error": check.gradient_error, "descent_cosine": check.descent_cosine}
                found = {name: value for name, value in figures.items() if value is not None}
                if found:
                    alike = {f"check/{name}": np.full(len(checks), value) for name, value in found.items()}
                    self.metrics([lane], 0, 0, alike)
        self.clock = time.perf_counter()

    def begin(self, engine: Engine) -> None:
        """Write every trial's initial weights."""
        for lane, folder in enumerate(self.folders):
            np.savez(folder / "init.npz", **engine.weights(lane))  # type: ignore[arg-type]

    def metrics(self, lanes: Sequence[int], step: int, epoch: int, values: Mapping[str, Array]) -> None:
        self.written.add(lanes, step, epoch, values)

    def finished(self, lane: int, summary: Summary, engine: Engine) -> None:
        self._share_time()
        folder = self.folders[lane]
        np.savez(folder / "final.npz", **engine.weights(lane))  # type: ignore[arg-type]
        if sum(summary.labels) <= PREDICTIONS_ROWS and summary.error is None:
            np.savez(folder / "predictions.npz", outputs=engine.outputs(lane))
        self._close(lane, _row(self.trials[lane], summary, self.checks[lane], self.seconds[lane]))

    def fail(self, why: str) -> None:
        """The whole cohort broke: every trial not yet finished failed of it."""
        self._share_time()
        self.close()
        for lane in sorted(self.unfinished):
            close(self.folders[lane], self.trials[lane], "failed", "failed", why)
        self.unfinished.clear()

    def close(self) -> None:
        """Flush what is written so far, whatever happened."""
        self.written.close()

    def _share_time(self) -> None:
        now = time.perf_counter()
        for lane in self.unfinished:
            self.seconds[lane] += (now - self.clock) / len(self.unfinished)
        self.clock = now

    def _close(self, lane: int, row: Mapping[str, Any]) -> None:
        self.written.flush()
        self.unfinished.discard(lane)
        # Last of all: who finds it may rely on every other file of the trial.
        replace_file(self.folders[lane] / RESULT, json.dumps(row))


def _row(trial: Trial, summary: Summary, check: Check | None, seconds: float) -> dict[str, Any]:
    verdict = diagnose.verdict(summary, check)
    return {
        "trial": trial.number,
        "status": "failed" if summary.error is not None else "finished",
        "verdict": verdict.name,
        "is_flagged": check is not None and not check.is_right,
        "why": _short(verdict.why),
        "overrides": {key: trial.value(key) for key in trial.overrides},
        "choices": dict(trial.choices),
        "seed": trial.settings.seed,
        "test_accuracy": finite(summary.test_accuracy),
        "test_loss": finite(summary.test_loss),
        "train_accuracy": finite(summary.train_accuracy),
        "train_loss": finite(summary.train_loss),
        "epochs": summary.epochs,
        "seconds": round(seconds, 3),
    }


def close(folder: Path, trial: Trial, status: str, verdict: str, why: str) -> None:
    """Write the row of a trial that did not come to its end, with the last metrics it recorded."""
    last: dict[str, Any] = {}
    for record in read_metrics(folder):
        last.update({name: value for name, value in record.items() if value is not None})
    row = {
        "trial": trial.number,
        "status": status,
        "verdict": verdict,
        "why": _short(why),
        "overrides": {key: trial.value(key) for key in trial.overrides},
        "choices": dict(trial.choices),
        "seed": trial.settings.seed,
        **{
            f"{split}_{name}": last.get(f"{split}/{name}")
            for split in ("test", "train")
            for name in ("accuracy", "loss")
        },
        "epochs": last.get("epoch", 0),
        "seconds": None,
    }
    replace_file(folder / RESULT, json.dumps(row))


def _short(why: str) -> str:
    """A reason as one line that a table can hold; a user's own error may be of any length."""
    line = " ".join(why.split())
    return line if len(line) <= WHY_CHARACTERS else f"{line[:WHY_CHARACTERS]} ..."


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every whole line of a trial's `metrics.jsonl` so far; empty where there is none."""
    return Tail(folder).read()


@dataclass
class Tail:
    """Reads a `metrics.jsonl` that grows: each call gives the records since the last."""

    folder: Path
    offset: int = 0

    def read(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.lines()]

    def lines(self) -> list[bytes]:
        """The same, not parsed."""
        path = self.folder / METRICS
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        return data[:end].splitlines()


def read_result(folder: Path) -> dict[str, Any] | None:
    """A trial's row, once it has ended."""
    path = folder / RESULT
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_check(folder: Path) -> Check | None:
    """What was found before the trial's training; None where nothing was looked for."""
    path = folder / CHECK
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    tensors = (
        TensorCheck(**{**tensor, "entries": tuple(Entry(**entry) for entry in tensor["entries"])})
        for tensor in values.pop("tensors")
    )
    return Check(tensors=tuple(tensors), **values)


def read_delivery(folder: Path) -> dict[str, Any]:
    """What is known of the trial's MLflow run: `run_id`, and whether all of it was `sent`."""
    path = folder / DELIVERY
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"run_id": None, "sent": False}


def write_delivery(folder: Path, run_id: str, sent: bool) -> None:
    replace_file(folder / DELIVERY, json.dumps({"run_id": run_id, "sent": sent}))
