"""The description of a sweep: its command, the versions, its trials."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, ClassVar

from ablate.execution.prepare import Sweep
from ablate.records.commit import git_commit
from ablate.records.trial_folder import TrialFolder
from ablate.trials.factors import factors

_PACKAGES = ("ablate", "numpy", "hydra-core", "mlflow")


def describe(sweep: Sweep) -> None:
    """Write the description of a sweep into its folder.

    The jobs of another Hydra launcher share the folder: each adds its trial to those listed already.
    """
    with sweep.folder.lock():
        listed = {entry["trial"]: entry for entry in sweep.folder.read_description().get("trials", [])}
        for trial in sweep.trials:
            entry = {"trial": trial.number, "overrides": dict(trial.overrides), "config": trial.digest}
            listed[trial.number] = entry
        trials = [listed[number] for number in sorted(listed)]
        given = [_Listed(entry["overrides"], sweep.folder.trial(entry["trial"])) for entry in trials]
        sweep.folder.write_description(
            {
                "command": sweep.command,
                "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
                "git_commit": git_commit(),
                "factors": sweep.factors or factors(given),
                "trials": trials,
            }
        )


@dataclass(frozen=True)
class _Listed:
    """A trial in a description, as `trials.factors` needs it: its levels are its overrides as they were written."""

    overrides: Mapping[str, str]
    folder: TrialFolder

    choices: ClassVar[Mapping[str, str]] = {}

    @property
    def levels(self) -> Mapping[str, str]:
        return self.overrides

    @cached_property
    def config(self) -> Mapping[str, Any]:
        return self.folder.read_config()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
