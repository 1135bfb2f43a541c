"""Verdicts: on trainings whose truth is known, and of every rule at its threshold."""

import math
import re
from typing import Any

import pytest
from helpers import settings, train_alone

from ablate.diagnosis.causes import Cause, Change
from ablate.diagnosis.checks import Check
from ablate.diagnosis.verdicts import verdict
from ablate.training.loop import Summary

TRAININGS = [
    ("data=xor model=mlp model.hidden=8 lr=2 epochs=500 seed=1", "trained", "100.0%"),
    ("model=mlp lr=0.1 epochs=5", "trained", "at or above 90%"),
    # The wrong sign, where the loss has no upper end and where it has one.
    ("model=softmax_regression update_sign=plus epochs=2", "diverged", "rose from .* times its start"),
    ("model=softmax_regression residual=y-p epochs=2", "diverged", "rose from .* times its start"),
    ("model=softmax_regression update_sign=plus loss=mse epochs=5", "collapsed", "100% .* class 5"),
    ("data=xor model=mlp lr=3e38 epochs=5", "diverged", r"not a finite number any more at step 1 \(epoch 2\)"),
    ("data=xor model=mlp lr=0.0001 epochs=5", "collapsed", "so the accuracy is that class's share, 50.0%"),
    ("model=mlp lr=1e-6 epochs=1", "stuck", "fell by only 0.0%"),
    ("model=mlp lr=0.01 epochs=5 loss=mse", "stuck", "fell by only 1.0%"),
    ("model=mlp lr=0.01 epochs=5", "slow", "the test loss still fell"),
    # One layer cannot do exclusive or, and forty images are not enough.
    ("data=xor model=softmax_regression lr=0.5 epochs=100", "plateau", "below 90%"),
    ("model=softmax_regression data.train_limit=40 epochs=150", "plateau", ""),
    (
        "loss=custom loss.target=custom_losses.Failing data=xor model=mlp",
        "failed",
        r"ArithmeticError: no more of this \(custom_losses\.py, line 53\)",
    ),
]


@pytest.mark.parametrize(("overrides", "name", "why"), TRAININGS, ids=lambda text: text)
def test_verdict_on_a_training(overrides: str, name: str, why: str) -> None:
    summary = train_alone(settings(*overrides.split())).summary
    assert summary
    found = verdict(summary)
    assert found.name == name
    assert re.search(why, found.why)
    assert found.why == " ".join(found.why.split())


def _summary(**values: Any) -> Summary:
    """A training that went well, but for the values given: ten epochs, a hundred test rows of ten classes."""
    well: dict[str, Any] = {
        "epochs": 10,
        "steps": 100,
        "initial_loss": 2.0,
        "train_loss": 0.1,
        "train_accuracy": 0.85,
        "test_loss": 0.2,
        "test_accuracy": 0.95,
        "test_losses": [2.0] + [0.2] * 10,
        "test_accuracies": [0.1] + [0.95] * 10,
        "predicted": [10] * 10,
        "labels": [10] * 10,
        "recognised": [10] * 5 + [9] * 5,
        "target_accuracy": 0.9,
    }
    return Summary(**well | values)


def _predicting_one_class(share: int, accuracy: float) -> dict[str, Any]:
    right = round(100 * accuracy)
    return {
        "predicted": [share, 100 - share, *[0] * 8],
        "test_accuracy": accuracy,
        "recognised": [min(right, 10), max(right - 10, 0), *[0] * 8],
    }


