"""The plan of a sweep: which trials are trained together, and by how many processes.

Lanes fill the cores first; where there are more cores than chunks, several processes share a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.execution.prepare import Sweep
from ablate.trials.cohorts import chunks, cohorts
from ablate.trials.trial import Trial

# Starting another process pays from this many forward multiplications on, about two seconds of one core in all.
WORTH_A_PROCESS = 1.5e10


@dataclass(frozen=True)
class Chunk:
    """Trials of one cohort that one engine trains together, and the size of its process group."""

    trials: Sequence[Trial]
    processes: int


def plan(sweep: Sweep) -> list[Chunk]:
    """The chunks of every cohort, in the order in which they start."""
    work = [chunk for cohort in cohorts(sweep.trials) for chunk in chunks(cohort, _processes(sweep, cohort))]
    return [Chunk(trials, _group_size(sweep, trials, sweep.workers // len(work))) for trials in work]


def numbers_exchanged(sweep: Sweep, work: Sequence[Chunk]) -> int:
    """The number of parameters of all lanes that are trained by more than one process."""
    shared = [sweep.of(chunk.trials) for chunk in work if chunk.processes > 1]
    return sum(len(trials) * trials[0].architecture.size for trials in shared)


def _processes(sweep: Sweep, cohort: Sequence[Trial]) -> int:
    """The number of processes over which a cohort's lanes are spread."""
    [first, *_] = sweep.of(cohort)
    most = first.backend.most_processes(first.settings.device)
    return sweep.workers if most is None else min(most, sweep.workers)


def _group_size(sweep: Sweep, chunk: Sequence[Trial], spare: int) -> int:
    """The size of a chunk's process group, if `spare` processes are available for it."""
    [first, *_] = sweep.of(chunk)
    forward = first.architecture.multiplications * len(first.dataset.y_train) * first.settings.epochs * len(chunk)
    # A user's loss is called by one process only: it may keep state from call to call.
    if forward < WORTH_A_PROCESS or any(trial.settings.loss.is_foreign for trial in chunk):
        return 1
    return max(1, min(spare, first.backend.largest_process_group(first.architecture, first.batch_size)))
