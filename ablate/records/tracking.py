"""Delivery to MLflow: a thread sends the local records in batches while the trials train.

Only this process talks to MLflow, and it sends only what the trials' folders contain. So MLflow never delays training,
and a run that could not be sent can be sent later from the same files.
"""

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from ablate.config.settings import shown
from ablate.config.trackers import MlflowTracking
from ablate.problem.data.dataset import Dataset
from ablate.problem.tasks import TASKS
from ablate.records.commit import git_commit
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import Row, Tail, TrialFolder
from ablate.training.loop import WATCHED_EPOCHS
from ablate.trials.factors import cell, level, written
from ablate.trials.prepared import PreparedTrial
from ablate.trials.trial import Trial

log = logging.getLogger("ablate")

# Points per metric, fewer with more trials: MLflow takes some 70 µs for each, and a trial has about ten metrics.
MAX_POINTS, MIN_POINTS, SWEEP_POINTS = 1000, 30, 2000
BATCH = 1000
SEND_SECONDS = 2.0
STALLED_SECONDS = 30.0
# Without this, a fresh browser opens another page of the UI than the charts.
_CHARTS = "workflowType=machine_learning&compareRunsMode=CHART"
# How to recognise the kind of metrics in a line of a trial's metrics; an epoch's line may also hold the last kind.
_CHECK, _STEP, _EPOCH, _SELDOM = b'"check/', b'"step/loss"', b'"test/loss"', b'"watch/too_large"'
# The metrics of every epoch; other metrics in its record are of the last kind.
_EVERY_EPOCH = {
    *("train/loss", "test/loss"),
    *(name for task in TASKS for name in task.metrics),
}
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class Tracker:
    """A tracker of a sweep; this one does nothing (`tracking=none`)."""

    how: str | None = None

    def start(self) -> None:
        """Start delivering in the background."""

    def finish(self) -> None:
        """Deliver what is left, and wait until it is done."""


@dataclass
class _Delivery:
    """How far a trial has been delivered."""

    trial: Trial
    folder: TrialFolder
    tail: Tail
    run_id: str | None = None
    done: bool = False
    seen: dict[bytes, int] = field(default_factory=dict)
    held: dict[bytes, list[tuple[bytes, bool]]] = field(default_factory=dict)


