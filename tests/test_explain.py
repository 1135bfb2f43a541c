"""What is said of a trial that has ended: advice that fits its verdict, and one line where there is no trial."""

import io
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done
from helpers import noise, prepared, train_alone, trial
from rich.console import Console
from scipy.stats import fisher_exact

from ablate.commands import explain
from ablate.config.groups import completed
from ablate.config.parse import parse
from ablate.diagnosis import estimates, rehearsal
from ablate.diagnosis.advice import Known, advice, changes
from ablate.diagnosis.causes import Change, causes
from ablate.diagnosis.checks import Check
from ablate.diagnosis.estimates import Estimate
from ablate.diagnosis.evidence import evidence
from ablate.diagnosis.held_back import held_back
from ablate.diagnosis.rehearsal import rehearse
from ablate.problem.tasks import TASKS
from ablate.records import recorder
from ablate.terminal.tables import COLOURS
from ablate.training.loop import Summary
from ablate.trials.prepared import engine

TINY = ["model=softmax_regression", "data.train_limit=64", "epochs=2", "tracking=none", "workers=1"]


def known(verdict: str, *overrides: str, check: Check | None = None, **last: float) -> Known:
    row = {"trial": 0, "verdict": verdict, "why": "so", "epochs": 1, "test_accuracy": last.get("test/accuracy", 0.5)}
    return Known(trial(*overrides).config, row, check, [{"step": 1, "epoch": 1, **last}])


ADVICE = {
    "ascending": ("update_sign=minus", ["update_sign=plus"]),
    "diverged": ("not tried yet: lr=0.15, lr=0.05, lr=0.005", ["lr=0.5"]),
    "collapsed": ("lr=0.05", ["lr=0.5"]),
    "stuck": ("lr=0.01", ["lr=0.001"]),
    "slow": ("epochs=30", []),
    "plateau": ("optimizer=adam lr=0.001", []),
    "failed": ("ablate.log", []),
    "interrupted": ("let it run to its end", []),
    "trained": ("nothing is wrong here", []),
}


@pytest.mark.parametrize("verdict", ADVICE)
def test_every_verdict_has_advice_that_fits(verdict: str) -> None:
    said, overrides = ADVICE[verdict]
    assert said in " / ".join(advice(known(verdict, *overrides)))


def test_what_is_left_is_there_without_mlflow() -> None:
    last = advice(known("plateau"))[-1]
    assert "curves.png in the folder of the sweep" in last
    assert "mlflow" not in last


def test_every_verdict_is_one_of_those() -> None:
    assert set(ADVICE) == set(COLOURS)


def test_what_the_check_found_comes_first() -> None:
    found = Check(guess="wrong sign", advice="use update_sign=minus")
    assert advice(known("ascending", check=found)) == ["use update_sign=minus"]
    # While the gradient is wrong, nothing else is worth trying.
    assert advice(known("plateau", check=found)) == ["use update_sign=minus"]
    assert not changes(known("plateau", check=found))
    first, second = advice(known("trained", check=found, **{"test/accuracy": 0.97}))
    assert first == "use update_sign=minus"
    assert "it trains all the same, to 97.0%" in second


def test_a_bug_made_on_purpose_is_told_unless_the_check_told_it() -> None:
    lines = advice(known("plateau", "bug=swapped_labels", check=Check()))
    assert "bug=swapped_labels on purpose" in lines[0]
    named = Check(guess="sum_for_mean", advice="divide")
    assert advice(known("diverged", "bug=sum_for_mean", check=named))[0] == "divide"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.from_logits=false"], "loss.from_logits=true"),
        (["loss.reduction=sum"], "loss.reduction=mean"),
    ],
)
def test_a_diverged_trial_hears_of_its_loss(overrides: list[str], said: str) -> None:
    assert said in " / ".join(advice(known("diverged", *overrides)))
    assert said not in " / ".join(advice(known("diverged")))


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"watch/too_large": 12.0}, "12 times a number of the output layer moved by more than 1"),
        ({"watch/too_small": 1.0}, "once a number of the output layer moved by less than 1e-7"),
        ({"watch/too_small": 7.0}, "7 times a number of the output layer moved by less than 1e-7"),
        ({"watch/dead_units": 0.4}, "40% of the ReLU units"),
        ({"watch/saturated": 0.8}, "80% of the sigmoid or tanh values"),
        ({"watch/largest_class": 0.9}, "90% of the test predictions are one and the same class"),
        ({"test/confidence": 0.9999, "test/accuracy": 0.5}, "the outputs are at 0 and 1"),
    ],
)
def test_what_was_watched_is_told_where_it_is_worth_a_line(last: dict[str, float], said: str) -> None:
    [line] = explain._seen(known("collapsed", **last))
    assert said in line
    assert not list(explain._seen(known("collapsed", **dict.fromkeys(last, 0.0))))


