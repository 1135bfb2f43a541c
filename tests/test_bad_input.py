"""Wrong commands, configurations and files: code 2, one clear line, nothing created."""

import gzip
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
from conftest import Done, run_in_process

import ablate as package
from ablate.backends.cuda.backend import open_device
from ablate.commands.refusals import no_such_option
from ablate.errors import ConfigError, in_a_line
from ablate.problem.data.loading import DATA_SETS
from ablate.problem.near import is_slip

SMALL = ["model=softmax_regression", "epochs=1", "data.train_limit=64", "workers=1"]


def assert_refused(done: Done, folder: Path, *said: str) -> None:
    """Code 2, one line with all of `said`, and neither a sweep's folder nor a database."""
    assert (done.code, done.out) == (2, ""), done
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("ablate: ")
    for part in said:
        assert part in lines[0]
    created = {path.name for path in folder.iterdir()} & {"runs", "mlflow.db", "outputs", "multirun"}
    assert not created


# What the issue names goes through the whole command, the other keys through the check itself.
VALUES = {
    "lr=0": "number above 0",
    "lr=-1": "number above 0",
    "lr=nan": "finite number",
    "lr=abc": "number above 0",
    "batch_size=0": "whole number from 1",
    "batch_size=65": "1 to 64",
    "epochs=-1": "whole number from 1",
    "data.train_limit=1498": "1 to 1497",
    "model.units=1": "one unit tells two classes apart, and the data has 10",
    "lr=${nothing}": "'nothing' not found",
    "lr=???": "issing",
}


@pytest.mark.parametrize(("written", "allowed"), VALUES.items(), ids=VALUES)
def test_value(ablate: Callable[..., Done], tmp_path: Path, written: str, allowed: str) -> None:
    named = written.partition("=")[0] if written.endswith(("}", "???")) else written
    assert_refused(ablate(*SMALL, written), tmp_path, named, allowed)


CHECKED = {
    "lr=null": "number above 0",
    "lr=true": "number above 0",
    "output_lr=0": "number above 0 or null",
    "batch_size=2.5": "whole number from 1",
    "epochs=0": "whole number from 1",
    "epochs=1.5": "whole number from 1",
    "epochs=two": "whole number from 1",
    "seed=-1": "whole number from 0",
    "workers=0": "whole number from 1",
    "log_every=0": "whole number from 1",
    "shuffle=2": "true or false",
    "dry_run=maybe": "true or false",
    "update_sign=times": "minus or plus",
    "residual=y+p": "p-y or y-p",
    "dtype=float16": "float32 or float64",
    "device=tpu": "gpu or emulated",
    "backend=torch": "numpy or cuda",
    "loss.reduction=avg": "mean or sum",
    "loss.from_logits=1": "true or false",
    "loss.eps_log=-1": "number from 0",
    "model.output=swish": "auto, softmax, sigmoid or identity",
    "model.output=sigmoid": "softmax",
    "model.logits=tanh": "linear, relu or straight_through_relu",
    "model.layers=3": "list",
    "init.bias=one": "zero or same",
    "data.normalize=all": "per_image, per_feature, unit or none",
    "data.train_limit=0": "whole number from 1",
    "optimizer=momentum optimizer.momentum=1": "number from 0 below 1",
    "optimizer=adam optimizer.beta2=x": "number from 0 below 1",
    "optimizer=rmsprop optimizer.epsilon=0": "number above 0",
    "optimizer=adam optimizer.weight_decay=-1": "number from 0",
    "optimizer.clip_norm=0": "number above 0 or null",
    "schedule=step schedule.every=0": "whole number from 1",
    "epochs=3 schedule.warmup=5": "choose at most 3",
    "loss=focal loss.gamma=-1": "number from 0",
    "loss=focal loss.alpha=0": "number above 0 up to 1 or null",
    "loss=hinge loss.margin=-1": "number from 0",
    "loss.class_weights=even": "balanced, list or null",
    "loss.class_weights=[1,x]": "balanced, list or null",
    "loss=label_smoothing loss.smoothing=1": "number from 0 below 1",
    "init=normal init.scale=0": "number above 0; init=zeros starts all weights at 0",
    "init=normal init.scale=null": "above 0",
    "stop=patience stop.patience=0": "whole number from 1",
    "stop=target stop.accuracy=1.5": "number above 0 up to 1",
    "stop=target stop.times=x": "whole number from 1",
    "loss=bce model.output=softmax": "sigmoid",
    "loss=focal model.output=sigmoid loss.alpha=1": "the classes that are not meant weigh 1 - alpha, which is nothing",
    "loss=hinge model.output=sigmoid": "identity",
    "model=mlp model.hidden=0": "whole number from 1",
    "model=mlp model.hidden=x": "whole number from 1",
    "model=mlp model.activation=swish": "expected relu, sigmoid, tanh, identity, leaky_relu, elu",
    "model=mlp model.preactivation_divisor=0": "number above 0",
    "tracking.uri=3": "text",
}


