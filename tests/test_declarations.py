"""What is declared once is known everywhere; more can be declared from outside, and another backend registered."""

import ast
import inspect
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from conftest import ROOT
from helpers import noise, prepared, settings, train_alone
from pydantic import Field
from scipy.special import erf
from test_gradients import _check as check_gradient
from test_gradients import _trial as trial_on_noise

import ablate
from ablate import backends
from ablate.backends.backend import Backend
from ablate.backends.cuda import declarations
from ablate.backends.cuda.layout import Layout
from ablate.backends.engine import Engine, Lane, Probe
from ablate.backends.numpy import NumpyBackend
from ablate.backends.numpy.operations import Activate
from ablate.config import groups
from ablate.config.help import help_text, keys
from ablate.diagnosis.checks import check
from ablate.errors import ConfigError
from ablate.problem import activations
from ablate.problem.activations import ACTIVATIONS, Elementwise
from ablate.problem.data.loading import DATA_SETS
from ablate.problem.initialisation import INITS
from ablate.problem.layers import LAYERS, Pool
from ablate.problem.losses import LOSSES, BuiltinLoss, CrossEntropy
from ablate.problem.mistakes import MISTAKES, Mistake
from ablate.problem.models import pools_first
from ablate.problem.optimizers import OPTIMIZERS, Optimizer
from ablate.problem.outputs import OUTPUTS
from ablate.problem.registry import Registry
from ablate.problem.schedules import SCHEDULES
from ablate.problem.section import Positive

Array = np.ndarray[Any, np.dtype[Any]]

# Before anything is declared here.
SHIPPED = {
    registry.kind: registry.names()
    for registry in (
        LOSSES,
        OPTIMIZERS,
        SCHEDULES,
        ACTIVATIONS,
        LAYERS,
        INITS,
        DATA_SETS,
        MISTAKES,
        OUTPUTS,
        backends.BACKENDS,
    )
}


# A loss, an activation and a rule of one's own, as they are written outside the package.


class LogCosh(BuiltinLoss):
    """Σ a ln cosh(s (p - y)) / s."""

    name: Literal["toy"] = "toy"
    allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "sigmoid")

    sharpness: Positive = Field(1.0, description="toy: how soon it is a straight line")
    slope: Positive = Field(1.0, description="toy: how steep that is")

    def naive_value(self, p: Array, y: Array) -> Array:
        return self.slope * np.log(np.cosh(self.sharpness * (p - y))).sum(axis=-2) / self.sharpness

    def naive_gradient(self, p: Array, y: Array) -> Array:
        return self.slope * np.tanh(self.sharpness * (p - y))


class Gelu(Elementwise):
    """x Φ(x) (Hendrycks and Gimpel, 2016): it falls below -0.75 and rises above."""

    name = "gelu"
    is_monotone = False
    needs_input = True

    def value(self, x: Array) -> Array:
        return (x * self._share_below(x)).astype(x.dtype)

    def derivative(self, x: Array, y: Array) -> Array:
        density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
        return (self._share_below(x) + x * density).astype(x.dtype)

    @staticmethod
    def _share_below(x: Array) -> Array:
        return 0.5 * (1 + erf(x / math.sqrt(2)))


class Signed(Optimizer):
    """s = the gradient's sign."""

    name: Literal["signed"] = "signed"

    @classmethod
    def step(
        cls, gradient: Array, states: Sequence[Array], constants: Sequence[Array], corrections: Sequence[Array]
    ) -> Array:
        return np.sign(gradient)


@contextmanager
def declared() -> Iterator[None]:
    """These three are declared meanwhile."""
    with LOSSES.temporarily(), ACTIVATIONS.temporarily(), OPTIMIZERS.temporarily():
        LOSSES.declare(LogCosh)
        activations.declare(Gelu)
        OPTIMIZERS.declare(Signed)
        yield


@pytest.fixture
def toys() -> Iterator[None]:
    with declared():
        yield


TOY = ["loss=toy", "model=mlp", "model.activation=gelu", "optimizer=signed"]


