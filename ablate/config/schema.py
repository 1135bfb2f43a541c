"""The typed configuration of one trial: every key, its type, its range and its sentence of help."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablate.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, nothing unknown, nothing converted, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Reduced(Section):
    reduction: Literal["mean", "sum"] = Field(
        "mean", description="the batch takes the mean of its samples' gradients, or their sum"
    )


class BuiltinLoss(Reduced):
    """What every loss of our own has: DESIGN's table of formulas, in two numerical forms."""

    from_logits: bool = Field(True, description="true: the stable fused form; false: the naive one, from probabilities")
    eps_log: Annotated[float, Field(ge=0)] = Field(0.0, description="added to p inside the logarithm (naive form only)")
    eps_sum: Annotated[float, Field(ge=0)] = Field(
        0.0, description="added to the denominator of the softmax (naive form only)"
    )


class PlainLoss(BuiltinLoss):
    name: Literal["ce", "mse", "bce", "mae", "hinge"]


class FocalLoss(BuiltinLoss):
    name: Literal["focal"]
    gamma: Annotated[float, Field(ge=0)] = Field(2.0, description="focal: how much easy samples are discounted")


class LabelSmoothingLoss(BuiltinLoss):
    name: Literal["label_smoothing"]
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="label_smoothing: the share of the target spread over all classes"
    )


class CustomLoss(Reduced):
    name: Literal["custom"]
    target: str | None = Field(None, description="custom: package.Class of your own loss")
    args: dict[str, Any] = Field({}, description="custom: the arguments of its constructor (+loss.args.alpha=2)")


Loss = Annotated[PlainLoss | FocalLoss | LabelSmoothingLoss | CustomLoss, Field(discriminator="name")]


class Model(Section):
    """A list of layers; `ablate.models` reads the layers."""

    layers: list[Any] = Field(description="the layers from the input on; see docs/models.md")
    output: Literal["auto", "softmax", "sigmoid", "identity"] = Field(
        "auto",
        description="what turns logits into outputs (auto: sigmoid for bce, identity for hinge, else softmax)",
    )
    logits: Literal["linear", "relu", "straight_through_relu"] = Field(
        "linear", description="what the logits pass through before the output"
    )
    units: Count | None = Field(
        None, description="output units (null: one a class; 1: a single sigmoid unit for two classes)"
    )
    fit: Count | None = Field(
        None,
        description="side to which images are brought by repeating pixels, then zero padding (null: as they are)",
    )
    hidden: list[Count] | Count | None = Field(None, description="mlp: units of the hidden layers, e.g. [64,32]")
    activation: Literal["relu", "sigmoid", "tanh"] = Field(
        "sigmoid", description="mlp: what the hidden layers pass through"
    )
    preactivation_divisor: Positive = Field(
        1.0, description="mlp: hidden pre-activations are divided by this before the activation"
    )


class Sgd(Section):
    name: Literal["sgd"]


class Momentum(Section):
    name: Literal["momentum"]
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="momentum: the share of the velocity kept")


class Adam(Section):
    name: Literal["adam"]
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="adam: decay of the mean gradient")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.999, description="adam: decay of the mean square")
    epsilon: Positive = Field(1e-8, description="adam, rmsprop, adagrad: added to the root in the denominator")


class RmsProp(Section):
    name: Literal["rmsprop"]
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="rmsprop: decay of the mean square")
    epsilon: Positive = 1e-8


class Adagrad(Section):
    name: Literal["adagrad"]
    epsilon: Positive = 1e-8


Optimizer = Annotated[Sgd | Momentum | Adam | RmsProp | Adagrad, Field(discriminator="name")]


class Data(Section):
    name: Literal["digits", "mnist", "xor", "npz"]
    dir: str | None = Field(
        None, description="mnist: folder of the four IDX files (null: ABLATE_DATA/mnist, else download)"
    )
    path: str | None = Field(None, description="npz: file with x_train, y_train, x_test, y_test")
    normalize: Literal["per_image", "unit", "none"] = Field(
        "none",
        description="per_image: each sample to mean 0 and deviation 1; unit: pixels to [0, 1]; none: as they are",
    )
    train_limit: Count | None = Field(None, description="use the first rows of the training set only (null: all)")
    test_limit: Count | None = Field(None, description="use the first rows of the test set only (null: all)")


