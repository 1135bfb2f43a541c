"""The checks before training: every known mistake is named, nothing correct is, and the command says so."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Done, environment, run_in_process
from helpers import aimed, prepared, settings, train_alone
from threadpoolctl import threadpool_limits

import ablate as ablate_package
from ablate import __main__
from ablate import check as check_command
from ablate.commands import launcher
from ablate.diagnosis import checks as check
from ablate.diagnosis import measure
from ablate.diagnosis import verdicts as diagnose
from ablate.diagnosis.loss_alone import LOGITS
from ablate.errors import ConfigError
from ablate.problem.custom_loss import try_out
from ablate.problem.data.dataset import Dataset
from ablate.problem.tasks import TASKS
from ablate.training.loop import Summary
from docs.studies import right_losses, slips

MODELS = {
    "lenet5": ["model=lenet5"],
    "mlp": ["model=mlp", "model.preactivation_divisor=78.5"],
    "softmax_regression": ["model=softmax_regression"],
}
BUGS = ["diagonal_jacobian", "sum_for_mean", "bias_gradient", "stale_gradients"]
HIDDEN = [("lenet5", "missing_activation_derivative"), ("mlp", "missing_activation_derivative")]
NAMED = [*((model, bug) for model in MODELS for bug in BUGS), *HIDDEN, ("mlp", "missing_divisor")]
OWN = ["loss=custom", "loss.target=docs.studies.mistaken.Mistaken"]


def examine(*overrides: str, dataset: Dataset | None = None) -> check.Check:
    with threadpool_limits(1, user_api="blas"):
        return check.check(prepared(*overrides, dataset=dataset))


@pytest.mark.parametrize(("model", "bug"), NAMED)
def test_a_known_mistake_is_named(model: str, bug: str) -> None:
    found = examine(*MODELS[model], f"bug={bug}", "loss=mse" if bug == "diagonal_jacobian" else "loss=ce")
    assert found.guess == bug
    assert found.advice
    assert "besides" not in found.advice
    if bug != "stale_gradients":  # the first gradient is right, the next is not
        assert (found.gradient_error or 0) > 0.01


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wrong", ["update_sign=plus", "residual=y-p"])
def test_a_step_uphill_is_named_with_its_remedy(model: str, wrong: str) -> None:
    found = examine(*MODELS[model], wrong)
    assert (found.guess, found.descent_cosine) == ("wrong sign", pytest.approx(-1, abs=1e-6))
    assert found.actual is not None
    assert found.predicted is not None
    assert found.actual > 0
    assert found.actual == pytest.approx(found.predicted, rel=0.01)
    key, _, value = wrong.partition("=")
    assert f"{key}={'minus' if value == 'plus' else 'p-y'}" in str(found.advice)


def test_a_mistake_beside_a_wrong_sign_is_told_too() -> None:
    found = examine("model=mlp", "update_sign=plus", "bug=missing_activation_derivative")
    assert found.guess == "wrong sign"
    assert "besides, the backward pass leaves out the derivative of the hidden activations" in str(found.advice)


CORRECT = [
    "",
    "update_sign=plus residual=y-p",
    "loss.reduction=sum dtype=float64",
    "loss=mae init=uniform01",
    "loss=hinge data.normalize=none",
    "loss=focal loss.gamma=0.5 init=normal init.scale=5",
    "model.logits=relu init=normal init.scale=0.01",
    "model.logits=relu loss=mse init=uniform01 data.normalize=unit",
    "bug=double_softmax",
    "bug=swapped_labels",
    "model=mlp model.hidden=[40,30,20,10] model.activation=relu init=normal init.scale=1e-6",
    "model=mlp model.preactivation_divisor=78.5 init=uniform01 data.normalize=none",
    "model=mlp model.activation=tanh init=normal init.scale=100 loss=mse model.output=sigmoid",
    "model=mlp loss=bce loss.from_logits=false data.normalize=none",
    "model=mlp loss=label_smoothing loss.from_logits=false loss.eps_sum=0.1 loss.eps_log=0.01",
    "model=softmax_regression loss=ce loss.from_logits=false loss.eps_log=1e-10 init=normal init.scale=20",
    "model=softmax_regression loss=mae data.train_limit=1",
    "data=xor model=mlp model.units=1 loss=bce init=uniform01",
    "data=xor model=mlp model.units=1 loss=mse model.output=sigmoid bug=none",
    "data=xor model=mlp loss=hinge",
    "data=xor model=softmax_regression loss=mae loss.from_logits=false",
    "model=mlp loss=custom loss.target=custom_losses.CrossEntropy +loss.args.scale=1e9",
    "model=mlp loss=custom loss.target=custom_losses.Squared",
    "model=mlp loss=custom loss.target=custom_losses.OfLogits",
    "model=mlp loss=custom loss.target=custom_losses.BinaryOfLogits",
    "model=mlp model.dropout=0.5 init=zeros",
    "model.fit=null model.layers=[{dropout:0.2},{conv:2,kernel:3,stride:2},{dropout:0.4},softmax,{dense:classes}]",
]


@pytest.mark.parametrize("overrides", CORRECT)
def test_nothing_is_found_where_nothing_is_wrong(overrides: str) -> None:
    found = examine(*overrides.split())
    assert (found.guess, found.advice, found.left_out) == (None, None, None)
    assert found.gradient_error is not None
    assert found.gradient_error <= measure.TOLERANCE
    assert found.descent_cosine == pytest.approx(1, abs=1e-6)


def test_dead_inputs_and_few_samples_are_no_mistakes() -> None:
    """Columns of zeros have no gradient; two samples are all there is; a feature may be huge."""
    x = np.array([[0.0, 1e6, 0.5], [0.0, -3e6, 1.0]])
    few = Dataset("few", "few", x, np.array([1, 0]), x, np.array([1, 0]), 2)
    for overrides in (["model=softmax_regression"], ["model=mlp", "model.activation=relu", "loss=mse"]):
        assert examine(*overrides, dataset=few).guess is None
    assert examine("model=mlp", dataset=replace(few, x_train=0 * x)).guess is None


def test_a_kink_beside_a_coordinate_is_passed_over() -> None:
    """|w - kink| has slope 1 or -1; a smaller step tells which, and at the kink itself there is no telling."""

    def loss(kink: float) -> Callable[[float], float]:
        return lambda step: abs(step - kink)

    for kink, slope in ((3e-8, -1.0), (-5e-7, 1.0)):
        found = measure.nearest_slope(loss(kink), abs(kink), slope, 1.0, measure.STEPS)
        assert found == pytest.approx((slope, 0), abs=1e-5)
        wrong = measure.nearest_slope(loss(kink), abs(kink), -slope, 1.0, measure.STEPS)
        assert wrong is not None
        assert wrong[1] == pytest.approx(2, rel=1e-4)
    assert measure.nearest_slope(loss(0.0), 0.0, 0.3, 1.0, measure.STEPS) is None


# A loss of one's own


@pytest.mark.parametrize(
    ("mistake", "guess", "said"),
    [
        ("sign", "wrong sign", "change it"),
        ("factor 2", "scale factor", "2 times the derivative of its value"),
        ("no Jacobian", "missing_jacobian", "multiply it by the softmax's derivative"),
        ("diagonal Jacobian", "diagonal_jacobian", "the whole Jacobian"),
        ("Jacobian twice", "jacobian_twice", "leave one out"),
        ("divided by N", "factor of samples", "give each sample its own gradient"),
        ("times N", "factor of samples", "give each sample its own gradient"),
        ("one class forgotten", "wrong derivative", "look at gradient(z, y)"),
    ],
)
@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize("model", ["mlp", "softmax_regression"])
def test_a_wrong_gradient_of_ones_own_is_named(model: str, loss: str, mistake: str, guess: str, said: str) -> None:
    found = examine(f"model={model}", *OWN, f"+loss.args.loss={loss}", f"+loss.args.mistake={mistake}")
    if (loss, mistake) == ("mse", "no Jacobian"):
        guess = "two losses"  # p - y is the gradient of ce, which trains first
        assert str(found.advice).index("if loss=ce's is meant") < str(found.advice).index("if the value is meant")
    assert found.guess == guess
    assert said in str(found.advice)
    by_itself = next(tensor for tensor in found.tensors if tensor.name == LOGITS)
    worst = max(by_itself.entries, key=lambda entry: abs(entry.analytic - entry.numeric))
    sample, index = worst.index
    beside = f"gradient(z, y)[{sample}, {index}] is {worst.analytic:.6g}, the slope of value(z, y)"
    assert beside in str(found.advice)
    assert f" there is {worst.numeric:.6g}" in str(found.advice)


@pytest.mark.parametrize("mistake", ["no Jacobian", "Jacobian twice", "factor 2"])
def test_a_wrong_gradient_over_a_sigmoid_is_named(mistake: str) -> None:
    found = examine("model=mlp", *OWN, "+loss.args.loss=sigmoid_mse", f"+loss.args.mistake={mistake}")
    # p - y is the gradient of bce, which trains first.
    named = {"no Jacobian": "two losses", "Jacobian twice": "jacobian_twice", "factor 2": "scale factor"}
    assert found.guess == named[mistake]


def test_two_wrong_signs_descend_and_are_told() -> None:
    found = examine("model=mlp", "update_sign=plus", *OWN, "+loss.args.mistake=sign")
    assert (found.guess, found.descent_cosine) == ("wrong sign", pytest.approx(1, abs=1e-6))
    assert "cancel" in str(found.advice)


@pytest.mark.parametrize("slip", slips.SLIPS)
def test_a_slip_is_named_with_the_two_numbers(slip: str) -> None:
    found = examine("model=softmax_regression", "loss=custom", f"loss.target=docs.studies.slips.{slip}")
    assert found.guess in slips.SLIPS[slip]
    assert len(re.findall(r"-?\d+(?:\.\d+)?|nan|inf", str(found.advice))) >= 2
    # Where slopes mean nothing, none are shown, and the gradient is not accused.
    if found.guess in ("probabilities", "swapped arguments"):
        assert (found.tensors, found.gradient_error, found.descent_cosine) == ((), None, None)


@pytest.mark.parametrize("slip", slips.REFUSED)
def test_a_wrong_shape_is_refused_with_what_to_write(slip: str) -> None:
    with pytest.raises(ConfigError, match=f"docs.studies.slips.{slip}: .*{slips.REFUSED[slip]}"):
        prepared("model=softmax_regression", "loss=custom", f"loss.target=docs.studies.slips.{slip}")


@pytest.mark.parametrize("name", right_losses.ALL)
def test_a_right_loss_in_any_style_is_no_alarm(name: str) -> None:
    found = examine("model=softmax_regression", "loss=custom", f"loss.target=docs.studies.right_losses.{name}")
    assert (found.guess, found.advice, found.left_out) == (None, None, None)
    assert len(found.tensors) == 3


def test_a_sample_of_a_batch_beside_itself_alone() -> None:
    """With the softmax over the samples, a sample alone has probability 1 and the loss 0."""
    found = examine("model=mlp", "loss=custom", "loss.target=docs.studies.slips.SoftmaxOverSamples")
    assert re.search(r"value\(z, y\)\[\d+\] is [\d.]+ in a batch of 12 and -?0 by itself", str(found.advice))
    assert "loss=ce's with the softmax over the samples (axis=0)" in str(found.advice)
    of_batch, meant = re.findall(r"value\(z, y\)\[0\] is ([\d.]+), and ([\d.]+) as it is meant", str(found.advice))[0]
    assert of_batch != meant
    dice = examine("model=mlp", "loss=custom", "loss.target=docs.studies.slips.DiceOfBatch")
    assert "as a loss of the whole batch its gradient is right" in str(dice.advice)
    assert not found.tensors
    assert not dice.tensors


def test_no_change_is_advised_that_trains_worse() -> None:
    """The derivative of the cross-entropy of a double softmax trains worse than the short gradient."""
    [short, whole] = [
        str(examine("model=mlp", "loss=custom", f"loss.target=docs.studies.slips.{name}").advice)
        for name in ("TwiceSoftmaxShort", "TwiceSoftmax")
    ]
    for advice in (short, whole):
        coded, mended = map(int, re.findall(r"(\d+)% on the way\) with the gradient", advice))
        assert coded < mended
        assert "slope of the value" not in advice


def test_a_loss_of_the_logits_is_right_whatever_output_it_names() -> None:
    own = ["model=mlp", "loss=custom"]
    found = examine(*own, "loss.target=custom_losses.HingeUnderSoftmax")
    assert (found.guess, found.left_out) == (None, None)
    assert "loss=hinge's of the logits, and the class says output = 'softmax'" in str(found.note)
    assert 'output = "identity" suits it' in str(found.note)
    found = examine(*own, "loss.target=custom_losses.CrossEntropyUnderIdentity")
    assert found.is_right
    assert 'output = "softmax" suits it' in str(found.note)
    found = examine(*own, "loss.target=custom_losses.HingeUnderSoftmax", "+loss.args.forgets=true")
    assert found.guess == "wrong derivative"
    assert "of the right class and of the others, from 0 to 1" in str(found.advice)


@pytest.mark.parametrize(
    ("task", "target", "guess", "said"),
    [
        ("regression", "LogCosh", None, ""),
        ("regression", "SquareClimbed", "negative value", "negative of loss=mse's .* put the minus in front of both"),
        ("regression", "SquareCrossed", "other samples", r"mean of the loss of its target and every .* use z - y"),
        ("regression", "AbsoluteWithoutSign", "value for gradient", "gives the value itself .* an R² of 0"),
        (
            "regression",
            "HuberWithoutSign",
            "sign of some entries",
            "wrong sign where z < y: .* the value is loss=huber's",
        ),
        ("multilabel", "Binary", None, ""),
        ("multilabel", "Binary +loss.args.slip=half", "half of bce", "write both halves"),
        (
            "multilabel",
            "Binary +loss.args.slip=twice",
            "double output",
            "sigmoid of a sigmoid .* a share of labels right",
        ),
        (
            "multilabel",
            "Binary +loss.args.slip='of p'",
            "probabilities",
            "which is loss=bce's; apply the sigmoid first",
        ),
        (
            "multilabel",
            "BinaryUnderIdentity",
            "another output",
            r"'identity' \(value\(z, y\)\[\d+\] is [\d.]+\): .*p > 1/2",
        ),
        ("multilabel", "CrossEntropy", "softmax of one class", 'outputs sum to 1, .* output = "sigmoid"'),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_loss_of_another_task_is_read_as_one_of_that_task(
    task: str, target: str, guess: str | None, said: str
) -> None:
    data = aimed(task, 4, 1 if task == "regression" else 3, rows=40)
    target, *args = target.split(" ", 1)
    own = ["model=mlp", "model.hidden=[8]", "loss=custom", f"loss.target=custom_losses.{target}", *args]
    found = examine("data=npz", f"data.task={task}", *own, dataset=data)
    assert (found.guess, found.left_out) == (guess, None)
    assert re.search(said, str(found.advice))
    assert task == "multilabel" or "class" not in str(found.advice)


def test_one_number_a_sample_is_asked_for_where_there_are_no_classes() -> None:
    objective = settings("loss=custom", "loss.target=custom_losses.SquareRavelled").loss.objective("auto")
    with pytest.raises(ConfigError, match=r"z and y are both \(N, 1\), .* or return gradient\[:, None\]"):
        try_out(objective, 1, TASKS.get("regression"))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            "Unshifted",
            r"inf .*: np\.exp overflows \(custom_losses\.py, line \d+\): subtract each sample's largest logit",
        ),
        (
            "Unshifted +loss.args.from_p=true",
            r"nan .*: np\.log is given 0, .* \(custom_losses\.py, line \d+\): take ln p",
        ),
    ],
)
def test_what_is_not_finite_at_large_logits_is_named_with_its_line(target: str, said: str) -> None:
    target, *args = target.split()
    own = ["model=softmax_regression", "loss=custom", f"loss.target=custom_losses.{target}", *args]
    gentle, large = examine(*own), examine(*own, "init=normal", "init.scale=1000")
    assert (gentle.guess, large.guess) == (None, "not finite")
    assert re.search(f"not finite at large logits: value.*{said}", str(gentle.large))
    ended = Summary(1, 1, 2.3, math.nan, 0.1, math.nan, 0.1, [2.3], [0.1], [], [], [], 0.9, not_finite_step=1)
    assert str(gentle.large) in diagnose.verdict(ended, gentle).why
    assert re.search(f"not finite at the start: value.*{said}", str(large.advice))
    assert examine(*own[:2], "loss.target=custom_losses.CrossEntropy").large is None


@pytest.mark.parametrize(
    ("target", "guess", "said"),
    [
        (
            "WholeNumbers",
            "whole numbers",
            r"of the type int64, which cuts the fractions off \(gradient.* is -?0, the slope",
        ),
        ("ErrorRate", "no slope", "the error rate .* is [01], and [01] with -z.* no step is made: train with a loss"),
    ],
)
def test_a_loss_without_a_slope_or_fractions(target: str, guess: str, said: str) -> None:
    found = examine("model=mlp", "loss=custom", f"loss.target=custom_losses.{target}")
    assert found.guess == guess
    assert re.search(said, str(found.advice))


def test_a_function_is_no_class() -> None:
    with pytest.raises(ConfigError, match="cross_entropy is a function; expected a class with output, value"):
        prepared("loss=custom", "loss.target=custom_losses.cross_entropy")


class Unsteady:
    """Draws a number each time it is asked for its gradient."""

    output = "identity"

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def value(self, z: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return 0.5 * np.square(z - y).sum(axis=1)

    def gradient(self, z: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (z - y) * self.rng.uniform(0.5, 1.5)


def test_a_gradient_that_is_another_each_time() -> None:
    assert examine("model=mlp", "loss=custom", "loss.target=test_check.Unsteady").guess == "not repeatable"


def test_a_wrong_gradient_trains_and_its_why_has_cosine_and_error() -> None:
    trial = settings("model=mlp", "epochs=4", *OWN, "+loss.args.loss=mse", "+loss.args.mistake=no Jacobian")
    found, trained = check.check(ablate_package.prepare(trial)), train_alone(trial)
    assert trained.summary
    assert trained.summary.train_accuracy > 0.5
    verdict = diagnose.verdict(trained.summary, found)
    assert found.descent_cosine is not None
    assert 0 < found.descent_cosine < 0.99
    assert f"gradient error {found.gradient_error:.2g}, descent cosine {found.descent_cosine:.2f}" in verdict.why


def test_a_loss_that_cannot_be_computed_is_what_was_found() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.Failing", "+loss.args.after=0")
    assert found.guess == "loss fails"
    assert "no more of this" in str(found.advice)
    assert "no more of this" in str(examine("loss=custom", "loss.target=custom_losses.TwoLines").advice)


@pytest.mark.parametrize("wrong", range(10))
def test_a_mistake_in_one_class_is_seen_whichever_it_is(wrong: int) -> None:
    found = examine(
        "model=mlp", "loss=custom", "loss.target=custom_losses.OneClassTooSteep", f"+loss.args.wrong={wrong}"
    )
    assert not found.is_right


def test_a_tiny_loss_that_climbs_is_not_called_right() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.TinyAndUphill")
    assert found.guess == "wrong sign"


def test_a_right_loss_in_float32_is_checked_with_larger_steps() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.InFloat32")
    assert (found.guess, found.left_out) == (None, None)
    assert "less exact than float64" in str(found.note)
    wrong = ["loss.target=custom_losses.OffInFloat32", "+loss.args.factor=1.01"]
    assert examine("model=mlp", "loss=custom", *wrong).guess == "scale factor"


@pytest.mark.parametrize(
    ("data", "name"), [("digits", "WeightedInFloat16"), ("digits", "CappedAndRounded"), ("xor", "PenalisedInFloat16")]
)
def test_a_difference_within_the_rounding_is_no_mistake(data: str, name: str) -> None:
    words = [f"data={data}", "model=softmax_regression", "loss=custom", f"loss.target=custom_losses.{name}"]
    assert examine(*words).guess is None


def test_a_wrong_gradient_of_a_loss_of_logits_is_named() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.OfLogits", "+loss.args.factor=2")
    assert found.guess == "scale factor"
    assert "the value is loss=ce's over a softmax" in str(found.advice)


def test_a_squared_hinge_of_0_and_1_is_named() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.SquaredHinge")
    assert found.guess == "labels 0 and 1 in a hinge"
    assert "max(0, 1 - t * z)²" in str(found.advice)


def test_a_wrong_factor_in_a_regression_is_told_with_the_two_numbers() -> None:
    words = ["data=diabetes", "model=softmax_regression", "loss=custom", "loss.target=custom_losses.HalfTheSquare"]
    found = examine(*words)
    match = re.search(
        r"gradient\(z, y\)\[\d+, 0\] is (\S+), the slope of value\(z, y\) there is ([^\s)]+)", str(found.advice)
    )
    assert found.guess == "scale factor"
    assert match
    assert float(match[1]) == pytest.approx(float(match[2]) / 2, rel=1e-4)


def test_a_right_loss_far_from_zero_is_not_accused() -> None:
    assert examine("model=mlp", "loss=custom", "loss.target=custom_losses.FarBelowZero").is_right


def test_a_loss_with_a_state_is_not_repeatable() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.Annealed")
    assert found.guess == "not repeatable"


def test_a_loss_that_never_moves_tells_nothing() -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.Zero")
    assert "nothing can be said" in str(found.left_out)


@pytest.mark.parametrize(("target", "said"), [("FourValues", "was expected"), ("Ragged", "ragged list")])
def test_shapes_that_depend_on_the_batch_are_refused(target: str, said: str) -> None:
    trial = settings("loss=custom", f"loss.target=custom_losses.{target}")
    objective = trial.loss.objective(trial.output)
    with pytest.raises(ConfigError, match=said):
        try_out(objective, 10)


# What is not finite, what is left out, and how much is made


@pytest.mark.parametrize(
    ("overrides", "guess", "said"),
    [
        ("bug=unshifted_softmax init=uniform01 data.normalize=none", "unshifted_softmax", "the largest logit is"),
        ("loss.from_logits=false init=normal init.scale=100", "not finite", "loss.from_logits=true"),
        ("init=normal init.scale=1e38", "not finite", "the logits are not finite"),
    ],
)
def test_a_start_that_is_not_finite(overrides: str, guess: str, said: str) -> None:
    found = examine("model=softmax_regression", *overrides.split())
    assert found.guess == guess
    assert said in str(found.advice)
    assert (found.gradient_error or math.inf) <= measure.TOLERANCE


def test_straight_through_has_no_gradient_to_check() -> None:
    found = examine("model=softmax_regression", "model.logits=straight_through_relu")
    assert "no true gradient" in str(found.left_out)
    assert found.is_right


def test_each_distinct_check_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(check, "check", lambda trial: made.append(trial) or check.Check())
    alike = [prepared("model=mlp", f"lr={lr}", f"seed={seed}") for lr in (0.1, 0.5) for seed in range(3)]
    others = [prepared("model=mlp", "check=false"), prepared("model=mlp", "loss=mse"), prepared("model=mlp", "lr=1")]
    found = check.check_all([*alike, *others])
    assert len(made) == 2
    assert [each is None for each in found] == [False] * 6 + [True, False, False]


# The command


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`python -m ablate.check` in this process."""
    monkeypatch.setattr(__main__, "main", check_command.main)
    return lambda *arguments: run_in_process(tmp_path, *arguments)