@pytest.mark.parametrize(("written", "allowed"), CHECKED.items(), ids=CHECKED)
def test_check_of_a_value(written: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        helpers.trial(*written.split())
    said = str(refused.value)
    assert said.startswith(f"{written.split()[-1]}: ")
    assert allowed in said
    assert "\n" not in said


UNKNOWN = {
    "foo=1": ["foo=1", "no such key", "--help"],
    "update_sigm=plus": ["update_sigm=plus", "did you mean update_sign?"],
    "learning_rate=1": ["learning_rate=1", "did you mean lr"],
    "optimizer.lr=1": ["optimizer.lr=1", "did you mean lr?"],
    "+loss.redaction=sum": ["loss.redaction=sum", "did you mean loss.reduction?"],
    "loss.gamma=2": ["loss.gamma=2", "loss=focal"],
    "stop.patience=3": ["stop.patience=3", "stop=patience"],
    "data.path=x.npz": ["data.path=x.npz", "data=npz"],
    "loss.args.alpha=2": ["+loss.args.alpha=2", "loss=custom"],
    "~lr": ["lr", "missing", "number above 0"],
    "~lrr": ["~lrr", "did you mean lr?"],
    "loss=cee": ["loss=cee", "choose one of bce, ce, custom"],
    "loss=3": ["loss", "choose one of bce, ce, custom"],
    "loss=[ce,mse]": ["loss=[ce,mse]", "-m loss=ce,mse"],
    "loss.name=cee": ["loss.name=cee", "write loss=cee"],
    "+loss=mse": ["loss=mse", "already"],
    "+lr=1": ["+lr=1: there is one already; write lr=1"],
    "data=cifar": ["data=cifar", f"choose one of {', '.join(sorted(DATA_SETS.names()))}"],
    "model.layers=[convolution]": ["model.layers[0]=convolution", "{conv: 6, kernel: 5}"],
    "hydra/launcher=foo": ["hydra/launcher=foo", "choose one of ablate"],
    "lr": ["lr", "key=value"],
    "lr=[": ["lr=[", "key=value"],
    "a=b=c": ["a=b=c", "key=value"],
    "lr=0.1,0.5": ["lr=0.1,0.5", "-m"],
    "seed=range(0,3)": ["seed=range(0,3)", "-m"],
}


# What is meant, or None where nothing is near.
MEANT = {
    "loss=cee": "ce",
    "loss=cross_entropy": "ce",
    "optimizer=Adam": "adam",
    "init=xavier": "glorot_uniform",
    "schedule=1/t": "inverse_time",
    "batchsize=3": "batch_size",
    "momentum=0.9": "optimizer.momentum (with optimizer=momentum or optimizer=nesterov)",
    "optimizer.learning_rate=1": "lr",
    "optmizer.momentum=0.9": "optimizer.momentum (with optimizer=momentum or optimizer=nesterov)",
    "loss.label_smoothing=0.1": "loss.smoothing (with loss=kl or loss=label_smoothing or loss=reverse_kl)",
    "loss=kld": "kl",
    "init=lecun_normal": "lecun",
    "optimizer.nesterov=true": "optimizer=nesterov",
    "optimizer.clip=1": "optimizer.clip_norm or optimizer.clip_value",
    "model=mlp model.activation=leakyrelu": "leaky_relu",
    "model.output=linear": "identity",
    "data=npz data.task=multi_label": "multilabel",
    "update_sign=mins": "minus",
    "model.layers=[lrelu,{dense:classes}]": "leaky_relu",
    "loss=mle": None,
    "optimizer=lamb": None,
    "optimizer=nadam": None,
    "optimizer=adamp": None,
    "model=mlp model.activation=prelu": None,
    "model=mlp model.activation=softmin": None,
    "optimizer.gamma=0.1": None,
    "model.batch_norm=true": None,
    "data.scale=1": None,
}


@pytest.mark.parametrize(("written", "meant"), MEANT.items(), ids=MEANT)
def test_did_you_mean(written: str, meant: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        package.prepare(package.compose(*written.split())[0].settings)
    said = str(refused.value)
    assert f"did you mean {meant}?" in said if meant else "did you mean" not in said
    listed = ("--help lists the keys", "; choose one of ", "? choose one of ", ": expected ", "a layer is one of ")
    assert any(words in said for words in listed)


@pytest.mark.parametrize(
    ("word", "name"), [("weight", "weight_decay"), ("tpu", "gpu"), ("mle", "mse"), ("alpha", "gamma"), ("lr", "l2")]
)
def test_what_looks_alike_is_no_slip(word: str, name: str) -> None:
    assert not is_slip(word, name)
    assert not is_slip(name, word)


@pytest.mark.parametrize(
    ("word", "name"), [("radam", "adam"), ("nadamw", "adamw"), ("adamp", "adamw"), ("rrelu", "relu")]
)
def test_a_name_with_more_around_it_is_another(word: str, name: str) -> None:
    assert not is_slip(word, name)


@pytest.mark.parametrize("name", ["momentum", "lr", "batch_size", "ce"])
def test_a_slip(name: str) -> None:
    """A letter twice and, in longer names, one forgotten, one wrong, or two exchanged."""
    slips = [name + name[-1]] + ([name[1:], name[:-1] + "x", name[1] + name[0] + name[2:]] if len(name) > 4 else [])
    assert all(is_slip(slip, name) for slip in slips)


def test_a_key_with_dashes_is_told_how_it_is_written(ablate: Callable[..., Done], tmp_path: Path) -> None:
    assert_refused(ablate("-m", "--lr", "0.5"), tmp_path, "--lr 0.5: ", "write lr=0.5")
    for words, said in (
        ("-m --model.hidden=[3]", "--model.hidden=[3]: keys are written without dashes; write model.hidden=[3]"),
        ("--batch-size 32 lr=1", "--batch-size 32: keys are written without dashes; write batch_size=32"),
        ("--experiment lenet5_mnist_small", "write experiment=lenet5_mnist_small"),
        ("--learning-rate 0.1", "--learning-rate 0.1: no such key; did you mean lr?"),
        ("lr=0.1 --cuda model=mlp", "--cuda: no such key (--help"),
    ):
        assert said in str(no_such_option(words.split()))
    assert no_such_option(["--config-dir", "x", "--multirun", "-m", "lr=-1", "--cfg=job", "-cd", "y"]) is None


def test_what_another_raised_is_named_and_what_we_say_stands_alone() -> None:
    assert in_a_line(ConfigError("device=gpu: none is here")) == "device=gpu: none is here"
    assert in_a_line(KeyError("x")) == "KeyError: 'x'"


EXTREME = {
    "loss=huber loss.delta=1e-50": "loss.delta=1e-50: in float32 this is 0",
    "loss=focal loss.gamma=1e300": "loss.gamma=1e+300: in float32 this is inf",
    "loss.class_weights=[1,1,1,1,1,1,1,1,1,1e-60]": "loss.class_weights[9]=1e-60: in float32 this is 0",
    "optimizer=momentum optimizer.momentum=1e-60": "optimizer.momentum=1e-60: in float32 this is 0",
    "model.layers=[{leaky_relu:1e-60},{dense:classes}]": "model.layers[0].leaky_relu=1e-60: in float32 this is 0",
    f"model.layers=[{{divide:1{'0' * 400}}},{{dense:classes}}]": "is not a number above 0",
}


@pytest.mark.parametrize(("written", "said"), EXTREME.items(), ids=map(str, range(len(EXTREME))))
def test_a_number_that_leaves_nothing_to_compute_with(written: str, said: str) -> None:
    trial = helpers.trial("data.train_limit=20", *written.split())
    with pytest.raises(ConfigError, match=re.escape(said)):
        package.prepare(trial.settings)


@pytest.mark.parametrize(("written", "said"), UNKNOWN.items(), ids=UNKNOWN)
def test_key_choice_or_syntax(ablate: Callable[..., Done], tmp_path: Path, written: str, said: list[str]) -> None:
    assert_refused(ablate("model=softmax_regression", written), tmp_path, *said)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["lr=0.1,0"], ["lr=0", "number above 0"]),
        (["loss=ce,cee"], ["loss=cee", "choose one of"]),
        (["loss=ce,mse", "loss.gamma=2"], ["loss.gamma=2", "loss=focal"]),
        (
            ["backend=numpy,cuda", "loss=custom", "loss.target=custom_losses.CrossEntropy"],
            ["loss=custom", "backend=numpy"],
        ),
        (["seed=range(0,"], ["seed=range(0,", "key=value"]),
        (["lr=interval(0,1)"], ["lr=interval(0,1)", "range("]),
        (["data=digits,npz", "data.train_limit=null"], ["data.path=null", "x_train"]),
        (["hydra/sweeper=foo"], ["hydra/sweeper=foo"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_one_wrong_trial_of_a_sweep_starts_none(
    ablate: Callable[..., Done], tmp_path: Path, written: list[str], said: list[str]
) -> None:
    assert_refused(ablate("-m", *SMALL, *written), tmp_path, *said)


def test_a_gpu_that_cannot_be_had(ablate_process: Callable[..., Done], tmp_path: Path) -> None:
    """Whatever is missing: CUDA_VISIBLE_DEVICES hides a GPU where there is one."""
    done = ablate_process(*SMALL, "backend=cuda", CUDA_VISIBLE_DEVICES="")
    assert_refused(done, tmp_path, "backend=cuda", "device=emulated")


@pytest.fixture
def afresh() -> Iterator[None]:
    """A process that has not asked for a device yet."""
    open_device.cache_clear()
    yield
    open_device.cache_clear()


EMULATED = [*SMALL, "backend=cuda", "device=emulated"]


@pytest.mark.usefixtures("afresh")
def test_no_compiler_for_the_emulation(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(ablate(*EMULATED), tmp_path, "backend=cuda", "g++ was not found")


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("SANITIZE", "memory", "address or races"),
        ("SANITIZE", "address", "LD_PRELOAD"),
        *(("SHUFFLE", written, "whole number") for written in ("abc", "1.5", "-1", "")),
    ],
)
def test_a_wrong_switch_of_the_emulation(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, written: str, said: str
) -> None:
    monkeypatch.setenv(f"ABLATE_CUDA_{name}", written)
    assert_refused(ablate(*EMULATED), tmp_path, f"ABLATE_CUDA_{name}={written}", said)


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("script", ["#!/nothing/here\n", "no program"])
def test_a_compiler_that_cannot_be_started(
    ablate: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text(script)
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(ablate(*EMULATED), tmp_path, "g++: cannot be started")


def test_a_plan_for_another_machine(ablate: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = ablate(*SMALL, "backend=cuda", "dry_run=true")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("flag", ["--foo", "--epochs=3"])
def test_unknown_flag(ablate: Callable[..., Done], tmp_path: Path, flag: str) -> None:
    done = ablate(flag)
    assert done.code == 2
    assert done.err.startswith(f"ablate: {flag}: ")
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_version_is_ablates(ablate: Callable[..., Done]) -> None:
    done = ablate("--version")
    assert (done.code, done.out, done.err) == (0, f"ablate {package.__version__}\n", "")


def test_a_process_says_it_the_same_way(ablate_process: Callable[..., Done], tmp_path: Path) -> None:
    assert_refused(ablate_process("-m", "loss=mse,ce", "lr=0.1,abc"), tmp_path, "lr=abc", "number above 0")


def test_full_error_shows_the_traceback(ablate: Callable[..., Done], tmp_path: Path) -> None:
    """Python prints it of what nobody catches."""
    with pytest.raises(ConfigError, match="lr=0"):
        ablate("-m", "lr=0", HYDRA_FULL_ERROR="1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_runs_cannot_be_written(ablate: Callable[..., Done], tmp_path: Path, multirun: list[str]) -> None:
    (tmp_path / "runs").write_text("a file")
    done = ablate(*multirun, *SMALL)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert f"{tmp_path / 'runs'}" in done.err
    assert "cannot be written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_no_such_config_dir(ablate: Callable[..., Done], tmp_path: Path) -> None:
    assert_refused(ablate("--config-dir=nowhere"), tmp_path, "nowhere", "not found")


# One's own model


LAYERS = {
    "[{conv: 3, kernel: 9}, {dense: classes}]": ["conv1", "kernel 9", "8x8"],
    "[{dense: 5}, {conv: 3, kernel: 3}, {dense: classes}]": ["conv1", "vector of 5"],
    "[{dense: 7}]": ["dense1", "7 outputs, 10"],
    "[]": ["last layer"],
    "[{conv: 3}, {dense: classes}]": ["[0]", "conv", "kernel"],
}


@pytest.mark.parametrize(("layers", "said"), LAYERS.items(), ids=LAYERS)
def test_layers_that_do_not_fit(ablate: Callable[..., Done], tmp_path: Path, layers: str, said: list[str]) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text(f"layers: {layers}\n")
    assert_refused(ablate("--config-dir=own", "model=mine"), tmp_path, "model.layers", *said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layers: [", ["mine.yaml", "line 1"]),
        ("layers: [{dense: classes}]\nouput: auto\n", ["model.ouput=auto", "did you mean model.output?"]),
        ("output: auto\n", ["model.layers", "missing", "list"]),
        ("- relu\n", ["model"]),
    ],
)
def test_broken_model_file(ablate: Callable[..., Done], tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text(text)
    for multirun in [[], ["-m"]] if text == "layers: [" else [[]]:
        assert_refused(ablate(*multirun, "--config-dir=own", "model=mine"), tmp_path, *said)


@pytest.mark.parametrize("model", ["lenet5", "model.fit=8"])
def test_vectors_for_a_network_of_images(ablate: Callable[..., Done], tmp_path: Path, model: str) -> None:
    chosen = f"model={model}" if "=" not in model else model
    assert_refused(ablate("data=xor", "model=softmax_regression", chosen), tmp_path, "model.fit", "vectors of 2")


# One's own loss

LOSSES = """
class NoValue:
    output = "softmax"
    def gradient(self, z, y): return z

class NoGradient:
    output = "softmax"
    def value(self, z, y): return z.sum(1)

class NoOutput:
    def value(self, z, y): return z.sum(1)
    def gradient(self, z, y): return z

class WrongOutput(NoOutput):
    output = "relu"

class WrongShape(NoOutput):
    output = "softmax"
    def value(self, z, y): return z

class Demanding(NoOutput):
    output = "softmax"
    def __init__(self, alpha): self.alpha = alpha + 1

not_a_class = 3
"""

TARGETS: dict[str, list[str]] = {
    "nowhere.Loss": ["cannot be imported", "nowhere"],
    "bad_losses.Nothing": ["cannot be imported", "Nothing"],
    "bad_losses.NoValue": ["value(z, y)"],
    "bad_losses.NoGradient": ["gradient(z, y)"],
    "bad_losses.NoOutput": ["'softmax', 'sigmoid' or 'identity'"],
    "bad_losses.WrongShape": ["(4,) was expected"],
    "bad_losses.Demanding": ["alpha"],
    "bad_losses.Demanding +loss.args.alpha=x": ["TypeError"],
    "broken_losses.Loss": ["cannot be imported", "SyntaxError"],
}


@pytest.mark.parametrize(("target", "said"), TARGETS.items(), ids=TARGETS)
def test_custom_loss(ablate: Callable[..., Done], tmp_path: Path, target: str, said: list[str]) -> None:
    (tmp_path / "bad_losses.py").write_text(LOSSES)
    (tmp_path / "broken_losses.py").write_text("class Loss(:\n")
    done = ablate(*SMALL, "loss=custom", *f"loss.target={target}".split())
    assert_refused(done, tmp_path, f"loss.target={target.split()[0]}", *said)


# One's own data


GOOD = {
    "x_train": np.linspace(0, 1, 24).reshape(8, 3),
    "y_train": np.array([0, 1] * 4),
    "x_test": np.linspace(0, 1, 6).reshape(2, 3),
    "y_test": np.array([0, 1]),
}

ARRAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "label below 0": ({"y_train": np.array([0, 1, 0, 1, 0, 1, 0, -1])}, ["y_train[7]", "-1"]),
    "one class": ({"y_train": np.zeros(8, int)}, ["y_train", "two classes"]),
    "NaN pixel": ({"x_train": np.where(np.arange(24).reshape(8, 3) == 4, np.nan, 1.0)}, ["x_train", "NaN", "[1, 1]"]),
    "lengths": ({"y_train": np.array([0, 1])}, ["y_train", "2 labels for 8 samples"]),
    "objects": (
        {"x_train": np.array([[{}] * 3] * 8, dtype=object)},
        ["x_train", "Python objects", "x_train.astype(float)"],
    ),
    "no array": ({"y_test": None}, ["no array y_test"]),
}


@pytest.mark.parametrize(("changes", "said"), ARRAYS.values(), ids=ARRAYS)
def test_npz_arrays(ablate: Callable[..., Done], tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    arrays = {name: array for name, array in {**GOOD, **changes}.items() if array is not None}
    np.savez(tmp_path / "mine.npz", **arrays)
    assert_refused(ablate(*NPZ, "data.path=mine.npz"), tmp_path, "data.path=mine.npz", *said)


NPZ = ["data=npz", "model=softmax_regression", "epochs=1"]


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_npz_file(ablate: Callable[..., Done], tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mine.npz").write_bytes(content)
    assert_refused(ablate(*NPZ, "data.path=mine.npz"), tmp_path, "data.path=mine.npz", "numpy.savez")


def idx(array: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small well-formed files in the layout of MNIST's."""
    folder = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    for part, rows in (("train", 20), ("t10k", 5)):
        images = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(rows) % 10).astype(np.uint8)))
    return folder


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
FILES: dict[str, tuple[str, Callable[[bytes], bytes | None], list[str]]] = {
    "missing": (IMAGES, lambda content: None, [f"no {IMAGES}", "data=digits"]),
    "truncated": (IMAGES, lambda content: content[:-1], ["truncated"]),
    "wrong magic": (IMAGES, lambda content: b"\x01" + content[1:], ["not an IDX file"]),
    "too long": (IMAGES, lambda content: content + b"\0", ["1 trailing bytes"]),
    "label out of range": (LABELS, lambda content: content[:-1] + b"\x0a", ["11 different labels for 20 rows, 0..10"]),
    "other length": (LABELS, lambda content: idx(np.zeros(19, np.uint8)), ["19 labels for 20 images"]),
}


@pytest.mark.parametrize(("name", "change", "said"), FILES.values(), ids=FILES)
def test_mnist_file(
    ablate: Callable[..., Done],
    tmp_path: Path,
    mnist: Path,
    name: str,
    change: Callable[[bytes], bytes | None],
    said: list[str],
) -> None:
    folder = shutil.copytree(mnist, tmp_path / "idx")
    content = change((folder / name).read_bytes())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert_refused(
        last_line(ablate(*MNIST, "data.dir=idx")), tmp_path, f"idx{'' if content is None else '/' + name}", *said
    )


MNIST = ["data=mnist", "model=softmax_regression", "epochs=1"]


def last_line(done: Done) -> Done:
    """Without the notice that files are not the well-known MNIST, which comes before."""
    lines = [line for line in done.err.splitlines() if "well-known" not in line]
    return Done(done.code, done.out, "\n".join(lines))


@pytest.mark.parametrize("cut", [-1, 20])
def test_corrupt_gz(ablate: Callable[..., Done], tmp_path: Path, mnist: Path, cut: int) -> None:
    folder = shutil.copytree(mnist, tmp_path / "idx")
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress((folder / IMAGES).read_bytes())[:cut])
    (folder / IMAGES).unlink()
    assert_refused(ablate(*MNIST, "data.dir=idx"), tmp_path, f"idx/{IMAGES}.gz", "cannot be read")


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABLATE_DATA", raising=False)
    monkeypatch.setenv("ABLATE_MNIST_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    done = run_in_process(tmp_path, *MNIST)
    assert done.err.startswith("ablate: downloading MNIST")
    told = Done(done.code, done.out, done.err.split("\n", 1)[1])
    assert_refused(told, tmp_path, "data=mnist", "download failed", "data.dir", "ABLATE_DATA/mnist", "data=digits")


def test_a_shelf_of_data_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path / "nowhere"))
    assert_refused(run_in_process(tmp_path, *MNIST), tmp_path, "ABLATE_DATA", "nowhere", "data=digits")


def test_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: it would be asked for again at every start."""
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    monkeypatch.delenv("ABLATE_DATA", raising=False)
    monkeypatch.setenv("ABLATE_CACHE", str(cache))
    done = run_in_process(tmp_path, *MNIST)
    assert_refused(done, tmp_path, f"the cache {cache / 'mnist'} cannot be used", "another folder by ABLATE_CACHE")
    assert cache.is_file()
