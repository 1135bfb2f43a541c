"""The plan of a sweep: which trials are trained together, and by how many processes.

Lanes fill the cores first; where there are more cores than chunks, several processes share a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.execution.prepare import Sweep
from ablate.trials.cohorts import chunks, cohorts
from ablate.trials.trial import Trial

# So many multiplications forward, about two seconds of one core in all, are worth the start of another process.
WORTH_A_PROCESS = 1.5e10


@dataclass(frozen=True)
class Chunk:
    """Trials of one cohort that are trained together, and the number of processes that do it."""

    trials: Sequence[Trial]
    processes: int


def plan(sweep: Sweep) -> list[Chunk]:
    """The chunks of every cohort, in the order in which they start."""
    work = [chunk for cohort in cohorts(sweep.trials) for chunk in chunks(cohort, _processes(sweep, cohort))]
    return [Chunk(trials, _group_size(sweep, trials, sweep.workers // len(work))) for trials in work]


def numbers_exchanged(sweep: Sweep, work: Sequence[Chunk]) -> int:
    """How many numbers the parameters are of all lanes that several processes train."""
    shared = [sweep.of(chunk.trials) for chunk in work if chunk.processes > 1]
    return sum(len(trials) * trials[0].architecture.size for trials in shared)


def _processes(sweep: Sweep, cohort: Sequence[Trial]) -> int:
    """How many processes a cohort's lanes are dealt out to."""
    [first, *_] = sweep.of(cohort)
    most = first.backend.most_processes(first.settings.device)
    return sweep.workers if most is None else min(most, sweep.workers)


def _group_size(sweep: Sweep, chunk: Sequence[Trial], spare: int) -> int:
    """How many processes are to train a chunk, where there are so many for it."""
    [first, *_] = sweep.of(chunk)
    forward = first.architecture.multiplications * len(first.dataset.y_train) * first.settings.epochs * len(chunk)
    # A user's loss is asked by one process alone: it may keep something in mind from call to call.
    if forward < WORTH_A_PROCESS or any(trial.settings.loss.is_foreign for trial in chunk):
        return 1
    return max(1, min(spare, first.backend.largest_process_group(first.architecture, first.batch_size)))