@pytest.mark.usefixtures("toys")
def test_toys_are_choices_with_help() -> None:
    [trial] = ablate.compose(*TOY, "loss.sharpness=2.5")
    assert isinstance(trial.settings.loss, LogCosh)
    assert isinstance(trial.settings.optimizer, Signed)
    assert (trial.settings.loss.sharpness, trial.settings.output) == (2.5, "softmax")
    told = {key: (allowed.split("|"), sentence) for key, allowed, sentence in keys()}
    for key, name in (("loss", "toy"), ("model.activation", "gelu"), ("optimizer", "signed")):
        assert name in told[key][0]
    assert told["loss.sharpness"] == (["number above 0"], "toy: how soon it is a straight line")
    assert "loss.sharpness" in help_text()
    with pytest.raises(ConfigError, match=r"^loss\.sharpness=0: expected number above 0$"):
        ablate.compose(*TOY, "loss.sharpness=0")
    with pytest.raises(ConfigError, match=r"^loss\.sharpness=2: no such key here; only loss=toy has it$"):
        ablate.compose("loss.sharpness=2")


def test_what_is_declared_for_a_while_is_known_so_long() -> None:
    for _ in range(2):
        for word in ("loss=toy", "optimizer=signed", "model.activation=gelu"):
            with pytest.raises(ConfigError, match=rf"^{word}: "):
                ablate.compose("model=mlp", word)
        with declared():
            assert ablate.compose(*TOY)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("from_logits", ["true", "false"])
def test_a_toy_loss_through_the_network(output: str, from_logits: str) -> None:
    given = [
        "loss=toy",
        "loss.sharpness=3",
        "loss.slope=2",
        f"model.output={output}",
        f"loss.from_logits={from_logits}",
    ]
    check_gradient(*trial_on_noise("mlp-tanh", *given))


STACKS = {
    "dense": ("{dense: 6}, gelu, {dense: 5}, gelu", (9,)),
    "chain": ("{dense: 6}, gelu, sigmoid, {divide: 2.0}, gelu, gelu, {dense: 5}, gelu", (9,)),
    "before a pool": ("{conv: 3, kernel: 3}, gelu, {pool: 2}", (2, 9, 8)),
    "between pools": (
        "{conv: 2, kernel: 3}, {pool: 2}, gelu, {pool: 2}, relu, {conv: 3, kernel: 1}, gelu",
        (1, 10, 10),
    ),
    "first": ("gelu, {conv: 2, kernel: 2}, relu, gelu, {pool: 3}", (1, 7, 7)),
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("name", STACKS)
def test_an_activation_that_falls_through_any_stack(name: str) -> None:
    layers, shape = STACKS[name]
    exact = ["dtype=float64", "init.bias=same", "lr=1", "batch_size=7", "shuffle=false"]
    trial = settings(*exact, "loss=toy", f"model.layers=[{layers}, {{dense: classes}}]", "model.fit=null")
    check_gradient(trial, noise(shape, 4))


@pytest.mark.usefixtures("toys")
def test_pooling_is_not_moved_before_an_activation_that_falls() -> None:
    """Of negative numbers the largest has not the largest GELU: what comes out is by hand, and so is its order."""
    trial = settings(
        "dtype=float64", "loss=hinge", "model.fit=null", "init=normal", "init.scale=2", "init.bias=same",
        "model.layers=[{conv: 2, kernel: 2}, gelu, {pool: 2}, {dense: classes}]",
    )  # fmt: skip
    dataset = noise((1, 5, 5), 3, test_rows=20)
    both = ablate.prepare(trial, dataset)
    engine = both.backend.engine(both.architecture, dataset, [both.lane()], both.batch_size, "gpu")
    weights, gelu = engine.weights(0), np.vectorize(lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))))
    z = np.zeros((20, 2, 4, 4)) + weights["conv1.bias"][:, None, None]
    for i, j in np.ndindex(2, 2):
        z += dataset.x_test[:, :, i : i + 4, j : j + 4] * weights["conv1.weight"][:, 0, i, j][:, None, None]
    windows = z.reshape(20, 2, 2, 2, 2, 2)
    right, wrong = (
        pooled.reshape(20, 8) @ weights["dense1.weight"] + weights["dense1.bias"]
        for pooled in (gelu(windows).max(axis=(3, 5)), gelu(windows.max(axis=(3, 5))))
    )
    np.testing.assert_allclose(engine.outputs(0), right, rtol=1e-12)
    assert np.abs(right - wrong).max() > 0.1


@pytest.mark.usefixtures("toys")
def test_a_toy_rule_steps_by_the_rate() -> None:
    dataset = noise((4,), 3, rows=8)
    given = ["dtype=float64", "init.bias=same", "lr=0.25", "epochs=1", "batch_size=8", "model.hidden=5"]
    trained = train_alone(settings(*TOY, *given), dataset)
    moved = [trained.initial[name] - trained.final[name] for name in trained.initial]
    np.testing.assert_allclose(np.abs(np.concatenate([each.ravel() for each in moved])), 0.25, rtol=1e-12)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("workers", [1, 2])