def _of_two_classes(rows: int, others: int, right: int, right_others: int, train: float = 0.9) -> dict[str, Any]:
    """Of `rows` samples of class 0 and `others` of class 1, so many recognised; whoever is not is called the other."""
    return {
        "labels": [rows, others],
        "predicted": [right + others - right_others, right_others + rows - right],
        "recognised": [right, right_others],
        "test_accuracy": (right + right_others) / (rows + others),
        "train_accuracy": train,
    }


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "trained"),
        ({"test_accuracy": 0.9}, "trained"),
        ({"test_accuracy": 0.899}, "plateau"),
        ({"train_loss": 4.0, "test_accuracy": 0.34}, "stuck"),
        # It has learned something, whatever its mean training loss says.
        ({"train_loss": 4.0, "test_accuracy": 0.36}, "plateau"),
        ({"train_loss": 4.001}, "diverged"),
        ({"train_loss": math.nan}, "diverged"),
        # Dropout raises the training loss alone.
        ({"train_loss": 9.0, "test_accuracy": 0.5, "has_dropout": True}, "plateau"),
        ({"train_loss": 9.0, "test_loss": 4.1, "test_accuracy": 0.5, "has_dropout": True}, "diverged"),
        ({"train_loss": 0.1, "test_loss": 4.1, "test_accuracy": 0.5, "has_dropout": True}, "plateau"),
        ({"train_loss": 2.0, "test_loss": 1.9, "test_accuracy": 0.2, "has_dropout": True}, "plateau"),
        ({"train_loss": 2.0, "test_loss": 1.97, "test_accuracy": 0.2, "has_dropout": True}, "stuck"),
        ({"train_loss": math.inf}, "diverged"),
        ({"not_finite_step": 7}, "diverged"),
        (_predicting_one_class(90, 0.1), "collapsed"),
        (_predicting_one_class(89, 0.1), "plateau"),
        (_predicting_one_class(100, 0.149), "collapsed"),
        (_predicting_one_class(100, 0.151), "plateau"),
        (_predicting_one_class(100, 0.051), "collapsed"),
        (_predicting_one_class(100, 0.049), "plateau"),
        # Of 960 and 40: the others are recognised or not, whatever the accuracy.
        (_of_two_classes(960, 40, 960, 40), "trained"),
        (_of_two_classes(960, 40, 960, 0), "collapsed"),
        (_of_two_classes(960, 40, 960, 8), "collapsed"),
        (_of_two_classes(960, 40, 960, 9), "plateau"),
        (_of_two_classes(960, 40, 960, 19), "plateau"),
        (_of_two_classes(960, 40, 960, 20), "trained"),
        # Too few rows to speak of recall; and a ratio that is not yet unbalanced.
        (_of_two_classes(34, 5, 34, 2), "trained"),
        (_of_two_classes(749, 251, 749, 151), "trained"),
        ({"test_accuracy": 0.83, "target_accuracy": 0.83}, "trained"),
        ({"test_accuracy": 0.95, "target_accuracy": 0.96}, "plateau"),
        ({"train_loss": 1.95}, "trained"),
        ({"train_loss": 1.961, "test_accuracy": 0.2}, "stuck"),
        ({"train_loss": 2.0, "test_accuracy": 0.2}, "stuck"),
        ({"initial_loss": 0.0, "train_loss": 0.0, "test_accuracy": 0.2}, "stuck"),
        # Over the last fifth of ten epochs: from the eighth on.
        ({"test_accuracy": 0.5, "test_losses": [2.0] * 8 + [1.0, 0.99, 0.979]}, "slow"),
        ({"test_accuracy": 0.5, "test_losses": [2.0] * 8 + [1.0, 0.99, 0.981]}, "plateau"),
        ({"test_accuracy": 0.5, "test_losses": [2.0] * 8 + [1.0, 0.99, 1.5]}, "plateau"),
        ({"test_accuracy": 0.9, "test_losses": [2.0] * 8 + [1.0, 0.99, 0.5]}, "trained"),
        # Up and down, and down last; and a training set that is learned.
        ({"test_accuracy": 0.5, "test_losses": [2.0] * 5 + [0.9, 1.5, 0.9, 1.5, 1.2, 1.0]}, "plateau"),
        ({"test_accuracy": 0.5, "test_losses": [2.0] * 8 + [1.0, 0.9, 0.8], "train_accuracy": 0.99}, "plateau"),
        # By little, but evenly all the time: the steps are small. Bent, or up and down, it is none of them.
        ({"test_accuracy": 0.5, "test_losses": [2.0 - 0.01 * epoch for epoch in range(11)]}, "slow"),
        ({"test_accuracy": 0.5, "test_losses": [2.0 - 0.004 * epoch for epoch in range(11)]}, "plateau"),
        ({"test_accuracy": 0.5, "test_losses": [2.0 - 0.1 * (1 - 0.7**epoch) for epoch in range(11)]}, "plateau"),
        ({"test_accuracy": 0.5, "test_losses": [2.0, *[1.9, 1.92] * 4, 1.92, 1.91]}, "plateau"),
        # Fewer epochs than a fifth can be taken of: the last one.
        ({"test_accuracy": 0.5, "test_losses": [2.0, 1.9], "epochs": 1}, "slow"),
        ({"test_accuracy": 0.5, "test_losses": [2.0, 1.0, 0.99], "epochs": 2}, "plateau"),
    ],
)
def test_rule_at_its_threshold(values: dict[str, Any], name: str) -> None:
    assert verdict(_summary(**values)).name == name


