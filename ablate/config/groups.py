"""The options of the configuration groups: declared classes, or YAML files in a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ablate.config.stops import STOPS
from ablate.config.trackers import TRACKERS
from ablate.problem import custom_loss  # noqa: F401  (declares loss=custom)
from ablate.problem.data.loading import DATA_SETS
from ablate.problem.initialisation import INITS
from ablate.problem.losses import LOSSES
from ablate.problem.optimizers import OPTIMIZERS
from ablate.problem.registry import Group
from ablate.problem.schedules import SCHEDULES

# Groups whose options are classes. A model is data: a YAML file that lists its layers.
DECLARED: Mapping[str, Group[Any]] = {
    group.kind: group for group in (LOSSES, OPTIMIZERS, SCHEDULES, DATA_SETS, INITS, STOPS, TRACKERS)
}
GROUPS = ("loss", "model", "optimizer", "schedule", "data", "init", "stop", "tracking")


# The keys that make an option what it is.
_THE_CHOICE = ("name", "layers")


def conf_dir() -> Path:
    """The folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def choices(group: str) -> list[str]:
    """The names of a group's options that ablate ships."""
    if group in DECLARED:
        return sorted(DECLARED[group].names())
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def option(group: str, name: str) -> dict[str, Any]:
    """An option with its default values, as the configuration holds it."""
    if group in DECLARED:
        return dict(DECLARED[group].get(name).defaults())
    loaded = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration, which an older version may have written, with the defaults of keys that came later."""
    filled = {key: value for key, value in defaults().items() if key != "cells"}
    filled |= {group: {"name": name} for group, name in _default_options().items() if group in DECLARED} | dict(config)
    for group, options in DECLARED.items():
        if filled[group].get("name") in options.names():
            filled[group] = {**option(group, filled[group]["name"]), **filled[group]}
    return filled


def _default_options() -> dict[str, str]:
    """By group, the option that the configuration has unless another is chosen."""
    listed = OmegaConf.to_container(primary())
    assert isinstance(listed, dict)
    pairs = (next(iter(entry.items())) for entry in listed["defaults"] if isinstance(entry, dict))
    return {str(group): str(name) for group, name in pairs}


def chosen(group: str, name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """An option as the resolved configuration holds it, with the values in `kept` of the keys that it has."""
    values = {key: value if key in _THE_CHOICE else kept.get(key, value) for key, value in option(group, name).items()}
    # The layers of a model refer to its other keys.
    resolved = OmegaConf.to_container(OmegaConf.create({group: values}), resolve=True)
    assert isinstance(resolved, dict)
    return dict(resolved[group])


def presets() -> Mapping[str, str]:
    """Every preset that ablate ships, `experiment=NAME`, with the sentence that describes it."""
    return {name: str(option("experiment", name).get("description") or "") for name in choices("experiment")}


def primary() -> Any:
    """The content of `conf/config.yaml`."""
    return OmegaConf.load(conf_dir() / "config.yaml")


def defaults() -> Mapping[str, Any]:
    """The plain keys of `conf/config.yaml` and their default values."""
    loaded = OmegaConf.to_container(primary())
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key not in ("defaults", "hydra")}