def test_toys_are_trained_in_a_sweep(tmp_path: Path, workers: int) -> None:
    """In other processes too, which have not run this file's fixtures."""
    common = ["model.hidden=10", "lr=0.01", "epochs=8", "data.train_limit=300", "tracking=none", f"workers={workers}"]
    sweep = ablate.run(ablate.compose(*TOY[1:], *common, "loss=toy,ce"), folder=tmp_path / "sweep")
    rows = sweep.results.set_index("loss")
    assert set(rows.index) == {"toy", "ce"}
    assert set(rows["status"]) == {"finished"}
    assert (rows["test_accuracy"] > 0.5).all()


@pytest.mark.usefixtures("toys")
def test_the_checks_find_nothing_in_toys() -> None:
    assert check(prepared(*TOY)).is_right


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("word", "named"), [("loss=toy", "loss=toy"), ("model.activation=gelu", "gelu"), ("optimizer=signed", "signed")]
)
def test_cuda_refuses_what_has_no_kernel(word: str, named: str) -> None:
    trial = settings("model=mlp", word, "backend=cuda", "device=emulated")
    with pytest.raises(ConfigError) as refused:
        ablate.prepare(trial)
    assert re.fullmatch(rf".*\b{named}: it has no CUDA kernel; use backend=numpy for it", str(refused.value))


@pytest.mark.parametrize("hook", ["objective", "has_derivative", "batch_gradient"])
def test_cuda_refuses_a_mistake_that_the_kernels_do_not_make(hook: str) -> None:
    """Or the trial would be a healthy one that passes for a mistaken one."""
    own = type("Own", (Mistake,), {"name": "own", hook: lambda self, *given: given[-1]})
    with MISTAKES.temporarily():
        MISTAKES.add("own", own())
        with pytest.raises(ConfigError, match=r"^bug=own: it has no CUDA kernel; use backend=numpy for it$"):
            prepared("model=mlp", "backend=cuda", "device=emulated", "bug=own")


def test_cuda_makes_every_mistake_that_ships() -> None:
    assert all(mistake.has_kernel for mistake in MISTAKES)


def test_the_kernels_do_not_hear_of_toys() -> None:
    """Or all would be compiled again, with room for constants that no kernel has."""
    before = declarations.header()
    with declared():
        assert declarations.header() == before


# Another backend.


class Counting(Backend):
    """NumPy's engine, and a count of the epochs that it is asked for."""

    name: ClassVar[str] = "counting"

    def __init__(self) -> None:
        self.numpy, self.epochs, self.probes = NumpyBackend(), 0, 0

    def engine(self, *given: Any) -> Engine:
        engine = self.numpy.engine(*given)
        train = engine.train_epoch

        def counted(*given: Any) -> Any:
            self.epochs += 1
            return train(*given)

        engine.train_epoch = counted  # type: ignore[method-assign]
        return engine

    def probe(self, architecture: Any, dataset: Any, lane: Lane, device: str) -> Probe:
        self.probes += 1
        return self.numpy.probe(architecture, dataset, lane, device)


@pytest.fixture
def counting() -> Iterator[Counting]:
    """The backend, registered until the test ends."""
    backend = Counting()
    with backends.BACKENDS.temporarily():
        backends.register(backend)
        yield backend


def test_a_sweep_on_a_backend_from_outside(counting: Counting, tmp_path: Path) -> None:
    assert len(inspect.getsource(Counting).splitlines()) < 40
    common = ["model=mlp", "epochs=3", "data.train_limit=100", "tracking=none", "workers=1"]
    trials = ablate.compose(*common, "backend=numpy,counting", "loss=ce,mse", "check=false")
    rows = ablate.run(trials, folder=tmp_path / "sweep").results
    assert counting.epochs == 3  # of one cohort
    table = rows.pivot(index="loss", columns="backend", values=["test_loss", "train_loss", "test_accuracy"])
    for figure in ("test_loss", "train_loss", "test_accuracy"):
        np.testing.assert_array_equal(table[figure]["counting"], table[figure]["numpy"])
    assert len(table) == 2
    assert not table.isna().any().any()