class Init(Section):
    name: Literal["glorot_uniform", "uniform01", "normal"]
    scale: Positive | None = Field(None, description="normal: standard deviation of the weights")
    bias: Literal["zero", "same"] = Field("zero", description="biases start at zero, or drawn like the weights")


class Never(Section):
    name: Literal["never"]


class Patience(Section):
    name: Literal["patience"]
    patience: Count = Field(5, description="patience: epochs without a lower test loss before the trial stops")


class Target(Section):
    name: Literal["target"]
    accuracy: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="target: test accuracy to reach")
    times: Count = Field(1, description="target: epochs at or above it before the trial stops")


Stop = Annotated[Never | Patience | Target, Field(discriminator="name")]


class MlflowTracking(Section):
    name: Literal["mlflow"]
    uri: str | None = Field(
        None, description="mlflow: tracking server or store (null: MLFLOW_TRACKING_URI, else mlflow.db here)"
    )
    experiment: Annotated[str, Field(min_length=1)] = Field("ablate", description="mlflow: name of the experiment")


class NoTracking(Section):
    name: Literal["none"]


Tracking = Annotated[MlflowTracking | NoTracking, Field(discriminator="name")]


class Settings(Section):
    """One trial's resolved configuration. Equal settings and an equal seed train to equal weights."""

    loss: Loss = Field(description="the loss function")
    model: Model = Field(description="the network")
    optimizer: Optimizer = Field(description="how a gradient becomes a step")
    data: Data = Field(description="the data set")
    init: Init = Field(description="how the weights start")
    stop: Stop = Field(description="when a trial may stop before its last epoch")
    tracking: Tracking = Field(description="where runs are tracked besides runs/")
    description: str | None = Field(None, description="what the sweep asks, in a sentence: the title of its report")
    update_sign: Literal["minus", "plus"] = Field(description="w -= lr*g, or w += lr*g")
    residual: Literal["p-y", "y-p"] = Field(
        description="the output error as the author wrote it: the gradient, or its negative"
    )
    lr: Positive = Field(description="learning rate")
    output_lr: Positive | None = Field(description="learning rate of the output layer (null: lr)")
    backend: Literal["numpy", "cuda"] = Field(description="who computes")
    device: Literal["gpu", "emulated"] = Field(description="where the cuda backend runs its kernels")
    epochs: Count = Field(description="passes over the training set")
    batch_size: Count | None = Field(description="samples an update (null: digits 32, mnist 300, xor all 4, npz 32)")
    shuffle: bool = Field(description="a new order of the training set every epoch")
    seed: Annotated[int, Field(ge=0)] = Field(description="feeds the initial weights and the order of the data")
    dtype: Literal["float32", "float64"] = Field(description="precision of weights and arithmetic")
    check: bool = Field(description="check gradient and sign by numbers before training")
    bug: Literal[
        "none",
        "diagonal_jacobian",
        "missing_activation_derivative",
        "missing_divisor",
        "sum_for_mean",
        "bias_gradient",
        "stale_gradients",
        "unshifted_softmax",
        "double_softmax",
        "swapped_labels",
    ] = Field(description="make one known mistake on purpose")
    workers: Count | None = Field(description="processes for the sweep, or for a long trial alone (null: all cores)")
    log_every: Count | None = Field(
        description="steps between two records of step metrics (null: about 500 points a trial)"
    )
    dry_run: bool = Field(description="print trials, factors and cohorts, and start nothing")

    @property
    def output(self) -> str:
        """The output function, with `auto` resolved (a custom loss names its own: `auto` stays)."""
        if self.model.output != "auto" or self.loss.name == "custom":
            return self.model.output
        return {"bce": "sigmoid", "hinge": "identity"}.get(self.loss.name, "softmax")


def conf_dir() -> Path:
    """The folder of the configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def parse(cfg: DictConfig) -> Settings:
    """Check a composed configuration.

    Raises ConfigError, one line, at the first key whose type, range or choice is wrong.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        _refuse(error)
    _check_combination(settings)
    return settings


