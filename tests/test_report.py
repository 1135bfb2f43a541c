"""The report: its table against the results, its picture, its command, several sweeps, wrong folders."""

import itertools
import json
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helpers
import pytest
import yaml
from conftest import run_in_process
from PIL import Image

from ablate.commands.report import main
from ablate.errors import ConfigError
from ablate.records.sweep_folder import SweepFolder
from ablate.records.trial_folder import TrialFolder
from ablate.report import cells, markdown, page, plots
from ablate.report.cells import Curve
from ablate.report.text import caption

SWEEP = ["-m", "model=softmax_regression", "lr=0.1,3e38", "loss=mse,ce", "seed=0,1", "epochs=3", "data.train_limit=200"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four cells with two seeds; cross-entropy at 3e38 is no number any more after a few steps."""
    folder = tmp_path_factory.mktemp("report")
    done = run_in_process(folder, *SWEEP, "workers=1", "tracking=none")
    assert done.code == 0, done.err
    [sweep] = (folder / "runs").iterdir()
    assert f"report   runs/{sweep.name}/report.md" in done.out
    return sweep


@pytest.fixture
def sweep(finished: Path, tmp_path: Path) -> Path:
    """A copy of that sweep, to be written to."""
    return shutil.copytree(finished, tmp_path / finished.name)


def table(text: str) -> list[dict[str, str]]:
    """The rows of the only table in a page."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head, rule, *body = lines
    assert set("".join(rule)) <= set("-")
    return [dict(zip(head, line, strict=True)) for line in body]


def by_cell(sweep: Path) -> Mapping[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in (trial.row for trial in SweepFolder(sweep).ended()):
        found.setdefault((str(row["overrides"]["lr"]), row["overrides"]["loss"]), []).append(row)
    return found


def test_a_table_in_markdown() -> None:
    """Cells stand as they are, unpadded, and none of them can end its row."""
    rows = [["1e-3", "a | b"], [" 007", ""], ["two\nlines", "True"]]
    assert markdown.table(["lr", "x|y"], rows).splitlines() == [
        "| lr | x\\|y |",
        "| --- | --- |",
        "| 1e-3 | a \\| b |",
        "|  007 |  |",
        "| two<br>lines | True |",
    ]
    assert markdown.table(["lr", "loss"], []) == "| lr | loss |\n| --- | --- |"


def test_table_agrees_with_the_results(finished: Path) -> None:
    told, expected = table((finished / "report.md").read_text(encoding="utf-8")), by_cell(finished)
    assert {(line["lr"], line["loss"]) for line in told} == set(expected)
    means = []
    assert "–" in {line["test loss"] for line in told} != {"–"}
    for line in told:
        trials = expected[line["lr"], line["loss"]]
        accuracies = [row["test_accuracy"] for row in trials]
        means.append(statistics.fmean(accuracies))
        assert line["test accuracy"] == f"{means[-1]:.1%}"
        assert line["lowest"] == f"{min(accuracies):.1%}"
        assert line["highest"] == f"{max(accuracies):.1%}"
        losses = [row["test_loss"] for row in trials]
        assert line["test loss"] == ("–" if None in losses else f"{statistics.fmean(losses):.4g}")
        assert line["n"] == "2"
        assert all(row["verdict"] in line["verdict"] for row in trials)
        assert line["why (typical trial)"] in [row["why"] for row in trials]
    assert means == sorted(means, reverse=True)


def test_page_says_what_was_run(finished: Path) -> None:
    text = (finished / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# What lr, loss did to training\n")
    assert "python -m ablate -m model=softmax_regression lr=0.1,3e38 loss=mse,ce" in text
    assert "8 trials: 4 combinations, n = 2 each (seeds 0, 1)" in text
    assert "the first 200 training samples" in text
    assert "![curves](curves.png)" in text
    assert str(finished.parent) not in text


def test_a_description_is_the_title(sweep: Path) -> None:
    path = sweep / "0" / ".hydra" / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"description": "Does it learn?"}))
    assert page.write([sweep], sweep).read_text(encoding="utf-8").startswith("# Does it learn?\n")


