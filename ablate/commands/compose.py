"""From overrides to trials, without the command line: `ablate.compose`."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig

from ablate.commands import launcher
from ablate.commands.belonging import as_sweeps
from ablate.commands.composer import Composer
from ablate.commands.grid import grid
from ablate.commands.job import compose_job
from ablate.commands.refusals import is_mistake, said
from ablate.config.groups import DECLARED, conf_dir
from ablate.errors import ConfigError
from ablate.trials.trial import Trial

# The groups whose options are declared, each with the names of its options.
Declared = tuple[tuple[str, tuple[str, ...]], ...]


def compose(*overrides: str, config_dir: str | Path | None = None) -> list[Trial]:
    """The trials that these overrides mean on the command line: a key with several values is swept over.

    `config_dir` is a folder with your own models and presets, like `--config-dir`. Raises ConfigError, one line, if an
    override or a value is wrong.
    """
    if wrong := [override for override in overrides if not isinstance(override, str)]:
        raise ConfigError(
            f"{wrong[0]}: expected overrides as separate strings, such as compose('loss=ce', 'lr=0.1,0.5')"
        )
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"config_dir={config_dir}: no such folder")
    try:
        return _compose(overrides, None if config_dir is None else str(Path(config_dir).absolute()))
    except Exception as error:
        if isinstance(error, ConfigError) or not is_mistake(error):
            raise
        raise ConfigError(said(error, overrides)) from None


def _compose(words: Sequence[str], folder: str | None) -> list[Trial]:
    composer = _composer(words, folder)
    parser = OverridesParser.create(config_loader=composer.loader)
    params = [f"{key}={value}" for key, value in (composer.master.hydra.sweeper.params or {}).items()]
    given = parser.parse_overrides(list(words))
    planned = grid(composer.loader, composer.master, parser.parse_overrides(params), given)
    try:
        return [compose_job(composer, job, number)[1] for number, job in enumerate(planned.jobs)]
    except ConfigError as error:
        cell = planned.cell(error.trial or 0)
        if cell.values and cell.is_named_in(str(error)):
            raise ConfigError(f"{error}; {cell.advice}") from None
        raise


def _declared() -> Declared:
    return tuple((group, tuple(options.names())) for group, options in DECLARED.items())


def _composer(words: Sequence[str], folder: str | None) -> Composer:
    # What presets say of the sweep itself is in the whole configuration only, which takes time to compose.
    is_plain = not any(word.lstrip("+~").startswith(("experiment", "hydra", "cells")) for word in words)
    if is_plain and folder is None:
        return _shipped_composer(_declared())
    # What stands in a folder of one's own may change from call to call.
    loader = _shipped_loader(_declared()) if folder is None else _loader(folder)
    return Composer(loader, _master(loader, [] if is_plain else words))


@cache
def _shipped_composer(declared: Declared) -> Composer:
    """The composer of overrides that say nothing of the sweep; it remembers what it has composed."""
    loader = _shipped_loader(declared)
    return Composer(loader, _master(loader, []))


@cache
def _shipped_loader(declared: Declared) -> ConfigLoader:
    """Hydra's loader, which knows the options that are declared now: there may be more of them at any time."""
    return _loader(None)


def _loader(folder: str | None) -> ConfigLoader:
    launcher.declare()
    path = create_config_search_path(str(conf_dir()))
    if folder is not None:
        path.prepend("config-dir", folder)
    return ConfigLoaderImpl(config_search_path=path)


def _master(loader: ConfigLoader, words: Sequence[str]) -> DictConfig:
    try:
        return _loaded(loader, words)
    except ConfigCompositionException:
        # As in `launcher.start`: a key that the option chosen by default does not have.
        if as_sweeps(words) == list(words):
            raise
        return _loaded(loader, as_sweeps(words))


def _loaded(loader: ConfigLoader, words: Sequence[str]) -> DictConfig:
    return loader.load_configuration("config", [*words, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