class MlflowTracker(Tracker):
    """Creates one flat MLflow run per trial and keeps it up to date from the trial's folder.

    If MLflow cannot be reached or refuses, one warning is logged, the trials stay marked as unsent, and the sweep goes
    on.
    """

    def __init__(
        self,
        settings: MlflowTracking,
        sweep: SweepFolder,
        trials: Sequence[Trial],
        factors: Sequence[str],
        prepared: Mapping[int, PreparedTrial],
    ) -> None:
        self.settings, self.sweep, self.factors, self.prepared = settings, sweep, factors, prepared
        self.uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        self.is_local = self.uri.startswith("sqlite:")
        folders = [sweep.trial(trial.number) for trial in trials]
        self.deliveries = [
            _Delivery(trial, folder, folder.tail()) for trial, folder in zip(trials, folders, strict=True)
        ]
        self.most_points = max(MIN_POINTS, min(MAX_POINTS, SWEEP_POINTS // len(trials)))
        self.ending = threading.Event()
        self.is_given_up = False
        self.moved = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self.lock: contextlib.AbstractContextManager[Any] = (
            FileLock(Path.cwd() / ".mlflow.db.lock") if self.is_local else contextlib.nullcontext()
        )

    def start(self) -> None:
        if self.is_local and any(Path.cwd().glob("mlruns/*/meta.yaml")):
            log.warning(
                "a bare `mlflow ui` here will show the old ./mlruns; use: mlflow ui --backend-store-uri %s",
                self.uri,
            )
        self.thread.start()

    def finish(self) -> None:
        self.ending.set()
        self.moved = time.monotonic()
        while self.thread.is_alive() and time.monotonic() - self.moved < STALLED_SECONDS:
            self.thread.join(0.1)
        if self.thread.is_alive():
            self._say(f"no answer for {STALLED_SECONDS:.0f} s")
            self.is_given_up = True

    def _run(self) -> None:
        try:
            self._connect()
            while not self.ending.wait(SEND_SECONDS):
                self._send_all()
            self._send_all()
        except Exception as error:
            if self.is_given_up:
                return
            self._say(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            log.debug("MLflow delivery stopped", exc_info=True)

    def _say(self, problem: str) -> None:
        advice = "the sweep goes on, its results are in %s, not all in MLflow"
        log.warning(f"MLflow at %s cannot be used (%s); {advice}", self.uri, problem, self.sweep.path)

    def _connect(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._try_file()
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        # Two processes that create the store at once break each other's migration.
        with self.lock:
            self.client = MlflowClient(tracking_uri=self.uri)
            self.experiment_id = self._experiment()
        commit = git_commit() or "none"
        for delivery in self.deliveries:
            self.moved = time.monotonic()
            with self.lock:
                self._create(delivery, commit)
        self.how = self._how_to_look()

    def _how_to_look(self) -> str:
        """What to type and where to look, to see the curves."""
        page = f"/#/experiments/{self.experiment_id}/runs?{_CHARTS}"
        if not self.is_local:
            return f"{self.uri.rstrip('/')}{page}"
        default = self.uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {self.uri}"
        return f"{command}   then open http://127.0.0.1:5000{page}"

    def _try_file(self) -> None:
        """Fail at once if SQLite cannot open the file; MLflow would retry for minutes."""
        path = self.uri.removeprefix("sqlite:///")
        if self.is_local and path != ":memory:":
            with contextlib.closing(sqlite3.connect(path, timeout=10)) as store:
                store.execute("PRAGMA schema_version").fetchone()

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(self.settings.experiment)
        if found is None:
            location = (Path.cwd() / "runs" / "artifacts").as_uri() if self.is_local else None
            try:
                return str(self.client.create_experiment(self.settings.experiment, artifact_location=location))
            except MlflowException:
                # Another sweep on the same server was faster.
                found = self.client.get_experiment_by_name(self.settings.experiment)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _create(self, delivery: _Delivery, commit: str) -> None:
        from mlflow.entities import Param

        trial = delivery.trial
        run = self.client.create_run(
            self.experiment_id,
            run_name=run_name(trial, self.factors),
            tags={"sweep": self.sweep.path.name, "config": trial.digest, "git.commit": commit},
        )
        delivery.run_id = run.info.run_id
        delivery.folder.write_delivery(run.info.run_id, sent=False)
        params = [Param(key, str(value)[:6000]) for key, value in parameters(trial, self.factors).items()]
        self.client.log_batch(run.info.run_id, params=params)
        self.client.log_inputs(run.info.run_id, datasets=[_dataset_input(self.prepared[trial.number].dataset)])

    def _send_all(self) -> None:
        for delivery in self.deliveries:
            if not delivery.done:
                self._send(delivery)

    def _send(self, delivery: _Delivery) -> None:
        self.moved = time.monotonic()
        result = delivery.folder.read_result()
        points = list(self._thin(delivery, delivery.tail.lines(), is_last=result is not None))
        *batches, last = [points[start : start + BATCH] for start in range(0, len(points), BATCH)] or [[]]
        for batch in batches:
            self._log(delivery, batch, {})
        if result is None:
            self._log(delivery, last, {})
        else:
            self._log(delivery, last, {"verdict": result["verdict"], "why": str(result["why"])[:5000]})
            self._close(delivery, result)

    def _log(self, delivery: _Delivery, points: Sequence[Any], tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.moved = time.monotonic()
        with self.lock:
            self.client.log_batch(
                delivery.run_id, metrics=points, tags=[RunTag(key, value) for key, value in tags.items()]
            )

    def _close(self, delivery: _Delivery, result: Row) -> None:
        with self.lock:
            self.client.log_artifacts(delivery.run_id, str(delivery.folder.path))
            self.client.set_terminated(delivery.run_id, status=_STATUS[result["status"]])
        delivery.done = True
        assert delivery.run_id is not None
        delivery.folder.write_delivery(delivery.run_id, sent=True)

    def _thin(self, delivery: _Delivery, lines: Iterable[bytes], is_last: bool) -> Iterator[Any]:
        """Every n-th record of each kind of metrics, and the last value of each metric; no others are parsed."""
        strides = _strides(self.prepared[delivery.trial.number], self.most_points)
        for line in lines:
            for kind in _kinds(line):
                yield from _every(strides[kind], delivery, kind, line)
        if is_last:
            for kind, held in delivery.held.items():
                yield from _last_points(kind, held)


def _kinds(line: bytes) -> Sequence[bytes]:
    """The kinds of metrics in a record. Most are an epoch's, so that is tested first."""
    if _EPOCH in line:
        return (_EPOCH, _SELDOM) if _SELDOM in line else (_EPOCH,)
    return (_STEP,) if _STEP in line else (_CHECK,)


def _every(stride: int, delivery: _Delivery, kind: bytes, line: bytes) -> Iterator[Any]:
    """The points of every n-th record of a kind; the others are held until all metrics of a later one are sent."""
    count, held = delivery.seen.get(kind, 0), delivery.held.setdefault(kind, [])
    delivery.seen[kind] = count + 1
    is_sent = count % stride == 0
    if is_sent and b"null" not in line:
        held.clear()
    else:
        held.append((line, is_sent))
    if is_sent:
        record = orjson.loads(line)
        yield from _points(record, _values(kind, record))


def _values(kind: bytes, record: Mapping[str, Any]) -> dict[str, float]:
    """A record's finite metrics of a kind."""
    values = {name: value for name, value in record.items() if name not in ("step", "epoch") and value is not None}
    if kind not in (_EPOCH, _SELDOM):
        return values
    return {name: value for name, value in values.items() if (name in _EVERY_EPOCH) == (kind == _EPOCH)}


def _points(record: Mapping[str, Any], values: Mapping[str, float]) -> Iterator[Any]:
    """Some of a record's metrics as MLflow entities."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for name, value in values.items():
        is_step = name.startswith(("step/", "grad/"))
        yield Metric(name, float(value), now, record["step"] if is_step else record["epoch"])


def _last_points(kind: bytes, held: Sequence[tuple[bytes, bool]]) -> Iterator[Any]:
    """The last finite value of every metric in the held records, unless it has been sent."""
    last: dict[str, tuple[Mapping[str, Any], bool]] = {}
    for line, is_sent in held:
        record = orjson.loads(line)
        last.update(dict.fromkeys(_values(kind, record), (record, is_sent)))
    for name, (record, is_sent) in last.items():
        if not is_sent:
            yield from _points(record, {name: record[name]})


def _strides(trial: PreparedTrial, most: int) -> dict[bytes, int]:
    """By kind, the n of every n-th record; one point is reserved for the last."""
    steps = math.ceil(trial.settings.epochs * trial.steps_per_epoch / trial.log_every)
    return {
        _CHECK: 1,
        _STEP: math.ceil(steps / (most - 1)),
        _EPOCH: math.ceil((trial.settings.epochs + 1) / (most - 1)),
        _SELDOM: math.ceil((WATCHED_EPOCHS + 1) / (most - 1)),
    }


def run_name(trial: Trial, factors: Sequence[str]) -> str:
    """The varying values first, since the UI cuts names after some 14 characters; for a single trial, all overrides."""
    values = [shown(level(trial, key)) for key in factors or trial.overrides if key != "seed"]
    return " ".join([*values, f"seed={trial.settings.seed}", f"#{trial.number}"])


def parameters(trial: Trial, factors: Sequence[str]) -> dict[str, Any]:
    """The flattened configuration, the group choices, and `cell`, by which the UI groups a cell's seeds."""
    flat = {"cell": written(cell(trial, factors)) or "all", **trial.choices}
    for key, value in _flatten("", trial.config):
        if key not in flat:
            flat[key] = shown(value)
    return flat


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _dataset_input(dataset: Dataset) -> Any:
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    entity = Entity(name=dataset.name, digest=dataset.digest, source_type="local", source=dataset.source)
    return DatasetInput(entity, tags=[InputTag("mlflow.data.context", "training")])