def test_picture_is_an_image_with_something_on_it(finished: Path) -> None:
    with Image.open(finished / "curves.png") as image:
        assert image.format == "PNG"
        assert 600 < image.width < 2000
        assert 300 < image.height < 2500
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(100_000)}
    assert max(colours, key=colours.__getitem__) == (255, 255, 255)
    assert len(colours) > 10
    # Every trial has its line, and every cell its mean, in every panel.
    for axis in plots._Picture(cells.read([finished])).figure.axes:
        assert sum(line.get_marker() != "X" for line in axis.get_lines()) == 8 + 4
    assert (finished / "curves.png").stat().st_size < 200_000


def test_curves_hold_the_start_every_epoch_and_the_end(finished: Path) -> None:
    trials = {trial.row["trial"]: trial for trial in cells.read([finished]).trials}
    for number, trial in trials.items():
        lines = [json.loads(line) for line in (finished / str(number) / "metrics.jsonl").read_text().splitlines()]
        losses = trial.epochs("train/loss")
        assert losses.x[0] == 0
        assert losses.y[0] == next(line["step/loss"] for line in lines if "step/loss" in line)
        epochs = [line for line in lines if "test/loss" in line]
        assert list(losses.x[1:]) == [line["epoch"] for line in epochs[1:]]
        assert list(losses.y[1:]) == [line.get("train/loss") for line in epochs[1:]]
        assert (losses.y[-1] is None) == (trial.row["train_loss"] is None)
        assert list(trial.epochs("test/accuracy").y) == [line["test/accuracy"] for line in epochs]
    assert any(trial.epochs("train/loss").y[-1] is None for trial in trials.values())


def test_a_line_that_ends_not_finite_has_a_mark(finished: Path) -> None:
    def crosses(picture: Any) -> int:
        return sum(line.get_marker() == "X" for axis in picture.figure.axes for line in axis.get_lines())

    study = cells.read([finished])
    broken = [trial.row[loss] is None for trial in study.trials for loss in ("train_loss", "test_loss")]
    assert any(broken)
    assert crosses(plots._Picture(study)) == sum(broken)


def test_test_losses_are_drawn_beside_the_training_losses_on_their_scale(finished: Path) -> None:
    study = cells.read([finished])
    train, test, score = plots._Picture(study).figure.axes
    assert [axis.get_ylabel() for axis in (train, test, score)] == ["training loss", "test loss", "test accuracy"]
    assert train.get_ylim() == test.get_ylim()
    drawn = {tuple(line.get_ydata()) for line in test.get_lines() if line.get_marker() != "X"}
    whole = [tuple(trial.epochs("test/loss").y) for trial in study.trials if trial.row["test_loss"] is not None]
    assert whole
    assert drawn >= set(whole)


def test_what_dropout_does_to_the_training_loss_is_said(tmp_path: Path) -> None:
    row = {"trial": 0, "epochs": 2, "overrides": {}}
    for rate, is_said in ((0.5, True), (0, False)):
        config = helpers.trial("model=mlp", f"model.dropout={rate}").config
        one = cells.Replicate(row, TrialFolder(tmp_path), config)
        said = caption(cells.Study("", [], {}, [cells.Cell({}, [one])]))
        assert "test loss on the same scale" in said
        assert ("With dropout the training loss is that of the network with units off" in said) == is_said


