"""What is trained: trials that differ in their seed alone, and how long ours takes for them.

The time is that of a user's training: with the checks before it, the evaluation of the test set after every epoch,
watching, and the local records. Only the data is on hand before the clock starts, as it is for the peers.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.in_process import resolved, settings

from ablate.execution import pool, sweep
from ablate.execution.prepare import Sweep, prepare
from ablate.execution.worker import train_chunk
from ablate.problem.models import Architecture
from ablate.records.sweep_folder import SweepFolder
from ablate.training import loop as train
from ablate.trials.trial import Trial


class Work:
    """Trials of the same `key=value` words and the seeds 0, 1, ..., with their data loaded."""

    def __init__(self, *words: str, lanes: int = 1) -> None:
        self.words = words
        self.trials = [_trial(number, ("tracking=none", *words, f"seed={number}")) for number in range(lanes)]
        self.prepared = prepare(Path(), self.trials)
        self.dataset = self.prepared.datasets[0]
        self.settings = self.trials[0].settings

    @property
    def architecture(self) -> Architecture:
        return train.architecture(self.settings, self.dataset)

    @property
    def rows(self) -> int:
        return len(self.dataset.y_train)

    @property
    def batch(self) -> int:
        return train.batch_size(self.settings, self.dataset)

    def on_one_core(self) -> float:
        """Seconds per trial and epoch, all trials as the lanes of one cohort on one core."""
        return self._each(chunk)

    def on_all_cores(self) -> float:
        """Seconds per trial and epoch of a sweep, spread as the plan has it over processes that run already."""
        wake_processes()
        return self._each(spread)

    @contextmanager
    def fresh(self) -> Iterator[Sweep]:
        """The sweep in a new folder, which is gone afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            made = replace(self.prepared, folder=SweepFolder(Path(folder)))
            sweep.create(made)
            yield made

    def _each(self, run: Callable[[Sweep], None]) -> float:
        with self.fresh() as made:
            start = time.perf_counter()
            run(made)
            seconds = time.perf_counter() - start
            check_ended(made)
        return seconds / len(self.trials) / self.settings.epochs


def chunk(made: Sweep) -> None:
    """Train a sweep's trials together, in this process, on one core."""
    train_chunk(made.folder, made.trials, made.datasets[0])


def spread(made: Sweep) -> None:
    """Train a sweep on all cores."""
    for _ in pool.train(made):
        pass


def check_ended(made: Sweep) -> None:
    """Raise an error where a trial did not come to its end, and so did less than it should."""
    for trial in made.trials:
        row = made.folder.trial(trial.number).read_result()
        if row is None or row["status"] != "finished":
            raise RuntimeError(f"trial {trial.number} failed: {' '.join(trial.overrides.values())}")


def wake_processes() -> None:
    """Train something small, so that the processes of the pool run and have imported what they need."""
    with Work("data=xor", "model=mlp", "epochs=1", lanes=8).fresh() as made:
        spread(made)


def _trial(number: int, words: tuple[str, ...]) -> Trial:
    overrides = dict(word.split("=", 1) for word in words)
    return Trial(number, settings(*words), overrides, {}, resolved(*words))
