"""From a composed configuration to checked settings, or to one line that says what is wrong."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from ablate.config.groups import DECLARED, GROUPS, choices, option
from ablate.config.help import also_called, instead_of_zero, keys
from ablate.config.settings import Settings, shown
from ablate.errors import ConfigError
from ablate.problem.custom_loss import CustomLoss
from ablate.problem.losses import LOSSES
from ablate.problem.near import did_you_mean, is_called, is_slip
from ablate.problem.registry import also_called as also_called_choices


def resolve(composed: DictConfig, leaving_out: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a composed configuration, with interpolations resolved. Raises ConfigError if that fails."""
    try:
        return {
            str(key): OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
            if OmegaConf.is_config(value := composed[key])
            else value
            for key in composed
            if key not in leaving_out
        }
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from None


def parse(values: Mapping[str, Any]) -> Settings:
    """Check a resolved configuration.

    Raises ConfigError, one line, at the first key whose type, range or choice is wrong.
    """
    chosen = {group: _chosen(group, values[group]) for group in DECLARED if group in values}
    try:
        settings = Settings.model_validate({**values, **chosen})
    except ValidationError as error:
        _refuse(error)
    _check_combination(settings)
    return settings


def _chosen(group: str, values: Any) -> Any:
    """The option of a group that a configuration describes."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{group}={shown(values)}: choose one of {', '.join(choices(group))}")
    try:
        return DECLARED[group].read(values)
    except ValidationError as error:
        _refuse(error, group)


_TRIED = re.compile(r"int|float|str|constrained-\w+|(list|literal)\[.*\]")


def _refuse(error: ValidationError, *above: str) -> NoReturn:
    first = error.errors()[0]
    # Pydantic's location also contains the type that was tried; a key does not.
    key = ".".join(str(part) for part in (*above, *first["loc"]) if not _TRIED.fullmatch(str(part)))
    value, allowed = first["input"], _allowed(key)
    expected = _listed(allowed) or first["msg"]
    match first["type"]:
        case "extra_forbidden":
            raise ConfigError(unknown_key(key, f"{key}={value}"))
        case "missing":
            raise ConfigError(f"{key}: missing; expected {expected}")
        case "finite_number":
            expected = expected.replace("number", "finite number", 1)
    meant = did_you_mean(value, allowed, also_called_choices(key)) if isinstance(value, str) else ""
    advice = instead_of_zero().get(key, "") if value == 0 else meant
    raise ConfigError(f"{key}={shown(value)}: expected {expected}" + (f"; {advice}" if advice else ""))


def _allowed(key: str) -> Sequence[str]:
    """What a key allows, in the words of the help; nothing if the help does not list the key."""
    allowed = {name: words for name, words, _ in keys()}.get(re.sub(r"(\.\d+)+$", "", key))
    return allowed.split("|") if allowed else ()


def _listed(words: Sequence[str]) -> str:
    *first, last = words or ("",)
    return f"{', '.join(first)} or {last}" if first else last


def unknown_key(key: str, written: str) -> str:
    """The message for a key that does not exist here: which option has it, or which key may have been meant."""
    group, _, rest = key.partition(".")
    if key.startswith("loss.args."):
        return f"{written}: an argument of your own loss is added with a plus, +{written}, and loss=custom"
    if group in GROUPS and rest:
        having = [choice for choice in choices(group) if rest in option(group, choice)]
        if having:
            named, verb = " and ".join(f"{group}={choice}" for choice in having), "has" if len(having) == 1 else "have"
            return f"{written}: no such key here; only {named} {verb} it"
    found = [f"{name}{_only_with(name)}" for name in _meant(key)] or _meant_options(key)
    meant = f"; did you mean {' or '.join(found)}?" if found else ""
    return f"{written}: no such key{meant} (--help lists the keys)"


def _only_with(key: str) -> str:
    """With which options of its group a key exists, if not with all."""
    group, _, rest = key.partition(".")
    if group not in DECLARED or not rest:
        return ""
    having = [choice for choice in choices(group) if rest in option(group, choice)]
    if not having or len(having) == len(choices(group)):
        return ""
    return f" (with {' or '.join(f'{group}={choice}' for choice in having)})"


def _meant(key: str) -> list[str]:
    """The keys that may be meant by one that does not exist."""
    names = {name: (name.rpartition(".")[0], name.rpartition(".")[2]) for name, _, _ in keys()}
    others = also_called()
    group, _, last = key.rpartition(".")
    # A key of another group may have the same name, and another meaning.
    found = [
        name
        for name, (above, own) in names.items()
        if (not group or above in ("", group)) and is_called(last, (own, *others.get(name, ())))
    ]
    if found:
        return found
    if group and group not in GROUPS:
        return [name for name in names if is_slip(key, name)]
    return [name for name, (above, own) in names.items() if above == group and is_slip(last, own)]


def _meant_options(key: str) -> list[str]:
    """The options that may be meant by a key, as in `optimizer.nesterov=true`."""
    group, _, last = key.rpartition(".")
    return [
        f"{chooser}={name}"
        for chooser, options in DECLARED.items()
        if group in ("", chooser)
        for name in options.names()
        if is_called(last, (name, *options.also_called.get(name, ())))
    ]


def _check_combination(settings: Settings) -> None:
    """Refuse combinations of valid keys, such as an output function for which the loss has no formula."""
    loss, task = settings.loss, settings.data.learned
    allowed = loss.outputs_for(task)
    if not allowed and not loss.is_foreign:
        fitting = ", ".join(str(each.defaults()["name"]) for each in LOSSES if each.outputs_for(task))
        raise ConfigError(f"loss={loss.name}: it cannot learn data.task={task.name}; choose one of {fitting}")
    if allowed and settings.output not in allowed:
        where = "" if task.has_classes else f" on data.task={task.name}"
        needed = f"loss={loss.name} needs {' or '.join(allowed)}{where} (auto chooses it)"
        raise ConfigError(f"model.output={settings.output}: {needed}")
    if reason := loss.refusal(settings.output):
        raise ConfigError(reason)
    if loss.class_weights is not None and not task.has_classes:
        raise ConfigError(f"loss.class_weights: data.task={task.name} has no classes; leave the key out")
    if settings.stop.reached[0] < math.inf and task.score != "accuracy":
        raise ConfigError(f"stop={settings.stop.name}: data.task={task.name} has no accuracy; use stop=patience")
    if settings.schedule.warmup > settings.epochs:
        raise ConfigError(
            f"schedule.warmup={settings.schedule.warmup:g}: epochs={settings.epochs}, so the rate would never reach lr;"
            f" choose at most {settings.epochs}"
        )
    if isinstance(settings.loss, CustomLoss) and settings.loss.target is None:
        raise ConfigError("loss.target=null: loss=custom needs loss.target=package.Class")
