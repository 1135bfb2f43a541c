"""From a composed job to its trial."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ablate.commands import cells
from ablate.commands.composer import Composer
from ablate.commands.refusals import is_mistake, said
from ablate.config.groups import GROUPS, choices
from ablate.config.parse import parse, resolve
from ablate.errors import ConfigError
from ablate.trials.trial import Trial


def compose_job(composer: Composer, job: Sequence[str], number: int) -> tuple[DictConfig, Trial]:
    """A job's whole configuration, and its trial. Raises ConfigError, with the trial's number, if it is wrong."""
    try:
        whole = composer.compose(job, number)
        return whole, trial(whole, whole.hydra)
    except Exception as error:
        if isinstance(error, ConfigError) or not is_mistake(error):
            raise
        raise ConfigError(said(error, job), number) from error


def trial(composed: DictConfig, hydra: DictConfig) -> Trial:
    """The trial of a composed job, which may contain Hydra's node. Raises ConfigError if a value is wrong."""
    number = int(OmegaConf.select(hydra, "job.num", default=0) or 0)
    try:
        return _trial(number, composed, hydra)
    except ConfigError as error:
        raise ConfigError(str(error), number) from None


def _trial(number: int, composed: DictConfig, hydra: DictConfig) -> Trial:
    chosen = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if group in GROUPS}
    overrides = {**cells.reported(composed, hydra.mode, chosen), **_split(written_overrides(hydra))}
    for key, value in overrides.items():
        group, _, rest = key.partition(".")
        if rest == "name" and group in GROUPS:
            raise ConfigError(f"{key}={value}: an option is chosen by its group; write {group}={value}")
    for group, choice in overrides.items():
        if group in GROUPS and choice.startswith("["):
            allowed = ", ".join(choices(group))
            raise ConfigError(
                f"{group}={choice}: choose one of {allowed}; a sweep is written -m {group}={choice[1:-1]}"
            )
    # Cells are not part of a trial.
    values = resolve(composed, leaving_out=("hydra", cells.KEY))
    if isinstance(values.get("experiment"), Mapping):
        name = hydra.runtime.choices.get("experiment")
        raise ConfigError(f"experiment={name}: it sets nothing here; a preset's first line is # @package _global_")
    return Trial(number=number, settings=parse(values), overrides=overrides, choices=chosen, config=values)


def written_overrides(hydra: DictConfig) -> list[str]:
    """The overrides as the user wrote them, `${...}` included, without those about cells."""
    written: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(override) for override in written if not re.match(rf"[+~]*{cells.KEY}\b", str(override))]


def _split(overrides: Sequence[str]) -> Mapping[str, str]:
    pairs = (override.lstrip("+~").split("=", 1) for override in overrides)
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}
