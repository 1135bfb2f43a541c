"""Preparing a sweep: its data is loaded, and every trial is checked against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from joblib import cpu_count

from ablate import backends
from ablate.errors import ConfigError
from ablate.problem.data.dataset import Dataset
from ablate.records.results import load
from ablate.records.sweep_folder import SweepFolder
from ablate.trials import prepared
from ablate.trials.factors import factors, written
from ablate.trials.prepared import PreparedTrial
from ablate.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sweep:
    """Checked trials, ready to train: their folder and, by trial number, what is prepared of them.

    `command` is what repeats the sweep, empty where no command line does.
    """

    folder: SweepFolder
    trials: Sequence[Trial]
    prepared: Mapping[int, PreparedTrial]
    command: str = ""

    @property
    def factors(self) -> list[str]:
        return factors(self.trials)

    @property
    def notices(self) -> list[str]:
        """What is to be said of how its data were taken, each line once."""
        return list(dict.fromkeys(line for trial in self.prepared.values() for line in trial.dataset.notices))

    @property
    def workers(self) -> int:
        if any(trial.backend.stays_in_process() for trial in self.prepared.values()):
            return 1
        return self.trials[0].settings.workers or cpu_count()

    @property
    def results(self) -> "pd.DataFrame":
        """One row per trial that has ended, as `ablate.load` gives it."""
        return load(self.folder.path)

    @property
    def curves(self) -> "pd.DataFrame":
        """The metrics of all trials in long form, as `ablate.load` gives them."""
        return load(self.folder.path, curves=True)

    def of(self, trials: Sequence[Trial]) -> list[PreparedTrial]:
        """The prepared trials of some of its trials."""
        return [self.prepared[trial.number] for trial in trials]


def prepare(folder: Path, trials: Sequence[Trial], command: str = "") -> Sweep:
    """Load every data set, once each, and check every trial against it.

    Raises ConfigError, before anything is created, for what `trials.prepared.prepare` refuses, for duplicate trials,
    and for a device that is not available.
    """
    _check_together(trials)
    loaded: dict[str, Dataset] = {}
    ready = {}
    for trial in trials:
        settings = trial.settings
        key = settings.data.model_dump_json() + settings.dtype
        try:
            if key not in loaded:
                loaded[key] = settings.data.load(np.dtype(settings.dtype))
            ready[trial.number] = prepared.prepare(settings, loaded[key])
        except ConfigError as error:
            raise ConfigError(str(error), trial.number) from None
    # Last: errors that do not depend on the device are reported first.
    _check_devices(trials)
    return Sweep(SweepFolder(folder), trials, ready, command)


def _check_together(trials: Sequence[Trial]) -> None:
    """Refuse keys of the whole sweep that differ between its trials, and duplicate trials."""
    for key in ("workers", "dry_run", "tracking"):
        if len({str(getattr(trial.settings, key)) for trial in trials}) > 1:
            raise ConfigError(f"{key}: it concerns the whole sweep, so it cannot vary; give it one value")
    seen: dict[str, Trial] = {}
    for trial in trials:
        if other := seen.get(trial.digest):
            same = written(trial.overrides)
            raise ConfigError(f"{same}: trials {other.number} and {trial.number} are the same; give each value once")
        seen[trial.digest] = trial


def _check_devices(trials: Sequence[Trial]) -> None:
    """Refuse a device that is not available here, before anything is created; a dry run works anywhere."""
    if trials[0].settings.dry_run:
        return
    for name, device in dict.fromkeys((trial.settings.backend, trial.settings.device) for trial in trials):
        if (reason := backends.get(name).unavailable(device)) is not None:
            raise ConfigError(reason)
