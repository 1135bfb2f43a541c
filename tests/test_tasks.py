"""Targets that are numbers, or several labels each: from the file to the verdict, by formulas written down here."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done
from helpers import aimed, assert_same, settings, train_alone, train_together
from test_gradients import AIMED

import ablate
from ablate.diagnosis.causes import causes
from ablate.diagnosis.evidence import evidence
from ablate.diagnosis.verdicts import verdict
from ablate.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]

LINEAR = ["model=softmax_regression", "dtype=float64", "batch_size=40", "epochs=400", "data=npz"]
NUMBERS = ["data=npz", "data.path=mine.npz", "data.task=regression", "tracking=none", "workers=1"]


def _line(rows: int = 60) -> tuple[Array, Array]:
    """Noisy affine functions of three columns, in units of their own."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 3))
    y = x @ rng.normal(size=(3, 2)) + [4.0, -1.0] + 0.3 * rng.normal(size=(rows, 2))
    return x, y * [1.0, 50.0]


def _written(folder: Path, x: Array, y: Array) -> str:
    np.savez(folder / "mine.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return f"data.path={folder / 'mine.npz'}"


def test_linear_regression_is_that_of_least_squares(tmp_path: Path) -> None:
    x, y = _line()
    given = [*LINEAR, _written(tmp_path, x, y), "data.task=regression", "data.normalize_targets=true", "loss=mse"]
    [trial] = ablate.compose(*given, "lr=0.3")
    found = train_alone(trial.settings)
    solved = np.linalg.lstsq(np.c_[x[:40], np.ones(40)], y[:40], rcond=None)[0]
    weights = np.vstack([found.final["dense1.weight"], found.final["dense1.bias"]]) * y[:40].std(axis=0)
    weights[3] += y[:40].mean(axis=0)
    np.testing.assert_allclose(weights, solved, rtol=1e-8)
    error = np.square(np.c_[x[40:], np.ones(20)] @ solved - y[40:])
    assert found.summary is not None
    figures = found.summary.figures
    r2 = 1 - error.sum(axis=0) / np.square(y[40:] - y[40:].mean(axis=0)).sum(axis=0)
    assert figures["test/r2"] == pytest.approx(r2.mean())
    assert figures["test/rmse"] == pytest.approx(np.sqrt(error.mean()))
    assert verdict(found.summary).name == "trained"


def test_predictions_are_in_the_units_of_the_file(tmp_path: Path, ablate: Callable[..., Done]) -> None:
    x, y = _line()
    _written(tmp_path, x, y)
    targets = "data.normalize_targets=true,false"
    done = ablate("-m", *NUMBERS, "model=softmax_regression", "loss=mse,huber", targets, "lr=1e-9", "epochs=1")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    with (sweep / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["test_r2", "test_rmse", "train_r2", "train_rmse"]
    for row in rows:
        outputs = np.load(sweep / row["trial"] / "predictions.npz")["outputs"]
        rmse = np.sqrt(np.square(outputs - y[40:]).mean())
        assert float(row["test_rmse"]) == pytest.approx(rmse, rel=1e-4)
        assert row["test_accuracy"] == ""
    assert "test R²" in done.out
    last = json.loads((sweep / "0" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"train/r2", "train/rmse", "test/r2", "test/rmse", "watch/spread"} <= last.keys()
    assert not {"test/accuracy", "test/confidence"} & last.keys()


def test_labels_are_scored_one_by_one_and_all_together() -> None:
    data = aimed("multilabel", 4, 3, rows=30, test_rows=25)
    trial = settings("data=npz", "data.task=multilabel", "loss=bce", "model=softmax_regression", "dtype=float64")
    found = train_alone(trial, data)
    z = data.x_test @ found.final["dense1.weight"] + found.final["dense1.bias"]
    answered, given = z > 0, data.y_test > 0.5
    assert found.summary is not None
    figures = found.summary.figures
    assert figures["test/accuracy"] == pytest.approx((answered == given).mean())
    assert figures["test/exact_match"] == pytest.approx((answered == given).all(axis=1).mean())
    both = (answered & given).sum(axis=0)
    assert figures["test/macro_f1"] == pytest.approx((2 * both / (answered.sum(axis=0) + given.sum(axis=0))).mean())
    commoner = data.y_train.mean(axis=0) > 0.5
    assert found.summary.baseline == pytest.approx((commoner == given).mean())


@pytest.mark.parametrize("task", AIMED)
def test_a_lane_is_the_trial_alone(task: str) -> None:
    data = aimed(task, 3, 9, rows=40)
    common = ["data=npz", f"data.task={task}", "model=softmax_regression", "epochs=2", "batch_size=7"]
    trials = [settings(*common, *loss, f"lr={rate}") for loss in AIMED[task] for rate in (0.1, 0.01)]
    for trial, lane in zip(trials, train_together(trials, data), strict=True):
        assert_same(lane, train_alone(trial, data))


VERDICTS = {
    "loss=mse lr=1e-9": ("stuck", "fell by only 0.0%"),
    "loss=mse lr=10 epochs=200": ("diverged", "not a finite number"),
    "loss=mse lr=0.1 epochs=200": ("plateau", "below target_r2=0.900"),
    "loss=mse lr=0.05 epochs=2": ("slow", "the test set's R² is"),
    "loss=bce lr=0.1 epochs=200": ("plateau", "below target_accuracy=90.0%"),
    "loss=bce lr=1e-9": ("stuck", "fell by only 0.0%"),
}


@pytest.mark.parametrize("overrides", VERDICTS)
def test_verdicts(overrides: str) -> None:
    task = "multilabel" if "bce" in overrides else "regression"
    trial = settings(*LINEAR, f"data.task={task}", "epochs=10", *overrides.split())
    found = train_alone(trial, aimed(task, 3, 2, rows=40, test_rows=20))
    assert found.summary is not None
    judged, (word, said) = verdict(found.summary), VERDICTS[overrides]
    assert (judged.name, said in judged.why) == (word, True), judged


def test_numbers_are_trained_from_the_asked_r2_on() -> None:
    found = train_alone(settings("data=diabetes", "loss=mse", "model=softmax_regression", "lr=0.03", "epochs=10"))
    assert found.summary is not None
    reached = found.summary.test_score
    assert 0.3 < reached < 0.5
    judged = [verdict(replace(found.summary, target_r2=reached + more)).name == "trained" for more in (-0.05, 0.05)]
    assert judged == [True, False]


@pytest.mark.parametrize(("task", "loss", "said"), [
    ("regression", "mse", "deviation is 0.0% of the targets'"),
    ("multilabel", "bce", "every label gets the same answer"),
])  # fmt: skip
def test_who_answers_a_constant_has_collapsed(task: str, loss: str, said: str) -> None:
    data = aimed(task, 3, 2, rows=40, test_rows=20)
    trial = settings(*LINEAR, f"data.task={task}", f"loss={loss}", "epochs=50")
    found = train_alone(trial, replace(data, x_train=0 * data.x_train, x_test=0 * data.x_test))
    assert found.summary is not None
    judged = verdict(found.summary)
    assert (judged.name, said in judged.why) == ("collapsed", True), judged


CAUSES = {
    "": ("targets", "data.normalize_targets=true"),
    "data.normalize_targets=true model.output=sigmoid": ("output", "model.output=identity"),
    "data.normalize_targets=true": (None, None),
}


@pytest.mark.parametrize("overrides", CAUSES)
def test_the_cause_is_named_where_targets_and_outputs_do_not_fit(tmp_path: Path, overrides: str) -> None:
    x, y = _line()
    given = [*LINEAR, _written(tmp_path, x, 1000 * y), "data.task=regression", "loss=mse", "epochs=1"]
    trial = ablate.prepare(settings(*given, *overrides.split()))
    summary = train_alone(trial.settings, trial.dataset).summary
    assert summary is not None
    found = causes(evidence(trial, summary), trial.settings, "plateau")
    named = [(cause.name, str(cause.changes[0])) for cause in found]
    name, change = CAUSES[overrides]
    assert named == ([(name, change)] if name else [])


REFUSED = {
    "loss=ce": "loss=ce: it cannot learn data.task=regression; choose one of mse, mae, huber",
    "loss=mse model.output=softmax": "needs identity or sigmoid on data.task=regression",
    "loss=mse stop=target": "has no accuracy; use stop=patience",
    "loss=mse loss.class_weights=balanced": "has no classes",
    "loss=mse bug=swapped_labels": "which data.task=regression has none of",
    "loss=mse model.units=1": "the data has 2 targets a sample",
    "loss=mse data.labels=remap": "which data.task=regression has none of",
    "loss=bce data.task=multilabel": "0 and 1, (N, L), and nothing else; y_train has 80 such values",
    "loss=mse data.train_limit=1": "in all rows to train on (1); give targets that differ",
    "loss=mse data.test_limit=1": "R² is not defined: all rows to test on (1) have the same targets",
}


@pytest.mark.parametrize(("overrides", "said"), REFUSED.items(), ids=REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, overrides: str, said: str) -> None:
    path = _written(tmp_path, *_line())
    with pytest.raises(ConfigError) as refusal:
        ablate.prepare(settings(*LINEAR, path, "data.task=regression", *overrides.split()))
    assert said in str(refusal.value)


def test_a_target_without_r2_is_named_and_left_out(tmp_path: Path) -> None:
    x, y = _line()
    y[40:, 1] = 7.7  # the variance of 20 of them is not 0, for rounding
    given = [*LINEAR, _written(tmp_path, x, y), "data.task=regression", "loss=mse", "lr=0.01", "epochs=1"]
    trial = ablate.prepare(settings(*given))
    [said] = trial.dataset.notices
    assert "target 1 is the same in all 20 rows to test on and has no R²: test R² is that of the other 1" in said
    found = train_alone(trial.settings, trial.dataset)
    assert found.summary is not None
    z = (x[40:] @ found.final["dense1.weight"] + found.final["dense1.bias"])[:, 0]
    r2 = 1 - np.square(z - y[40:, 0]).sum() / np.square(y[40:, 0] - y[40:, 0].mean()).sum()
    assert found.summary.test_score == pytest.approx(r2)
    assert trial.dataset.task.written(np.nan) == "–"
