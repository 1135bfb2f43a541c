"""Trials, factors, cells and cohorts: what a sweep consists of."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ablate.config.schema import Settings, shown

ABSENT = "n/a"  # pandas reads it as a missing number


@dataclass(frozen=True)
class Trial:
    """One resolved configuration with one seed.

    `overrides` are the command's, key by key with the value as the user wrote it, and in a sweep of `cells` the keys
    that any of these sets, with the trial's own value, `ABSENT` where it has no such key; `choices` the options
    chosen in the configuration groups; `config` the whole resolved configuration.
    """

    number: int
    settings: Settings
    overrides: Mapping[str, str]
    choices: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of what decides the trial's numbers: the resolved configuration without how and where it runs."""
        rest = {key: value for key, value in self.config.items() if key not in _NOT_THE_EXPERIMENT}
        return hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def value(self, key: str) -> Any:
        """The value of an override key: a group's by its choice, any other from the resolved configuration."""
        if key in self.choices:
            return self.choices[key]
        value: Any = self.config
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return self.overrides.get(key)
            value = value[part]
        return value if isinstance(value, int | float | str | bool | None) else self.overrides.get(key, str(value))


_NOT_THE_EXPERIMENT = ("description", "workers", "log_every", "dry_run", "tracking")


def factors(trials: Sequence[Trial]) -> list[str]:
    """The override keys that vary over the trials, `seed` excepted, in the order of the command."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.overrides))
    return [key for key in keys if key != "seed" and len({str(trial.value(key)) for trial in trials}) > 1]


def cell(trial: Trial, keys: Sequence[str]) -> str:
    """The combination of factor levels a trial belongs to; its replicates differ in `seed` only."""
    return " ".join(f"{key}={shown(trial.value(key))}" for key in keys) or "all"


def cohorts(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that can be trained together, neighbours being alike in optimiser, loss and seed."""
    together: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        together[_cohort_key(trial.settings)].append(trial)
    return [sorted(members, key=_likeness) for members in together.values()]


def _cohort_key(settings: Settings) -> str:
    # The output is the loss's: a network is the same whether softmax or sigmoid follows it.
    parts = settings.model_dump(
        mode="json",
        include={"model", "data", "batch_size", "epochs", "dtype", "backend", "device", "log_every", "bug"},
    )
    parts["model"].pop("output")
    return json.dumps(parts, sort_keys=True)


def _likeness(trial: Trial) -> tuple[str, str, str, int, int]:
    settings = trial.settings
    return (
        settings.optimizer.name,
        settings.loss.model_dump_json() if settings.loss.name != "custom" else str(settings.loss),
        settings.output,
        settings.seed,
        trial.number,
    )


def chunks(cohort: Sequence[Trial], workers: int) -> list[list[Trial]]:
    """A cohort cut into at most `workers` pieces of nearly equal size, each trained in one process."""
    count = min(workers, len(cohort))
    edges = [round(piece * len(cohort) / count) for piece in range(count + 1)]
    return [list(cohort[start:stop]) for start, stop in pairwise(edges)]
