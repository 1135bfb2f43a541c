"""What is said of a trial that has ended: advice that fits its verdict, and one line where there is no trial."""

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Done
from helpers import trial
from rich.console import Console

from ablate.commands import explain
from ablate.diagnosis.advice import Known, advice
from ablate.diagnosis.checks import Check
from ablate.terminal.tables import COLOURS

TINY = ["model=softmax_regression", "data.train_limit=64", "epochs=2", "tracking=none", "workers=1"]


def known(verdict: str, *overrides: str, check: Check | None = None, **last: float) -> Known:
    row = {"trial": 0, "verdict": verdict, "why": "so", "test_accuracy": last.get("test/accuracy", 0.5)}
    return Known(trial(*overrides).config, row, check, [{"step": 1, "epoch": 1, **last}])


ADVICE = {
    "ascending": ("update_sign=minus", ["update_sign=plus"]),
    "diverged": ("a smaller learning rate: lr=0.1", ["lr=0.5"]),
    "collapsed": ("a smaller learning rate: lr=0.1", ["lr=0.5"]),
    "stuck": ("a larger learning rate: lr=0.005", ["lr=0.001"]),
    "slow": ("more epochs: epochs=30", []),
    "plateau": ("a larger model", []),
    "failed": ("ablate.log", []),
    "interrupted": ("let it run to its end", []),
    "trained": ("nothing is wrong here", []),
}


@pytest.mark.parametrize("verdict", ADVICE)
def test_every_verdict_has_advice_that_fits(verdict: str) -> None:
    said, overrides = ADVICE[verdict]
    assert said in " / ".join(advice(known(verdict, *overrides)))


def test_every_verdict_is_one_of_those() -> None:
    assert set(ADVICE) == set(COLOURS)


def test_what_the_check_found_comes_first() -> None:
    found = Check(guess="wrong sign", advice="use update_sign=minus")
    assert advice(known("ascending", check=found)) == ["use update_sign=minus"]
    lines = advice(known("plateau", check=found))
    assert lines[0] == "use update_sign=minus"
    assert len(lines) > 1


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
        ({"watch/too_small": 7.0}, "7 times a number of the output layer moved by less than 1e-7"),
        ({"watch/dead_units": 0.4}, "40% of the ReLU units"),
        ({"watch/saturated": 0.8}, "80% of the sigmoid or tanh values"),
        ({"watch/largest_class": 0.9}, "90% of the test predictions are one and the same class"),
        ({"test/confidence": 0.9999, "test/accuracy": 0.5}, "the outputs are at 0 and 1"),
    ],
)
def test_what_was_watched_is_told_where_it_is_worth_a_line(last: dict[str, float], said: str) -> None:
    [line] = explain._seen(known("plateau", **last))
    assert said in line
    assert not list(explain._seen(known("plateau", **dict.fromkeys(last, 0.0))))


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
    explain.explain(console, Known(trial().config, {"trial": 3, "verdict": "failed", "why": "it broke"}, None, []))
    text = console.export_text()
    assert "verdict  failed: it broke" in text
    assert "before training" not in text
    assert "what to try next" in text