def test_a_notice_on_the_data_and_a_training_that_went_well_are_one_text() -> None:
    noticed = replace(known("trained"), notices=("the test inputs are of another scale",))
    [line] = advice(noticed)
    assert "heed what is said of its data" in line
    assert "nothing is wrong" not in line


def test_a_test_loss_that_is_not_finite_is_something_wrong() -> None:
    ended = known("trained")
    [line] = advice(replace(ended, row={**ended.row, "test_loss": None}))
    assert "but for test samples whose loss is not a finite number" in line


def test_small_updates_of_a_trained_network_are_no_news() -> None:
    assert not list(explain._seen(known("trained", **{"watch/too_small": 20648.0, "watch/largest_class": 0.9})))


def test_logits_that_ran_away_get_smaller_steps_and_the_output_layer_its_own() -> None:
    """The loss is lowest at the end, and yet a larger rate would be wrong."""
    ran = known(
        "collapsed", "lr=10", "model=mlp", **{"test/confidence": 0.9999, "test/accuracy": 0.5, "test/loss": 1.0}
    )
    ran.metrics[:0] = [{"step": 0, "epoch": 0, "test/loss": 3.0}, {"step": 1, "epoch": 1, "test/loss": 2.0}]
    tried = {str(change) for change in changes(ran)}
    assert {"lr=1", "output_lr=1"} <= tried
    assert not {"lr=30", "lr=100"} & tried


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    monkeypatch.setattr(sys, "argv", ["explain", *arguments])
    try:
        explain.main()
        code: Any = 0
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    return Done(int(code), out, err)


