"""A sweep's training, spread over processes."""

import logging
import multiprocessing.resource_tracker
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ablate import interrupts
from ablate.backends.process_group import ALONE, Rendezvous, rendezvous_folders
from ablate.execution.plan import numbers_exchanged, plan
from ablate.execution.prepare import Sweep
from ablate.execution.worker import help_to_train, train_chunk
from ablate.problem.registry import Declarations, declare_again, declared_outside
from ablate.records.recorder import close
from ablate.trials.trial import Trial

log = logging.getLogger("ablate")


def train(sweep: Sweep) -> Iterator[None]:
    """Train every chunk of the plan, in several processes if there are several; yields as each chunk ends."""
    work = plan(sweep)
    left = {chunk.trials[0].number: chunk.trials for chunk in work}
    try:
        with rendezvous_folders(len(work), numbers_exchanged(sweep, work)) as folders:
            tasks = [
                (chunk.trials, Rendezvous(rank, chunk.processes, folder))
                for chunk, folder in zip(work, folders, strict=True)
                for rank in range(chunk.processes)
            ]
            for first in _spread(sweep, tasks, min(sweep.workers, len(tasks))):
                if first is not None:
                    del left[first]
                    yield
    except TerminatedWorkerError:
        # One process died and took the others' work with it: train the rest one by one, so that only the culprit fails.
        log.warning("a worker process died; its trials and those not finished start again, one process at a time")
        for trials in left.values():
            yield from _alone(sweep, trials)


def _spread(sweep: Sweep, work: Sequence[tuple[Sequence[Trial], Rendezvous]], workers: int) -> Iterator[int | None]:
    outside = declared_outside()
    tasks = (
        delayed(_knowing)(
            outside,
            train_chunk if rendezvous.rank == 0 else help_to_train,
            (sweep.folder, chunk, sweep.of(chunk), rendezvous),
        )
        for chunk, rendezvous in work
    )
    # The workers must not receive Ctrl-C, which a terminal sends to all: this process ends them in an orderly way. They
    # start with the first task and inherit the blocked signal. Starting the trackers would unblock it again.
    for tracker in (multiprocessing.resource_tracker, loky_tracker) if workers > 1 else ():
        tracker.ensure_running()
    with interrupts.blocked(signal.SIGINT):
        ended = Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")(tasks)
    interrupts.heed()
    yield from ended


def _knowing(outside: Declarations, train: Callable[..., int | None], given: Sequence[Any]) -> int | None:
    """Train in a process that may not have imported the modules that declared a loss, an activation or the backend."""
    declare_again(outside)
    return train(*given)


def _alone(sweep: Sweep, chunk: Sequence[Trial]) -> Iterator[None]:
    try:
        for _ in _spread(sweep, [(chunk, ALONE)], 2):
            yield
    except TerminatedWorkerError:
        why = f"its worker process died ({sweep.of(chunk)[0].backend.cause_of_death})"
        for trial in chunk:
            close(sweep.folder.trial(trial.number), trial, "failed", "failed", why)
        yield
