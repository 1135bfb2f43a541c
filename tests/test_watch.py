"""What is watched during training, against the same training by hand, and lanes that end in the middle of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import Trained, assert_same, load, noise, settings, train_alone, train_together

import ablate
from ablate.backends.engine import Units
from ablate.backends.numpy.engine import NumpyEngine
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]
PLAIN = ["dtype=float64", "shuffle=false", "log_every=1"]


def recorded(trained: Trained, name: str) -> list[float]:
    return [values[name] for _, _, values in trained.records if name in values]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def by_hand(trial: Settings, dataset: Dataset, weights: dict[str, Array]) -> list[list[tuple[Array, Array]]]:
    """Softmax regression with cross-entropy: epoch by epoch and step by step, the gradients of weight and bias."""
    w, b = weights["dense1.weight"].copy(), weights["dense1.bias"].copy()
    x, y = dataset.x_train, np.eye(dataset.classes)[dataset.y_train]
    size = trial.batch_size or len(x)
    epochs = []
    for _ in range(trial.epochs):
        steps = []
        for start in range(0, len(x), size):
            batch, target = x[start : start + size], y[start : start + size]
            delta = (softmax(batch @ w + b) - target) / len(batch)
            gradient = batch.T @ delta, delta.sum(axis=0)
            rate = trial.output_lr or trial.lr
            w, b = w - rate * gradient[0], b - rate * gradient[1]
            steps.append(gradient)
        epochs.append(steps)
    return epochs


@pytest.mark.parametrize(("lr", "output_lr"), [(3.0, None), (1e-6, None), (0.1, 8.0)])
def test_updates_out_of_range_are_counted_as_by_hand(lr: float, output_lr: float | None) -> None:
    """Post D's bounds: |lr * gradient| of the output layer above 1, and below 1e-7 but not 0."""
    given = ["model=softmax_regression", "epochs=3", "batch_size=3", f"lr={lr}", f"output_lr={output_lr or 'null'}"]
    dataset = noise((4,), 3, rows=8)
    dataset.x_train[:, 3] = 0  # its weights' gradients are exactly 0: neither large nor small
    trial = settings(*PLAIN, *given)
    trained = train_alone(trial, dataset)
    large, small = [], []
    for steps in by_hand(trial, dataset, dict(trained.initial)):
        updates = (output_lr or lr) * np.abs(np.concatenate([part.ravel() for step in steps for part in step]))
        large.append(int((updates > 1).sum()))
        small.append(int(((updates < 1e-7) & (updates > 0)).sum()))
    assert recorded(trained, "watch/too_large") == large
    assert recorded(trained, "watch/too_small") == small
    assert trained.summary
    assert (trained.summary.too_large, trained.summary.too_small) == (sum(large), sum(small))
    assert (sum(large) > 0, sum(small) > 0) == (lr != 1e-6, lr == 1e-6)


def test_only_logged_steps_are_counted() -> None:
    given = ["model=softmax_regression", "epochs=2", "batch_size=2", "lr=5"]
    dataset = noise((4,), 3, rows=8)
    trial = settings(*PLAIN[:2], "log_every=3", *given)  # steps 0 and 3 of the first epoch, 6 of the second
    trained = train_alone(trial, dataset)
    steps = by_hand(trial, dataset, dict(trained.initial))
    counted = [
        sum(int((5 * np.abs(part) > 1).sum()) for step in which for part in step)
        for which in ([steps[0][0], steps[0][3]], [steps[1][2]])
    ]
    assert recorded(trained, "watch/too_large") == counted
    assert sum(counted) > 0


