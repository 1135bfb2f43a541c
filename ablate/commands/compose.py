"""From overrides to trials, without the command line: `ablate.compose`."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from ablate.commands import launcher
from ablate.commands.composer import Composer, grid
from ablate.config.groups import conf_dir
from ablate.errors import ConfigError
from ablate.trials.trial import Trial


def compose(*overrides: str, config_dir: str | Path | None = None) -> list[Trial]:
    """The trials that these overrides mean on the command line: a key with several values is swept over.

    `config_dir` is a folder of one's own models and presets, as `--config-dir`. Raises ConfigError, one line, where an
    override or a value is wrong.
    """
    try:
        return _compose(overrides, None if config_dir is None else str(Path(config_dir).absolute()))
    except Exception as error:
        if isinstance(error, ConfigError) or not launcher.is_mistake(error):
            raise
        raise ConfigError(launcher.said(error, overrides)) from None


def _compose(overrides: Sequence[str], folder: str | None) -> list[Trial]:
    loader = _loader(folder)
    words = list(overrides)
    # What presets say of the sweep itself is in the whole configuration only, which takes time to compose.
    is_plain = not any(word.lstrip("+~").startswith(("experiment", "hydra")) for word in words)
    master = _plain(folder) if is_plain else _master(loader, words)
    swept = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    composer = _composer(folder) if is_plain else Composer(loader, master)
    parser = OverridesParser.create(config_loader=loader)
    jobs = grid(parser.parse_overrides([*swept, *words]))
    composed = [composer.compose(job, number) for number, job in enumerate(jobs)]
    return [launcher.trial(launcher.without_hydra(one), one.hydra) for one in composed]


@cache
def _loader(folder: str | None) -> ConfigLoader:
    launcher.declare()
    path = create_config_search_path(str(conf_dir()))
    if folder is not None:
        path.prepend("config-dir", folder)
    return ConfigLoaderImpl(config_search_path=path)


def _master(loader: ConfigLoader, words: Sequence[str]) -> DictConfig:
    return loader.load_configuration("config", list(words), RunMode.MULTIRUN)


@cache
def _plain(folder: str | None) -> DictConfig:
    return _master(_loader(folder), [])


@cache
def _composer(folder: str | None) -> Composer:
    return Composer(_loader(folder), _plain(folder))
