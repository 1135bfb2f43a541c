"""Each known mistake: one step of training with it is the step of a textbook that makes it."""

from typing import Any

import numpy as np
import pytest
from helpers import Trained, noise, prepared, settings, train_alone, train_together

import ablate
from ablate.errors import ConfigError
from ablate.problem.mistakes import MISTAKES

Array = np.ndarray[Any, np.dtype[Any]]
DIVISOR = 4.0
PLAIN = ["model=mlp", "model.hidden=6", f"model.preactivation_divisor={DIVISOR}", "dtype=float64", "shuffle=false"]
STEP = [*PLAIN, "init.bias=same", "lr=0.5", "epochs=1"]
BUGS = [name for name in MISTAKES.names() if name != "none"]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def textbook(weights: dict[str, Array], x: Array, labels: Array, classes: int, bug: str) -> dict[str, Array]:
    """The mean gradient of cross-entropy through a hidden layer of sigmoids on net/4, with the mistake in it."""
    if bug == "swapped_labels":
        labels = (labels + 1) % classes
    y, n = np.eye(classes)[labels], len(x)
    h = 1 / (1 + np.exp(-(x @ weights["dense1.weight"] + weights["dense1.bias"]) / DIVISOR))
    z = h @ weights["dense2.weight"] + weights["dense2.bias"]
    p = softmax(z)
    delta = p - y
    if bug == "diagonal_jacobian":
        delta = -y / p * p * (1 - p)
    if bug == "double_softmax":
        delta = softmax(p) - y
        delta = p * (delta - (delta * p).sum(axis=1, keepdims=True))
    if bug != "sum_for_mean":
        delta = delta / n
    back = delta @ weights["dense2.weight"].T
    if bug != "missing_activation_derivative":
        back = back * h * (1 - h)
    if bug != "missing_divisor":
        back = back / DIVISOR
    biases = 1 / n if bug == "bias_gradient" else 1
    return {
        "dense1.weight": x.T @ back,
        "dense1.bias": back.sum(axis=0) * biases,
        "dense2.weight": h.T @ delta,
        "dense2.bias": delta.sum(axis=0) * biases,
    }


@pytest.mark.parametrize("bug", ["none", *BUGS])
def test_one_step_is_the_textbooks_with_this_mistake(bug: str) -> None:
    dataset = noise((5,), 4, rows=9)
    trained = train_alone(settings(*STEP, f"bug={bug}"), dataset)
    wanted = textbook(dict(trained.initial), dataset.x_train, dataset.y_train, 4, bug)
    right = textbook(dict(trained.initial), dataset.x_train, dataset.y_train, 4, "none")
    for name, gradient in wanted.items():
        moved = (trained.initial[name] - trained.final[name]) / 0.5
        np.testing.assert_allclose(moved, gradient, rtol=1e-9, atol=1e-14, err_msg=name)
    differs = any(not np.allclose(wanted[name], right[name], rtol=1e-3) for name in wanted)
    assert differs == (bug not in ("none", "stale_gradients", "unshifted_softmax"))


def test_stale_gradients_add_up_from_batch_to_batch_and_epoch_to_epoch() -> None:
    dataset = noise((5,), 4, rows=9)
    given = [*PLAIN, "init.bias=same", "lr=0.5", "epochs=2", "batch_size=5", "bug=stale_gradients"]
    trained = train_alone(settings(*given), dataset)
    weights = {name: tensor.copy() for name, tensor in trained.initial.items()}
    total = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    for _ in range(2):
        for rows in (slice(0, 5), slice(5, 9)):
            gradient = textbook(weights, dataset.x_train[rows], dataset.y_train[rows], 4, "none")
            for name in weights:
                total[name] += gradient[name]
                weights[name] -= 0.5 * total[name]
    for name, tensor in weights.items():
        np.testing.assert_allclose(trained.final[name], tensor, rtol=1e-9, err_msg=name)


