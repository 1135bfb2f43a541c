"""Losses: values and gradients against formulas written down once more, at ordinary and extreme logits."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import noise, prepared, settings, train_together

from ablate.errors import ConfigError
from ablate.problem.custom_loss import try_out
from ablate.problem.losses import Objective

Array = np.ndarray[Any, np.dtype[Any]]

SETTINGS = [
    ("loss=ce",),
    ("loss=mse",),
    ("loss=mse", "model.output=sigmoid"),
    ("loss=bce",),
    ("loss=mae",),
    ("loss=mae", "model.output=sigmoid"),
    ("loss=huber", "loss.delta=0.3"),
    ("loss=hinge",),
    ("loss=hinge", "loss.margin=0.5"),
    ("loss=squared_hinge", "loss.margin=2.5"),
    ("loss=focal",),
    ("loss=focal", "loss.gamma=0.5"),
    ("loss=focal", "loss.alpha=0.25"),
    ("loss=focal", "model.output=sigmoid"),
    ("loss=focal", "model.output=sigmoid", "loss.alpha=0.25", "loss.gamma=0.5"),
    ("loss=label_smoothing",),
    ("loss=kl", "loss.smoothing=0.2"),
    ("loss=reverse_kl",),
]
FOCAL_HALF = ("loss=focal", "loss.gamma=0.5")
STABLE = pytest.mark.parametrize("overrides", SETTINGS, ids=" ".join)


def _loss(*overrides: str) -> Objective:
    trial = settings(*overrides)
    return trial.loss.objective(trial.output)


def _both(loss: Objective, z: Any, y: Any, dtype: str = "float64") -> tuple[Array, Array, Array]:
    """Value, gradient and outputs for logits and targets `(N, C)`, as the engine asks for them."""
    logits, targets = (np.array(a, dtype).T[None].copy() for a in (z, y))
    with np.errstate(all="ignore"):
        p = loss.outputs(logits)
        return loss.value(logits, p, targets)[0], loss.gradient(logits, p, targets)[0].T, p[0].T


def _by_hand(overrides: tuple[str, ...], z: list[float], t: int) -> float:
    """The formulas of docs/models.md for one sample, term by term."""
    name, others = overrides[0].removeprefix("loss="), range(len(z))
    given = dict(override.split("=") for override in overrides)
    total = sum(math.exp(v) for v in z)
    p = [math.exp(v) / total for v in z]
    s = [1 / (1 + math.exp(-v)) for v in z]
    y = [float(i == t) for i in others]
    match name:
        case "ce":
            return -math.log(p[t])
        case "mse":
            q = s if "model.output" in given else p
            return 0.5 * sum((q[i] - y[i]) ** 2 for i in others)
        case "bce":
            return -sum(math.log(s[i]) if i == t else math.log(1 - s[i]) for i in others)
        case "mae":
            q = s if "model.output" in given else p
            return sum(abs(q[i] - y[i]) for i in others)
        case "huber":
            delta, errors = float(given["loss.delta"]), [abs(p[i] - y[i]) for i in others]
            return sum(d * d / 2 if d <= delta else delta * (d - delta / 2) for d in errors)
        case "hinge" | "squared_hinge":
            margin, power = float(given.get("loss.margin", 1)), 2 if name == "squared_hinge" else 1
            return sum(max(0.0, margin + z[i] - z[t]) ** power for i in others if i != t)
        case "focal":
            gamma, alpha = float(given.get("loss.gamma", 2)), float(given.get("loss.alpha", 1))
            if "model.output" not in given:
                return -alpha * (1 - p[t]) ** gamma * math.log(p[t])
            rest = 1 - alpha if "loss.alpha" in given else 1.0
            return sum(
                -alpha * (1 - s[i]) ** gamma * math.log(s[i]) if i == t else -rest * s[i] ** gamma * math.log(1 - s[i])
                for i in others
            )
        case _:
            epsilon = float(given.get("loss.smoothing", 0.1))
            q = [y[i] * (1 - epsilon) + epsilon / len(z) for i in others]
            if name == "reverse_kl":
                return sum(p[i] * math.log(p[i] / q[i]) for i in others)
            return -sum(q[i] * math.log(p[i] / (q[i] if name == "kl" else 1)) for i in others)


@pytest.mark.parametrize("from_logits", ["true", "false"])
@STABLE
def test_value_by_hand(overrides: tuple[str, ...], from_logits: str) -> None:
    rng = np.random.default_rng(0)
    z, t = rng.normal(0, 2, (20, 5)), rng.integers(0, 5, 20)
    value, _, _ = _both(_loss(*overrides, f"loss.from_logits={from_logits}"), z, np.eye(5)[t])
    expected = [_by_hand(overrides, row.tolist(), int(label)) for row, label in zip(z, t, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@STABLE
def test_both_forms_are_the_same_function(overrides: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 2, (20, 5)), np.eye(5)[rng.integers(0, 5, 20)]
    stable, naive = (_both(_loss(*overrides, f"loss.from_logits={form}"), z, y) for form in ("true", "false"))
    for one, other in zip(stable, naive, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


BINARY_FOCAL = ["loss=focal", "model.output=sigmoid", "loss.alpha=0.75"]
FOCAL = (math.log(2) + 0.5) / 4  # at p = ½ with γ = 2: γ (1 − p) p ln 2 times ½, and (1 − p)² times ½


@pytest.mark.parametrize(
    ("overrides", "z", "target", "value", "gradient"),
    [
        (["loss=ce"], [0, 0, 0], 0, math.log(3), [-2 / 3, 1 / 3, 1 / 3]),
        (["loss=mse"], [0, 0], 0, 0.25, [-0.25, 0.25]),
        (["loss=mse", "model.output=sigmoid"], [0, 0], 0, 0.25, [-0.125, 0.125]),
        (["loss=bce"], [0, 0], 1, 2 * math.log(2), [0.5, -0.5]),
        (["loss=mae"], [0, 0], 0, 1, [-0.5, 0.5]),
        (["loss=huber", "loss.delta=0.25"], [0, 0], 0, 2 * 0.25 * 0.375, [-0.125, 0.125]),
        (["loss=hinge"], [1, 0.5, -3], 0, 0.5, [-1, 1, 0]),
        (["loss=hinge"], [0, 2, 3], 0, 3 + 4, [-2, 1, 1]),
        (["loss=focal", "loss.gamma=0"], [0, 0], 0, math.log(2), [-0.5, 0.5]),
        (["loss=focal", "loss.gamma=2"], [0, 0], 0, math.log(2) / 4, [-FOCAL, FOCAL]),
        ([*BINARY_FOCAL, "loss.gamma=0"], [0, 0], 0, math.log(2), [-0.375, 0.125]),
        (["loss=squared_hinge"], [0, 2, 3], 0, 9 + 16, [-14, 6, 8]),
        (["loss=hinge", "loss.margin=0"], [1, 0.5, 3], 0, 2, [-1, 0, 1]),
        (["loss=label_smoothing", "loss.smoothing=0.5"], [0, 0], 0, math.log(2), [-0.25, 0.25]),
        (["loss=kl", "loss.smoothing=0.5"], [math.log(3), 0], 0, 0, [0, 0]),
        (["loss=reverse_kl", "loss.smoothing=0.5"], [math.log(3), 0], 0, 0, [0, 0]),
    ],
)  # fmt: skip
def test_closed_forms(overrides: list[str], z: list[float], target: int, value: float, gradient: list[float]) -> None:
    found, slope, _ = _both(_loss(*overrides), [z], [np.eye(len(z))[target]])
    assert found[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(slope[0], gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [30.0, 100.0, 1e3, 1e4])
@STABLE
def test_stable_forms_at_extreme_logits(overrides: tuple[str, ...], size: float) -> None:
    """float32; right by far, wrong by far, all alike, and one of each sign."""
    rows = [[size, 0, 0], [-size, 0, 0], [size] * 3, [-size] * 3, [size, -size, 0], [-size, size, 0], [0, size, -size]]
    value, gradient, p = _both(_loss(*overrides), rows, [[1, 0, 0]] * len(rows), "float32")
    assert value.dtype == gradient.dtype == np.float32
    for numbers in (value, gradient, p):
        assert np.isfinite(numbers).all()
    assert (value >= -1e-6).all()
    if overrides[0] in ("loss=ce", "loss=label_smoothing", "loss=bce", "loss=hinge") or overrides == FOCAL_HALF:
        assert value[5] >= 1.5 * size  # the price of being surely wrong has no upper end
        assert np.abs(gradient[5]).max() > 0.5


@pytest.mark.parametrize("size", [10.0, 1e4])
def test_logarithms_keep_their_digits(size: float) -> None:
    """The naive forms in float32 give 0 and infinity, or thereabouts."""
    expected = [math.log1p(math.exp(-size)), size + math.log1p(math.exp(-size))]
    value, gradient, _ = _both(_loss("loss=ce"), [[size, 0], [-size, 0]], [[1, 0], [1, 0]], "float32")
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient[1], [-1, 1], rtol=1e-4)
    value, gradient, _ = _both(_loss("loss=bce"), [[size], [-size]], [[1], [1]], "float32")
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[1], [-1], rtol=1e-4)


@pytest.mark.parametrize("eps", [1e-10, 1e-3])
@pytest.mark.parametrize("loss", ["ce", "bce", "focal"])
def test_naive_forms_stop_at_minus_ln_eps(loss: str, eps: float) -> None:
    """Post B's 1e-10 is why its loss stopped at half of 23."""
    naive = _loss(f"loss={loss}", "loss.from_logits=false", f"loss.eps_log={eps}")
    value, gradient, _ = _both(naive, [[-800.0, 800.0]], [[1, 0]])
    terms = 2 if loss == "bce" else 1  # both units are as wrong as can be
    assert value[0] == pytest.approx(-terms * math.log(eps), rel=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ["ce", "bce", "focal"])