@pytest.mark.parametrize("model", ["model=mlp model.hidden=[6,5]", "model=lenet5"])
def test_norms_of_each_layers_gradient_are_what_a_step_moves(model: str) -> None:
    shape = (1, 8, 8) if "lenet5" in model else (7,)
    trained = train_alone(settings(*PLAIN, *model.split(), "epochs=1", "lr=0.5"), noise(shape, 4, rows=7))
    layers = list(dict.fromkeys(name.partition(".")[0] for name in trained.initial))
    whole = 0.0
    for layer in layers:
        moved = [(trained.initial[name] - trained.final[name]).ravel() for name in trained.initial if layer in name]
        norm = float(np.linalg.norm(np.concatenate(moved))) / 0.5
        whole += norm**2
        [found] = recorded(trained, f"grad/{layer}")
        assert found == pytest.approx(norm, rel=1e-9)
    assert recorded(trained, "grad/norm") == [pytest.approx(whole**0.5, rel=1e-9)]
    assert recorded(trained, "grad/output_norm") == recorded(trained, f"grad/{layers[-1]}")


def test_norms_are_means_over_an_epochs_logged_steps() -> None:
    trial = settings(*PLAIN, "model=softmax_regression", "epochs=2", "batch_size=3")
    dataset = noise((4,), 3, rows=8)
    trained = train_alone(trial, dataset)
    norms = [
        [np.sqrt(sum(np.square(part).sum() for part in step)) for step in steps]
        for steps in by_hand(trial, dataset, dict(trained.initial))
    ]
    assert recorded(trained, "grad/dense1") == pytest.approx([np.mean(each) for each in norms], rel=1e-9)
    assert recorded(trained, "grad/norm") == pytest.approx([norm for each in norms for norm in each], rel=1e-9)


def units(trial: Settings, dataset: Dataset, **weights: Array) -> Units:
    """The hidden units of an untrained network, some of its weights given."""
    prepared = ablate.prepare(trial, dataset)
    lane = prepared.lane()
    given = {name.replace("_", "."): np.asarray(tensor, float) for name, tensor in weights.items()}
    lane = replace(lane, weights={**lane.weights, **given})
    engine = NumpyEngine(prepared.architecture, dataset, [lane], len(dataset.y_train))
    engine.evaluate()
    return engine.units()


def test_dead_units_of_a_dense_layer() -> None:
    """A bias far below zero kills a unit; two layers count alike by their units."""
    trial = settings(*PLAIN, "model=mlp", "model.hidden=[4,6]", "model.activation=relu")
    found = units(trial, noise((3,), 4), dense1_bias=[-1e6, 1, 1, -1e6], dense2_bias=[-1e6, 1, 1, 1, 1, 1])
    assert found.dead == pytest.approx([3 / 10])
    assert np.isnan(found.saturated).all()


def test_dead_maps_of_a_convolution() -> None:
    """Of images, a map is one unit: LeNet-5 has 6, 16 and 120 of them."""
    trial = settings(*PLAIN, "model=lenet5")
    biases = {f"conv{i}_bias": np.ones(n) for i, n in ((1, 6), (2, 16), (3, 120))}
    biases["conv1_bias"][:2] = biases["conv3_bias"][:30] = -1e6
    dataset = noise((1, 8, 8), 4)
    weights = ablate.prepare(trial, dataset).initial_weights()
    small = {name: 0 * weights[name.replace("_", ".")] for name in _WEIGHTS}
    # Alive at some pixels only: a mean of noise.
    biases["conv1_bias"][2], small["conv1_weight"][2] = 0, 1
    assert units(trial, dataset, **biases, **small).dead == pytest.approx([32 / 142])


_WEIGHTS = ("conv1_weight", "conv2_weight", "conv3_weight")


@pytest.mark.parametrize(("activation", "edge"), [("sigmoid", np.log(99)), ("tanh", np.arctanh(0.98))])
def test_saturated_values(activation: str, edge: float) -> None:
    """Within a hundredth of the function's ends: sigmoid beyond 0.01 and 0.99, tanh beyond ±0.98."""
    trial = settings(*PLAIN, "model=mlp", "model.hidden=5", f"model.activation={activation}")
    biases = np.array([0.0, edge + 0.01, edge - 0.01, -edge - 0.01, 1e3])
    found = units(trial, noise((3,), 4), dense1_weight=np.zeros((3, 5)), dense1_bias=biases)
    assert found.saturated == pytest.approx([3 / 5])
    assert np.isnan(found.dead).all()


