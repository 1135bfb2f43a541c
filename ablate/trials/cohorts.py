"""Cohorts: which trials can be trained together, and how a cohort is cut into chunks."""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from ablate.config.settings import Settings
from ablate.trials.trial import Trial

T = TypeVar("T")


def cohorts(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Groups of trials that can be trained together, each sorted so that neighbours share optimiser, loss and seed."""
    together: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        together[_cohort_key(trial.settings)].append(trial)
    return [sorted(members, key=_likeness) for members in together.values()]


def _cohort_key(settings: Settings) -> str:
    # The output function belongs to the objective: the network is the same with softmax or sigmoid after it.
    parts = settings.model_dump(
        mode="json",
        include={"model", "data", "batch_size", "epochs", "dtype", "backend", "device", "log_every", "bug"},
    )
    parts["model"].pop("output")
    return json.dumps(parts, sort_keys=True)


def _likeness(trial: Trial) -> tuple[tuple[Any, ...], str, str, int, int]:
    settings = trial.settings
    return (
        settings.optimizer.parts,
        str(settings.loss) if settings.loss.is_foreign else settings.loss.model_dump_json(),
        settings.output,
        settings.seed,
        trial.number,
    )


def chunks(cohort: Sequence[T], workers: int) -> list[list[T]]:
    """A cohort cut into at most `workers` chunks of nearly equal size."""
    count = min(workers, len(cohort))
    edges = [round(piece * len(cohort) / count) for piece in range(count + 1)]
    return [list(cohort[start:stop]) for start, stop in pairwise(edges)]
