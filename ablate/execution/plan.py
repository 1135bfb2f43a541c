"""The plan of a sweep: which trials are trained together, and by how many processes.

Lanes fill the cores first; where there are more cores than chunks, several processes share a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.backends.numpy import NumpyEngine
from ablate.execution.prepare import Sweep
from ablate.training import loop as train
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
    return [Chunk(trials, _team_size(sweep, trials, sweep.workers // len(work))) for trials in work]


def numbers_exchanged(sweep: Sweep, work: Sequence[Chunk]) -> int:
    """How many numbers the parameters are of all lanes that several processes train."""
    shared = [chunk.trials for chunk in work if chunk.processes > 1]
    networks = [train.architecture(trials[0].settings, sweep.datasets[trials[0].number]) for trials in shared]
    return sum(len(trials) * network.size for trials, network in zip(shared, networks, strict=True))


def _processes(sweep: Sweep, cohort: Sequence[Trial]) -> int:
    """How many processes a cohort's lanes are dealt out to: one GPU takes them all."""
    settings = cohort[0].settings
    return 1 if settings.backend == "cuda" and settings.device == "gpu" else sweep.workers


def _team_size(sweep: Sweep, chunk: Sequence[Trial], spare: int) -> int:
    """How many processes are to train a chunk, where there are so many for it."""
    settings, dataset = [trial.settings for trial in chunk], sweep.datasets[chunk[0].number]
    network = train.architecture(settings[0], dataset)
    forward = network.multiplications * len(dataset.y_train) * settings[0].epochs * len(chunk)
    # A user's loss is asked by one process alone: it may keep something in mind from call to call.
    alone = settings[0].backend == "cuda" or any(each.loss.name == "custom" for each in settings)
    if forward < WORTH_A_PROCESS or alone:
        return 1
    return max(1, min(spare, NumpyEngine.largest_team(network, train.batch_size(settings[0], dataset))))