def test_units_are_watched_as_they_are_after_each_epoch() -> None:
    trial = settings("model=mlp", "model.activation=relu", "epochs=3", "data.train_limit=64", "lr=5")
    trained = train_alone(trial)
    assert trained.summary
    dead = recorded(trained, "watch/dead_units")
    assert len(dead) == 3
    assert dead[-1] == trained.summary.dead_units > 0
    assert not recorded(trained, "watch/saturated")


def test_share_of_the_largest_class() -> None:
    trained = train_alone(settings("model=softmax_regression", "epochs=2", "data.test_limit=40"))
    assert trained.summary
    shares = recorded(trained, "watch/largest_class")
    assert len(shares) == 3  # the untrained network's first
    assert shares[-1] == max(trained.summary.predicted) / 40


@pytest.mark.parametrize(("shares", "has_recalls"), [([52, 20, 6, 0], True), ([26, 26, 26, 0], False)])
def test_recalls_by_class_where_classes_are_unbalanced(shares: list[int], has_recalls: bool) -> None:
    labels = np.repeat(np.arange(4), shares)
    dataset = replace(noise((3,), 4, rows=30, test_rows=len(labels)), y_test=labels)
    trained = train_alone(settings(*PLAIN, "model=softmax_regression", "epochs=2", "batch_size=10"), dataset)
    assert trained.summary
    w, b = trained.final["dense1.weight"], trained.final["dense1.bias"]
    right = (dataset.x_test @ w + b).argmax(axis=1) == labels
    assert trained.summary.recognised == [right[labels == of].sum() for of in range(4)]
    of_last = {name: value for name, value in trained.records[-1][2].items() if "recall" in name}
    recalls = {f"test/recall_{of}": right[labels == of].mean() for of in range(3)}
    assert of_last == (recalls | {"test/recall_min": min(recalls.values())} if has_recalls else {})


def test_a_lane_that_is_not_finite_stops_at_that_step_and_the_others_go_on() -> None:
    """Exclusive or, four steps an epoch: the doomed lane's loss is followed by hand to the step where it breaks."""
    common = [
        "data=xor",
        "model=softmax_regression",
        "epochs=4",
        "batch_size=1",
        "log_every=1",
        "loss.from_logits=false",
    ]
    doomed = settings(*common, "lr=250", "dtype=float64", "shuffle=false", "update_sign=plus")
    others = [settings(*common, f"seed={seed}", "dtype=float64", "shuffle=false") for seed in (1, 2)]
    first, broken, last = train_together([others[0], doomed, others[1]])
    assert broken.summary
    step = _first_infinite(doomed, load(doomed), dict(broken.initial))
    # The epoch has further steps.
    assert step > 2
    assert step % 4 < 3
    assert broken.summary.not_finite_step == step
    losses = [(at, values["step/loss"]) for at, _, values in broken.records if "step/loss" in values]
    assert [at for at, _ in losses] == list(range(step + 1))
    assert np.isfinite([loss for _, loss in losses[:-1]]).all()
    assert not np.isfinite(losses[-1][1])
    for trial, trained in ((others[0], first), (others[1], last)):
        assert_same(trained, train_alone(trial))
        assert trained.summary
        assert trained.summary.steps == 16
    assert_same(broken, train_alone(doomed))


def _first_infinite(trial: Settings, dataset: Dataset, weights: dict[str, Array]) -> int:
    """The step whose loss, -ln p, is the first that is not finite, on the way uphill one sample at a time."""
    w, b = weights["dense1.weight"].copy(), weights["dense1.bias"].copy()
    for step in range(100):
        x, label = dataset.x_train[step % 4 : step % 4 + 1], dataset.y_train[step % 4]
        p = softmax(x @ w + b)
        if p[0, label] == 0:
            return step
        delta = p - np.eye(2)[label]
        w, b = w + trial.lr * x.T @ delta, b + trial.lr * delta[0]
    raise AssertionError("it never broke")
