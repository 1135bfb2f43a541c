"""A sweep's folder: the only module that knows which files it contains besides its trials' folders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from ablate.errors import ConfigError
from ablate.records.files import read_yaml, replace_file
from ablate.records.trial_folder import EndedTrial, TrialFolder
from ablate.trials.trial import Trial


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep, `runs/<sweep>`, or the folder to which a report on several sweeps is written."""

    path: Path

    @property
    def results(self) -> Path:
        """The table of the trials that have ended."""
        return self.path / "results.csv"

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.path / "report.md"

    @property
    def curves(self) -> Path:
        """The report's plot."""
        return self.path / "curves.png"

    @property
    def log(self) -> Path:
        """The log, with the tracebacks of errors."""
        return self.path / "ablate.log"

    def lock(self) -> FileLock:
        """The lock to hold while writing a file of the sweep from its trials: processes may share the folder."""
        return FileLock(self.path / ".results.lock")

    def create(self, trials: Iterable[Trial]) -> None:
        """Create the folder and those of the trials. Raises ConfigError if that fails."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for trial in trials:
                self.trial(trial.number).create(trial)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror}); start where you may write") from None

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.path / str(number))

    def trials(self) -> list[TrialFolder]:
        """The folders of the trials, sorted by number."""
        found = [TrialFolder(path) for path in self.path.iterdir() if path.is_dir()] if self.path.is_dir() else []
        return sorted(found, key=lambda folder: folder.number)

    def ended(self, plan: Sequence[Trial] = ()) -> list[EndedTrial]:
        """The trials that have ended, in order; for those in `plan` the configuration need not be read."""
        planned = {trial.number: trial.config for trial in plan}
        rows = ((folder, folder.read_result()) for folder in self.trials())
        return [EndedTrial(row, folder, planned.get(row["trial"])) for folder, row in rows if row is not None]

    def check_begun(self) -> None:
        """Raise ConfigError if this is not the folder of a sweep of which at least one chunk has ended."""
        if not self.results.is_file():
            raise ConfigError(
                f"{self.path}: no {self.results.name} there; expected the folder of a sweep, such as runs/<sweep>"
            )

    def read_description(self) -> Mapping[str, Any]:
        """The sweep's command, versions and trials; empty if the file is missing."""
        return read_yaml(self._description, {"command", "trials"})

    def write_description(self, described: Mapping[str, Any]) -> None:
        replace_file(self._description, OmegaConf.to_yaml(OmegaConf.create(dict(described))))

    @property
    def _description(self) -> Path:
        return self.path / "sweep.yaml"
