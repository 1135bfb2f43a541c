"""What holds a training back that would go well without: keys that are not at their defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablate.config.groups import option
from ablate.problem.models import Model
from ablate.problem.schedules import SCHEDULES

# Keys that limit, distort or order the steps of a training that would go well without, by group (empty: all its keys).
HOLD_BACK: Mapping[str, Sequence[str]] = {
    "optimizer": (),
    "loss": (),
    "model": ("logits", "dropout", "preactivation_divisor"),
}
# These say which option it is.
_WHICH = ("name", "target", "args")


def held_back(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What brings each key that holds training back, and is not at its default in a resolved configuration, there."""
    found: list[dict[str, Any]] = []
    for group, keys in HOLD_BACK.items():
        section = config[group]
        usual = {key: value for key, value in _usual(group, section).items() if key in (keys or section)}
        found += [{f"{group}.{key}": value} for key, value in usual.items() if section.get(key, value) != value]
    level = SCHEDULES.get("constant").defaults()
    if any(config["schedule"].get(key) != value for key, value in level.items()):
        found.append({"schedule": level.pop("name"), **{f"schedule.{key}": value for key, value in level.items()}})
    return found if config["shuffle"] else [*found, {"shuffle": True}]


def _usual(group: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the keys of a group's chosen option, but those that say which it is."""
    if group == "model":
        return {key: field.default for key, field in Model.model_fields.items()}
    return {key: value for key, value in option(group, section["name"]).items() if key not in _WHICH}
