"""What is trained: trials that differ in their seed alone, and how long ours takes for them.

The time is that of a user's training: with the checks before it, the evaluation of the test set after every epoch,
watching, and the local records. Only the data is on hand before the clock starts, as it is for the peers.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ablate
from ablate.config.settings import Settings
from ablate.execution import pool, sweep
from ablate.execution.prepare import Sweep, prepare
from ablate.execution.worker import train_chunk
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture
from ablate.records.sweep_folder import SweepFolder
from ablate.trials.prepared import PreparedTrial


class Work:
    """Trials of the same `key=value` words and the seeds 0, 1, ..., with their data loaded.

    Of a key that is given twice the last value counts.
    """

    def __init__(self, *words: str, lanes: int = 1) -> None:
        self.words = words
        keys = dict(word.split("=", 1) for word in ("tracking=none", *words))
        self.trials = ablate.compose(*(f"{key}={value}" for key, value in keys.items()), f"seed=range(0,{lanes})")
        self.sweep = prepare(Path(), self.trials)

    @property
    def prepared(self) -> Sequence[PreparedTrial]:
        """The trials on their data, by lane."""
        return self.sweep.of(self.trials)

    @property
    def settings(self) -> Settings:
        """Those of the first trial: the others' differ in their seed."""
        return self.trials[0].settings

    @property
    def dataset(self) -> Dataset:
        return self.prepared[0].dataset

    @property
    def architecture(self) -> Architecture:
        return self.prepared[0].architecture

    @property
    def rows(self) -> int:
        return len(self.dataset.y_train)

    @property
    def batch(self) -> int:
        return self.prepared[0].batch_size

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
            made = replace(self.sweep, folder=SweepFolder(Path(folder)))
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
    train_chunk(made.folder, made.trials, made.of(made.trials))


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
