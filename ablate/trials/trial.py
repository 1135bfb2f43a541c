"""A trial: one resolved configuration with one seed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ablate.config.settings import Settings

# Keys that say how a trial is run and reported, not what it computes.
NOT_THE_EXPERIMENT = ("description", "target_accuracy", "target_r2", "workers", "log_every", "dry_run", "tracking")

ABSENT = "n/a"  # pandas reads it as a missing number


@dataclass(frozen=True)
class Trial:
    """One resolved configuration with one seed.

    `overrides` are those of the command, key by key with the value as the user wrote it; in a sweep also the keys that
    only other trials set, with the trial's own value, or `ABSENT` if it has no such key. `choices` are the options
    chosen in the configuration groups, `config` is the whole resolved configuration, from which all levels are read.
    """

    number: int
    settings: Settings
    overrides: Mapping[str, str]
    choices: Mapping[str, str]
    config: Mapping[str, Any]

    levels: ClassVar[Mapping[str, Any]] = {}

    @property
    def digest(self) -> str:
        """Hash of everything that decides the trial's numbers: the configuration without how and where it is run."""
        rest = {key: value for key, value in self.config.items() if key not in NOT_THE_EXPERIMENT}
        return hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:16]
