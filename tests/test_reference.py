"""Runs repeated from `init.npz`, the seed and the rules of docs/reproduce.md, by code that is not ablate's."""

import contextlib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_in_process
from helpers import Trained, settings, train_alone

Array = np.ndarray[Any, np.dtype[Any]]
Tensors = dict[str, Array]

ROOT = Path(__file__).resolve().parents[1]
DOC = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


def test_example_of_the_documentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = re.search(r"^python -m ablate (.*)$", DOC, re.MULTILINE)
    example = re.search(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert command
    assert example
    assert "ablate" not in example[1]
    done = run_in_process(tmp_path, *command[1].split(), "tracking=none", "workers=1")
    assert done.code == 0, done.err
    with contextlib.chdir(tmp_path):
        exec(compile(example[1], "docs/reproduce.md", "exec"), {})
    said, difference = capsys.readouterr().out.rsplit(maxsplit=1)
    assert said == "largest difference of any weight:"
    assert 0 < float(difference) < 1e-9


# A reference trainer: plain NumPy over whole batches, one function a layer, nothing of ablate.


def digits(rows: int = 1497) -> tuple[Array, Array]:
    """Standardised training images `(rows, 8, 8)` and one-hot targets."""
    from sklearn.datasets import load_digits  # here: it takes a second of every process that collects the tests

    bunch = load_digits()
    chosen = np.random.default_rng(0).permutation(1797)[:rows]
    x = bunch.images[chosen]
    x = (x - x.mean(axis=(1, 2), keepdims=True)) / x.std(axis=(1, 2), keepdims=True)
    return x, np.eye(10)[bunch.target[chosen]]


def batches(count: int, size: int, epochs: int, seed: int, shuffle: bool = True) -> list[Array]:
    stream = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
    orders = [stream.permutation(count) if shuffle else np.arange(count) for _ in range(epochs)]
    return [order[start : start + size] for order in orders for start in range(0, count, size)]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy_delta(z: Array, y: Array) -> Array:
    return softmax(z) - y


def bce_delta(z: Array, y: Array) -> Array:
    return 1 / (1 + np.exp(-z)) - y


def squared_error_delta(z: Array, y: Array) -> Array:
    """By the whole Jacobian of the softmax, sample by sample."""
    return np.array([(np.diag(p) - np.outer(p, p)) @ (p - t) for p, t in zip(softmax(z), y, strict=True)])


Delta = Callable[[Array, Array], Array]


def mlp_gradient(w: Tensors, x: Array, y: Array, delta: Delta) -> Tensors:
    """Of the sum over the samples, through one hidden layer of sigmoids or none."""
    if "dense2.weight" not in w:
        d = delta(x @ w["dense1.weight"] + w["dense1.bias"], y)
        return {"dense1.weight": x.T @ d, "dense1.bias": d.sum(axis=0)}
    hidden = 1 / (1 + np.exp(-(x @ w["dense1.weight"] + w["dense1.bias"])))
    d2 = delta(hidden @ w["dense2.weight"] + w["dense2.bias"], y)
    d1 = d2 @ w["dense2.weight"].T * hidden * (1 - hidden)
    return {
        "dense1.weight": x.T @ d1,
        "dense1.bias": d1.sum(axis=0),
        "dense2.weight": hidden.T @ d2,
        "dense2.bias": d2.sum(axis=0),
    }


class Sgd:
    def __call__(self, g: Array, t: int, w: Array) -> Array:
        return g


class Momentum:
    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum, self.v = momentum, 0.0

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        self.v = self.momentum * self.v + g
        return self.v


class Nesterov(Momentum):
    def __call__(self, g: Array, t: int, w: Array) -> Array:
        return g + self.momentum * super().__call__(g, t, w)


class Adam:
    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.beta1, self.beta2, self.epsilon, self.m, self.v = beta1, beta2, epsilon, 0.0, 0.0

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        return (self.m / (1 - self.beta1**t)) / (np.sqrt(self.v / (1 - self.beta2**t)) + self.epsilon)


class RmsProp:
    def __init__(self, decay: float = 0.99, epsilon: float = 1e-8) -> None:
        self.decay, self.epsilon, self.v = decay, epsilon, 0.0

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        self.v = self.decay * self.v + (1 - self.decay) * g * g
        return g / (np.sqrt(self.v) + self.epsilon)


class Adagrad:
    def __init__(self, epsilon: float = 1e-8) -> None:
        self.epsilon, self.v = epsilon, 0.0

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        self.v = self.v + g * g
        return g / (np.sqrt(self.v) + self.epsilon)


class AdamW:
    def __init__(self, decay: float = 0.01) -> None:
        self.decay, self.adam = decay, Adam()

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        return self.adam(g, t, w) + self.decay * w


class Adadelta:
    def __init__(self, rho: float = 0.9, epsilon: float = 1e-6) -> None:
        self.rho, self.epsilon, self.v, self.u = rho, epsilon, 0.0, 0.0

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        self.v = self.rho * self.v + (1 - self.rho) * g * g
        step = np.sqrt(self.u + self.epsilon) / np.sqrt(self.v + self.epsilon) * g
        self.u = self.rho * self.u + (1 - self.rho) * step * step
        return step


class Decayed:
    """A rule with L2 weight decay: the gradient of decay/2 times the sum of squares is added to it."""

    def __init__(self, rule: Any, decay: float) -> None:
        self.rule, self.decay = rule, decay

    def __call__(self, g: Array, t: int, w: Array) -> Array:
        return self.rule(g + self.decay * w, t, w)


def descend(
    initial: Mapping[str, Array],
    gradient: Callable[[Tensors, Array], Tensors],
    plan: list[Array],
    rates: float | Mapping[str, float],
    rule: Callable[[], Callable[[Array, int, Array], Array]] = Sgd,
    reduction: str = "mean",
    clip: Callable[[Tensors], Tensors] = lambda g: g,
    factor: Callable[[int], float] = lambda t: 1.0,
) -> Tensors:
    """The weights after every batch of `plan`; `gradient` is that of the sum over a batch's rows."""
    w = {name: tensor.astype(np.float64) for name, tensor in initial.items()}
    rules = {name: rule() for name in w}
    for t, batch in enumerate(plan, start=1):
        g = gradient(w, batch)
        g = clip({name: g[name] / len(batch) if reduction == "mean" else g[name] for name in w})
        for name in w:
            rate = (rates if isinstance(rates, float) else rates[name]) * factor(t - 1)
            w[name] = w[name] - rate * rules[name](g[name], t, w[name])
    return w


def assert_near(trained: Trained, expected: Tensors, tolerance: float) -> None:
    assert trained.final.keys() == expected.keys()
    for name, tensor in expected.items():
        moved = np.abs(tensor - trained.initial[name]).max()
        assert moved > 100 * tolerance, f"{name} hardly moved: nothing is shown"
        np.testing.assert_allclose(trained.final[name], tensor, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("overrides", "delta", "rate", "rule", "reduction"),
    [
        (["loss=bce", "loss.reduction=sum", "optimizer=momentum", "lr=0.002"], bce_delta, 0.002, Momentum, "sum"),
        (["loss=ce", "lr=0.3"], cross_entropy_delta, 0.3, Sgd, "mean"),
        (["loss=mse", "lr=0.5", "optimizer=momentum"], squared_error_delta, 0.5, Momentum, "mean"),
    ],
    ids=["bce-sum-momentum", "ce-mean-sgd", "mse-mean-momentum"],
)
def test_mlp(dtype: str, overrides: list[str], delta: Delta, rate: float, rule: Any, reduction: str) -> None:
    """Shuffled, 1,497 rows in batches of 100: the last has 97."""
    trial = settings(*overrides, "model=mlp", "epochs=3", "batch_size=100", "seed=5", f"dtype={dtype}")
    trained = train_alone(trial)
    x, y = digits()
    x = x.reshape(len(x), -1)
    plan = batches(1497, 100, 3, seed=5)
    assert len(plan[14]) == 97
    expected = descend(
        trained.initial, lambda w, rows: mlp_gradient(w, x[rows], y[rows], delta), plan, rate, rule, reduction
    )
    assert_near(trained, expected, TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (["optimizer=sgd"], Sgd),
        (["optimizer=momentum"], Momentum),
        (["optimizer=momentum", "optimizer.momentum=0.5"], lambda: Momentum(0.5)),
        (["optimizer=adam", "lr=0.01"], Adam),
        (["optimizer=adam", "optimizer.beta1=0.7", "optimizer.beta2=0.9"], lambda: Adam(0.7, 0.9)),
        (["optimizer=adam", "optimizer.epsilon=0.1"], lambda: Adam(epsilon=0.1)),
        (["optimizer=rmsprop", "lr=0.01"], RmsProp),
        (["optimizer=rmsprop", "optimizer.decay=0.5", "optimizer.epsilon=0.1"], lambda: RmsProp(0.5, 0.1)),
        (["optimizer=adagrad"], Adagrad),
        (["optimizer=adagrad", "optimizer.epsilon=0.1"], lambda: Adagrad(0.1)),
        (["optimizer=nesterov", "optimizer.momentum=0.8"], lambda: Nesterov(0.8)),
        (["optimizer=adadelta", "lr=1"], Adadelta),
        (["optimizer=adadelta", "optimizer.rho=0.5", "optimizer.epsilon=1e-4"], lambda: Adadelta(0.5, 1e-4)),
        (["optimizer=adamw"], AdamW),
        (["optimizer=adamw", "optimizer.weight_decay=0.5"], lambda: AdamW(0.5)),
        (["optimizer.weight_decay=0.3"], lambda: Decayed(Sgd(), 0.3)),
        (["optimizer=adam", "optimizer.weight_decay=0.02"], lambda: Decayed(Adam(), 0.02)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_optimizer(overrides: list[str], rule: Any) -> None:
    trial = settings(
        "model=softmax_regression",
        "lr=0.05",
        "epochs=2",
        "batch_size=400",
        "dtype=float64",
        "init.bias=same",
        *overrides,
    )
    trained = train_alone(trial)
    x, y = digits()
    x = x.reshape(len(x), -1)
    expected = descend(
        trained.initial,
        lambda w, rows: mlp_gradient(w, x[rows], y[rows], cross_entropy_delta),
        batches(1497, 400, 2, seed=0),
        trial.lr,
        rule,
    )
    assert_near(trained, expected, TOLERANCE["float64"])


def clip(norm: float = math.inf, value: float = math.inf) -> Callable[[Tensors], Tensors]:
    """As torch.nn.utils.clip_grad_value_ and clip_grad_norm_ are documented, one after the other."""

    def clipped(gradient: Tensors) -> Tensors:
        cut = {name: np.minimum(np.maximum(g, -value), value) for name, g in gradient.items()}
        total = math.sqrt(sum(np.square(g).sum() for g in cut.values()))
        return {name: g * min(1.0, norm / (total + 1e-6)) for name, g in cut.items()}

    return clipped


@pytest.mark.parametrize(
    ("overrides", "clip", "rule"),
    [
        (["optimizer.clip_norm=1.5"], clip(1.5), Sgd),
        (["optimizer.clip_value=0.01"], clip(value=0.01), Sgd),
        (
            [
                "optimizer.clip_norm=0.2",
                "optimizer.clip_value=0.02",
                "optimizer.weight_decay=0.5",
                "optimizer=momentum",
            ],
            clip(0.2, 0.02),
            lambda: Decayed(Momentum(), 0.5),
        ),
    ],
    ids=["norm", "value", "both and decay"],
)
def test_clipping(overrides: list[str], clip: Callable[[Tensors], Tensors], rule: Any) -> None:
    """Before weight decay; in some steps the gradient is longer, in others not, and recorded norms are unclipped."""
    common = ["data.train_limit=400", "batch_size=50", "epochs=3", "lr=0.5", "dtype=float64", "log_every=1"]
    trained = train_alone(settings("model=softmax_regression", *common, *overrides))
    x, y = digits(400)
    norms = []

    def gradient(w: Tensors, rows: Array) -> Tensors:
        summed = mlp_gradient(w, x.reshape(400, -1)[rows], y[rows], cross_entropy_delta)
        norms.append(math.sqrt(sum(np.square(g / len(rows)).sum() for g in summed.values())))
        return summed

    expected = descend(trained.initial, gradient, batches(400, 50, 3, seed=0), 0.5, rule, clip=clip)
    assert_near(trained, expected, TOLERANCE["float64"])
    recorded = [values["grad/norm"] for _, _, values in trained.records if "grad/norm" in values]
    np.testing.assert_allclose(recorded, norms, rtol=1e-9)
    assert min(norms) < 1.5 < max(norms)


def test_dropout_by_the_documented_recipe() -> None:
    """Two hidden layers; the train loss is that of the network with dropout, the test loss without."""
    trial = settings(
        *("model=mlp", "model.hidden=[7,6]", "model.activation=tanh", "model.dropout=0.4", "dtype=float64", "lr=0.5"),
        *("batch_size=1100", "epochs=2", "seed=5"),
    )
    trained = train_alone(trial)
    x, y = digits(1797)
    x, test, y, truth = x[:1497].reshape(1497, -1), x[1497:].reshape(300, -1), y[:1497], y[1497:]
    key = int(np.random.SeedSequence(5).spawn(3)[2].generate_state(1, np.uint64)[0])
    w, losses = dict(trained.initial), []

    def forward(x: Array, masks: list[Array]) -> list[Array]:
        h = [x]
        for number, mask in enumerate(masks, start=1):
            h.append(np.tanh(h[-1] @ w[f"dense{number}.weight"] + w[f"dense{number}.bias"]) * mask)
        return [*h, softmax(h[-1] @ w["dense3.weight"] + w["dense3.bias"])]

    for step, batch in enumerate(batches(1497, 1100, 2, seed=5)):
        masks = []
        for layer, units in enumerate((7, 6)):
            numbers = np.random.Generator(np.random.Philox(key=key, counter=(step << 128) + (layer << 64)))
            masks.append((numbers.random((len(batch), units)) >= 0.4) / 0.6)
        *h, p = forward(x[batch], masks)
        losses.append(-np.log(p[y[batch] == 1]).sum())
        d, gradient = (p - y[batch]) / len(batch), {}
        for number in (3, 2, 1):
            gradient |= {f"dense{number}.weight": h[number - 1].T @ d, f"dense{number}.bias": d.sum(axis=0)}
            if number > 1:
                mask = masks[number - 2]
                slope = 1 - np.square(h[number - 1] * 0.6)  # what was kept has been divided by 0.6
                d = d @ w[f"dense{number}.weight"].T * mask * slope
        w = {name: w[name] - 0.5 * gradient[name] for name in w}
    assert_near(trained, w, TOLERANCE["float64"])
    last = trained.records[-1][2]
    assert last["train/loss"] == pytest.approx(sum(losses[2:]) / 1497, rel=1e-9)
    assert last["test/loss"] == pytest.approx(-np.log(forward(test, [1.0, 1.0])[-1][truth == 1]).mean(), rel=1e-9)


# The factor at update t, counted from 0, of 4 epochs of 8 updates.
SCHEDULES: dict[str, Callable[[int], float]] = {
    "schedule=step schedule.every=1 schedule.factor=1e-5": lambda t: 1e-5 ** (t // 8),
    "schedule=step schedule.every=2 schedule.warmup=0.5": lambda t: (t + 1) / 4 if t < 4 else 0.1 ** ((t - 4) // 16),
    "schedule=cosine": lambda t: (1 + math.cos(math.pi * t / 32)) / 2,
    "schedule=cosine schedule.floor=0.2 schedule.warmup=1": lambda t: (
        (t + 1) / 8 if t < 8 else 0.2 + 0.8 * (1 + math.cos(math.pi * (t - 8) / 24)) / 2
    ),
    "schedule=warmup": lambda t: min(1, (t + 1) / 8),
    "schedule=inverse_time schedule.half_after=2": lambda t: 1 / (1 + t / 16),
}


@pytest.mark.parametrize("given", SCHEDULES)
def test_schedule(given: str) -> None:
    """Of the weights, of the rate that is recorded, and of what is watched with it."""
    factor, rates = SCHEDULES[given], {"dense1": 0.5, "dense2": 0.2}
    common = ["data.train_limit=400", "batch_size=50", "epochs=4", "dtype=float64", "log_every=1", "model.hidden=6"]
    trained = train_alone(settings("model=mlp", "lr=0.5", "output_lr=0.2", *common, *given.split()))
    x, y = digits(400)
    small = []

    def gradient(w: Tensors, rows: Array) -> Tensors:
        summed = mlp_gradient(w, x.reshape(400, -1)[rows], y[rows], cross_entropy_delta)
        change = np.abs(np.concatenate([summed[f"dense2.{part}"].ravel() for part in ("weight", "bias")])) / 50
        change *= 0.2 * factor(len(small))
        small.append(((change < 1e-7) & (change > 0)).sum())
        return summed

    by_name = {name: rates[name.partition(".")[0]] for name in trained.initial}
    expected = descend(trained.initial, gradient, batches(400, 50, 4, seed=0), by_name, factor=factor)
    assert_near(trained, expected, TOLERANCE["float64"])
    recorded = [values["step/lr"] for _, _, values in trained.records if "step/loss" in values]
    np.testing.assert_allclose(recorded, [0.5 * factor(t) for t in range(32)], rtol=1e-12)
    assert sum(values.get("watch/too_small", 0) for _, _, values in trained.records) == sum(small)


@pytest.mark.parametrize("way", ["minus p-y", "plus y-p", "plus p-y", "minus y-p"])
def test_output_lr_and_signs(way: str) -> None:
    sign, residual = way.split()
    trial = settings(
        "model=mlp", f"update_sign={sign}", f"residual={residual}", "lr=0.1", "output_lr=0.02",
        "epochs=1", "dtype=float64", "shuffle=false",
    )  # fmt: skip
    trained = train_alone(trial)
    x, y = digits()
    x = x.reshape(len(x), -1)
    factor = 1 if way in ("minus p-y", "plus y-p") else -1
    rates = {name: factor * (0.02 if name.startswith("dense2") else 0.1) for name in trained.initial}
    plan = batches(1497, 32, 1, seed=0, shuffle=False)
    expected = descend(
        trained.initial, lambda w, rows: mlp_gradient(w, x[rows], y[rows], cross_entropy_delta), plan, rates
    )
    assert_near(trained, expected, TOLERANCE["float64"])


@pytest.mark.parametrize(("reduction", "rate"), [("mean", 0.1), ("sum", 0.0005)])
def test_metrics_are_means_over_samples(reduction: str, rate: float) -> None:
    """Of the training set as it was met, short batch and all; of the test set before and after."""
    trial = settings(
        "model=softmax_regression", f"loss.reduction={reduction}", f"lr={rate}",
        "dtype=float64", "batch_size=400", "epochs=1", "log_every=1",
    )  # fmt: skip
    trained = train_alone(trial)
    x, y = digits(1797)
    x, test, y, truth = x[:1497].reshape(1497, -1), x[1497:].reshape(300, -1), y[:1497], y[1497:]
    w = {name: tensor.copy() for name, tensor in trained.initial.items()}

    def measure(x: Array, y: Array) -> tuple[float, float, float]:
        p = softmax(x @ w["dense1.weight"] + w["dense1.bias"])
        loss = -np.log(p[y == 1]).sum()
        return loss, np.count_nonzero(p.argmax(axis=1) == y.argmax(axis=1)), p.max(axis=1).sum()

    before = np.array(measure(test, truth)) / 300
    total, norms = np.zeros(3), []
    for batch in batches(1497, 400, 1, seed=0):
        total += measure(x[batch], y[batch])
        gradient = mlp_gradient(w, x[batch], y[batch], cross_entropy_delta)
        share = 1 / len(batch) if reduction == "mean" else 1
        norms.append(math.sqrt(sum(np.square(g).sum() for g in gradient.values())) * share)
        w = {name: w[name] - rate * gradient[name] * share for name in w}
    after = np.array(measure(test, truth)) / 300

    first, *steps, last = [values for _, _, values in trained.records]
    assert [step for step, _, _ in trained.records] == [0, 0, 1, 2, 3, 4]
    np.testing.assert_allclose([first[f"test/{k}"] for k in ("loss", "accuracy", "confidence")], before, rtol=1e-9)
    np.testing.assert_allclose([last[f"test/{k}"] for k in ("loss", "accuracy", "confidence")], after, rtol=1e-9)
    np.testing.assert_allclose([last["train/loss"], last["train/accuracy"]], total[:2] / 1497, rtol=1e-9)
    np.testing.assert_allclose([step["grad/norm"] for step in steps], norms, rtol=1e-9)


# A reference convolutional network: one image at a time, loops over the pixels of the output.


def conv_forward(x: Array, w: Array, b: Array) -> Array:
    k = w.shape[2]
    y = np.empty((len(w), x.shape[1] - k + 1, x.shape[2] - k + 1))
    for i, j in np.ndindex(y.shape[1:]):
        y[:, i, j] = np.tensordot(w, x[:, i : i + k, j : j + k], 3) + b
    return y


def conv_backward(x: Array, w: Array, d: Array) -> tuple[Array, Array, Array]:
    k = w.shape[2]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(d.shape[1:]):
        dw += d[:, i, j][:, None, None, None] * x[:, i : i + k, j : j + k]
        dx[:, i : i + k, j : j + k] += np.tensordot(d[:, i, j], w, 1)
    return dx, dw, d.sum(axis=(1, 2))


def pool_places(x: Array, size: int) -> tuple[Array, Array, Array]:
    """Where each window's first maximum stands."""
    channels, rows, columns = x.shape[0], x.shape[1] // size, x.shape[2] // size
    windows = x[:, : rows * size, : columns * size].reshape(channels, rows, size, columns, size)
    first = windows.transpose(0, 1, 3, 2, 4).reshape(channels, rows, columns, -1).argmax(axis=-1)
    c, i, j = np.indices(first.shape)
    return c, i * size + first // size, j * size + first % size


def image_gradient(w: Tensors, layers: list[str], x: Array, y: Array) -> Tensors:
    """Of one image's cross-entropy; a layer is `conv1`, `relu`, `pool2` or `dense1`."""
    inputs, h = [], x
    for layer in layers:
        inputs.append(h)
        if layer.startswith("conv"):
            h = conv_forward(h, w[f"{layer}.weight"], w[f"{layer}.bias"])
        elif layer.startswith("dense"):
            h = h.ravel() @ w[f"{layer}.weight"] + w[f"{layer}.bias"]
        else:
            h = np.maximum(h, 0) if layer == "relu" else h[pool_places(h, int(layer[4:]))]
    d, gradient = cross_entropy_delta(h[None], y[None])[0], {}
    for layer, before in zip(reversed(layers), reversed(inputs), strict=True):
        if layer.startswith("conv"):
            d, gradient[f"{layer}.weight"], gradient[f"{layer}.bias"] = conv_backward(before, w[f"{layer}.weight"], d)
        elif layer.startswith("dense"):
            gradient[f"{layer}.weight"], gradient[f"{layer}.bias"] = np.outer(before.ravel(), d), d
            d = (w[f"{layer}.weight"] @ d).reshape(before.shape)
        elif layer == "relu":
            d = d * (before > 0)
        else:
            passed = np.zeros_like(before)
            passed[pool_places(before, int(layer[4:]))] = d
            d = passed
    return gradient


LENET5 = ["conv1", "relu", "pool2", "conv2", "relu", "pool2", "conv3", "relu", "dense1"]
SMALL = ["conv1", "relu", "pool2", "conv2", "relu", "dense1", "relu", "dense2"]
SMALL_LAYERS = "{conv: 3, kernel: 3}, relu, {pool: 2}, {conv: 4, kernel: 2}, relu, {dense: 6}, relu, {dense: classes}"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("layers", "overrides", "rows", "batch", "side"),
    [
        (SMALL, [f"model.layers=[{SMALL_LAYERS}]", "model.fit=null"], 20, 8, 8),
        (LENET5, [], 5, 3, 32),
    ],
    ids=["small", "lenet5"],
)
def test_convolutional_network(
    dtype: str, layers: list[str], overrides: list[str], rows: int, batch: int, side: int
) -> None:
    trial = settings(
        *overrides, f"data.train_limit={rows}", f"batch_size={batch}", "epochs=2", "seed=1", f"dtype={dtype}"
    )
    trained = train_alone(trial)
    x, y = digits(rows)
    x = x.repeat(side // 8, axis=1).repeat(side // 8, axis=2)[:, None]

    def gradient(w: Tensors, batch: Array) -> Tensors:
        each = [image_gradient(w, layers, x[row], y[row]) for row in batch]
        return {name: sum(g[name] for g in each) for name in w}

    expected = descend(trained.initial, gradient, batches(rows, batch, 2, seed=1), 0.1)
    assert_near(trained, expected, TOLERANCE[dtype])


# Initial weights.

SHAPES = {
    "conv1.weight": ((6, 1, 5, 5), 25, 150),
    "conv1.bias": ((6,), 25, 150),
    "conv2.weight": ((16, 6, 5, 5), 150, 400),
    "conv2.bias": ((16,), 150, 400),
    "conv3.weight": ((120, 16, 5, 5), 400, 3000),
    "conv3.bias": ((120,), 400, 3000),
    "dense1.weight": ((120, 10), 120, 10),
    "dense1.bias": ((10,), 120, 10),
}


def orthonormal(stream: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """By Gram and Schmidt, one column after the other, twice for the sake of the last digits."""
    rows = shape[0] if len(shape) > 1 else 1
    columns = math.prod(shape) // rows
    q = stream.normal(size=(max(rows, columns), min(rows, columns)))
    for column in range(q.shape[1]):
        for _ in range(2):
            q[:, column] -= q[:, :column] @ (q[:, :column].T @ q[:, column])
        q[:, column] /= math.sqrt(np.square(q[:, column]).sum())
    return (q if rows >= columns else q.T).reshape(shape)


def uniform(stream: np.random.Generator, bound: float, shape: tuple[int, ...]) -> Array:
    return stream.uniform(-bound, bound, shape)


# name: how a tensor is drawn from the stream, given its shape and fans.
RECIPES: dict[str, Callable[[np.random.Generator, tuple[int, ...], int, int], Array]] = {
    "glorot_uniform": lambda stream, shape, i, o: uniform(stream, math.sqrt(6 / (i + o)), shape),
    "uniform01": lambda stream, shape, i, o: stream.random(shape),
    "normal": lambda stream, shape, i, o: stream.normal(0, 0.3, shape),
    "he": lambda stream, shape, i, o: stream.normal(0, math.sqrt(2 / i), shape),
    "lecun": lambda stream, shape, i, o: stream.normal(0, math.sqrt(1 / i), shape),
    "uniform": lambda stream, shape, i, o: uniform(stream, 0.3, shape),
    "zeros": lambda stream, shape, i, o: np.zeros(shape),
    "orthogonal": lambda stream, shape, i, o: orthonormal(stream, shape),
}


@pytest.mark.parametrize(("init", "bias"), [*((init, "same") for init in RECIPES), ("normal", "zero"), ("he", "zero")])
def test_initial_weights_by_the_documented_recipe(init: str, bias: str) -> None:
    scale = ["init.scale=0.3"] if init in ("normal", "uniform") else []
    trial = settings(
        f"init={init}", *scale, f"init.bias={bias}", "seed=7", "data.train_limit=1", "data.test_limit=1", "epochs=1"
    )
    initial = train_alone(trial).initial
    stream = np.random.default_rng(np.random.SeedSequence(7).spawn(2)[0])
    for name, (shape, fan_in, fan_out) in SHAPES.items():
        if bias == "zero" and name.endswith("bias"):
            expected = np.zeros(shape)
        else:
            expected = RECIPES[init](stream, shape, fan_in, fan_out)
        tolerance = 1e-7 if init == "orthogonal" else 0
        np.testing.assert_allclose(initial[name], expected.astype(np.float32), rtol=0, atol=tolerance, strict=True)
    assert list(initial) == list(SHAPES)


@pytest.mark.parametrize(
    ("overrides", "low", "high", "mean", "deviation"),
    [
        (["init=glorot_uniform"], -0.042008, 0.042008, 0, 0.042008 / math.sqrt(3)),
        (["init=uniform01"], 0, 1, 0.5, math.sqrt(1 / 12)),
        (["init=normal", "init.scale=0.3"], -2, 2, 0, 0.3),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_distribution_of_initial_weights(
    overrides: list[str], low: float, high: float, mean: float, deviation: float
) -> None:
    trial = settings(*overrides, "data.train_limit=1", "data.test_limit=1", "epochs=1")
    drawn = train_alone(trial).initial["conv3.weight"]  # 48,000 numbers
    assert low <= drawn.min() < mean < drawn.max() <= high
    assert drawn.mean() == pytest.approx(mean, abs=5 * deviation / math.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(deviation, rel=0.02)