def test_a_verdict_names_a_change_only_where_explain_tries_it() -> None:
    def said(check: Check) -> str:
        return verdict(_summary(test_accuracy=0.5), check, lambda _: [Cause("inputs", "so", [Change({"lr": 1})])]).why

    assert "evidence: so; ablate.explain tries lr=1" in said(Check())
    assert said(Check(guess="sum_for_mean", advice="divide")).endswith("evidence: so")


def test_the_first_rule_that_holds_gives_the_verdict() -> None:
    """Each of these is taken away in turn, and the next one shows."""
    values: dict[str, Any] = {
        "error": "ValueError: no",
        "not_finite_step": 3,
        **_predicting_one_class(100, 0.1),
        "train_loss": 3.0,
        "test_losses": [4.0, 3.0, 2.0],
    }
    found = [verdict(_summary(**values))]
    for gone in ({"error": None}, {"not_finite_step": None}, {"predicted": [10] * 10}, {"train_loss": 1.0}):
        values |= gone
        found.append(verdict(_summary(**values)))
    values["test_accuracy"] = 0.95
    found.append(verdict(_summary(**values)))
    assert [each.name for each in found] == ["failed", "diverged", "collapsed", "stuck", "slow", "trained"]
    assert found[0].why == "ValueError: no"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"test_accuracy": 0.83, "test_accuracies": [0.1, *[0.8] * 9, 0.805]}, "no longer rises; .* share, 10.0%"),
        ({"test_accuracy": 0.83, "test_accuracies": [0.1, *[0.8] * 9, 0.83]}, "below 90%, and the test loss"),
        ({"test_accuracy": 0.34, "test_accuracies": [0.34] * 11}, "34.0%, below 90%, and the test loss falls no more"),
        (
            {"test_accuracy": 0.75, "test_accuracies": [0.75] * 11, "labels": [2, 2]},
            "75.0%, below 90%, and the test loss",
        ),
        (_of_two_classes(960, 40, 960, 10), "97.0%, hides class 1: 10 of its 40 test samples .* class gives 96.0%"),
        # Below the majority's share, as overfitted rare classes are, is not yet below chance.
        (_of_two_classes(960, 40, 850, 16, train=1.0), "86.6%: it fits the training set better than the task"),
        (_of_two_classes(960, 40, 100, 2, train=1.0), "10.2%: it learned another task"),
        (_of_two_classes(960, 40, 950, 38), "every class is recognised, class 1 the least, with a recall of 95.0%"),
        (
            {"labels": [960, 36, 4], "predicted": [963, 37, 0], "recognised": [958, 34, 0], "test_accuracy": 0.992},
            "class of 5 or more .* recognised, class 1 the least, with a recall of 94.4%; of class 2, 0 of its 4 are$",
        ),
        ({"test_loss": math.inf}, "at or above 90%, although the test loss is not a finite number"),
        ({"train_loss": 4.1, "test_loss": 4.2, "has_dropout": True}, "the test loss rose from 2 to 4.2"),
    ],
)
def test_the_figures_behind_a_verdict(values: dict[str, Any], said: str) -> None:
    assert re.search(said, verdict(_summary(**values)).why)