def test_long_curves_are_thinned_out_with_their_ends(tmp_path: Path) -> None:
    lines = [{"step": i, "epoch": i, "test/loss": 1.0, "test/accuracy": i / 5000} for i in range(5001)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = cells.Replicate({"overrides": {}}, TrialFolder(tmp_path)).epochs("test/accuracy")
    assert len(curve.x) <= cells.CURVE_POINTS + 1
    assert (curve.x[0], curve.x[-1]) == (0, 5000)
    assert curve.y[-1] == 1.0
    assert list(curve.x) == sorted(set(curve.x))


@pytest.mark.parametrize(
    ("levels", "lines", "facets"),
    [
        ({}, [], []),
        ({"lr": 3}, ["lr"], []),
        ({"loss": 2, "lr": 2}, ["loss", "lr"], []),
        ({"update_sign": 2, "residual": 2, "loss": 2, "lr": 2}, ["loss", "lr"], ["update_sign", "residual"]),
        ({"logits": 2, "loss": 2, "form": 2, "step": 7}, ["step"], ["logits", "loss", "form"]),
        ({"lr": 20}, ["lr"], []),
        ({"loss": 20, "lr": 2}, ["loss", "lr"], []),
    ],
)
def test_layout_gives_few_lines_a_facet(levels: Mapping[str, int], lines: list[str], facets: list[str]) -> None:
    factors = {key: [str(level) for level in range(count)] for key, count in levels.items()}
    combinations = [dict(zip(factors, picked, strict=True)) for picked in itertools.product(*factors.values())]
    found = plots.layout(factors, combinations)
    assert (list(found.lines), list(found.facets)) == (lines, facets)


def test_layout_counts_the_combinations_that_there_are() -> None:
    combinations = [
        {"optimizer": name, "lr": rate, "loss": loss, "form": form}
        for name, rate in (("sgd", "1"), ("sgd", "2"), ("adam", "3"), ("adagrad", "4"), ("rmsprop", "5"))
        for loss in ("ce", "bce")
        for form in ("true", "false")
    ]
    factors = {key: list(dict.fromkeys(one[key] for one in combinations)) for key in combinations[0]}
    found = plots.layout(factors, combinations)
    assert (list(found.lines), list(found.facets)) == (["loss", "form"], ["optimizer", "lr"])


def test_mean_is_over_what_all_seeds_have() -> None:
    curves = [Curve([0, 1, 2], [1.0, 2.0, 3.0]), Curve([0, 1, 2], [3.0, None, None])]
    assert plots._mean(curves) == Curve([0], [2.0])


def test_one_epoch_is_drawn_by_step(tmp_path: Path) -> None:
    done = run_in_process(tmp_path, "model=softmax_regression", "epochs=1", "workers=1", "tracking=none")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    text = (sweep / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# One configuration\n")
    assert "batch by batch" in text
    study = cells.read([sweep])
    curve = study.trials[0].steps("step/loss")
    assert len(curve.x) == 47
    assert plots._Picture(study).figure.axes[0].get_xlabel() == "step"


def test_command_rebuilds_the_report(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sweep / "report.md").read_text(encoding="utf-8")
    for name in ("report.md", "curves.png"):
        (sweep / name).unlink()
    assert main([str(sweep)]) == 0
    assert capsys.readouterr().out == f"report   {sweep}/report.md\n"
    assert (sweep / "report.md").read_text(encoding="utf-8") == before
    assert (sweep / "curves.png").is_file()


def test_several_sweeps_make_one_report(sweep: Path, tmp_path: Path) -> None:
    """Two sweeps of which one never named the factor: its level is taken from its configuration."""
    done = run_in_process(tmp_path, *SWEEP[:1], *SWEEP[1:4], "seed=2", *SWEEP[5:], "workers=1", "tracking=none")
    assert done.code == 0, done.err
    other = run_in_process(tmp_path, *SWEEP[1:2], "loss=mse", *SWEEP[5:], "workers=1", "tracking=none", "seed=3")
    assert other.code == 0, other.err
    more = sorted((tmp_path / "runs").iterdir())
    into = tmp_path / "together"
    assert main([str(sweep), *map(str, more), "--into", str(into)]) == 0
    lines = {(line["lr"], line["loss"]): line for line in table((into / "report.md").read_text(encoding="utf-8"))}
    assert {key: line["n"] for key, line in lines.items()} == {
        ("0.1", "mse"): "4",
        ("0.1", "ce"): "3",
        ("3e+38", "mse"): "3",
        ("3e+38", "ce"): "3",
    }
    assert (into / "curves.png").is_file()


def test_what_is_given_twice_counts_once(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sweep)
    into = tmp_path / "into"
    assert main([str(sweep), f"{sweep}/", str(tmp_path / "link"), "--into", str(into)]) == 0
    assert (into / "report.md").read_text(encoding="utf-8") == (sweep / "report.md").read_text(encoding="utf-8")
    # Another sweep's folder in which one trial is this one's.
    other = shutil.copytree(sweep, tmp_path / "other")
    shutil.rmtree(other / "0")
    (other / "0").symlink_to(sweep / "0")
    assert len(cells.read([sweep, other]).trials) == 15


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "empty"])
def test_a_wrong_folder_is_refused_in_one_line(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nothing"
    make(folder)
    assert main([str(folder)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"ablate: {folder}: no results.csv there; expected the folder of a sweep, such as runs/<sweep>"
    assert not (folder / "report.md").exists()


def test_of_several_paths_those_without_results_are_left_out_in_a_line(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `runs/*` gives them, with MLflow's folder among them; what is not there at all is a slip."""
    (tmp_path / "artifacts").mkdir()
    given = [str(tmp_path / "artifacts"), str(sweep)]
    assert main(given) == 0
    said = capsys.readouterr()
    assert said.out == f"report   {sweep}/report.md\n"
    assert said.err.splitlines() == [
        f"ablate: left out: {given[0]}: no results.csv there; expected the folder of a sweep, such as runs/<sweep>"
    ]
    assert main([*given, str(tmp_path / "slip")]) == 2
    assert f"ablate: {tmp_path}/slip: no results.csv there" in capsys.readouterr().err


def test_a_sweep_without_any_result_is_refused(sweep: Path) -> None:
    for path in sweep.glob("*/result.json"):
        path.unlink()
    with pytest.raises(ConfigError, match="no trial has ended there"):
        page.write([sweep], sweep)


def test_a_report_that_fails_costs_the_sweep_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no picture today")

    monkeypatch.setattr(plots, "draw", broken)
    done = run_in_process(tmp_path, *SWEEP[1:2], *SWEEP[5:], "workers=1", "tracking=none")
    assert done.code == 0
    assert "no report: ValueError: no picture today" in done.err
    assert "report   " not in done.out
    [sweep] = (tmp_path / "runs").iterdir()
    assert (sweep / "results.csv").is_file()


def test_the_scores_of_two_tasks_are_not_ranked_together(tmp_path: Path) -> None:
    given = ["data=diabetes,digits", "lr=0.0001,0.03", "loss=mse", "model=softmax_regression", "data.train_limit=342"]
    done = run_in_process(tmp_path, "-m", *given, "epochs=6", "workers=1", "tracking=none")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    study = cells.read([sweep])
    means: dict[str, list[float]] = {cell.levels["data"]: [] for cell in study.cells}
    for cell in study.best_first:
        means[cell.levels["data"]].append(cell.mean or 0.0)
    assert max(means["diabetes"]) > min(means["digits"])
    assert [cell.levels["data"] for cell in study.best_first] == ["digits", "digits", "diabetes", "diabetes"]
    assert all(found == sorted(found, reverse=True) for found in means.values())
    printed = [line.split()[1] for line in done.out.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"], ["3"])]
    assert printed[-4:] == ["digits", "digits", "diabetes", "diabetes"]
    labels = [axis.get_ylabel() for axis in plots._Picture(study).figure.axes]
    assert {"test accuracy", "test R²"} <= set(labels)


def test_a_score_that_is_missing_is_the_lowest() -> None:
    def replicate(number: int, r2: float | None) -> cells.Replicate:
        row = {"trial": number, "task": "regression", "verdict": "diverged", "test_accuracy": None, "overrides": {}}
        return cells.Replicate({**row, "scores": {"test_r2": r2}}, TrialFolder(Path(str(number))))

    cell = cells.Cell({}, [replicate(0, -2.0), replicate(1, None), replicate(2, -1.0)])
    assert cell.typical.row["trial"] == 0
