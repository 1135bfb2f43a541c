"""The jobs of a sweep: all combinations of the values that overrides sweep over, crossed with a preset's cells.

A key that only some of the options swept over have applies to those, and varies nothing for the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from ablate.commands import cells
from ablate.commands.belonging import Belonging
from ablate.commands.cells import Cell
from ablate.errors import ConfigError

# Hydra's first scan for plugins executes their modules again: a class imported earlier would be another object.
Plugins.instance()
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

__all__ = ["BasicSweeper", "Grid", "grid"]

# More is a mistake in the command, and would take hours to compose before anything is trained.
MAX_TRIALS = 10_000


@dataclass(frozen=True)
class Grid:
    """Every job as its cell, which varies slowest, and its other overrides; and the note on cells for every job."""

    planned: Sequence[tuple[Cell, Sequence[str]]]
    noted: Sequence[str]

    @property
    def jobs(self) -> list[list[str]]:
        """The overrides of every job."""
        return [[*cell.overrides, *self.noted, *others] for cell, others in self.planned]

    def cell(self, number: int) -> Cell:
        """The cell that a job belongs to."""
        return self.planned[number][0]

    def without_cell(self, number: int) -> list[str]:
        """A job's overrides without those of its cell."""
        return [*self.noted, *self.planned[number][1]]


def grid(loader: ConfigLoader, master: DictConfig, params: Sequence[Override], given: Sequence[Override]) -> Grid:
    """The jobs of a sweep; `params` are those that the preset sweeps over, `given` the overrides of the command.

    Raises ConfigError if the cells are malformed, or if there are no jobs or too many.
    """
    found = cells.crossed(master, params, given)
    if not any(cells.is_about(override) for override in given):
        cells.check_preset(loader, master)
    overrides = [override for override in (*params, *given) if not cells.is_about(override)]
    _check_count(found, overrides)
    [combinations] = BasicSweeper.split_arguments(overrides, None)
    pairs = [(cell, others) for cell in found or [Cell((), {})] for others in combinations]
    belonging = Belonging(loader, master, overrides, pairs)
    # A sweep without cells may still have a preset with cells, if the user removed them.
    is_noted = found or belonging.partial or len(overrides) < len(params) + len(given)
    noted = [cells.note(found, overrides if belonging.partial else [])] if is_noted else []
    return Grid(belonging.jobs(pairs), noted)


def _check_count(found: Sequence[Cell], overrides: Sequence[Override]) -> None:
    # A key that the user gives replaces the preset's.
    last = {override.get_key_element(): override for override in overrides}.values()
    count = max(1, len(found)) * math.prod(_levels(override) for override in last)
    if not 0 < count <= MAX_TRIALS:
        swept = [str(override.input_line) for override in last if _levels(override) != 1]
        swept += [f"{len(found)} cells"] if found else []
        raise ConfigError(f"{' '.join(swept)}: {count} trials; a sweep has 1 to {MAX_TRIALS}")


def _levels(override: Override) -> int:
    """How many values an override sweeps over, without creating them."""
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        return max(0, math.ceil((value.stop - value.start) / value.step)) if value.step else 0
    return len(value.list) if isinstance(value, ChoiceSweep) else 1
