"""What a report is made of: the cells of one sweep or several, their trials, and the trials' curves."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.errors import ConfigError
from ablate.records.scores import Task, rank, score, task_of
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import EndedTrial
from ablate.trials.factors import cell, factors
from ablate.trials.trial import NOT_THE_EXPERIMENT

CURVE_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A metric over a trial's training: x in epochs or steps, None in `y` where it was not finite."""

    x: Sequence[float]
    y: Sequence[float | None]


class Replicate(EndedTrial):
    """A trial that has ended, with its curves."""

    def epochs(self, metric: str) -> Curve:
        """A metric by epoch. The training loss of epoch 0 is that of the first batch, before the first update."""
        records = self.thinned('"test/loss"', CURVE_POINTS)
        if metric == "train/loss":
            start = [(0.0, first["step/loss"]) for first in self.thinned('"step/loss"', CURVE_POINTS)[:1]]
            points = [*start, *((record["epoch"], record.get(metric)) for record in records if record["epoch"])]
        else:
            points = [(record["epoch"], record.get(metric)) for record in records]
        return Curve([x for x, _ in points], [y for _, y in points])

    def steps(self, metric: str) -> Curve:
        """A metric by step. A trial whose loss was not finite any more ends with None."""
        records = self.thinned(f'"{metric}"', CURVE_POINTS)
        x, y = [record["step"] for record in records], [record[metric] for record in records]
        ended = self.row["test_loss"] is None or self.row["train_loss"] is None
        if ended and y and y[-1] is not None:
            x, y = [*x, x[-1]], [*y, None]
        return Curve(x, y)


@dataclass(frozen=True)
class Cell:
    """One combination of factor levels, and its trials, which differ in their seed only."""

    levels: Mapping[str, str]
    trials: Sequence[Replicate]

    @property
    def task(self) -> Task:
        """What is learned."""
        return task_of(self.trials[0].row)

    @property
    def scores(self) -> list[float]:
        """Test scores at the end, of the trials that have one."""
        return [found for trial in self.trials if (found := score(trial.row)) is not None]

    @property
    def test_loss(self) -> float | None:
        """Mean test loss at the end, None where it is no number for a trial: a mean of the others would flatter."""
        losses = [loss for trial in self.trials if (loss := trial.row["test_loss"]) is not None]
        return statistics.fmean(losses) if len(losses) == len(self.trials) else None

    @property
    def verdicts(self) -> Sequence[tuple[str, int]]:
        """How often each verdict was given, the most frequent first."""
        return Counter(trial.row["verdict"] for trial in self.trials).most_common()

    @property
    def typical(self) -> Replicate:
        """Of the trials with the most frequent verdict, the one in the middle by test score."""
        alike = [trial for trial in self.trials if trial.row["verdict"] == self.verdicts[0][0]]
        alike.sort(key=lambda trial: (rank(trial.row, score(trial.row)), -trial.row["trial"]), reverse=True)
        return alike[len(alike) // 2]

    @property
    def mean(self) -> float | None:
        """Mean test score; None where no trial has one."""
        return statistics.fmean(self.scores) if self.scores else None


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
    def called(self) -> str:
        """What the trials' score is called; of several tasks, each."""
        return " or ".join(dict.fromkeys(f"test {cell.task.called}" for cell in self.cells))

    @property
    def drops_units(self) -> bool:
        """Whether a network trained with dropout."""
        return any(_drops_units(trial.config.get("model", {}).get("layers", ())) for trial in self.trials)

    @property
    def best_first(self) -> list[Cell]:
        """The cells by mean test score, each task's by themselves; equal ones in the plan's order."""
        return sorted(self.cells, key=lambda cell: rank(cell.trials[0].row, cell.mean))


def read(sweeps: Sequence[Path]) -> Study:
    """Read sweeps from their folders. Raises ConfigError where one is not a sweep's, or no trial of it has ended.

    A sweep, or a trial, whose folder is given twice is there once.
    """
    folders = [SweepFolder(path) for path in {path.resolve(): path for path in sweeps}.values()]
    read = (trial for folder in folders for trial in _trials(folder))
    trials = list({trial.folder.path.resolve(): trial for trial in read}.values())
    keys = dict.fromkeys(key for trial in trials for key in trial.overrides)
    if len(folders) > 1:
        # What one command left at its default another may have set otherwise: such trials are no replicates.
        keys |= dict.fromkeys(key for trial in trials for key in trial.config)
    found = factors(trials, [key for key in keys if key not in _NO_FACTOR])
    replicates: dict[tuple[str, ...], list[Replicate]] = {}
    for trial in trials:
        replicates.setdefault(tuple(cell(trial, found).values()), []).append(trial)
    cells = [Cell(dict(zip(found, levels, strict=True)), members) for levels, members in replicates.items()]
    levels = {key: list(dict.fromkeys(one.levels[key] for one in cells)) for key in found}
    commands = dict.fromkeys(str(folder.read_description().get("command", "")) for folder in folders)
    return Study(_title(trials, found), [command for command in commands if command], levels, cells)


_NO_FACTOR = (*NOT_THE_EXPERIMENT, "experiment", "check")


def _trials(sweep: SweepFolder) -> list[Replicate]:
    sweep.check_begun()
    found = [Replicate(trial.row, trial.folder) for trial in sweep.ended()]
    if not found:
        raise ConfigError(f"{sweep.path}: no trial has ended there")
    return found


def _drops_units(layers: Iterable[Any]) -> bool:
    return any(isinstance(layer, Mapping) and layer.get("dropout") for layer in layers)


def _title(trials: Sequence[Replicate], factors: Sequence[str]) -> str:
    described = trials[0].config.get("description")
    if described:
        return str(described)
    return f"What {', '.join(factors)} did to training" if factors else "One configuration"
