"""The CUDA engine, its kernels emulated on the CPU, gives the numbers of the NumPy engine."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from helpers import Trained, aimed, load, noise, settings, train_together
from test_gradients import AIMED, FORMS, NETWORKS, STACKS, VARIANT_FORMS

import ablate
from ablate.backends.cuda import engine, epochs
from ablate.backends.cuda.backend import open_device
from ablate.backends.cuda.probe import CudaProbe
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset
from ablate.problem.mistakes import MISTAKES

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation compiles the kernels with g++")

Array = np.ndarray[Any, np.dtype[Any]]

EMULATED = ["backend=cuda", "device=emulated"]
EXACT = ["dtype=float64", "init.bias=same"]
MLP = ["model=mlp", "model.hidden=[6,5]", "model.activation=tanh"]
LOSSES = [
    [f"loss={loss}", f"model.output={output}", f"loss.from_logits={from_logits}"] for loss, output, from_logits in FORMS
]
SETTINGS = [
    *VARIANT_FORMS,
    ["loss=reverse_kl", "loss.from_logits=false", "loss.eps_log=0.01"],
    ["loss=ce", "loss.class_weights=balanced"],
    ["loss=mse", "loss.class_weights=[0,2,1,5,3]"],
    ["loss=focal", "loss.gamma=0.5"],
    ["loss=focal", "loss.gamma=0"],
    ["loss=label_smoothing", "loss.smoothing=0.4"],
    ["loss=ce", "loss.from_logits=false", "loss.eps_log=0.01"],
    ["loss=bce", "loss.from_logits=false", "loss.eps_log=0.01"],
    ["loss=focal", "loss.from_logits=false", "loss.eps_log=0.01"],
    ["loss=mse", "loss.from_logits=false", "loss.eps_sum=0.1"],
    ["loss=label_smoothing", "loss.from_logits=false", "loss.eps_sum=0.1", "loss.eps_log=0.01"],
    ["loss=ce", "loss.reduction=sum"],
]
OPTIMIZERS = [
    ["optimizer=sgd", "output_lr=0.02"],
    ["optimizer=momentum"],
    ["optimizer=adam"],
    ["optimizer=adam", "optimizer.beta1=0.5", "optimizer.epsilon=1e-4"],
    ["optimizer=rmsprop"],
    ["optimizer=adagrad"],
    ["optimizer=nesterov", "optimizer.weight_decay=0.1"],
    ["optimizer=adadelta", "lr=1"],
    ["optimizer=adamw", "optimizer.weight_decay=0.1", "update_sign=plus", "residual=y-p"],
    ["optimizer.weight_decay=0.2", "update_sign=plus"],
    ["optimizer.clip_norm=0.4"],
    ["schedule=cosine", "schedule.warmup=1.5", "output_lr=0.3"],
    ["schedule=cosine", "lr=1e-5"],  # updates that are counted as too small
    ["schedule=step", "schedule.every=1", "optimizer=adamw", "update_sign=plus"],
    ["optimizer.clip_value=0.02", "optimizer.weight_decay=0.2"],
    ["optimizer=momentum", "optimizer.clip_norm=0.3", "optimizer.clip_value=0.1", "update_sign=plus"],
    ["update_sign=plus"],
    ["residual=y-p", "lr=0.02"],
]


def pair(*overrides: str) -> tuple[Settings, Settings]:
    """The same trial on either backend."""
    return settings(*overrides), settings(*overrides, *EMULATED)


def assert_close(one: Trained, other: Trained, rtol: float, case: str) -> None:
    """The same weights, summary and records but for rounding."""
    assert one.final
    assert one.final.keys() == other.final.keys(), case
    for name, tensor in one.final.items():
        scale, said = np.abs(tensor).max(), f"{case}: {name}"
        np.testing.assert_allclose(other.final[name], tensor, rtol=rtol, atol=rtol * scale, err_msg=said)
    assert one.summary is not None
    assert other.summary is not None
    assert (one.summary.epochs, one.summary.steps) == (other.summary.epochs, other.summary.steps), case
    assert one.summary.not_finite_step == other.summary.not_finite_step, case
    assert one.summary.predicted == other.summary.predicted, case
    assert one.summary.recognised == other.summary.recognised, case
    assert len(one.records) == len(other.records), case
    for (step, epoch, values), (other_step, other_epoch, others) in zip(one.records, other.records, strict=True):
        assert (step, epoch, values.keys()) == (other_step, other_epoch, others.keys()), case
        for key, value in values.items():
            said = f"{case}: {key} at {step}"
            np.testing.assert_allclose(others[key], value, rtol=100 * rtol, atol=rtol, err_msg=said)


def compare(cases: Sequence[Sequence[str]], common: Sequence[str], dataset: Dataset, rtol: float = 1e-10) -> None:
    """Train the cases as one cohort on either backend."""
    pairs = [pair(*common, *case) for case in cases]
    ours = train_together([emulated for _, emulated in pairs], dataset)
    for case, one, other in zip(cases, train_together([numpy for numpy, _ in pairs], dataset), ours, strict=True):
        assert_close(one, other, rtol, " ".join(case))


def test_every_loss_output_and_form() -> None:
    dataset = noise((4,), 5, rows=23, test_rows=9)
    compare(LOSSES, [*EXACT, *MLP, "epochs=3", "batch_size=7"], dataset)


def test_settings_of_a_loss() -> None:
    compare(SETTINGS, [*EXACT, *MLP, "epochs=3", "batch_size=7"], noise((4,), 5, rows=23, test_rows=9))


@pytest.mark.parametrize("task", AIMED)
def test_targets_that_are_no_classes(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if task != "regression":  # the persistent kernel takes longest to compile: one of them shows that it tallies
        monkeypatch.setattr(engine, "Persistent", lambda device: epochs.Stepwise())
    common = [*EXACT, "model=softmax_regression", "data=npz", f"data.task={task}", "epochs=3", "batch_size=7"]
    compare(AIMED[task], common, aimed(task, 3, 2, rows=23))


def test_a_single_sigmoid_unit() -> None:
    losses = [
        [f"loss={loss}", f"loss.from_logits={from_logits}"]
        for loss in ("mse", "bce", "focal")
        for from_logits in ("true", "false")
    ]
    losses.append(["loss=bce", "loss.class_weights=[0.5,3]"])
    common = [
        *EXACT,
        "model=mlp",
        "model.hidden=6",
        "model.units=1",
        "model.output=sigmoid",
        "epochs=2",
        "batch_size=4",
    ]
    compare(losses, common, noise((3,), 2, rows=10, test_rows=7))


def test_the_confidence_of_a_single_unit() -> None:
    """p or 1 - p, whichever is larger: rows on either side of p = 1/2."""
    common = [*EXACT, "model=softmax_regression", "model.units=1", "model.output=sigmoid", "epochs=2", "batch_size=4"]
    compare([["loss=bce"]], common, noise((3,), 2, rows=10, test_rows=40))


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_pooling_gives_its_gradient_to_the_first_of_equal_values(order: tuple[int, ...]) -> None:
    """As `test_gradients` has it for NumPy: a window whose largest value appears twice."""
    values = np.array([3.0, 3.0, 1.0, 0.0])[list(order)]
    x = np.stack([values.reshape(2, 2), np.arange(4.0).reshape(2, 2)])[None]
    dataset = Dataset("window", "window", x, np.array([0]), x, np.array([0]), 2)
    trial = settings(
        "dtype=float64", "model.fit=null", "model.layers=[{conv: 1, kernel: 1}, {pool: 2}, {dense: classes}]"
    )
    prepared = ablate.prepare(trial, dataset)
    weights = {
        "conv1.weight": np.array([[[[1.0]], [[0.0]]]]),
        "conv1.bias": np.zeros(1),
        "dense1.weight": np.array([[1.0, -1.0]]),
        "dense1.bias": np.zeros(2),
    }
    lane = replace(prepared.lane(), weights=weights)
    gradient = CudaProbe(prepared.architecture, dataset, lane, open_device("emulated")).gradient()
    passed = gradient["conv1.bias"][0]
    assert abs(passed) > 1e-3
    wanted = [3.0 * passed, int(values.argmax()) * passed]
    np.testing.assert_allclose(gradient["conv1.weight"].ravel(), wanted, rtol=1e-12)


def test_every_update_rule_side_by_side() -> None:
    compare(OPTIMIZERS, [*EXACT, *MLP, "epochs=4", "batch_size=7"], noise((4,), 5, rows=23, test_rows=9))


# What differs for NumPy alone is left out; dropout is put in, since `test_gradients` measures the loss without it.
dropped, side = STACKS["strides"]
WITH_DROPOUT = {**STACKS, "strides": (f"{{dropout: 0.1}}, {dropped}".replace("elu", "elu, {dropout: 0.4}"), side)}
NAMES = ["lenet5-8", "softmax_regression", *(name for name in STACKS if name != "averages")]


@pytest.mark.parametrize("name", NAMES)
def test_any_stack_of_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # That the persistent kernel computes the same is a test of its own, and it takes longest to compile.
    monkeypatch.setattr(engine, "Persistent", lambda device: epochs.Stepwise())
    if name in NETWORKS:
        given, shape, classes = NETWORKS[name]
    else:
        stack, shape = WITH_DROPOUT[name]
        given, classes = [f"model.layers=[{stack}, {{dense: classes}}]", "model.fit=null"], 4
    common = [*EXACT, *given, "epochs=2", "batch_size=3", "lr=0.3"]
    compare([["loss=ce"], ["loss=mse", "model.output=sigmoid"]], common, noise(shape, classes, rows=7, test_rows=5))


def test_straight_through_relu_and_dropout() -> None:
    """Of lanes with unlike seeds; the last batch, of 2 samples, has numbers that fill no block of the generator."""
    network = ["model=mlp", "model.hidden=7", "model.dropout=0.6", "model.logits=straight_through_relu"]
    lanes = [["seed=1"], ["seed=2"], ["seed=2", "loss=mse"]]
    compare(lanes, [*EXACT, *network, "epochs=3", "batch_size=4"], noise((4,), 5, rows=10))


@pytest.mark.parametrize("bug", [name for name in MISTAKES.names() if name != "none"])
def test_every_known_mistake(bug: str) -> None:
    common = [*EXACT, *MLP, "model.preactivation_divisor=2.5", f"bug={bug}", "epochs=3", "batch_size=4", "lr=0.3"]
    losses = [["loss=ce"], ["loss=focal"], ["loss=mse", "loss.from_logits=false"]]
    compare(losses, common, noise((4,), 5, rows=10))


def test_lenet5_on_digits_in_float32() -> None:
    """What the command line trains: sums in another order, and nothing else."""
    common = ["model=lenet5", "data.train_limit=64", "data.test_limit=60", "epochs=2"]
    compare([["loss=ce"], ["loss=mse"], ["loss=bce"]], common, load(settings(*common)), rtol=2e-5)