def test_missing_derivative_of_a_relu_lets_the_error_through_dead_units() -> None:
    dataset = noise((5,), 4, rows=9)
    given = ["model=mlp", "model.hidden=6", "model.activation=relu", *STEP[3:]]
    moved = []
    for bug in ("none", "missing_activation_derivative"):
        trained = train_alone(settings(*given, f"bug={bug}"), dataset)
        moved.append((trained.initial["dense1.weight"] - trained.final["dense1.weight"]) / 0.5)
    weights = dict(trained.initial)
    h = dataset.x_train @ weights["dense1.weight"] + weights["dense1.bias"]
    z = np.maximum(h, 0) @ weights["dense2.weight"] + weights["dense2.bias"]
    back = (softmax(z) - np.eye(4)[dataset.y_train]) / 9 @ weights["dense2.weight"].T
    np.testing.assert_allclose(moved[0], dataset.x_train.T @ (back * (h > 0)), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(moved[1], dataset.x_train.T @ back, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("loss", "by_p"), [("mse", lambda p, y: p - y), ("mae", lambda p, y: np.sign(p - y))])
def test_diagonal_jacobian_of_other_losses(loss: str, by_p: Any) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(1, 4, 7)), np.eye(4)[:, rng.integers(0, 4, 7)][None]
    trial = settings("model=mlp", f"loss={loss}", "bug=diagonal_jacobian")
    right = trial.loss.objective("softmax")
    made = MISTAKES.get(trial.bug).objective(trial.loss, right)
    p = made.outputs(z)
    np.testing.assert_allclose(made.gradient(z, p, y), by_p(p, y) * p * (1 - p), rtol=1e-12)
    np.testing.assert_array_equal(made.value(z, p, y), right.value(z, p, y))


@pytest.mark.parametrize(("dtype", "edge"), [("float32", 88.8), ("float64", 709.8)])
def test_the_unshifted_softmax_is_right_until_exp_overflows(dtype: str, edge: float) -> None:
    trial = settings("model=mlp", "bug=unshifted_softmax")
    right = trial.loss.objective("softmax")
    made = MISTAKES.get(trial.bug).objective(trial.loss, right)
    below, above = (np.array([[[at], [0.0]]], dtype) for at in (edge - 1, edge + 1))
    np.testing.assert_allclose(made.outputs(below), right.outputs(below), rtol=1e-6)
    with np.errstate(all="ignore"):
        assert np.isnan(made.outputs(above)).any()
    assert np.isfinite(right.outputs(above)).all()


def test_the_test_sets_labels_are_not_swapped() -> None:
    trial = prepared("bug=swapped_labels")
    dataset, swapped = trial.dataset, trial.seen_dataset
    np.testing.assert_array_equal(swapped.y_train, (dataset.y_train + 1) % 10)
    assert swapped.y_test is dataset.y_test
    assert swapped.x_train is dataset.x_train


def test_no_bug_changes_nothing() -> None:
    trial = prepared("bug=none")
    assert trial.seen_dataset is trial.dataset
    assert trial.mistake.objective(trial.settings.loss, trial.objective) is trial.objective


def test_a_bug_leaves_trials_without_it_as_they_were() -> None:
    """Bit for bit the same before and after trials with every bug were trained in this process."""
    dataset = noise((5,), 4, rows=9)
    trial = settings(*STEP)

    def final() -> dict[str, bytes]:
        trained: Trained = train_alone(trial, dataset)
        return {name: tensor.tobytes() for name, tensor in trained.final.items()}

    before = final()
    different = 0
    for bug in BUGS:
        [wrong] = train_together([settings(*STEP, f"bug={bug}")], dataset)
        different += any(wrong.final[name].tobytes() != before[name] for name in before)
    assert different >= len(BUGS) - 2  # of one step, stale gradients are right, and the unshifted softmax nearly
    assert final() == before


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("bug=missing_divisor model=lenet5", "model.preactivation_divisor=78.5"),
        ("bug=missing_divisor model=mlp", "model.preactivation_divisor=78.5"),
        ("bug=missing_activation_derivative model=softmax_regression", "model=mlp"),
        ("bug=diagonal_jacobian loss=bce model=mlp", "loss=ce"),
        ("bug=diagonal_jacobian loss=mse model.output=sigmoid", "loss=ce"),
        ("bug=double_softmax loss=hinge", "loss=ce"),
        ("bug=unshifted_softmax loss=custom loss.target=custom_losses.CrossEntropy", "loss=ce"),
        ("bug=sum_for_mean loss.reduction=sum", "loss.reduction=mean"),
        ("bug=bias_gradient loss.reduction=sum", "loss.reduction=mean"),
    ],
)
def test_refused_where_it_has_nothing_to_be_wrong_in(overrides: str, said: str) -> None:
    trial = settings(*overrides.split())
    with pytest.raises(ConfigError, match=f"bug={trial.bug}: .*{said}"):
        ablate.prepare(trial)


def test_every_bug_of_the_catalogue_is_a_choice_and_has_words() -> None:
    for name in BUGS:
        bug = MISTAKES.get(name)
        assert settings(f"bug={name}").bug == name == bug.name
        assert bug.mistake
        assert bug.fix