def test_the_checks_are_of_the_backend_that_trains(counting: Counting) -> None:
    assert check(prepared("model=mlp", "backend=counting")).is_right
    assert counting.probes == 1
    assert counting.epochs > 0  # its updates are compared with the reference's


def test_an_unknown_backend_is_told_those_that_there_are(counting: Counting) -> None:
    with pytest.raises(ConfigError, match=r"^backend=torch: expected numpy, cuda or counting$"):
        ablate.compose("backend=torch")
    with pytest.raises(ConfigError, match=r"^backend=torch: no such choice; choose one of counting, cuda, numpy$"):
        backends.get("torch")
    with pytest.raises(ValueError, match=r"^backend=counting: declared twice$"):
        backends.register(Counting())


def _offences(tree: ast.AST) -> Iterator[int]:
    """The lines where something is decided by a backend's name: compared, matched, or looked up in a table."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
            case ast.MatchValue(value):
                sides = [value]
            case ast.Dict():
                sides = [key for key in node.keys if key is not None]
            case _:
                continue
        inner = [each for side in sides for each in (getattr(side, "elts", None) or [side])]
        names = {each.value for each in inner if isinstance(each, ast.Constant)}
        is_asked = any(isinstance(each, ast.Attribute) and each.attr == "backend" for each in inner)
        if is_asked or not names.isdisjoint({"numpy", "cuda"}):
            yield node.lineno if not isinstance(node, ast.MatchValue) else node.value.lineno


def test_nothing_is_decided_by_the_name_of_a_backend() -> None:
    for written in ("a.backend == b", "x in ('cuda', 'y')", "'numpy' != x", "{'cuda': 1}", "match x:\n case 'cuda': 1"):
        assert list(_offences(ast.parse(written))), written
    files = sorted((ROOT / "ablate").rglob("*.py"))
    assert len(files) > 50
    found = [f"{path}:{line}" for path in files for line in _offences(ast.parse(path.read_text(encoding="utf-8")))]
    assert not found


# Everything that is declared has its kernel, its words and its help.


def structs(file: str) -> set[str]:
    """The structs of a file of `cuda/`."""
    return set(re.findall(r"^struct (\w+)", (ROOT / "cuda" / file).read_text(encoding="utf-8"), re.MULTILINE))


def test_every_kernel_that_is_named_is_there() -> None:
    kernels: dict[str, dict[str, str | None]] = {
        "activations.cuh": {each.name: each.kernel for each in ACTIVATIONS},
        "losses.cuh": {str(each.defaults()["name"]): each.kernel for each in LOSSES},
        "rules.cuh": {str(each.defaults()["name"]): each.kernel for each in OPTIMIZERS},
        "mistakes.cuh": {each.name: each.backward_kernel for each in MISTAKES},
        "objective.cuh": {each.name: each.objective_kernel for each in MISTAKES},
    }
    for file, named in kernels.items():
        missing = {name: kernel for name, kernel in named.items() if kernel and kernel not in structs(file)}
        assert not missing, file
    assert [name for named in kernels.values() for name, kernel in named.items() if kernel is None] == ["custom"]
    sample = (ROOT / "cuda" / "sample.cuh").read_text(encoding="utf-8")
    for output in OUTPUTS:
        assert re.search(rf"\b{output.kernel}\b", sample)
    # Different things are different structs.
    for file in ("activations.cuh", "losses.cuh", "rules.cuh"):
        structs_named = [kernel for kernel in kernels[file].values() if kernel]
        assert len(set(structs_named)) == len(structs_named)


def test_every_layer_has_its_kernels() -> None:
    written = ", ".join(layer.example for layer in LAYERS if layer.key != "dense")
    assert {layer.key for layer in LAYERS} == {"conv", "pool", "avg_pool", "dense", "divide", "hidden", "dropout"}
    trial = prepared(f"model.layers=[{written}, {{dense: classes}}]", "model.fit=null", dataset=noise((1, 16, 16), 3))
    layout = Layout(trial.architecture, MISTAKES.get("none"), 4)
    types = {name for layer in layout.layers for name in re.findall(r"[A-Z]\w+", layer.type)}
    assert types >= {"Conv", "Pool", "Dense", "Divide", "Elementwise"}
    there = {name for path in (ROOT / "cuda").glob("*.cuh") for name in structs(path.name)}
    assert types <= there


PAGES = {"optimizer": "reproduce.md", "schedule": "reproduce.md", "init": "reproduce.md", "bug": "bugs.md"}


@pytest.mark.parametrize("kind", [kind for kind in SHIPPED if kind != "backend"])
def test_everything_is_mentioned_in_the_documentation(kind: str) -> None:
    page = (ROOT / "docs" / PAGES.get(kind, "models.md")).read_text(encoding="utf-8")
    plain = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    words = {word for span in re.findall(r"`([^`]+)`", plain) for word in re.findall(r"\w+", span)}
    assert set(SHIPPED[kind]) - {"none"} <= words


def test_everything_is_shown_in_the_help() -> None:
    told = {key: (allowed.split("|"), sentence) for key, allowed, sentence in keys()}
    for kind in ("loss", "optimizer", "schedule", "init", "data", "bug", "backend"):
        assert set(told[kind][0]) == set(SHIPPED[kind]), kind
        assert told[kind][1]
    assert told["model.activation"][0] == [each.name for each in ACTIVATIONS if each.is_hidden]
    assert {each.name for each in ACTIVATIONS if not each.is_hidden} <= set(told["model.logits"][0])
    assert set(told["model.output"][0]) == {"auto", *SHIPPED["model.output"]}
    for group, options in groups.DECLARED.items():
        for option in options:
            for key in option.defaults():
                assert key == "name" or told[f"{group}.{key}"][1], f"{group}.{key}"
    for mistake in MISTAKES:
        assert mistake.name == "none" or (mistake.mistake and mistake.fix)
    with pytest.raises(ConfigError) as refused:
        prepared("model.layers=[nonsense, {dense: classes}]")
    for name in [*told["model.activation"][0], *(layer.example for layer in LAYERS)]:
        assert name in str(refused.value)


def test_everything_says_what_it_is() -> None:
    """A formula or a sentence of its own, not what it inherits."""
    things: list[Any] = [*ACTIVATIONS, *LOSSES, *OPTIMIZERS, *SCHEDULES, *LAYERS, *INITS, *DATA_SETS]
    for thing in things:
        cls = thing if isinstance(thing, type) else type(thing)
        assert cls.__dict__.get("__doc__"), cls


REGISTRIES: list[Registry[Any]] = [*groups.DECLARED.values(), ACTIVATIONS, LAYERS, MISTAKES, OUTPUTS, backends.BACKENDS]


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_a_name_that_is_taken_is_refused(registry: Registry[Any]) -> None:
    for name in registry.names():
        thing = registry.get(name)
        with pytest.raises(ValueError, match=rf"^{registry.kind}={name}: declared twice$"):
            registry.add(name, object())
        registry.add(name, thing)
        assert registry.get(name) is thing
    assert len(set(registry.names())) == len(list(registry))


def test_a_class_whose_name_is_taken_is_refused() -> None:
    class OtherLoss(CrossEntropy):
        """Another loss of that name."""

    class OtherTanh(Gelu):
        """Another activation of that name."""

        name = "tanh"

    with pytest.raises(ValueError, match=r"^loss=ce: declared twice$"):
        LOSSES.declare(OtherLoss)
    with pytest.raises(ValueError, match=r"^model.activation=tanh: declared twice$"):
        activations.declare(OtherTanh)
    assert LOSSES.get("ce") is CrossEntropy


def test_an_incomplete_declaration_is_refused_at_once() -> None:
    class Unwritten(BuiltinLoss):
        name: Literal["unwritten"] = "unwritten"
        allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax",)

    class Elsewhere(CrossEntropy):
        name: Literal["elsewhere"] = "elsewhere"
        allowed_outputs: ClassVar[tuple[str, ...]] = ("softmax", "hardmax")

    with pytest.raises(TypeError, match=r"^loss: Unwritten needs naive_gradient, naive_value$"):
        LOSSES.declare(Unwritten)
    with pytest.raises(TypeError, match=r"^loss: Elsewhere needs allowed_outputs, names out of .*softmax"):
        LOSSES.declare(Elsewhere)


# Activations, by themselves.


def known(name: str) -> Elementwise:
    activation = Gelu() if name == "gelu" else ACTIVATIONS.get(name)
    assert isinstance(activation, Elementwise)
    return activation


FUNCTIONS = [*(each.name for each in ACTIVATIONS if each.is_elementwise), "gelu"]


def grid(dtype: str = "float64") -> Array:
    """Numbers around 0 and far from it, none of them a kink; two lanes."""
    x = np.concatenate([np.linspace(-6, 6, 400), np.random.default_rng(0).normal(0, 3, 200)])
    return x.reshape(2, 3, 100).astype(dtype)


def slope(activation: Elementwise, x: Array) -> Array:
    """The derivative as an engine asks for it: of y alone, unless it needs x."""
    y = activation.value(x)
    return activation.derivative(x if activation.needs_input else y, y)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_derivative_is_the_central_difference(name: str) -> None:
    activation, x, step = known(name), grid(), 1e-6
    numeric = (activation.value(x + step) - activation.value(x - step)) / (2 * step)
    if activation.passes_gradient:
        np.testing.assert_array_equal(slope(activation, x), np.ones_like(x))
        assert (np.abs(numeric - 1).max() < 1e-8) == activation.has_true_gradient
        return
    np.testing.assert_allclose(slope(activation, x), numeric, rtol=0, atol=1e-8)
    assert np.ptp(numeric) > 0.1


# With their own numbers; the others are known from `test_models`.
VALUES = {
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.maximum(x, 0) + 0.01 * np.minimum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_that_of_the_formula(name: str) -> None:
    np.testing.assert_allclose(known(name).value(grid()), VALUES[name](grid()), rtol=1e-12)


def test_of_images_the_softmax_is_over_the_maps_of_each_pixel() -> None:
    x, d = np.random.default_rng(0).normal(size=(2, 2, 1, 4, 5, 3, 6))  # (K, P, H, C, W/P, n)
    operation = Activate(x.copy(), ACTIVATIONS.get("softmax"))
    operation.forward()
    e = np.exp(x)
    y = e / e.sum(axis=3, keepdims=True)
    np.testing.assert_allclose(operation.y, y, rtol=1e-12)
    expected = y * (d - (d * y).sum(axis=3, keepdims=True))
    operation.connect(d)
    operation.backward()
    np.testing.assert_allclose(d, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_in_place_it_computes_the_same(name: str, dtype: str) -> None:
    activation, x = known(name), grid(dtype)
    x[0, 0, :4] = 0.0, -0.0, 1e-30, -1e-30
    y, d = x.copy(), np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    work = activation.workspace(y)
    activation.apply(y, work)
    np.testing.assert_array_equal(y, activation.value(x), strict=True)
    expected = d * slope(activation, x)
    activation.backpropagate(d, x if activation.needs_input else y, y, work)
    np.testing.assert_array_equal(d, expected, strict=True)
    np.testing.assert_array_equal(y, activation.value(x), strict=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_declared_of_it_is_so(name: str) -> None:
    """Whether it falls, between which values it lies, and that one that can die is flat at 0."""
    activation, x = known(name), np.linspace(-30, 30, 2001)
    y = activation.value(x)
    assert activation.is_monotone == bool((np.diff(y) >= 0).all())
    if activation.limits is None:
        assert np.abs(y).max() > 10
    else:
        with np.errstate(over="ignore"):
            far = activation.value(np.array([-1e12, 1e12]))
        np.testing.assert_allclose(far, activation.limits, atol=1e-9)
    if activation.can_die and activation.has_true_gradient:
        np.testing.assert_array_equal(slope(activation, x)[y == 0], 0)
        assert (y == 0).any()
    if not activation.needs_input:
        np.testing.assert_array_equal(activation.derivative(y, y), activation.derivative(x, y))


def test_a_pool_is_moved_before_what_never_falls_only(toys: None) -> None:
    for name in ("relu", "elu", "gelu"):
        layers = f"model.layers=[{{conv: 2, kernel: 2}}, {name}, {{pool: 2}}, {{dense: classes}}]"
        trial = prepared("model.fit=null", layers, dataset=noise((1, 5, 5), 3))
        place = [stage.layer for stage in pools_first(trial.architecture.stages)].index(Pool(2))
        assert place == (1 if known(name).is_monotone else 2), name


def test_a_folder_of_ones_own_is_read_at_every_call(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for units in (5, 7):
        (tmp_path / "model" / "mine.yaml").write_text(f"layers: [{{dense: {units}}}, {{dense: classes}}]\n")
        [trial] = ablate.compose("model=mine", config_dir=tmp_path)
        assert trial.settings.model.layers[0] == {"dense": units}
    with pytest.raises(ConfigError, match=r"^config_dir=.*nowhere: no such folder$"):
        ablate.compose(config_dir=tmp_path / "nowhere")
