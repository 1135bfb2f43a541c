"""The cells of a preset by their names, where a page tells of them: a report knows their keys only."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import yaml

from ablate.config.groups import conf_dir
from ablate.config.settings import shown
from ablate.report.cells import Cell, Replicate, Study
from ablate.trials.factors import level


def cells(preset: str) -> Mapping[str, Mapping[str, Any]]:
    """A preset's cells, by name their keys and values."""
    text = (conf_dir() / "experiment" / f"{preset}.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["cells"]
    return found


def name(preset: str, given: Callable[[str], str]) -> str:
    """The cell of a trial that was given these levels: of all whose values are its own, the one that says most."""
    fitting = {
        name: len(values)
        for name, values in cells(preset).items()
        if all(given(key) == shown(value) for key, value in values.items())
    }
    return max(fitting, key=fitting.__getitem__)


def by_cell(study: Study, preset: str) -> Study:
    """A study of a preset whose cells are one factor, `cell`, in place of the keys that they set."""
    keys = {key for values in cells(preset).values() for key in values}
    found = []
    for cell in study.cells:
        rest = {key: level for key, level in cell.levels.items() if key not in keys}
        given = partial(_level, cell.trials[0])
        found.append(Cell({"cell": name(preset, given), **rest}, cell.trials))
    factors = {key: list(dict.fromkeys(cell.levels[key] for cell in found)) for key in found[0].levels}
    return replace(study, factors=factors, cells=found)


def described(preset: str) -> str:
    """What each cell is: its name, and its keys and values."""
    return ", ".join(f"`{name}` is `{_keys(values)}`" for name, values in cells(preset).items())


def _level(trial: Replicate, key: str) -> str:
    return shown(level(trial, key))


def _keys(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={shown(value)}" for key, value in values.items())
