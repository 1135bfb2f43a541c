"""Factors, levels and cells: the same of trials about to be trained and of those read from their folders."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import trial
from rich.console import Console

from ablate.config.settings import Settings
from ablate.execution import sweep
from ablate.execution.prepare import prepare
from ablate.records.sweep_folder import SweepFolder
from ablate.records.tracking import parameters, run_name
from ablate.report import cells
from ablate.trials.factors import cell, factors, level
from ablate.trials.trial import Trial

BASE = ["model=mlp", "data.train_limit=80", "data.test_limit=40", "epochs=1", "tracking=none", "workers=1"]
# Trials of one sweep that do not all name the same keys, as those of a preset's list of cells.
UNEVEN = [["loss=mse", "lr=0.5"], ["loss=mse", "model.hidden=[20,10]"], ["optimizer=adam"], ["lr=0.1", "seed=1"]]
LEVELS = {
    "loss": ["mse", "mse", "ce", "ce"],
    "lr": ["0.5", "0.1", "0.1", "0.1"],
    "model.hidden": ["[30]", "[20,10]", "[30]", "[30]"],
    "optimizer": ["sgd", "sgd", "adam", "sgd"],
}


def trials(*each: Sequence[str]) -> list[Trial]:
    return [replace(trial(*overrides), number=number) for number, overrides in enumerate(each)]


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial], str]:
    """The folder of a sweep of such trials, the trials, and what was printed."""
    folder, made = tmp_path_factory.mktemp("uneven"), trials(*([*BASE, *words] for words in UNEVEN))
    console = Console(file=io.StringIO(), width=200)
    assert sweep.run(prepare(folder, made), console) == sweep.FINISHED
    assert isinstance(console.file, io.StringIO)
    return folder, made, console.file.getvalue()


def test_levels_are_told_of_every_trial_whoever_is_asked(uneven: tuple[Path, list[Trial], str]) -> None:
    folder, made, _ = uneven
    many: Sequence[Any]
    for many in (made, SweepFolder(folder).ended(), SweepFolder(folder).ended(made)):
        assert sorted(factors(many)) == sorted(LEVELS)
        for key, expected in LEVELS.items():
            assert [cell(one, [key])[key] for one in many] == expected, key
    assert [level(one, "lr") for one in made] == [0.5, 0.1, 0.1, 0.1]


def test_what_changes_the_verdict_only_makes_no_other_trial() -> None:
    keys = [key for key in Settings.model_fields if key.startswith("target_")]
    assert {trial(*BASE, f"{key}=0.5").digest for key in keys} == {trial(*BASE).digest}


def test_no_table_has_a_blank_level(uneven: tuple[Path, list[Trial], str]) -> None:
    folder, made, printed = uneven
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for key, expected in LEVELS.items():
        assert [row[key] for row in rows] == expected, key
    described = yaml.safe_load((folder / "sweep.yaml").read_text(encoding="utf-8"))
    assert sorted(described["factors"]) == sorted(LEVELS)
    study = cells.read([folder])
    assert {key: sorted(set(levels)) for key, levels in LEVELS.items()} == {
        key: sorted(levels) for key, levels in study.factors.items()
    }
    assert len(study.cells) == 4
    keys = factors(made)
    lines = [line.split() for line in printed.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert {line[0]: line[1 : 1 + len(keys)] for line in lines} == {
        str(number): [LEVELS[key][number] for key in keys] for number in range(4)
    }
    assert f"trial 2 ({' '.join(f'{key}={LEVELS[key][2]}' for key in keys)} seed=0): " in printed
    assert parameters(made[2], keys)["cell"] == " ".join(f"{key}={LEVELS[key][2]}" for key in keys)
    assert run_name(made[2], keys) == " ".join([*(LEVELS[key][2] for key in keys), "seed=0", "#2"])


def test_a_foreign_launchers_jobs_are_compared_by_what_they_ran_with(tmp_path: Path) -> None:
    """Each is a sweep of one in the same folder, and knows the others by what they wrote only."""
    for one in trials(*([*BASE, *words] for words in UNEVEN[:2])):
        assert sweep.run(prepare(tmp_path, [one]), Console(file=io.StringIO())) == sweep.FINISHED
    described = yaml.safe_load((tmp_path / "sweep.yaml").read_text(encoding="utf-8"))
    assert [entry["trial"] for entry in described["trials"]] == [0, 1]
    assert described["factors"] == ["lr", "model.hidden"]
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["lr"], row["model.hidden"]) for row in csv.DictReader(file)] == [
            ("0.5", "[30]"),
            ("0.1", "[20,10]"),
        ]


def test_a_trial_alone_has_no_factor_and_seed_is_none(tmp_path: Path) -> None:
    assert factors(trials(["lr=0.5"])) == []
    assert factors(trials(["lr=0.5", "seed=0"], ["lr=0.5", "seed=1"])) == []
    assert cell(trials(["lr=0.5"])[0], []) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss", "ce"),  # by its choice
        ("lr", 0.1),
        ("loss.from_logits", True),
        ("output_lr", None),
        ("model.hidden", "[20, 10]"),  # as it was given
        ("nowhere", "there"),
        ("nothing.at.all", None),
    ],
)
def test_level_of_each_kind_of_key(key: str, value: object) -> None:
    [one] = trials(["model=mlp", "lr=1e-1", "model.hidden=[20,10]"])
    given = Trial(
        0, one.settings, {**one.overrides, "model.hidden": "[20, 10]", "nowhere": "there"}, one.choices, one.config
    )
    assert level(given, key) == value
