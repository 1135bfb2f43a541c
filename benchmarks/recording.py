"""What MLflow and the local records cost a sweep: the same sweep with both and with neither, in turns.

Both start with the processes running and MLflow imported, its store made. With records, the time runs from the start
of MLflow's thread to the last run's delivery; without, nothing is written at all, neither metrics nor weights.
"""

import contextlib
import tempfile
import time
from typing import Any
from unittest import mock

from ablate.execution import pool, sweep, worker
from ablate.records import results
from benchmarks.rounds import Figures, Samples, repeated
from benchmarks.work import Work, check_ended, spread, wake_processes

WORDS = ("model=lenet5", "data=mnist", "epochs=5")

_train_chunk = worker.train_chunk


class Silent:
    """A recorder that is told everything and writes nothing."""

    def __init__(self, *given: Any, **named: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: None


def chunk_without_records(*given: Any, **named: Any) -> int:
    """`train_chunk`, in whichever process, with nobody to write."""
    with mock.patch.object(worker, "Recorder", Silent):
        return _train_chunk(*given, **named)


def measure(rounds: int) -> Samples:
    """Seconds of the whole sweep with and without, and the share of the former that records cost, in percent."""
    tracked, untracked = Work(*WORDS, "tracking=mlflow", lanes=8), Work(*WORDS, lanes=8)

    def once() -> Figures:
        with_records, without = recorded(tracked), unrecorded(untracked)
        share = 100 * (with_records - without) / with_records
        return {"with records and MLflow": with_records, "without": without, "share": share}

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return repeated(once, rounds)


def recorded(tracked: Work) -> float:
    """Seconds of the sweep with MLflow and local records, up to the last delivery."""
    wake_processes()
    with tracked.fresh() as made:
        start = time.perf_counter()
        tracker = sweep.tracker_of(made)
        tracker.start()
        for _ in pool.train(made):
            results.write(made.folder, made.trials)
        tracker.finish()
        seconds = time.perf_counter() - start
        check_ended(made)
        if not all(made.folder.trial(trial.number).read_delivery()["sent"] for trial in made.trials):
            raise RuntimeError("MLflow did not get all of the sweep")
        return seconds


def unrecorded(untracked: Work) -> float:
    """Seconds of the same sweep where nothing is written."""
    wake_processes()
    with untracked.fresh() as made, mock.patch.object(pool, "train_chunk", chunk_without_records):
        start = time.perf_counter()
        spread(made)
        return time.perf_counter() - start