def test_a_sweep_explained(
    ablate: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = ablate("-m", *TINY, "update_sign=minus,plus")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    right, wrong = (run(monkeypatch, capsys, str(sweep / number)) for number in "01")
    assert (right.code, wrong.code) == (0, 0)
    assert "the gradient is the derivative of the loss, and a step descends" in right.out
    assert "verdict  ascending: the update adds the gradient, so every step climbs" in wrong.out
    assert "1. the update adds the gradient" in wrong.out.split("what to try next")[1]
    for text in (right.out, wrong.out):
        assert "test/accuracy" in text
        assert "update_sign=" in text.splitlines()[0]

    (sweep / "0" / "result.json").unlink()
    shutil.rmtree(sweep / "1" / ".hydra")
    for number, said in (("0", "has not ended yet"), ("1", "not the folder of a trial"), ("7", "not the folder")):
        refused = run(monkeypatch, capsys, str(sweep / number))
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err
        assert len(refused.err.splitlines()) == 1


def test_a_trial_without_checks_or_metrics_is_explained_too() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    row = {"trial": 3, "verdict": "failed", "why": "it broke", "epochs": 0}
    explain.explain(console, Known(trial().config, row, None, []))
    text = console.export_text()
    assert "verdict  failed: it broke" in text
    assert "before training" not in text
    assert "what to try next" in text


@pytest.mark.parametrize(("recalls", "is_another"), [((0.99, 0.2, 0.0), False), ((0.5, 0.0, 0.0), True)])
def test_who_learned_another_task_recognises_fewer_than_chance_of_each_class(
    recalls: tuple[float, ...], is_another: bool
) -> None:
    """Whatever the share of the most frequent class."""
    dataset = noise((6,), 3, rows=60, test_rows=600)
    dataset = replace(dataset, y_test=np.repeat(np.arange(3), (570, 20, 10)))
    given = prepared("model=mlp", "model.hidden=8", "epochs=1", dataset=dataset)
    summary = train_alone(given.settings, dataset).summary
    assert summary
    last = {"train/accuracy": 1.0, "test/accuracy": 0.94}
    last |= {f"test/recall_{label}": recall for label, recall in enumerate(recalls)}
    ended = replace(known("plateau", "model=mlp", **last), evidence=evidence(given, summary))
    assert bool(changes(ended)) is not is_another
    assert ("look at samples of both sets" in advice(ended)[0]) is is_another


def _causes(*overrides: str, scale: Any = 1.0, shares: tuple[int, ...] = (), verdict: str = "collapsed") -> list[str]:
    """The causes for which there is evidence in a network of 6 inputs and 3 classes, untrained but for one step."""
    dataset = noise((6,), 3, rows=60, test_rows=60)
    labels = np.repeat(np.arange(3), shares) if shares else dataset.y_train
    dataset = replace(dataset, x_train=dataset.x_train * scale, x_test=dataset.x_test * scale, y_train=labels)
    values = dict(each.split("=", 1) for each in ("model=mlp", "model.hidden=8", "epochs=1", "lr=1e-9", *overrides))
    given = prepared(*(f"{key}={value}" for key, value in values.items()), dataset=dataset)
    summary = train_alone(given.settings, dataset).summary
    assert summary
    return [f"{cause.name}: {cause}" for cause in causes(evidence(given, summary), given.settings, verdict)]


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        (
            {"scale": 100},
            "inputs",
            "far from 1.*loss before the first update.*have 1.099; .*tries data.normalize=per_f",
        ),
        ({"scale": 0.001}, "inputs", "far from 1; .* tries data.normalize=per_feature"),
        (
            {"scale": np.array([1, 1, 1, 1, 1, 4000])},
            "inputs",
            "columns .* of unlike scale.*tries data.normalize=per_f",
        ),
        ({"overrides": ["init=normal", "init.scale=1e-30"]}, "start", "so small that .*tries init=glorot_uniform"),
        ({"overrides": ["model.preactivation_divisor=1e4"]}, "start", "divisor=10000 leaves .* .* tries .*divisor=1"),
        ({"overrides": ["init=normal", "init.scale=50"], "verdict": "slow"}, "start", "weights of dense. are .* times"),
        ({"overrides": ["init=zeros"]}, "start", "all units of dense1 start with the same weights"),
        ({"overrides": ["init=normal", "init.scale=50"]}, "start", "weights of dense. are .* times as large"),
        ({"overrides": ["model.hidden=[8,8,8,8,8]"]}, "depth", "at dense2 is 0.0.* at dense6: .*activation=relu"),
        ({"overrides": ["model.activation=identity"]}, "activation", "the network is linear.*activation=tanh"),
        (
            {"overrides": ["model.activation=relu", "lr=10", "epochs=5"]},
            "steps",
            "[5-9].% of the ReLU units .*, 0% before.*; [1-9].*lr=1$",
        ),
        ({"shares": (50, 6, 4)}, "imbalance", "83.3% of the training labels are class 0.*loss.class_weights=balanced"),
        ({"shares": (4400, 1, 1)}, "imbalance", "all but 2 of the 4,402 training labels are class 0.*balanced"),
        ({"shares": (30, 30, 0)}, "labels", "of the test labels are classes that no training label has: 2"),
    ],
)
def test_what_the_data_and_the_start_show(given: dict[str, Any], name: str, said: str) -> None:
    found = _causes(*given.pop("overrides", ["model.activation=relu"]), **given)
    assert found[0].startswith(f"{name}: ")
    assert sum(each.startswith(f"{name}: ") for each in found) == 1
    assert re.search(said, found[0])


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        # Three of four labels are soon of one class.
        ({"train_counts": (3, 1, 0)}, []),
        ({"train_counts": (45, 10, 5)}, ["loss.class_weights=balanced"]),
        # Far from 0 it is the mean that must go first.
        ({"low": 994, "high": 1006, "mean": 1000}, ["data.normalize=per_feature"]),
        ({"low": 0, "high": 255, "mean": 80}, ["data.normalize=unit"]),
    ],
)
def test_what_facts_alone_point_to(facts: dict[str, Any], said: list[str]) -> None:
    dataset = noise((6,), 3, rows=60, test_rows=6)
    given = prepared("model=softmax_regression", "epochs=1", dataset=dataset)
    summary = train_alone(given.settings, dataset).summary
    assert summary
    found = evidence(given, summary)
    meant = causes(replace(found, facts=replace(found.facts, **facts)), given.settings, "collapsed")
    assert [str(change) for cause in meant for change in cause.changes[:1]] == said


