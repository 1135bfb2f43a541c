"""What a report is made of: the cells of one sweep or several, their trials, and the trials' curves."""

import itertools
import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ablate.config.settings import shown
from ablate.errors import ConfigError
from ablate.records import folder as records
from ablate.records import results

CURVE_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A metric over a trial's training: x in epochs or steps, None in `y` where it was not finite."""

    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Replicate:
    """One trial that has ended: its row as in `results.csv`, and its folder."""

    row: Mapping[str, Any]
    folder: Path

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The trial's resolved configuration; empty where it is not known."""
        path = self.folder / ".hydra" / "config.yaml"
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
        return loaded if isinstance(loaded, dict) else {}

    def level(self, key: str) -> str:
        """The trial's level of a factor, as on the command line; from its configuration where it was not given."""
        if key in self.row["overrides"]:
            return shown(self.row["overrides"][key])
        if key in self.row.get("choices", {}):
            return shown(self.row["choices"][key])
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return shown(value["name"]) if isinstance(value, Mapping) and "name" in value else shown(value)

    def epochs(self, metric: str) -> Curve:
        """A metric by epoch. The training loss of epoch 0 is that of the first batch, before the first update."""
        lines = self._lines(b'"test/loss"')
        if metric == "train/loss":
            start = [(0.0, first["step/loss"]) for first in self._lines(b'"step/loss"')[:1]]
            points = [*start, *((line["epoch"], line.get(metric)) for line in lines if line["epoch"])]
        else:
            points = [(line["epoch"], line.get(metric)) for line in lines]
        return Curve([x for x, _ in points], [y for _, y in points])

    def steps(self, metric: str) -> Curve:
        """A metric by step. A trial whose loss was not finite any more ends with None."""
        lines = self._lines(f'"{metric}"'.encode())
        x, y = [line["step"] for line in lines], [line[metric] for line in lines]
        ended = self.row["test_loss"] is None or self.row["train_loss"] is None
        if ended and y and y[-1] is not None:
            x, y = [*x, x[-1]], [*y, None]
        return Curve(x, y)

    def _lines(self, holding: bytes) -> list[dict[str, Any]]:
        """The records that hold a metric, thinned out to `CURVE_POINTS` before they are parsed."""
        found = [line for line in self._raw if holding in line]
        if len(found) > CURVE_POINTS:
            # Dense at the start, where curves change most: a power of an even spacing, the last always among them.
            places = {round((len(found) - 1) * (i / CURVE_POINTS) ** 2) for i in range(CURVE_POINTS + 1)}
            found = [found[place] for place in sorted(places)]
        return [json.loads(line) for line in found]

    @cached_property
    def _raw(self) -> list[bytes]:
        path = self.folder / records.METRICS
        if not path.is_file():
            return []
        data = path.read_bytes()
        return data[: data.rfind(b"\n") + 1].splitlines()


@dataclass(frozen=True)
class Cell:
    """One combination of factor levels, and its trials, which differ in their seed only."""

    levels: Mapping[str, str]
    trials: Sequence[Replicate]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies at the end, of the trials that have one."""
        return [trial.row["test_accuracy"] for trial in self.trials if trial.row["test_accuracy"] is not None]

    @property
    def verdicts(self) -> Sequence[tuple[str, int]]:
        """How often each verdict was given, the most frequent first."""
        return Counter(trial.row["verdict"] for trial in self.trials).most_common()

    @property
    def typical(self) -> Replicate:
        """Of the trials with the most frequent verdict, the one in the middle by test accuracy."""
        alike = [trial for trial in self.trials if trial.row["verdict"] == self.verdicts[0][0]]
        alike.sort(key=lambda trial: (trial.row["test_accuracy"] or 0.0, trial.row["trial"]))
        return alike[len(alike) // 2]

    @property
    def mean(self) -> float:
        """Mean test accuracy, 0 where no trial has one."""
        return statistics.fmean(self.accuracies) if self.accuracies else 0.0


@dataclass(frozen=True)
class Study:
    """One sweep or several, read from their folders: factors with their levels, and the cells in the plan's order."""

    title: str
    commands: Sequence[str]
    factors: Mapping[str, Sequence[str]]
    cells: Sequence[Cell]

    @property
    def trials(self) -> list[Replicate]:
        return [trial for cell in self.cells for trial in cell.trials]

    @property
    def best_first(self) -> list[Cell]:
        """The cells by mean test accuracy; equal ones in the plan's order."""
        return sorted(self.cells, key=lambda cell: -cell.mean)


def read(sweeps: Sequence[Path]) -> Study:
    """Read sweeps from their folders. Raises ConfigError where one is not a sweep's, or no trial of it has ended."""
    trials = list(itertools.chain.from_iterable(_trials(sweep) for sweep in sweeps))
    given = dict.fromkeys(key for trial in trials for key in trial.row["overrides"] if key not in _NO_FACTOR)
    if len(sweeps) > 1:
        # What one command left at its default another may have set otherwise: such trials are no replicates.
        given |= dict.fromkeys(key for trial in trials for key in trial.settings if key not in _NO_FACTOR)
    factors = {key: list(dict.fromkeys(trial.level(key) for trial in trials)) for key in given}
    factors = {key: levels for key, levels in factors.items() if len(levels) > 1}
    together: dict[tuple[str, ...], list[Replicate]] = {}
    for trial in trials:
        together.setdefault(tuple(trial.level(key) for key in factors), []).append(trial)
    found = [Cell(dict(zip(factors, levels, strict=True)), members) for levels, members in together.items()]
    commands = dict.fromkeys(_command(sweep) for sweep in sweeps)
    return Study(_title(trials, list(factors)), [command for command in commands if command], factors, found)


_NO_FACTOR = ("seed", "experiment", "workers", "log_every", "description", "dry_run", "tracking", "check")


def _trials(sweep: Path) -> list[Replicate]:
    if not (sweep / "results.csv").is_file():
        raise ConfigError(f"{sweep}: no results.csv there; expected the folder of a sweep, such as runs/<sweep>")
    found = [Replicate(row, sweep / str(row["trial"])) for row in results.rows(sweep)]
    if not found:
        raise ConfigError(f"{sweep}: no trial has ended there")
    return found


def _command(sweep: Path) -> str:
    path = sweep / "sweep.yaml"
    described = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return str(described.get("command", "")) if isinstance(described, dict) else ""


def _title(trials: Sequence[Replicate], factors: Sequence[str]) -> str:
    described = trials[0].settings.get("description")
    if described:
        return str(described)
    return f"What {', '.join(factors)} did to training" if factors else "One configuration"