def _refuse(error: ValidationError) -> NoReturn:
    first = error.errors()[0]
    # Pydantic's location holds the chosen variant (loss.ce.reduction) and the type tried; a key does not.
    tags = {"ce", "mse", "bce", "mae", "hinge", "int", "constrained-int", "list[constrained-int]"}
    parts = [str(part) for part in first["loc"]]
    tagged = [index for index, part in enumerate(parts) if index == 1 and parts[0] in _VARIANTS and len(parts) > 2]
    key = ".".join(part for index, part in enumerate(parts) if index not in tagged and not (index and part in tags))
    value, expected = first["input"], _expected(key, first["msg"])
    match first["type"]:
        case "extra_forbidden":
            raise ConfigError(unknown_key(key, f"{key}={value}"))
        case "missing":
            raise ConfigError(f"{key}: missing; expected {expected}")
        case "union_tag_invalid" | "union_tag_not_found":
            value = value.get("name") if isinstance(value, dict) else value
            key, expected = f"{key}.name", first.get("ctx", {}).get("expected_tags", expected)
        case "finite_number":
            expected = expected.replace("number", "finite number", 1)
    raise ConfigError(f"{key}={shown(value)}: expected {expected}")


def _expected(key: str, otherwise: str) -> str:
    """What is allowed at a key, in the words of the help; pydantic's where the help does not know it."""
    allowed = {name: words for name, words, _ in keys()}.get(re.sub(r"(\.\d+)+$", "", key))
    if allowed is None:
        return otherwise
    *first, last = allowed.split("|")
    return f"{', '.join(first)} or {last}" if first else last


def unknown_key(key: str, written: str) -> str:
    """What to say of a key that does not exist here: which option has it, or which key may have been meant."""
    group, _, rest = key.partition(".")
    if key.startswith("loss.args."):
        return f"{written}: an argument of your own loss is added with a plus, +{written}, and loss=custom"
    if group in GROUPS and rest:
        having = [choice for choice in choices(group) if rest in OmegaConf.load(conf_dir() / group / f"{choice}.yaml")]
        if having:
            return f"{written}: no such key here; only {' and '.join(f'{group}={choice}' for choice in having)} has it"
    known = {name: sentence for name, _, sentence in keys()}
    last = key.rpartition(".")[2]
    close = (
        [name for name in known if name.rpartition(".")[2] == last]
        or difflib.get_close_matches(key, known, n=1)
        or [name for name, sentence in known.items() if sentence.startswith(last.replace("_", " "))]
    )
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{written}: no such key{meant} (--help lists the keys)"


_VARIANTS = {"loss", "optimizer", "stop", "tracking"}


def _check_combination(settings: Settings) -> None:
    """Refuse what no single key shows: an output that the loss has no formula for, and the like."""
    outputs = {
        "ce": ("softmax",),
        "mse": ("softmax", "sigmoid"),
        "bce": ("sigmoid",),
        "mae": ("softmax",),
        "hinge": ("identity",),
        "focal": ("softmax",),
        "label_smoothing": ("softmax",),
    }
    allowed = outputs.get(settings.loss.name)
    if allowed and settings.output not in allowed:
        raise ConfigError(
            f"model.output={settings.output}: loss={settings.loss.name} needs {' or '.join(allowed)} (auto chooses it)"
        )
    if settings.init.name == "normal" and settings.init.scale is None:
        raise ConfigError("init.scale=null: init=normal needs a standard deviation above 0")
    if isinstance(settings.loss, CustomLoss) and settings.loss.target is None:
        raise ConfigError("loss.target=null: loss=custom needs loss.target=package.Class")
    if settings.backend == "cuda" and isinstance(settings.loss, CustomLoss):
        raise ConfigError("loss=custom: your own loss has no CUDA kernel; use backend=numpy for it")