@pytest.mark.parametrize(("lr", "usual"), [("lr=1e-5", "lr=0.1"), ("optimizer=adam lr=1e-8", "lr=0.001")])
def test_from_far_below_the_usual_rate_is_tried(lr: str, usual: str) -> None:
    assert usual in map(str, changes(known("stuck", *lr.split())))


def test_an_ordinary_trial_shows_nothing() -> None:
    for activation in ("relu", "sigmoid"):
        assert not _causes(f"model.activation={activation}")
        assert not _causes(f"model.activation={activation}", scale=0.3)


@pytest.mark.parametrize(
    ("given", "undone"),
    [
        ("optimizer.weight_decay=1", "optimizer.weight_decay=0"),
        ("optimizer.clip_norm=1e-5", "optimizer.clip_norm=null"),
        ("optimizer.clip_value=1e-5", "optimizer.clip_value=null"),
        ("model.dropout=0.95", "model.dropout=0"),
        ("model.preactivation_divisor=10000", "model.preactivation_divisor=1"),
        ("model.logits=relu", "model.logits=linear"),
        ("schedule=step schedule.every=1 schedule.factor=0.01", "schedule=constant schedule.warmup=0"),
        ("schedule=warmup schedule.warmup=9", "schedule=constant schedule.warmup=0"),
        ("loss.class_weights=[9,0,0,0,0,0,0,0,0,0]", "loss.class_weights=null"),
        ("loss.reduction=sum", "loss.reduction=mean"),
        ("loss.from_logits=false loss.eps_log=0.5", "loss.from_logits=true,loss.eps_log=0"),
        ("shuffle=false", "shuffle=true"),
    ],
)
def test_a_key_that_holds_training_back_is_tried_at_its_default_first(given: str, undone: str) -> None:
    held = known("plateau", "model=mlp", *given.split())
    first, *more = (str(change) for change in changes(held))
    assert [first, *more[: undone.count(",")]] == undone.split(",")
    # All of them at once is the trial without the overrides.
    change = changes(held)[2 if "," in undone else 0]
    assert parse(rehearsal.changed(held.config, change)) == parse(trial("model=mlp").config)


def test_an_optimizers_own_numbers_are_tried_at_their_defaults() -> None:
    assert not held_back(trial("model=mlp", "optimizer=adamw", "loss=focal").config)
    given = trial("model=mlp", "optimizer=adamw", "optimizer.weight_decay=100", "optimizer.beta1=0.999", "loss=focal")
    assert {"optimizer.weight_decay": 0.01} in held_back(given.config)
    assert {"optimizer.beta1": 0.9} in held_back(given.config)


def test_an_older_configuration_gets_the_keys_that_came_later() -> None:
    config = trial("optimizer=momentum", "lr=0.3").config
    older = {key: value for key, value in config.items() if key not in ("schedule", "shuffle", "target_r2")}
    older["optimizer"] = {"name": "momentum", "momentum": 0.5}
    assert completed(older) == {**config, "optimizer": {**config["optimizer"], "momentum": 0.5}}


def _outcome(score: float, last: float = 1.9, test_loss: float = 1.9) -> rehearsal.Outcome:
    """Of the trial as it is, without a change; its score is known exactly, and that of a constant answer is 0.1."""
    settings, task = parse(trial().config), TASKS.get("classification")
    return rehearsal.Outcome(None, settings, task, 2.0, last, score, 0.1, Estimate(score), test_loss)


