"""Cells: named combinations of keys, `cells: {NAME: {key: value}}`, crossed with the other factors of a sweep.

They are edited in Hydra's own syntax: `~cells.NAME` drops one, `'+cells.NAME={loss: bce, lr: 1}'` adds one. A job gets
the keys of its own cell as overrides, and `cells='key key'` lists the keys that only some jobs set or have: the trial
reports its value of each.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ablate.config.groups import GROUPS
from ablate.config.help import keys as known_keys
from ablate.config.parse import unknown_key
from ablate.config.settings import shown
from ablate.errors import ConfigError
from ablate.problem.activations import is_another_s
from ablate.trials.trial import ABSENT

KEY = "cells"
_EXAMPLE = "{loss: mse, lr: 0.1}"
# The arguments of a user's own loss: no YAML of ours has them, so they are added.
_ARGUMENTS = "loss.args."


@dataclass(frozen=True)
class Cell:
    """Some keys with one value each. It has several names if explicit keys made several cells the same."""

    names: tuple[str, ...]
    values: Mapping[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The keys and values as Hydra overrides."""
        plus = {key: "++" if key.startswith(_ARGUMENTS) else "" for key in self.values}
        return [f"{plus[key]}{key}={written(value)}" for key, value in self.values.items()]

    def is_named_in(self, said: str) -> bool:
        """Whether a message mentions one of its keys with its value."""
        pairs = (re.escape(f"{key}={shown(value)}") for key, value in self.values.items())
        return any(re.search(rf"(?<![\w.]){pair}(?![\w.])", said) for pair in pairs)

    @property
    def advice(self) -> str:
        """What to do if its keys conflict with others."""
        named = " and ".join(f"{KEY}.{name}" for name in self.names)
        values = " ".join(f"{key}={shown(value)}" for key, value in self.values.items())
        dropped = " ".join(f"~{KEY}.{name}" for name in self.names)
        verb, it = ("sets", "it") if len(self.names) == 1 else ("set", "them")
        given = " or ".join(self.values)
        return f"{named} {verb} {values}: correct {it} there, give {given} too, or drop {it} with {dropped}"


def read(master: DictConfig) -> list[Cell]:
    """The cells of a composed configuration; none if `cells` is null.

    Raises ConfigError if one is not a mapping of known keys to one value each.
    """
    whole: Any = OmegaConf.to_container(OmegaConf.masked_copy(master, KEY), resolve=False)
    node = whole.get(KEY)
    if node is None:
        return []
    if not isinstance(node, Mapping) or not node:
        told = "no cell is left" if node == {} else "expected a mapping of names to keys"
        raise ConfigError(f"{KEY}={shown(node)}: {told}; write {KEY}: {{mine: {_EXAMPLE}}}, or null for none")
    known = {key: allowed for key, allowed, _ in known_keys() if key != KEY}
    return [_cell(name, values, known) for name, values in node.items()]


def check_preset(loader: ConfigLoader, master: DictConfig) -> None:
    """Refuse a preset that leaves its cells to the command line (`cells: ???`), where none are given.

    Hydra composes such a preset as one without cells.
    """
    preset = master.hydra.runtime.choices.get("experiment")
    if preset in (None, "null") or master.get(KEY) is not None:
        return
    assert isinstance(loader, ConfigLoaderImpl)
    found = loader.repository.load_config(f"experiment/{preset}")
    if found is not None and OmegaConf.is_missing(found.config, KEY):
        raise ConfigError(
            f"{KEY}=???: experiment={preset} leaves its cells open; add one, '+{KEY}.NAME={_EXAMPLE}', or {KEY}=null"
        )


def _cell(name: Any, values: Any, known: Mapping[str, str]) -> Cell:
    where = f"{KEY}.{name}"
    if not re.fullmatch(r"[A-Za-z_][\w-]*", str(name), re.ASCII):
        raise ConfigError(f"{where}: expected a name of letters, digits, _ and -, a letter first")
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{where}={shown(values)}: expected a mapping of keys to values, such as {_EXAMPLE} ({{}}: none)"
        )
    pairs = list(_flat(values))
    keys = [key for key, _ in pairs]
    for key, value in pairs:
        if keys.count(key) > 1:
            raise ConfigError(f"{where}: {key} is given twice; give it once")
        _check(where, key, value, known)
    return Cell((str(name),), dict(pairs))