def keys() -> Iterator[tuple[str, str, str]]:
    """Every key with its allowed values and its sentence, in the order of the help."""
    chosen = {group: choice for entry in _primary().defaults if entry != "_self_" for group, choice in entry.items()}
    for name, field in Settings.model_fields.items():
        if name not in GROUPS:
            yield name, _allowed(field.annotation, field.metadata), field.description or ""
            continue
        # The default first, as of every key.
        yield name, "|".join(sorted(choices(name), key=lambda choice: choice != chosen[name])), field.description or ""
        seen: set[str] = set()
        for section in _sections(field.annotation):
            for key, inner in section.model_fields.items():
                if key != "name" and key not in seen and inner.description:
                    seen.add(key)
                    yield f"{name}.{key}", _allowed(inner.annotation, inner.metadata), inner.description
    # No part of a trial's settings: a sweep is made of them, see `ablate.commands.cells`.
    yield "cells", "mapping", "named combinations of keys, each crossed with the other keys of the sweep"


GROUPS = ("loss", "model", "optimizer", "data", "init", "stop", "tracking")


def choices(group: str) -> list[str]:
    """The names of a group's options that ablate ships."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def presets() -> Mapping[str, str]:
    """Every preset that ablate ships, `experiment=NAME`, with the sentence that describes it."""
    return {name: str(_preset(name).get("description") or "") for name in choices("experiment")}


def _preset(name: str) -> Any:
    return OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml")


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """The section classes of a group's type, which may be a union."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections(argument)


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    """A type as a person writes it: the choices, or the kind of number and its range."""
    arguments = getattr(annotation, "__args__", ())
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return "|".join(arguments)
    if hasattr(annotation, "__metadata__"):
        inner = [item for field in annotation.__metadata__ for item in field.metadata]
        return _allowed(annotation.__origin__, [*metadata, *inner])
    if annotation is type(None):
        return "null"
    names = {bool: "true|false", int: "whole number", float: "number", str: "text"}
    if annotation in names:
        return " ".join([names[annotation], *_range(metadata)])
    if isinstance(annotation, type) or str(annotation).startswith(("list", "dict")):
        return "list" if "list" in str(annotation) else "mapping"
    return "|".join(_allowed(argument, []) for argument in arguments)


def _range(metadata: list[Any]) -> Iterator[str]:
    """The bounds of a number in words: `above 0`, `from 0`, `below 1`, `up to 1`."""
    for item in metadata:
        for name, word in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "up to")):
            if hasattr(item, name):
                yield f"{word} {getattr(item, name)}"


def defaults() -> Mapping[str, Any]:
    """The plain keys of `conf/config.yaml` and their default values."""
    loaded = OmegaConf.to_container(_primary())
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key not in ("defaults", "hydra")}


def _primary() -> Any:
    return OmegaConf.load(conf_dir() / "config.yaml")


def shown(value: Any) -> str:
    """A value as a user writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _preset_help(name: str, sentence: str) -> Iterator[str]:
    yield f"  experiment={name:<25} {sentence}"
    cells = _preset(name).get("cells")
    if cells:
        yield f"    cells: {', '.join(cells)}"


def help_text() -> str:
    """What `python -m ablate --help` prints."""
    values = defaults()
    lines = [
        "ablate finds out by experiment which choice in a loss function makes a network train or fail.",
        "",
        "  python -m ablate                                  one trial with the defaults",
        "  python -m ablate -m loss=mse,ce lr=0.1,0.5        a sweep over all combinations",
        "  python -m ablate -m loss=mse,ce seed='range(0,5)' the same with five repeats each",
        "  python -m ablate experiment=NAME                  a preset: a whole ablation, its sweep included",
        "  mlflow ui                                         the curves, in the same folder",
        "",
        "Presets (any key given beside one overrides the preset's):",
        "",
        *[line for name, sentence in presets().items() for line in _preset_help(name, sentence)],
        "",
        "  '~cells.NAME' drops a preset's cell, '+cells.NAME={loss: bce, lr: 1}' adds one; a key given beside a preset",
        "  takes the place of its cells' own.",
        "",
        "Keys (the first value is the default):",
        "",
    ]
    for key, allowed, sentence in keys():
        about = f"{shown(values[key])}   ({allowed})" if key in values else allowed
        lines += [f"  {key:<28} {about}", f"  {'':<28}   {sentence}"]
    lines += ["", "Your own model, preset or data option: a YAML in a folder given by --config-dir.", ""]
    return "\n".join(lines).replace("$", "$$")