def test_naive_forms_without_eps_are_infinite(loss: str) -> None:
    value, _, _ = _both(_loss(f"loss={loss}", "loss.from_logits=false"), [[-800.0, 800.0]], [[1, 0]])
    assert value[0] == math.inf


def test_eps_in_the_sum_of_the_softmax() -> None:
    """Post C's: exp(z) over the sum of exp(z) plus 1e-8, which counts where all logits are far below 0."""
    loss = _loss("loss=ce", "loss.from_logits=false", "loss.eps_sum=1e-8")
    z = np.array([[0.0, 1.0], [-20.0, -21.0], [-1e4, -1e4], [1e4, 0.0]])
    _, _, p = _both(loss, z, np.eye(2)[[0, 0, 0, 0]])
    e = np.exp(z[:3])
    np.testing.assert_allclose(p[:3], e / (e.sum(axis=1, keepdims=True) + 1e-8), rtol=1e-12)
    np.testing.assert_allclose(p[3], [1, 0], atol=1e-12)


@pytest.mark.parametrize("form", ["true", "false"])
def test_losses_against_a_smoothed_target_and_cross_entropy(form: str) -> None:
    """Without smoothing both are cross-entropy; with it they differ by the target's entropy and in no gradient."""
    rng = np.random.default_rng(2)
    z, y = rng.normal(0, 3, (9, 4)), np.eye(4)[rng.integers(0, 4, 9)]

    def found(*overrides: str) -> tuple[Array, Array, Array]:
        return _both(_loss(*overrides, f"loss.from_logits={form}"), z, y)

    for same in (found("loss=label_smoothing", "loss.smoothing=0"), found("loss=kl")):
        for one, other in zip(same, found("loss=ce"), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    smooth, kl = (found(f"loss={name}", "loss.smoothing=0.2") for name in ("label_smoothing", "kl"))
    entropy = -(0.85 * math.log(0.85) + 3 * 0.05 * math.log(0.05))
    np.testing.assert_allclose(smooth[0] - kl[0], entropy, rtol=1e-9)
    np.testing.assert_array_equal(smooth[1], kl[1])


def test_the_reverse_divergence_needs_a_smoothed_target() -> None:
    with pytest.raises(ConfigError, match=r"^loss\.smoothing=0: loss=reverse_kl is infinite"):
        _loss("loss=reverse_kl", "loss.smoothing=0")


# The weights of the classes.

UNEVEN = replace(noise((4,), 3, rows=12), y_train=np.repeat([0, 1, 2], [6, 2, 4]))


@pytest.mark.parametrize(
    ("written", "weights"), [("balanced", [2 / 3, 2, 1]), ("[3,0,1.5]", [3, 0, 1.5]), ("[1,2,3]", [1, 2, 3])]
)
@pytest.mark.parametrize("loss", [["loss=ce"], ["loss=custom", "loss.target=custom_losses.CrossEntropy"]])
def test_a_sample_counts_as_much_as_its_class(loss: list[str], written: str, weights: list[float]) -> None:
    """Balanced: N / (C n), here of 12 samples in classes of 6, 2 and 4."""
    found, alike = (
        prepared(*loss, "model=mlp", "dtype=float64", f"loss.class_weights={each}", dataset=UNEVEN).lane().objective
        for each in (written, "null")
    )
    labels = [2, 0, 1, 1, 0]
    z, y = np.random.default_rng(0).normal(size=(1, 3, 5)), np.eye(3)[:, labels][None]
    p, each = found.outputs(z), np.array(weights)[labels]
    np.testing.assert_allclose(found.value(z, p, y)[0], each * alike.value(z, p, y)[0], rtol=1e-12)
    np.testing.assert_allclose(found.gradient(z, p, y)[0], each * alike.gradient(z, p, y)[0], rtol=1e-12)


def test_a_batch_divides_by_its_samples_and_the_labels_are_those_trained_on() -> None:
    """Weights that are all 2 are twice the rate and twice the loss; swapped labels are balanced as they are seen."""
    common = ["model=mlp", "dtype=float64", "batch_size=5", "epochs=2"]
    doubled, plain = train_together(
        [settings(*common, "loss.class_weights=[2,2,2]", "lr=0.1"), settings(*common, "lr=0.2")], UNEVEN
    )
    for name in plain.final:
        np.testing.assert_allclose(doubled.final[name], plain.final[name], rtol=1e-9, atol=1e-12)
    assert doubled.summary is not None
    assert plain.summary is not None
    np.testing.assert_allclose(doubled.summary.test_losses, 2 * np.array(plain.summary.test_losses), rtol=1e-9)
    swapped = prepared("model=mlp", "loss.class_weights=balanced", "bug=swapped_labels", dataset=UNEVEN)
    assert swapped.class_weights == pytest.approx((1, 2 / 3, 2))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("[1,2]", "expected 3 numbers from 0, one for each class"),
        ("[1,-2,3]", "expected 3 numbers from 0"),
        ("[0,0,0]", "not all of them 0"),
        ("balanced", "class 1 has no training sample"),
        ("[1,1e-60,1]", "in float32 this is 0"),
    ],
)
def test_weights_that_do_not_fit_the_classes(weights: str, said: str) -> None:
    dataset = replace(UNEVEN, y_train=np.repeat([0, 2], 6)) if weights == "balanced" else UNEVEN
    with pytest.raises(ConfigError, match=rf"^loss\.class_weights.*{said}"):
        prepared("model=mlp", f"loss.class_weights={weights}", dataset=dataset)