@pytest.mark.parametrize(
    ("as_it_is", "tried", "is_better"),
    [
        # At the same recall, the loss of the test set tells, and not how well the training set is learned by heart.
        ((0.7, 0.02, 1.0), (0.7, 0.001, 1.1), False),
        ((0.7, 0.02, 1.0), (0.7, 0.08, 0.8), True),
        ((0.7, 0.02, 1.0), (0.6, 0.08, 0.8), False),
        # Who is at chance, or has no loss left to lose, is no better.
        ((0.1, 1.9, 1.9), (0.1, 1.0, 1.0), False),
        ((0.7, 0.0, 0.0), (0.7, 0.0, 0.0), False),
        ((0.7, math.nan, math.nan), (0.7, 0.5, 0.5), True),
    ],
)
def test_a_lower_loss_counts_on_the_test_set(
    as_it_is: tuple[float, ...], tried: tuple[float, ...], is_better: bool
) -> None:
    one = replace(_outcome(*tried), change=Change({"lr": 3}))
    found = rehearsal.Rehearsal(9, 99, 99, _outcome(*as_it_is), [one])
    assert (found.better, found.others) == (([one], []) if is_better else ([], [one]))
    before = f"{as_it_is[2]:.3g}".replace("nan", "not finite")
    assert (f"test loss {tried[2]:.3g} instead of {before}" in advice(known("plateau"), found)[0]) is is_better


def test_where_nothing_learns_the_rows_are_asked_about() -> None:
    tried = [replace(_outcome(score), change=Change({"lr": lr})) for lr, score in enumerate((0.05, 0.12))]
    question = "do the rows of inputs and of labels belong together?"
    for steps, more, is_asked in ((99, [], True), (3, [], False), (99, [_outcome(0.2)], False)):
        found = rehearsal.Rehearsal(steps, 99, 99, _outcome(0.1), [*tried, *more])
        said = " ".join(advice(known("plateau", **{"test/accuracy": 0.1, "train/accuracy": 0.1}), found))
        assert (question in said, "target_accuracy=0.1" in said) == (is_asked, not is_asked and not more), said


def test_a_training_set_learned_by_heart_gets_what_forgets() -> None:
    overfit = known("plateau", "model=mlp", "epochs=30", **{"train/accuracy": 1.0, "test/accuracy": 0.7})
    tried = {str(change) for change in changes(overfit)}
    assert {"model.dropout=0.5", "model.hidden=[7]", "epochs=10", "optimizer.weight_decay=0.001"} <= tried
    assert not {"epochs=90", "lr=1", "optimizer=adam lr=0.001"} & tried


@pytest.mark.parametrize(("task", "usual"), [("multilabel", "bce"), ("regression", "mse"), ("classification", "ce")])
def test_a_loss_of_ones_own_is_compared_with_a_usual_one(task: str, usual: str) -> None:
    asked = known("plateau")
    config = asked.config | {"loss": {"name": "custom"}, "data": {**asked.config["data"], "task": task}}
    assert f"loss={usual} model.output=auto" in map(str, changes(replace(asked, config=config)))


def test_what_helps_beyond_the_lines_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    console, worse = Console(record=True, width=100, file=io.StringIO()), _outcome(0.1)
    given = {"last": 1.0, "score": 0.9, "estimate": Estimate(0.9)}
    better = [replace(worse, change=Change({"lr": lr}), **given) for lr in range(1, 7)]
    monkeypatch.setattr(explain, "rehearse", lambda *_: rehearsal.Rehearsal(9, 99, 99, worse, better))
    explain.explain(console, known("plateau"))
    assert "4. lr=4: " in console.export_text(clear=False)
    assert "  also better: lr=5 (90.0%), lr=6 (90.0%)\n" in console.export_text()


