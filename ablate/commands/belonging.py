"""Keys of one option in a sweep over several: `loss=ce,focal loss.gamma=1,2` gives `gamma` to `focal` alone.

The number that an activation depends on, such as `model.slope`, belongs to it in the same way.
"""

from collections.abc import Iterator, Mapping, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig

from ablate.commands.cells import Cell
from ablate.config.groups import DECLARED, GROUPS, option
from ablate.problem.activations import ACTIVATIONS, having

Pair = tuple[Cell, Sequence[str]]


class Belonging:
    """Which of a sweep's keys belong to some of its options only.

    `pairs` are the jobs of the sweep, each as its cell and its other overrides; `overrides` are those of the whole
    command. `partial` has, by key, what chooses an option (a group, or `model.activation`) and the options that have
    the key: those keys that at least one of the options that the sweep chooses has, and at least one has not.
    """

    def __init__(
        self, loader: ConfigLoader, master: DictConfig, overrides: Sequence[Override], pairs: Sequence[Pair]
    ) -> None:
        self.loader, self.master = loader, master
        self.partial: dict[str, dict[str, set[str]]] = {}
        for key in dict.fromkeys(key for key in map(_key, overrides) if _group(key)):
            if found := dict(self._partial(key, pairs)):
                self.partial[key] = found

    def jobs(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The jobs, each without the keys that its options do not have; those that become the same are there once."""
        if not self.partial:
            return list(pairs)
        seen = set()
        fitting: list[Pair] = []
        for cell, others in pairs:
            kept = [other for other in others if self._applies(_key_of(other), cell, others)]
            job = (cell.names, *kept)
            if len(kept) == len(others) or job not in seen:
                fitting.append((cell, kept))
            seen.add(job)
        return fitting

    def _partial(self, key: str, pairs: Sequence[Pair]) -> Iterator[tuple[str, set[str]]]:
        for chooser in _choosers(key):
            chosen = {self._chosen(chooser, *pair) for pair in pairs}
            with_key = {name for name in chosen if self._has(chooser, name, key)} if len(chosen) > 1 else chosen
            if with_key and with_key != chosen:
                yield chooser, with_key

    def _applies(self, key: str, cell: Cell, others: Sequence[str]) -> bool:
        found = self.partial.get(key, {})
        return all(self._chosen(chooser, cell, others) in names for chooser, names in found.items())

    def _chosen(self, chooser: str, cell: Cell, others: Sequence[str]) -> str:
        """The option that a job chooses."""
        given = [other.partition("=")[2].strip("'\"") for other in others if _key_of(other) == chooser]
        otherwise = cell.values.get(chooser, self.master.hydra.runtime.choices.get(chooser))
        return given[-1] if given else str(otherwise)

    def _has(self, chooser: str, name: str, key: str) -> bool:
        last = key.split(".")[1]
        return name in having(last) if chooser == ACTIVATIONS.kind else last in self._keys(chooser, name)

    def _keys(self, group: str, name: str) -> Mapping[str, object]:
        """An option's keys. One that is a YAML file may have taken some from another."""
        if group in DECLARED and name in DECLARED[group].names():
            return option(group, name)
        composed: Mapping[str, object] = self.loader.load_sweep_config(self.master, [f"{group}={name}"])[group]
        return composed


def _key(override: Override) -> str:
    return "" if override.type == OverrideType.DEL else override.key_or_group


def _key_of(written: str) -> str:
    return written.partition("=")[0].lstrip("+")


def _choosers(key: str) -> list[str]:
    """What chooses whether there is such a key: its group, and the activation if it depends on the number."""
    group, _, last = key.partition(".")
    is_constant = ACTIVATIONS.kind.startswith(f"{group}.") and bool(having(last))
    return [group, ACTIVATIONS.kind] if is_constant else [group]


def _group(key: str) -> str:
    """The group that a key is below, if any."""
    group, _, rest = key.partition(".")
    return group if rest and group in GROUPS else ""


def as_sweeps(words: Sequence[str]) -> list[str]:
    """A command's words, with a single value of a key below a group as a sweep over one value.

    Hydra applies single values to the defaults, too, where the option that has the key may not be chosen, but leaves
    sweeps to the jobs.
    """
    parser = OverridesParser.create()
    return [_as_sweep(word) if _is_below_group(word, parser) else word for word in words]


def is_not_a_sweep(error: HydraException) -> bool:
    """Whether Hydra refuses several values because the command is not a sweep."""
    return str(error).startswith(("Ambiguous value", "Sweep parameters"))


def _as_sweep(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}=choice({value})"


def _is_below_group(word: str, parser: OverridesParser) -> bool:
    try:
        override = parser.parse_override(word)
    except HydraException:  # a flag of the command, or a mistake that Hydra reports
        return False
    return bool(_group(_key(override))) and "=" in word and not override.is_sweep_override()
