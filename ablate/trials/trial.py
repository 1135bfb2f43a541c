"""A trial: one resolved configuration with one seed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ablate.config.settings import Settings

# Keys that say how a trial is run and told of, not what it computes.
NOT_THE_EXPERIMENT = ("description", "workers", "log_every", "dry_run", "tracking")

ABSENT = "n/a"  # pandas reads it as a missing number


@dataclass(frozen=True)
class Trial:
    """One resolved configuration with one seed.

    `overrides` are the command's, key by key with the value as the user wrote it, and in a sweep of `cells` the keys
    that any of these sets, with the trial's own value, `ABSENT` where it has no such key; `choices` the options chosen
    in the configuration groups; `config` the whole resolved configuration, from which all levels are read.
    """

    number: int
    settings: Settings
    overrides: Mapping[str, str]
    choices: Mapping[str, str]
    config: Mapping[str, Any]

    levels: ClassVar[Mapping[str, Any]] = {}

    @property
    def digest(self) -> str:
        """Hash of what decides the trial's numbers: the resolved configuration without how and where it runs."""
        rest = {key: value for key, value in self.config.items() if key not in NOT_THE_EXPERIMENT}
        return hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:16]