def _boxes(path: Path, scale: float) -> list[str]:
    """Two classes that the sign of one number separates, at some scale; and a network for them."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (260, 5))
    y = (x[:, 0] > 0).astype(int)
    np.savez(path, x_train=x[:200] * scale, y_train=y[:200], x_test=x[200:] * scale, y_test=y[200:])
    return ["data=npz", f"data.path={path}", "model=mlp", "model.activation=relu", "epochs=5", "tracking=none"]


def _recall(summary: Summary) -> float:
    """The mean recall by class."""
    return float(np.mean(np.array(summary.recognised) / summary.labels))


def test_a_rehearsal_keeps_a_rare_class_and_its_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four samples of 1,200 are of class 1, in a file sorted by class; few steps, and a trial with its weights."""
    monkeypatch.setattr(rehearsal, "SECONDS", 0.02)
    x, y = np.repeat([[0.0], [1.0]], (1196, 4), axis=0), np.repeat([0, 1], (1196, 4))
    np.savez(tmp_path / "rare.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    shared = ["data=npz", f"data.path={tmp_path / 'rare.npz'}", "model=softmax_regression", "epochs=3", "lr=0.01"]
    as_it_is, balanced = trial(*shared), trial(*shared, "loss.class_weights=balanced")
    tried = rehearse(as_it_is.config, [Change({"loss.class_weights": "balanced"})])
    assert tried.rows < 1200
    [outcome] = tried.tried
    assert outcome.settings.loss.class_weights == [1200 / 2 / 1196, 1200 / 2 / 4]
    assert rehearse(balanced.config, [Change({"lr": 0.1})]).as_it_is.score == outcome.score
    given = prepared(*shared, "loss.class_weights=balanced")
    summary = train_alone(given.settings).summary
    assert summary
    assert evidence(given, summary).initial_loss == summary.initial_loss


def test_one_step_is_told_by_the_loss_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.05)
    given = trial(*_boxes(tmp_path / "boxes.npz", 1), "epochs=1", "batch_size=200", "lr=1e-9")
    tried = rehearse(given.config, [Change({"optimizer": "adam", "lr": 0.05})])
    assert tried.steps == 1
    assert [str(outcome.change) for outcome in tried.better] == ["optimizer=adam lr=0.05"]


def _wanted(low: int, high: int) -> list[Change]:
    return [Change({"seed": seed}) for seed in range(low, high)]


def test_another_seed_is_no_better_on_noise_and_what_is_better_shows_on_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of labels without any sense nothing is advised, however many changes are tried on however few test rows."""
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    for rows in (10, 20, 100):
        drawn = noise((8,), 2, rows=60, test_rows=rows)
        arrays = {name: getattr(drawn, name) for name in ("x_train", "y_train", "x_test", "y_test")}
        np.savez(tmp_path / f"{rows}.npz", **arrays)
        given = trial("data=npz", f"data.path={tmp_path / f'{rows}.npz'}", "model=mlp", "model.hidden=16", "epochs=5")
        tried = rehearse(given.config, [*_wanted(1, 12), Change({"lr": 1.0})])
        assert tried.test_rows == rows
        assert not tried.better
        # Some other seed seems better: that is said as what it is.
        assert tried.untold
        assert not set(map(id, tried.untold)) & set(map(id, tried.others))


@pytest.mark.parametrize(
    ("right", "than", "rows", "is_told"),
    [
        (20, 10, 20, True),
        (14, 10, 20, False),
        (5, 1, 5, True),
        (4, 1, 5, False),
        (140, 100, 200, True),
        (110, 100, 200, False),
    ],
)
def test_a_gain_is_told_by_the_rows_that_there_are(right: int, than: int, rows: int, is_told: bool) -> None:
    """Ten changes tried; Fisher's exact test at 0.05 / 10, one-sided, agrees on each."""
    some = train_alone(prepared(*TINY).settings).summary
    assert some
    shares = []
    for hits in (right, than):
        counted = replace(some, recognised=[hits, hits, 0], labels=[rows, rows, 0])
        shares.append(estimates.of_summary(counted))
    assert shares[0].exceeds(shares[1], estimates.deviations(10, 2 * rows)) == is_told
    p = fisher_exact([[2 * right, 2 * (rows - right)], [2 * than, 2 * (rows - than)]], "greater").pvalue
    assert (p < estimates.ERROR / 10) == is_told


def _tried(*overrides: str) -> rehearsal.Rehearsal:
    shared = ("data=digits", "model=mlp", "epochs=1")
    return rehearse(trial(*shared, *overrides).config, [Change({"lr": rate}) for rate in (0.2, 0.3, 0.4, 0.5)])


def test_a_large_network_is_trained_a_few_lanes_at_a_time_for_fewer_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, made = _tried("model.hidden=40"), []
    monkeypatch.setattr(rehearsal, "WEIGHTS", 9000)
    monkeypatch.setattr(rehearsal, "engine", lambda lanes: made.append(len(lanes)) or engine(lanes))
    assert _tried("model.hidden=40") == whole
    assert made == [2, 2, 1]  # of 3,010 weights each
    monkeypatch.setattr(rehearsal, "SECONDS", 0.001)
    monkeypatch.setattr(rehearsal, "LONGEST", 0.01)
    short = _tried("model.hidden=40")
    assert 0 < len(short.tried) < 4
    assert [str(change) for change in short.left_out] == ["lr=0.2", "lr=0.3", "lr=0.4", "lr=0.5"][len(short.tried) :]


