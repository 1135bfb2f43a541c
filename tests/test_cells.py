"""Cells, named combinations of keys: crossed with a sweep's other keys, changed on the command line, reported."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Done, run_as_process, run_in_process

import ablate as ablate_package
from ablate.trials.factors import cell, factors
from ablate.trials.factors import written as levels

TINY = ["model=softmax_regression", "data.train_limit=64", "data.test_limit=20", "epochs=1", "tracking=none"]
PRESET = """\
# @package _global_
defaults:
  - override /model: softmax_regression

description: Which step?
loss: {reduction: sum}
epochs: 1
data: {train_limit: 64, test_limit: 20}

cells:
  plain: {lr: 0.2}
  adam: {optimizer: adam, optimizer.beta2: 0.99, lr: 0.001}
  spare: {lr: 7}
  own: {loss: mse, model: {output: sigmoid}}

hydra:
  mode: MULTIRUN
  sweeper: {params: {seed: "0,1"}}
"""


@pytest.fixture
def mine(tmp_path: Path, ablate: Callable[..., Done]) -> Callable[..., Done]:
    """Runs a preset of the user's own; its text may be another."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)

    def run(*arguments: str, text: str = PRESET) -> Done:
        (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
        return ablate("--config-dir=own", "experiment=mine", *arguments)

    return run


def planned(done: Done) -> list[str]:
    """The trials of a plan, in order, each by its factors, without the seed."""
    assert done.code == 0, done.err
    trials = [line.strip() for line in done.out.splitlines() if line.startswith("  trial ")]
    trials.sort(key=lambda line: int(line.split()[1].rstrip(":")))
    return [line.partition(": ")[2].rpartition("seed=")[0].strip() for line in trials]


def refused(done: Done, folder: Path) -> str:
    """What was said of a command that created nothing."""
    assert (done.code, done.out) == (2, ""), done
    [line] = done.err.splitlines()
    assert not {path.name for path in folder.iterdir()} & {"runs", "mlflow.db", "outputs", "multirun"}
    return line.removeprefix("ablate: ")


# A sweep of them


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("cells")
    (folder / "own" / "experiment").mkdir(parents=True)
    (folder / "own" / "experiment" / "mine.yaml").write_text(PRESET)
    done = run_in_process(folder, *WITHOUT_SPARE, "shuffle=true,false", "tracking=none")
    assert (done.code, done.err) == (0, "")
    [sweep] = (folder / "runs").iterdir()
    return sweep, done


WITHOUT_SPARE = ["--config-dir=own", "experiment=mine", "~cells.spare"]
# Factor by factor in the order of the columns, for each cell.
FACTORS = ["lr", "optimizer", "optimizer.beta2", "loss", "model.output"]
LEVELS = [
    ["0.2", "sgd", "n/a", "ce", "auto"],
    ["0.001", "adam", "0.99", "ce", "auto"],
    ["0.1", "sgd", "n/a", "mse", "sigmoid"],
]


def test_cells_vary_slowest_and_are_reported_by_their_keys(swept: tuple[Path, Done]) -> None:
    with (swept[0] / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[4:11] == [*FACTORS, "shuffle", "seed"]
    found = [([row[key] for key in FACTORS], row["seed"], row["shuffle"]) for row in rows]
    assert found == [(cell, seed, value) for cell in LEVELS for seed in "01" for value in ("True", "False")]


def test_a_trial_is_that_of_its_keys_given_one_by_one(swept: tuple[Path, Done], tmp_path: Path) -> None:
    keys = ["loss=mse", "model.output=sigmoid", "loss.reduction=sum", "shuffle=false", "seed=1"]
    assert run_in_process(tmp_path, *TINY, *keys, "description=Which step?").code == 0
    [alone] = (tmp_path / "runs").iterdir()
    digests = [
        {trial["trial"]: trial["config"] for trial in yaml.safe_load((sweep / "sweep.yaml").read_text())["trials"]}
        for sweep in (swept[0], alone)
    ]
    assert digests[0][11] == digests[1][0]
    assert (swept[0] / "11" / "metrics.jsonl").read_text() == (alone / "0" / "metrics.jsonl").read_text()


def test_no_trial_knows_of_cells(swept: tuple[Path, Done]) -> None:
    for number in range(12):
        hydra = swept[0] / str(number) / ".hydra"
        assert "cells" not in yaml.safe_load((hydra / "config.yaml").read_text(encoding="utf-8"))
        assert "cells" not in (hydra / "overrides.yaml").read_text(encoding="utf-8")
        assert "n/a" not in (hydra / "overrides.yaml").read_text(encoding="utf-8")
        assert "cells" not in json.loads((swept[0] / str(number) / "result.json").read_text())["overrides"]


def test_report_table_and_frame_show_the_keys(swept: tuple[Path, Done]) -> None:
    report = (swept[0] / "report.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in report.splitlines() if line.startswith("| ")]
    assert lines[0][:6] == [*FACTORS, "shuffle"]
    assert {tuple(line[:5]) for line in lines[2:]} == {tuple(levels) for levels in LEVELS}
    assert "- `optimizer.beta2`: n/a, 0.99" in report
    assert "python -m ablate --config-dir=own experiment=mine '~cells.spare' shuffle=true,false" in report
    table = [line.split() for line in swept[1].out.splitlines() if line.strip().startswith(("0 ", "4 ", "8 "))]
    assert sorted(line[:6] for line in table) == [[str(4 * i), *levels] for i, levels in enumerate(LEVELS)]
    frame = ablate_package.load(swept[0])
    assert frame["optimizer.beta2"].isna().tolist() == [*[True] * 4, *[False] * 4, *[True] * 4]
    assert frame["optimizer.beta2"].max() == 0.99


def test_the_plan_says_all_of_it(mine: Callable[..., Done], tmp_path: Path) -> None:
    done = mine("dry_run=true", "seed=0", "~cells.spare")
    assert done.out.startswith("3 trials, factors: lr, optimizer, optimizer.beta2, loss, model.output\n")
    assert planned(done) == [
        " ".join(f"{key}={level}" for key, level in zip(FACTORS, cell, strict=True)) for cell in LEVELS
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_another_launcher_runs_them_too(swept: tuple[Path, Done], tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(PRESET)
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "tracking=none", "seed=0", "workers=1"]
    done = run_as_process(tmp_path, *WITHOUT_SPARE, *launcher)
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    with (sweep / "results.csv").open(encoding="utf-8", newline="") as file:
        assert [[row[key] for key in FACTORS] for row in csv.DictReader(file)] == LEVELS
    for mine, same in ((0, 0), (1, 4), (2, 8)):
        assert (sweep / str(mine) / "metrics.jsonl").read_text() == (swept[0] / str(same) / "metrics.jsonl").read_text()


VALUES: dict[str, Any] = {
    "description": "a, b = {c} 'd' \\ ${lr}",
    "model.hidden": [3, 4],
    "model.units": None,
    "shuffle": False,
    "init.scale": 1e-10,
    "loss.args.alpha": 2,
    "loss.args.words": ["x, y", "null", "1"],
}


def test_every_kind_of_value_arrives_as_it_is(mine: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "own_losses.py").write_text(LOSS)
    cell = {"model": "mlp", "init": "normal", "loss": "custom", "loss.target": "own_losses.Loss", **VALUES}
    text = "# @package _global_\n" + yaml.safe_dump({"cells": {"a": cell}})
    done = mine("-m", *TINY[1:], "workers=1", text=text)
    assert done.code == 0, done.err
    [config] = tmp_path.glob("runs/*/0/.hydra/config.yaml")
    trial = yaml.safe_load(config.read_text(encoding="utf-8"))
    found = {"description": trial["description"], "shuffle": trial["shuffle"], "init.scale": trial["init"]["scale"]}
    found |= {f"model.{key}": trial["model"][key] for key in ("hidden", "units")}
    found |= {f"loss.args.{key}": value for key, value in trial["loss"]["args"].items()}
    assert found == {**VALUES, "description": "a, b = {c} 'd' \\ 0.1"}


LOSS = """
import numpy as np

class Loss:
    output = "identity"
    def __init__(self, alpha, words):
        self.alpha = alpha
    def value(self, z, y):
        return self.alpha * ((z - y) ** 2).sum(axis=1)
    def gradient(self, z, y):
        return 2 * self.alpha * (z - y)
"""


# Changed on the command line


CHANGES: dict[str, list[str]] = {
    # An explicit key takes the place of the cells'; those that it makes the same are one.
    "loss=mse": ["model.output=auto", "model.output=sigmoid"],
    "loss=bce": ["model.output=auto", "model.output=sigmoid"],
    "loss=mse model.output=sigmoid": [""],
    "loss=mse model.output=softmax,sigmoid": ["model.output=softmax", "model.output=sigmoid"],
    "loss=mse,bce": [f"model.output={output} loss={loss}" for output in ("auto", "sigmoid") for loss in ("mse", "bce")],
    "loss=mse model={output: softmax}": [""],
    "lr=3": ["loss=ce model.output=auto", "loss=mse model.output=sigmoid", "loss=bce model.output=auto"],
    "~cells.sigmoid_mse": ["loss=ce", "loss=bce"],
    "+cells.mine={loss: bce, lr: 1}": [
        "loss=ce model.output=auto lr=10.0",
        "loss=mse model.output=sigmoid lr=10.0",
        "loss=bce model.output=auto lr=10.0",
        "loss=bce model.output=auto lr=1",
    ],
    "~cells.sigmoid_mse ~cells.sigmoid_bce +cells.mine={loss: mse, model.output: sigmoid}": [
        "loss=ce model.output=auto",
        "loss=mse model.output=sigmoid",
    ],
    "cells.softmax_ce.loss=focal ~cells.sigmoid_bce ~cells.sigmoid_mse": [""],
    "cells=null": [""],
    "~cells": [""],
}


@pytest.mark.parametrize(("written", "trials"), CHANGES.items(), ids=CHANGES)
def test_changes_of_a_preset(written: str, trials: list[str]) -> None:
    # A space within braces ends no word.
    words = written.replace(": ", ":").replace(", ", ",").split(" ")
    composed = ablate_package.compose("experiment=digit_mlp_small", "bug=none", "output_lr=1", *words)
    keys = factors(composed)
    assert [levels(cell(trial, keys)) for trial in composed] == trials


def test_a_rate_beside_the_preset_keeps_its_optimisers(ablate: Callable[..., Done]) -> None:
    done = ablate("experiment=softmax_mnist_small", "lr=0.5", "loss=ce", "model.logits=linear", "dry_run=true")
    assert planned(done) == ["optimizer=sgd", "optimizer=momentum"]


def test_what_lies_below_an_option_goes_with_the_option(mine: Callable[..., Done]) -> None:
    forms = "# @package _global_\ncells: {a: {loss.from_logits: false}, b: {loss.from_logits: true}}\n"
    chosen = "# @package _global_\ncells: {a: {loss: ce, loss.from_logits: false}, b: {loss: bce}}\n"
    assert planned(mine("-m", "loss=mse", "dry_run=true", text=forms)) == [
        "loss.from_logits=false",
        "loss.from_logits=true",
    ]
    assert planned(mine("-m", "loss=mse", "dry_run=true", text=chosen)) == [""]


def test_the_preset_without_a_mistake_is_the_base_of_the_zoo(ablate: Callable[..., Done]) -> None:
    """Of 14 cells, ten differ by the key that is given only."""
    trials = planned(ablate("experiment=bugs_small", "bug=none", "dry_run=true"))
    assert trials[0] == "update_sign=minus residual=p-y model.logits=linear"
    assert len(trials) == len(set(trials)) == 5


def test_cells_without_a_preset(ablate: Callable[..., Done]) -> None:
    done = ablate("-m", "+cells.a={loss: mse, lr: 0.5}", "+cells.b={lr: 0.2}", "seed=0,1", "dry_run=true")
    assert planned(done) == [*["loss=mse lr=0.5"] * 2, *["loss=ce lr=0.2"] * 2]


# Refused


REFUSED: dict[str, list[str]] = {
    "loss=ce": ["model.output=sigmoid: loss=ce needs softmax", "give model.output too", "~cells.sigmoid_mse"],
    "model.output=sigmoid": ["cells.softmax_ce sets loss=ce", "give loss too", "~cells.softmax_ce"],
    "loss=ce,bce": ["cells.sigmoid_mse sets model.output=sigmoid", "~cells.sigmoid_mse"],
    "hydra.mode=RUN": ["cells: softmax_ce, sigmoid_mse, sigmoid_bce", "-m", "cells=null"],
    "~cells.sigmoid": ["~cells.sigmoid", "no such cell", "has softmax_ce, sigmoid_mse, sigmoid_bce"],
    "cells.mine={lr:1}": ["cells.mine={lr:1}", "+cells.mine={lr:1}"],
    "cells.softmax_ce.lr=1": ["cells.softmax_ce.lr=1", "+cells.softmax_ce.lr=1"],
    "+cells.mine=3": ["cells.mine=3", "{loss: mse, lr: 0.1}"],
    "+cells.mine={loss:ce}": ["cells.mine: it is the same as cells.softmax_ce", "~cells.mine"],
    "+cells.mine={bug:none}": ["bug: ", "hydra.sweeper.params", "cells.mine"],
    "+cells.mine={lr:abc}": ["lr=abc: expected number above 0", "~cells.mine"],
    "+cells.mine={batch_size:401}": ["batch_size=401", "1 to 400", "~cells.mine"],
    "+cells.mine={loss:msee}": ["loss=msee: no such choice", "~cells.mine"],
    "cells.softmax_ce.loss=ce,mse": ["cells.softmax_ce.loss=ce,mse", "~cells.NAME", "+cells.NAME="],
    "cells=softmax_ce,sigmoid_mse": ["cells=softmax_ce,sigmoid_mse", "~cells.NAME"],
    "cells=softmax_ce": ["cells=softmax_ce", "mapping", "null"],
    "~cells.softmax_ce ~cells.sigmoid_mse ~cells.sigmoid_bce": ["cells={}", "null for none"],
    "seed=range(0,1000)": ["seed=range(0,1000)", "3 cells: 18000 trials", "1 to 10000"],
    "experiment=digit_mlp_small,xor_softmax": ["softmax_ce", "one preset"],
}


@pytest.mark.parametrize(("written", "said"), REFUSED.items(), ids=REFUSED)
def test_refused_beside_a_preset(ablate: Callable[..., Done], tmp_path: Path, written: str, said: list[str]) -> None:
    words = written.split()
    preset = [] if written.startswith("experiment=") else ["experiment=digit_mlp_small"]
    multirun = ["-m"] if written.startswith("experiment=") else []
    line = refused(ablate(*multirun, *preset, *words), tmp_path)
    for part in said:
        assert part in line


def test_another_sweeper_does_not_cross_them(ablate: Callable[..., Done]) -> None:
    done = ablate("experiment=digit_mlp_small", "hydra/sweeper=basic")
    assert (done.code, done.out) == (2, "")
    assert "only hydra/sweeper=ablate crosses them" in done.err


@pytest.mark.parametrize("written", ["lr=abc", "loss=msee", "loss.reduction=avg", "batch_size=401", "data=xor"])
def test_a_cell_is_not_blamed_for_what_the_user_gave(ablate: Callable[..., Done], tmp_path: Path, written: str) -> None:
    line = refused(ablate("experiment=digit_mlp_small", "~cells.sigmoid_mse", "data.normalize=unit", written), tmp_path)
    assert "cells" not in line


MALFORMED: dict[str, list[str]] = {
    "cells: ???": ["cells=???", "leaves its cells open"],
    "cells: 3": ["cells=3", "mapping of names to keys"],
    "cells: [a]": ["cells=[a]", "mapping of names to keys"],
    "cells: {}": ["cells={}", "null for none"],
    "cells: {a: 3, b: {lr: 1}}": ["cells.a=3", "{loss: mse, lr: 0.1}"],
    "cells: {a: , b: {lr: 1}}": ["cells.a=null", "{loss: mse, lr: 0.1}"],
    "cells: {a b: {lr: 1}}": ["cells.a b", "name of letters"],
    "cells: {1: {lr: 1}}": ["cells.1", "name of letters"],
    "cells: {a: {lrr: 1}}": ["cells.a: lrr=1", "did you mean lr?"],
    "cells: {a: {loss.gama: 1}}": ["cells.a: loss.gama=1", "did you mean loss.gamma (with loss=focal)?"],
    "cells: {a: {hydra.mode: RUN}}": ["cells.a: hydra.mode=RUN", "no such key"],
    "cells: {a: {cells: {b: {lr: 1}}}}": ["cells.a: cells.b.lr=1", "no such key"],
    "cells: {a: {loss: {name: mse}}}": ["cells.a: loss.name=mse", "write loss: mse"],
    "cells: {a: {model: {}}}": ["cells.a: model={}", "expected a value"],
    "cells: {a: {model.output: softmax, model: {output: softmax}}}": ["cells.a: model.output is given twice"],
    "cells: {a: {lr: '0.1,0.2'}}": ["cells.a: lr=0.1,0.2", "one value for each key"],
    "cells: {a: {lr: [0.1, 0.2]}}": ["cells.a: lr=[0.1,0.2]", "one value for each key"],
    "cells: {a: {seed: 'range(0,3)'}}": ["cells.a: seed=range(0,3)", "one value for each key"],
    "cells: {a: {loss: 'mse,ce'}}": ["cells.a: loss=mse,ce", "one value for each key"],
    "cells: {a: {optimizer.beta2: 0.9}}": ["optimizer.beta2=0.9", "only optimizer=adam and ", "~cells.a"],
    "cells: {a: {lr: 1}, b: {lr: 1}}": ["cells.b: it is the same as cells.a", "~cells.b"],
    "cells: {a: {lr: 0.1, loss: ce}, b: {}}": ["cells.b: it is the same as cells.a"],
    "cells: {a: {lr: 1}}\nhydra: {sweeper: {params: {lr: '1,2'}}}": ["lr: ", "hydra.sweeper.params", "cells.a"],
    "cells: {a: {tracking: mlflow}, b: {tracking: none}}": ["tracking", "whole sweep"],
}


@pytest.mark.parametrize(("text", "said"), MALFORMED.items(), ids=MALFORMED)
def test_malformed_cells(mine: Callable[..., Done], tmp_path: Path, text: str, said: list[str]) -> None:
    line = refused(mine("-m", "model=softmax_regression", text=f"# @package _global_\n{text}\n"), tmp_path)
    for part in said:
        assert part in line


def test_cells_without_m(ablate: Callable[..., Done], tmp_path: Path) -> None:
    line = refused(ablate("+cells.a={lr: 1}"), tmp_path)
    assert "cells: a" in line
    assert "needs -m" in line


def test_seeds_in_cells_are_replicates(mine: Callable[..., Done]) -> None:
    text = "# @package _global_\ncells: {a: {lr: 1, seed: 3}, b: {lr: 2}}\n"
    done = mine("-m", "dry_run=true", text=text)
    assert planned(done) == ["lr=1", "lr=2"]
    assert "lr=1 seed=3" in done.out


def test_help_tells_of_cells(ablate: Callable[..., Done]) -> None:
    lines = ablate("--help").out.splitlines()
    preset = next(number for number, line in enumerate(lines) if line.startswith("  experiment=softmax_mnist_small"))
    assert lines[preset + 1] == "    cells: sgd_1e-3, sgd_2e-1, momentum_2e-3"
    assert any(line.startswith("  cells ") for line in lines)
    said = " ".join(lines)
    assert "'~cells.NAME' drops" in said
    assert "'+cells.NAME={loss: bce, lr: 1}' adds" in said
