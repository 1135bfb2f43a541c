"""A sweep before it starts: its data is loaded, and every trial is checked against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import cpu_count

from ablate.backends import cuda
from ablate.config.schema import Settings
from ablate.errors import ConfigError
from ablate.problem import losses
from ablate.problem.data import loading as data
from ablate.problem.data.dataset import Dataset
from ablate.records.sweep_folder import SweepFolder
from ablate.training import loop as train
from ablate.trials.factors import factors, written
from ablate.trials.trial import Trial


@dataclass(frozen=True)
class Sweep:
    """Checked trials, ready to train: their folder and, by trial number, their data sets."""

    folder: SweepFolder
    trials: Sequence[Trial]
    datasets: Mapping[int, Dataset]

    @property
    def factors(self) -> list[str]:
        return factors(self.trials)

    @property
    def workers(self) -> int:
        # A sanitiser ends the process in which it finds something, and joblib waits for that process for ever.
        return 1 if cuda.is_sanitized() else self.trials[0].settings.workers or cpu_count()


def prepare(folder: Path, trials: Sequence[Trial]) -> Sweep:
    """Load every data set and check every trial against it.

    Raises ConfigError before anything is created: a file that is missing or wrong, shapes that do not fit, a
    batch larger than the training set, a loss that cannot be had.
    """
    _check_together(trials)
    _check_devices(trials)
    loaded: dict[str, Dataset] = {}
    datasets = {}
    for trial in trials:
        settings = trial.settings
        key = settings.data.model_dump_json() + settings.dtype
        if key not in loaded:
            loaded[key] = data.load(**settings.data.model_dump(), dtype=np.dtype(settings.dtype))
        datasets[trial.number] = loaded[key]
        _check(settings, loaded[key])
    return Sweep(SweepFolder(folder), trials, datasets)


def _check_together(trials: Sequence[Trial]) -> None:
    """Refuse what concerns the whole sweep but differs between its trials, and trials that are the same."""
    for key in ("workers", "dry_run", "tracking"):
        if len({str(getattr(trial.settings, key)) for trial in trials}) > 1:
            raise ConfigError(f"{key}: it concerns the whole sweep, so it cannot vary; give it one value")
    seen: dict[str, Trial] = {}
    for trial in trials:
        other = seen.setdefault(trial.digest, trial)
        if other is not trial:
            same = written(trial.overrides)
            raise ConfigError(f"{same}: trials {other.number} and {trial.number} are the same; give each value once")


def _check_devices(trials: Sequence[Trial]) -> None:
    """Refuse a device that cannot be had here, before anything is created; a plan can be made anywhere."""
    for name in {trial.settings.device for trial in trials if trial.settings.backend == "cuda"}:
        if not trials[0].settings.dry_run:
            cuda.check(name)


def _check(settings: Settings, dataset: Dataset) -> None:
    rows = len(dataset.y_train)
    if settings.batch_size and settings.batch_size > rows:
        raise ConfigError(f"batch_size={settings.batch_size}: the training set has {rows} rows; choose 1 to {rows}")
    network = train.architecture(settings, dataset)
    losses.try_out(losses.build(settings.loss, settings.output), network.units)
    _check_precision(settings)


def _check_precision(settings: Settings) -> None:
    """Refuse numbers that the precision of the arithmetic turns into 0 or infinity."""
    numbers = {
        "lr": settings.lr,
        "output_lr": settings.output_lr,
        "init.scale": settings.init.scale,
        "optimizer.epsilon": getattr(settings.optimizer, "epsilon", None),
        "model.preactivation_divisor": settings.model.preactivation_divisor,
    }
    cast = np.dtype(settings.dtype).type
    for key, value in numbers.items():
        with np.errstate(all="ignore"):
            held = 1.0 if value is None else float(cast(value))
        if not 0 < held < np.inf:
            raise ConfigError(f"{key}={value}: in {settings.dtype} this is {held}; choose a less extreme number")