def test_the_time_of_a_loss_of_ones_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    custom = ("loss=custom", "loss.target=custom_losses.CrossEntropy", "data.train_limit=320", "batch_size=32")
    clock = iter(np.arange(0, 10, 0.01))
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: float(next(clock)))
    quick = _tried(*custom)
    monkeypatch.setattr(rehearsal, "LONGEST", 1.2)
    slow = _tried(*custom)
    assert (quick.steps, len(quick.tried)) == (10, 4)
    # A call of 10 ms counts as 4^-3 s: 2 of a step, and 4 beside them; so there is time for 3 trials, one as it is.
    assert int(1.2 / (24 * 4**-3)) == 3
    assert (slow.steps, len(slow.tried), len(slow.left_out)) == (10, 2, 2)


def test_a_trial_keeps_its_result_where_its_evidence_cannot_be_measured(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*given: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(recorder, "evidence", breaks)
    done = ablate(*TINY, "workers=1", "lr=1e-9", "check=false")
    assert done.code == 0
    [result] = tmp_path.glob("runs/*/0/result.json")
    assert json.loads(result.read_text(encoding="utf-8"))["verdict"] == "stuck"
    assert "evidence could not be measured: ValueError: no such thing" in done.out + done.err


def test_a_rehearsal_puts_first_what_trains_and_leaves_out_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.05)
    given = trial(*_boxes(tmp_path / "boxes.npz", 1e4))
    wanted = [Change({"lr": 1e-12}), Change({"data.normalize": "per_feature"}), Change({"model.no_such": 1})]
    tried = rehearse(given.config, wanted)
    assert [str(outcome.change) for outcome in tried.tried] == ["lr=1e-12", "data.normalize=per_feature"]
    assert [str(outcome.change) for outcome in tried.better] == ["data.normalize=per_feature"]
    [better] = tried.better
    # The same training by the training loop itself, on all rows, which are fewer than a rehearsal takes.
    alone = train_alone(better.settings).summary
    assert alone
    assert (better.first, better.score) == (alone.initial_loss, pytest.approx(_recall(alone)))
    assert better.last < alone.train_loss  # after the last update, not on the way there
    assert tried.rows == 200
    assert rehearse(given.config, wanted[1:2]).better[0].score > 0.9


def test_a_layer_alone_that_no_line_helps_is_tried_with_a_hidden_layer(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.5)
    done = ablate("data=xor", "model=softmax_regression", "lr=0.5", "epochs=200", "tracking=none", "check=false")
    [command] = re.findall(r"why      python -m ablate.explain (\S+)", done.out)
    explained = run(monkeypatch, capsys, str(tmp_path / command)).out
    assert re.search(r"1\. model=mlp model.activation=relu: loss \S+ to 0\.\d+, recall 100\.0%", explained)


def test_a_sweep_names_the_evidence_and_explain_tries_what_meets_it(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "SECONDS", 0.2)
    done = ablate(*_boxes(tmp_path / "boxes.npz", 1e4), "workers=1", "check=false")
    assert re.search(r"evidence: the inputs lie between -\S+ and \S+, far from 1.*; .* tries data.norm", done.out)
    [command] = re.findall(r"why      python -m ablate.explain (\S+)", done.out)
    explained = run(monkeypatch, capsys, str(tmp_path / command)).out
    assert "what the data, the start and the network show\n  the inputs lie between" in explained
    assert re.search(r"as it is: loss .* recall [45]\d\.\d%\n  1\. data.normalize=.*recall [89]\d", explained)
    kept = json.loads((tmp_path / command / "evidence.json").read_text(encoding="utf-8"))
    assert kept["expected_loss"] == pytest.approx(math.log(2))
    _boxes(tmp_path / "boxes.npz", 1e5)
    explained = run(monkeypatch, capsys, str(tmp_path / command)).out
    assert "nothing was tried: its data have changed since it was trained" in explained
    (tmp_path / "boxes.npz").unlink()
    explained = run(monkeypatch, capsys, str(tmp_path / command)).out
    assert "nothing was tried: data.path=" in explained
    assert "1. data.normalize=per_feature: the inputs lie between" in explained