# A user's own loss.


@pytest.mark.parametrize(
    ("custom", "builtin"),
    [
        (["loss.target=custom_losses.CrossEntropy", "lr=0.1"], ["loss=ce", "lr=0.1"]),
        (["loss.target=custom_losses.CrossEntropy", "+loss.args.scale=2", "lr=0.1"], ["loss=ce", "lr=0.2"]),
        (["loss.target=custom_losses.Squared", "lr=0.5"], ["loss=mse", "model.output=sigmoid", "lr=0.5"]),
    ],
    ids=["ce", "argument", "sigmoid"],
)
def test_custom_loss_trains_as_the_builtin_of_the_same_formula(custom: list[str], builtin: list[str]) -> None:
    common = ["model=mlp", "dtype=float64", "batch_size=30", "epochs=3", "loss.reduction=mean"]
    dataset = noise((6,), 4, rows=100, test_rows=20)
    mine, theirs = train_together([settings("loss=custom", *common, *custom), settings(*common, *builtin)], dataset)
    for name in theirs.final:
        np.testing.assert_allclose(mine.final[name], theirs.final[name], rtol=1e-9, atol=1e-12)
    if "+loss.args.scale=2" not in custom:
        np.testing.assert_allclose(mine.summary.test_losses, theirs.summary.test_losses, rtol=1e-9)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("custom_losses.NoValue", r"no method value\(z, y\)"),
        ("custom_losses.NoGradient", r"no method gradient\(z, y\)"),
        ("custom_losses.NoOutput", r"output is 'probabilities'"),
        ("custom_losses.Raising", r"raised RuntimeError: not today"),
        ("custom_losses.Missing", r"cannot be imported"),
        ("no_such_module.Loss", r"cannot be imported"),
        ("CrossEntropy", r"package\.Class"),
    ],
)
def test_custom_loss_that_cannot_be_had(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"loss.target={target}: .*{message}"):
        _loss("loss=custom", f"loss.target={target}")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ScalarValue", r"value gave float64 \(\) for logits \(4, 3\); \(4,\) was expected"),
        ("TurnedGradient", r"gradient gave float64 \(3, 4\) for logits \(4, 3\); \(4, 3\) was expected"),
        ("TextValue", r"value gave <U"),
    ],
)
def test_custom_loss_with_wrong_results(target: str, message: str) -> None:
    loss = _loss("loss=custom", f"loss.target=custom_losses.{target}")
    with pytest.raises(ConfigError, match=message):
        try_out(loss, 3)


def test_custom_loss_names_its_own_output() -> None:
    with pytest.raises(ConfigError, match=r"model\.output=softmax: .* has output 'sigmoid'"):
        _loss("loss=custom", "loss.target=custom_losses.Squared", "model.output=softmax")
