"""Factors, levels and cells: which keys vary over trials, and which values each trial has.

One definition for everything that has overrides, choices and a resolved configuration: a trial about to be trained,
and one that is read from its folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ablate.config.settings import shown
from ablate.problem.activations import is_another_s
from ablate.trials.trial import ABSENT


class Described(Protocol):
    """A trial's configuration, as given and as resolved.

    `overrides` are the keys that were given; `choices` the options chosen in the configuration groups; `config` the
    whole resolved configuration, by sections. `levels` are the levels that are known without reading the configuration,
    which may be slow.
    """

    @property
    def overrides(self) -> Mapping[str, Any]: ...

    @property
    def choices(self) -> Mapping[str, str]: ...

    @property
    def levels(self) -> Mapping[str, Any]: ...

    @property
    def config(self) -> Mapping[str, Any]: ...


def level(one: Described, key: str) -> Any:
    """A trial's level of a key, whether the key was given or not.

    A group's level is its choice, any other key's the value in the resolved configuration. A list or a section is given
    as it was written in the overrides, else by its `name`, else as the user would write it. None if the configuration
    does not have the key and it was not given; `ABSENT` if its activation does not depend on it.
    """
    for known in (one.choices, one.levels):
        if key in known:
            return known[key]
    value: Any = one.config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return one.overrides.get(key)
        value = value[part]
    if is_another_s(key, one.config):
        return ABSENT
    if value is None or isinstance(value, int | float | str | bool):
        return value
    if key in one.overrides:
        return one.overrides[key]
    if isinstance(value, Mapping):
        return value.get("name", str(value))
    return f"[{','.join(map(shown, value))}]"


def factors(many: Sequence[Described], keys: Iterable[str] | None = None) -> list[str]:
    """Those of some keys (default: the overrides of all trials, in order) whose level varies; never `seed`."""
    asked = dict.fromkeys(key for one in many for key in one.overrides) if keys is None else keys
    return [key for key in asked if key != "seed" and len({shown(level(one, key)) for one in many}) > 1]


def cell(one: Described, keys: Iterable[str]) -> dict[str, str]:
    """A trial's levels of these keys, as the user would write them.

    With the factors as keys, this is the cell to which it belongs: its replicates differ in `seed` only.
    """
    return {key: shown(level(one, key)) for key in keys}


def written(levels: Mapping[str, str]) -> str:
    """A cell as the user would write it: `loss=ce lr=0.1`."""
    return " ".join(f"{key}={value}" for key, value in levels.items())