def assert_nothing_created(folder: Path) -> None:
    assert not [path for path in folder.iterdir() if path.name in ("runs", "mlflow.db")]


def test_the_command_prints_a_table_and_ends_with_0(command: Callable[..., Done], tmp_path: Path) -> None:
    done = command("model=mlp", "lr=0.5")
    assert done.code == 0, done.err
    words = [line.split() for line in done.out.splitlines()]
    assert words[0] == ["model=mlp", "lr=0.5"]
    names = [line[0] for line in words if len(line) == 4]
    assert names == ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias", "logits"]
    assert "a step descends" in done.out
    assert_nothing_created(tmp_path)


def test_the_command_ends_with_1_where_something_is_found(command: Callable[..., Done], tmp_path: Path) -> None:
    done = command("-m", "model=mlp", "bug=none,missing_activation_derivative", "lr=0.1,0.5")
    assert done.code == 1, done.err
    assert done.out.count("worst entry") == 2  # the rate makes no difference
    worst = next(line for line in done.out.splitlines() if "worst entry dense1" in line)
    assert "analytic" in worst
    assert "numeric" in worst
    assert "missing_activation_derivative: " in done.out
    assert_nothing_created(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lr=-1"], "lr=-1"),
        (["model=lenet5", "data=xor"], "images are needed"),
        ([*OWN[:1], "loss.target=custom_losses.ScalarValue"], "(4, 10); (4,) was expected"),
        ([*OWN[:1], "loss.target=custom_losses.NothingReturned"], "value returned None; an array (4,) was expected"),
        ([*OWN[:1], "loss.target=custom_losses.Yielding"], "value gave no numbers (generator); an array (4,)"),
        ([*OWN[:1], "loss.target=custom_losses.TurnedGradient"], "(10, 4) for logits (4, 10); (4, 10) was expected"),
    ],
)
def test_the_command_ends_with_2_where_it_is_wrong(
    command: Callable[..., Done], tmp_path: Path, arguments: Sequence[str], said: str
) -> None:
    done = command(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert_nothing_created(tmp_path)


def test_its_help_is_that_of_the_checks(command: Callable[..., Done]) -> None:
    done = command("--help")
    assert done.code == 0
    first, _, *examples = done.out.splitlines()
    assert first.startswith("ablate.check checks gradient and sign")
    assert examples[0].startswith("  python -m ablate.check ")
    assert "\n  update_sign " in done.out


@pytest.mark.parametrize("target", ["ScalarValue", "TurnedGradient"])
def test_wrong_shapes_are_refused_before_training(ablate: Callable[..., Done], tmp_path: Path, target: str) -> None:
    done = ablate("model=mlp", "loss=custom", f"loss.target=custom_losses.{target}")
    assert done.code == 2
    assert "was expected" in done.err
    assert_nothing_created(tmp_path)


def test_a_device_that_cannot_be_had_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablate.check", "backend=cuda", "device=gpu"]
    env = environment(CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "backend=cuda: device=gpu" in done.stderr


def test_the_sweep_writes_the_checks_unless_told_not_to(ablate: Callable[..., Done], tmp_path: Path) -> None:
    tiny = ["model=softmax_regression", "data.train_limit=64", "epochs=1", "tracking=none", "workers=1"]
    done = ablate("-m", *tiny, "check=true,false", "update_sign=plus")
    assert done.code == 0, done.err
    [sweep] = (tmp_path / "runs").iterdir()
    checked, not_checked = (sweep / number for number in "01")
    assert '"wrong sign"' in (checked / "check.json").read_text()
    first = json.loads((checked / "metrics.jsonl").read_text().splitlines()[0])
    assert first["check/descent_cosine"] == pytest.approx(-1)
    assert not (not_checked / "check.json").exists()
    assert "check/" not in (not_checked / "metrics.jsonl").read_text()
    assert (sweep / "results.csv").read_text().splitlines()[1].split(",")[2] == "ascending"


def test_the_command_as_a_process(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ablate.check", "model=softmax_regression", "bug=bias_gradient"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "bias_gradient: " in done.stdout


@pytest.mark.parametrize(("factor", "is_right"), [(1.001, False), (0.999, False), (1.00001, True)])
def test_a_gradient_may_be_off_by_a_ten_thousandth(factor: float, is_right: bool) -> None:
    found = examine("model=mlp", "loss=custom", "loss.target=custom_losses.Off", f"+loss.args.factor={factor}")
    assert found.is_right == is_right


def test_as_many_coordinates_of_each_tensor_as_are_promised() -> None:
    found = examine("model=mlp")
    weights = [tensor for tensor in found.tensors if tensor.name.endswith("weight")]
    assert weights
    assert all(len({entry.index for entry in tensor.entries}) in (15, 16) for tensor in weights)


def test_a_check_says_which_trials_it_covers(capsys: pytest.CaptureFixture[str]) -> None:
    trials = ablate_package.compose("data=xor", "model=mlp", "lr=0.1,0.2", "loss=ce,mse")
    assert launcher.examine(Path(), trials) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data=")]
    each = "data=xor model=mlp lr=0.1,0.2 loss={} (one check for 2 trials)"
    assert heads == [each.format("ce"), each.format("mse")]