def _flat(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _check(where: str, key: str, value: Any, known: Mapping[str, str]) -> None:
    """Refuse a key that does not exist, and a value that is a mapping or a sweep; ranges are checked with the trial."""
    group, _, rest = key.partition(".")
    pair = f"{key}={shown(value)}"
    if group in GROUPS and rest == "name":
        raise ConfigError(f"{where}: {pair}: an option is chosen by its group; write {group}: {shown(value)}")
    if key not in known and not key.startswith(_ARGUMENTS):
        raise ConfigError(f"{where}: {unknown_key(key, pair)}")
    if isinstance(value, Mapping):
        raise ConfigError(f"{where}: {pair}: expected a value")
    if key in known and _is_several(key, value, known[key].split("|")):
        raise ConfigError(
            f"{where}: {pair}: a cell has one value for each key; write a cell for each value, or sweep {key} beside "
            f"the cells"
        )


def _is_several(key: str, value: Any, allowed: Sequence[str]) -> bool:
    """Whether a value is meant as several, for a key that takes neither a list nor arbitrary text."""
    if isinstance(value, list):
        return "list" not in allowed
    if not isinstance(value, str) or "text" in allowed:
        return False
    try:
        return OverridesParser.create().parse_override(f"{key}={value}").is_sweep_override()
    except OverrideParseException:
        return False


def written(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{written(key)}:{written(inner)}' for key, inner in value.items())}}}"
    is_word = re.fullmatch(r"[A-Za-z_][\w-]*", str(value), re.ASCII)
    if isinstance(value, str) and (not is_word or value.lower() in ("null", "true", "false", "nan", "inf")):
        return str(QuotedString(value, Quote.single).with_quotes())
    return shown(value)


def is_about(override: Override) -> bool:
    """Whether an override of the command line is about the cells themselves."""
    return override.key_or_group.partition(".")[0] == KEY


def crossed(master: DictConfig, params: Sequence[Override], given: Sequence[Override]) -> list[Cell]:
    """The cells of a sweep, in order: those of the preset, without the keys that the user gave explicitly.

    `params` are the preset's own sweep, `given` the overrides of the command line. Raises ConfigError if the cells are
    malformed, or share a key with the preset's sweep.
    """
    for override in (*params, *given):
        if is_about(override) and override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: cells are not swept over; each is crossed with the other keys "
                f"(~{KEY}.NAME drops one, '+{KEY}.NAME={_EXAMPLE}' adds one)"
            )
    cells = read(master)
    for key in _explicit(params):
        having = [cell.names[0] for cell in cells if key in cell.values]
        if having:
            raise ConfigError(f"{key}: it stands in hydra.sweeper.params and in {KEY}.{having[0]}; keep it in one")
    return _beside(cells, _explicit(given), master)


def _explicit(overrides: Sequence[Override]) -> set[str]:
    """The dotted keys that overrides set; those of a mapping one by one."""
    found: set[str] = set()
    for override in overrides:
        value, key = override.value(), override.key_or_group
        found |= {inner for inner, _ in _flat({key: value})} if isinstance(value, dict) else {key}
    return found


def _beside(cells: list[Cell], explicit: set[str], master: DictConfig) -> list[Cell]:
    """The cells without explicit keys; cells that become the same are merged."""
    left = [
        Cell(cell.names, {key: value for key, value in cell.values.items() if not _is_given(key, cell, explicit)})
        for cell in cells
    ]
    same: dict[frozenset[tuple[str, str]], list[Cell]] = {}
    for cell in left:
        same.setdefault(_changes(cell, master), []).append(cell)
    twice = next((alike for alike in same.values() if len(alike) > 1), None)
    if left == cells and twice:
        first, second = (f"{KEY}.{cell.names[0]}" for cell in twice[:2])
        raise ConfigError(f"{second}: it is the same as {first}; drop it with ~{second}")
    return [Cell(tuple(name for one in alike for name in one.names), alike[0].values) for alike in same.values()]


def _is_given(key: str, cell: Cell, explicit: set[str]) -> bool:
    """Whether an explicit key replaces a key of a cell: it is the same key, or one above it.

    A key below an option that the cell itself chooses belongs to that option, and is removed with it; a key below an
    option that the cell leaves open stays.
    """
    return any(
        key == one or (key.startswith(f"{one}.") and (one not in GROUPS or one in cell.values)) for one in explicit
    )


def _changes(cell: Cell, master: DictConfig) -> frozenset[tuple[str, str]]:
    """What a cell changes in the configuration without it."""
    base = dict(master.hydra.runtime.choices)
    chosen = {key for key, value in cell.values.items() if key in GROUPS and base.get(key) != value}
    changes = set()
    for key, value in cell.values.items():
        if key in GROUPS:
            is_changed = key in chosen
        else:
            # The values below another option say nothing about this one.
            is_changed = key.partition(".")[0] in chosen or _select(master, key) != value
        if is_changed:
            changes.add((key, written(value)))
    return frozenset(changes)


def _select(plain: DictConfig, key: str) -> Any:
    """The value of a key, `ABSENT` if there is no such key."""
    value = OmegaConf.select(plain, key, default=ABSENT, throw_on_resolution_failure=False)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def note(cells: Sequence[Cell], others: Sequence[Override]) -> str:
    """The override that tells a job the keys of all cells and of other overrides, which some jobs may not have.

    Without any it removes the cells of its preset.
    """
    keys = dict.fromkeys(key for cell in cells for key in cell.values)
    keys |= dict.fromkeys(one.key_or_group for one in others if not one.is_delete() and not one.is_hydra_override())
    return f"{KEY}={written(' '.join(keys)) if keys else 'null'}"


def reported(plain: DictConfig, mode: RunMode, choices: Mapping[str, str]) -> Mapping[str, str]:
    """The keys that only some jobs of a sweep set or have, with this job's values as written on the command line.

    Raises ConfigError if cells were not crossed: there is no sweep, or another sweeper runs it.
    """
    node = plain.get(KEY)
    if node is None:
        return {}
    named = f"{KEY}: {', '.join(map(str, node))}" if isinstance(node, DictConfig) else f"{KEY}={node}"
    if mode == RunMode.RUN:
        raise ConfigError(f"{named}: they make a sweep, which needs -m ({KEY}=null leaves them out)")
    if not isinstance(node, str):
        raise ConfigError(
            f"{named}: only hydra/sweeper=ablate crosses them, for one preset a command ({KEY}=null leaves them out)"
        )
    return {key: choices[key] if key in choices else _level(plain, key) for key in node.split()}


def _level(plain: DictConfig, key: str) -> str:
    value = _select(plain, key)
    return ABSENT if value == ABSENT or is_another_s(key, plain) else written(value)
