"""The gradient that a step of plain descent applies, against central differences of the loss, in float64."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from helpers import aimed, noise, settings
from threadpoolctl import threadpool_limits

import ablate
from ablate.backends.engine import Lane
from ablate.backends.numpy.engine import NumpyEngine
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture

Weights = dict[str, np.ndarray[Any, np.dtype[Any]]]

TOLERANCE = 1e-6
STEP = 1e-5
COORDINATES = 4
DIRECTIONS = 2
SOFTMAX = [("ce", "softmax"), ("mse", "softmax"), ("mae", "softmax"), ("focal", "softmax")]
LOSSES = [*SOFTMAX, ("label_smoothing", "softmax"), ("mse", "sigmoid"), ("bce", "sigmoid"), ("hinge", "identity")]
FORMS = [(*loss, from_logits) for loss in LOSSES for from_logits in ("true", "false")]
# Losses that differ in nothing that a model could see: one model shows their gradients.
VARIANTS = [
    ["loss=focal", "loss.alpha=0.25"],
    ["loss=focal", "model.output=sigmoid"],
    ["loss=focal", "model.output=sigmoid", "loss.alpha=0.25", "loss.gamma=0.5"],
    ["loss=mae", "model.output=sigmoid"],
    ["loss=huber", "loss.delta=0.3"],
    ["loss=huber", "model.output=sigmoid", "loss.delta=0.3"],
    ["loss=hinge", "loss.margin=0.5"],
    ["loss=squared_hinge", "loss.margin=2.5"],
    ["loss=kl"],
    ["loss=kl", "loss.smoothing=0.4"],
    ["loss=reverse_kl"],
]
VARIANT_FORMS = [[*loss, f"loss.from_logits={form}"] for loss in VARIANTS for form in ("true", "false")]
# Losses of targets that are no classes, by the task.
AIMED = {
    "regression": [
        ["loss=mse"],
        ["loss=mse", "model.output=sigmoid"],
        ["loss=mae"],
        ["loss=mae", "model.output=sigmoid"],
        ["loss=huber", "loss.delta=0.7"],
        ["loss=huber", "model.output=sigmoid"],
    ],
    "multilabel": [
        ["loss=bce"],
        ["loss=bce", "loss.from_logits=false"],
        ["loss=mse"],
        ["loss=mae"],
        ["loss=huber", "loss.delta=0.4"],
        ["loss=focal", "loss.alpha=0.25"],
        ["loss=focal", "loss.from_logits=false"],
    ],
}

# name: (overrides, shape of a sample, classes)
NETWORKS: dict[str, tuple[list[str], tuple[int, ...], int]] = {
    "lenet5-8": (["model=lenet5"], (1, 8, 8), 10),
    "lenet5-28": (["model=lenet5"], (1, 28, 28), 10),
    "mlp-sigmoid": (["model=mlp", "model.hidden=[6,5]", "model.activation=sigmoid"], (1, 4, 4), 5),
    "mlp-tanh": (["model=mlp", "model.hidden=7", "model.activation=tanh"], (9,), 4),
    "mlp-relu": (["model=mlp", "model.hidden=[8,6]", "model.activation=relu"], (9,), 4),
    "mlp-divisor": (["model=mlp", "model.hidden=[6,5]", "model.preactivation_divisor=2.5"], (9,), 4),
    "softmax_regression": (["model=softmax_regression"], (2, 3, 3), 4),
    "logits-relu": (["model=mlp", "model.hidden=6", "model.logits=relu"], (9,), 4),
}
# Stacks as someone may write them in a YAML of their own.
STACKS: dict[str, tuple[str, tuple[int, ...]]] = {
    "ragged": (
        "{conv: 3, kernel: 3}, tanh, {pool: 2}, {conv: 4, kernel: 2}, {pool: 3}, sigmoid, {dense: 5}, relu",
        (2, 13, 12),
    ),
    "conv-conv": (
        "{conv: 3, kernel: 3}, relu, {conv: 4, kernel: 2}, tanh, {conv: 2, kernel: 4}, {pool: 2}",
        (2, 11, 9),
    ),
    "phases": ("{conv: 2, kernel: 5}, {pool: 2}, relu, {conv: 3, kernel: 3}, {pool: 3}, tanh", (1, 16, 16)),
    "pool-first": ("{pool: 2}, {conv: 3, kernel: 2}, sigmoid", (2, 9, 8)),
    "pools": ("{conv: 2, kernel: 2}, {pool: 3}, {pool: 1}, {pool: 2}, relu", (1, 14, 14)),
    "whole": ("{conv: 3, kernel: 2}, relu, {conv: 5, kernel: 4}, relu, {conv: 4, kernel: 1}, tanh", (2, 5, 5)),
    "one-sided": ("{conv: 3, kernel: 4}, tanh", (2, 4, 7)),
    "dense-on-image": ("{dense: 6}, tanh", (2, 3, 4)),
    "pooled-activations": (
        "{conv: 2, kernel: 3}, sigmoid, {pool: 2}, {conv: 3, kernel: 2}, tanh, {pool: 2}",
        (1, 10, 10),
    ),
    "element-wise chain": ("{dense: 6}, relu, sigmoid, {divide: 2.0}, {dense: 5}, tanh, {divide: 3.0}, relu", (9,)),
    "activations": (
        "softmax, {conv: 4, kernel: 2}, tanh, softmax, {pool: 2}, {elu: 0.5}, {conv: 3, kernel: 2}, {leaky_relu: 0.2},"
        " {dense: 5}, selu, {dense: 6}, softplus, softsign, identity, softmax, {divide: 0.5}, leaky_relu",
        (3, 7, 8),
    ),
    "strides": (
        "{conv: 4, kernel: 3, padding: 1}, tanh, {avg_pool: 2}, {conv: 3, kernel: 4, stride: 2, padding: 3}, {pool: 2},"
        " elu, {conv: 9, kernel: 2, stride: 3}, {avg_pool: 1}, {conv: 2, kernel: 1}, tanh",
        (2, 13, 16),
    ),
    "averages": (
        "{avg_pool: 2}, {conv: 2, kernel: 7}, {avg_pool: 2}, elu, {conv: 3, kernel: 4}, {avg_pool: 3}, tanh",
        (1, 37, 36),
    ),
    "activation-first": ("tanh, {divide: 2.0}, {conv: 2, kernel: 2}, relu, sigmoid", (1, 4, 4)),
}


def _written(name: str) -> tuple[list[str], tuple[int, ...], int]:
    if name == "single-unit":
        return ["model=mlp", "model.hidden=6", "model.units=1"], (3,), 2
    stack, shape = STACKS[name]
    return [f"model.layers=[{stack}, {{dense: classes}}]", "model.fit=null"], shape, 4


def _trial(name: str, *overrides: str) -> tuple[Settings, Dataset]:
    given, shape, classes = NETWORKS[name] if name in NETWORKS else _written(name)
    trial = settings("dtype=float64", "init.bias=same", "lr=1", "batch_size=7", "shuffle=false", *given, *overrides)
    return trial, noise(shape, classes)


def _network(trial: Settings, dataset: Dataset) -> tuple[Architecture, Lane]:
    prepared = ablate.prepare(trial, dataset)
    return prepared.architecture, prepared.lane()


def _losses(network: Architecture, lane: Lane, weights: list[Weights], dataset: Dataset) -> Any:
    """The mean loss on the training rows under each of these weights: every one is a lane of its own."""
    lanes = [replace(lane, weights=each) for each in weights]
    rows = len(dataset.y_train)
    return NumpyEngine(network, dataset, lanes, rows).evaluate(rows).loss


def _applied_gradient(network: Architecture, lane: Lane, dataset: Dataset) -> Weights:
    """What one step of gradient descent with rate 1 takes from the weights."""
    rows = len(dataset.y_train)
    engine = NumpyEngine(network, dataset, [lane], rows)
    before = engine.weights(0)
    engine.train_epoch([np.arange(rows)], [])
    after = engine.weights(0)
    return {name: before[name] - after[name] for name in before}


def _gradient_of(trial: Settings, dataset: Dataset) -> Weights:
    return _applied_gradient(*_network(trial, dataset), dataset)


def _moved(weights: Weights, direction: Weights, step: float) -> Weights:
    return {name: weights[name] + step * direction[name] for name in weights}


def _unit(weights: Weights, name: str, place: int) -> Weights:
    direction = {other: np.zeros_like(tensor) for other, tensor in weights.items()}
    direction[name].flat[place] = 1
    return direction


def _directions(weights: Weights, gradient: Weights, rng: np.random.Generator) -> list[tuple[str, Weights]]:
    """Coordinates of every tensor, its largest gradient among them, and random directions through all of them."""
    chosen = []
    for name, tensor in weights.items():
        places = {int(np.abs(gradient[name]).argmax()), *rng.integers(0, tensor.size, COORDINATES - 1).tolist()}
        chosen += [(name, _unit(weights, name, place)) for place in sorted(places)]
    for _ in range(DIRECTIONS):
        drawn = {name: rng.normal(size=tensor.shape) for name, tensor in weights.items()}
        length = np.sqrt(sum(np.square(tensor).sum() for tensor in drawn.values()))
        chosen.append(("all", {name: tensor / length for name, tensor in drawn.items()}))
    return chosen


def _check(trial: Settings, dataset: Dataset) -> None:
    with threadpool_limits(1, user_api="blas"):
        network, lane = _network(trial, dataset)
        gradient = _applied_gradient(network, lane, dataset)
        weights = dict(lane.weights)
        directions = _directions(weights, gradient, np.random.default_rng(1))
        moved = [_moved(weights, direction, step) for _, direction in directions for step in (STEP, -STEP)]
        above, below = _losses(network, lane, moved, dataset).reshape(-1, 2).T
    numeric = (above - below) / (2 * STEP)
    analytic = np.array([sum((gradient[k] * d[k]).sum() for k in d) for _, d in directions])
    names = np.array([name for name, _ in directions])
    for name in dict.fromkeys(names):
        mine = names == name
        scale = np.abs(numeric[mine]).max()
        assert scale > 1e-6, f"{name} has no gradient: nothing is shown"
        error = np.abs(numeric[mine] - analytic[mine]).max() / scale
        assert error < TOLERANCE, f"{name}: relative error {error:.1e}"


# Larger images differ in how they are fitted only.
@pytest.mark.parametrize(
    ("name", "loss", "output", "from_logits"),
    [(name, *form) for name in NETWORKS for form in (FORMS[:2] if name == "lenet5-28" else FORMS)],
)
def test_every_loss_output_and_form_through_every_model(name: str, loss: str, output: str, from_logits: str) -> None:
    _check(*_trial(name, f"loss={loss}", f"model.output={output}", f"loss.from_logits={from_logits}"))


@pytest.mark.parametrize(("loss", "output"), [("ce", "softmax"), ("mse", "sigmoid"), ("hinge", "identity")])
@pytest.mark.parametrize("name", STACKS)
def test_any_stack_of_layers(name: str, loss: str, output: str) -> None:
    _check(*_trial(name, f"loss={loss}", f"model.output={output}"))


@pytest.mark.parametrize(("task", "loss"), [(task, loss) for task, losses in AIMED.items() for loss in losses])
@pytest.mark.parametrize("targets", [1, 3])
def test_targets_that_are_no_classes(task: str, loss: list[str], targets: int) -> None:
    common = ["dtype=float64", "init.bias=same", "lr=1", "batch_size=7", "shuffle=false", "model=mlp", "model.hidden=6"]
    _check(settings(*common, "data=npz", f"data.task={task}", *loss), aimed(task, 3, targets, 7))


@pytest.mark.parametrize("from_logits", ["true", "false"])
@pytest.mark.parametrize("loss", ["mse", "bce", "focal"])
def test_single_sigmoid_unit(loss: str, from_logits: str) -> None:
    _check(*_trial("single-unit", f"loss={loss}", "model.output=sigmoid", f"loss.from_logits={from_logits}"))


@pytest.mark.parametrize(
    "overrides",
    [
        *VARIANT_FORMS,
        ["loss=reverse_kl", "loss.from_logits=false", "loss.eps_log=0.01"],
        ["loss=ce", "loss.class_weights=[0.5,3,1,2]"],
        ["loss=focal", "loss.gamma=0.5"],
        ["loss=focal", "loss.gamma=0"],
        ["loss=focal", "loss.gamma=1", "loss.from_logits=false"],
        ["loss=label_smoothing", "loss.smoothing=0.4"],
        ["loss=ce", "loss.from_logits=false", "loss.eps_log=0.01"],
        ["loss=bce", "loss.from_logits=false", "loss.eps_log=0.01"],
        ["loss=focal", "loss.from_logits=false", "loss.eps_log=0.01"],
        ["loss=mse", "loss.from_logits=false", "loss.eps_sum=0.1"],
        ["loss=label_smoothing", "loss.from_logits=false", "loss.eps_sum=0.1", "loss.eps_log=0.01"],
    ],
    ids=" ".join,
)
def test_settings_of_a_loss(overrides: list[str]) -> None:
    _check(*_trial("mlp-tanh", *overrides))


@pytest.mark.parametrize("model", ["lenet5-8", "mlp-tanh"])
def test_sum_is_the_mean_times_the_batch(model: str) -> None:
    mean, total = (_gradient_of(*_trial(model, f"loss.reduction={way}")) for way in ("mean", "sum"))
    for name in mean:
        np.testing.assert_allclose(total[name], 7 * mean[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", ["lenet5-8", "mlp-tanh"])
def test_a_batch_of_several_parts_is_the_mean_of_its_samples(model: str) -> None:
    """The engine cuts a large batch into parts; the sum over them is that of single samples."""
    given, shape, classes = NETWORKS[model]
    rows = 123 if model.startswith("lenet5") else 2500
    dataset = noise(shape, classes, rows=rows)
    network, lane = _network(settings("dtype=float64", "lr=1", *given), dataset)
    whole = _applied_gradient(network, lane, dataset)
    some = np.random.default_rng(2).permutation(rows)
    parts = []
    for chunk in np.array_split(some, rows // 7):
        part = replace(dataset, x_train=dataset.x_train[chunk], y_train=dataset.y_train[chunk])
        gradient = _applied_gradient(network, lane, part)
        parts.append({name: tensor * len(chunk) / rows for name, tensor in gradient.items()})
    for name in whole:
        np.testing.assert_allclose(whole[name], sum(part[name] for part in parts), rtol=1e-9, atol=1e-12)


def test_straight_through_relu_gives_the_logits_the_gradient_of_the_outputs() -> None:
    """It has no true gradient: forward max(z, 0), backward as if it were the identity."""
    trial, dataset = _trial("softmax_regression", "model.logits=straight_through_relu")
    network, lane = _network(trial, dataset)
    gradient = _applied_gradient(network, lane, dataset)
    x, y = dataset.x_train.reshape(7, -1), np.eye(4)[dataset.y_train]
    z = np.maximum(x @ lane.weights["dense1.weight"] + lane.weights["dense1.bias"], 0)
    delta = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) - y
    np.testing.assert_allclose(gradient["dense1.weight"], x.T @ delta / 7, rtol=1e-9)
    np.testing.assert_allclose(gradient["dense1.bias"], delta.mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_pooling_gives_its_gradient_to_the_first_of_equal_values(order: tuple[int, ...]) -> None:
    """A window (a b / c d) whose largest value appears twice: the first in reading order gets all of it."""
    values = np.array([3.0, 3.0, 1.0, 0.0])[list(order)]
    # One convolution of kernel 1 with weight 1: its weight's gradient is the input where the gradient went, so
    # a second input channel that numbers the pixels tells where that was.
    x = np.stack([values.reshape(2, 2), np.arange(4.0).reshape(2, 2)])[None]
    y = np.array([0])
    dataset = Dataset("window", "window", x, y, x, y, 2)
    trial = settings(
        "dtype=float64", "lr=1", "model.fit=null", "model.layers=[{conv: 1, kernel: 1}, {pool: 2}, {dense: classes}]"
    )
    network, lane = _network(trial, dataset)
    weights = {
        "conv1.weight": [[[[1.0]], [[0.0]]]],
        "conv1.bias": [0.0],
        "dense1.weight": [[1.0, -1.0]],
        "dense1.bias": [0.0] * 2,
    }
    lane = replace(lane, weights={name: np.array(tensor) for name, tensor in weights.items()})
    gradient = _applied_gradient(network, lane, dataset)
    passed = gradient["conv1.bias"][0]
    assert abs(passed) > 1e-3
    first = int(values.argmax())
    np.testing.assert_allclose(gradient["conv1.weight"].ravel(), [3.0 * passed, first * passed], rtol=1e-12)
