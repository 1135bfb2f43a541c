"""A user's error in one line: Hydra's own errors reworded."""

import re
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from ablate.config import groups
from ablate.config.help import keys
from ablate.config.parse import unknown_key
from ablate.errors import ConfigError
from ablate.problem.near import no_such_choice

# A YAML that is not UTF-8 is a mistake, too.
_MISTAKES = (ConfigError, HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError)


def is_mistake(error: Exception) -> bool:
    """Whether an error is the user's: a wrong value, or a command or YAML that Hydra cannot compose."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    by_hydra = isinstance(error, ValueError) and str(frame.f_globals["__name__"]).startswith("hydra.")
    return by_hydra or isinstance(error, _MISTAKES)


def refuse(error: Exception, code: int = 2) -> NoReturn:
    """Print a user's error in one line and exit."""
    print(f"ablate: {said(error, sys.argv[1:])}", file=sys.stderr)
    raise SystemExit(code)


def no_such_option(words: Sequence[str]) -> str | None:
    """What is wrong with the first word that is written as an option and is none: keys are written without dashes."""
    options = {name for action in get_args_parser()._actions for name in action.option_strings}
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in options or not re.match(r"--?[A-Za-z]", word):
            continue
        following = [after for after in words[place + 1 : place + 2] if not value and not re.search(r"^-\D|=", after)]
        key, written = name.lstrip("-").replace("-", "_"), " ".join([word, *following])
        if key == "experiment" or key in {known for known, _, _ in keys()}:
            return f"{written}: keys are written without dashes; write {key}={value or ''.join(following) or 'VALUE'}"
        return unknown_key(key, written)
    return None


def said(error: Exception, words: Sequence[str]) -> str:
    """An error in the words of a command, as one line."""
    line = " ".join(_said(error, words).split())
    return line or f"{type(error).__name__} in the command or in a YAML of --config-dir"


def _no_such_cell(name: str, words: Sequence[str]) -> str:
    """The message for a cell that a command drops, and that its preset does not have."""
    chosen = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    having = groups.option("experiment", chosen[0]).get("cells") if chosen and chosen[0] in groups.presets() else None
    told = f"experiment={chosen[0]} has {', '.join(having)}" if having else "--help lists those of each preset"
    return f"~cells.{name}: no such cell; {told}"


def _said(error: Exception, words: Sequence[str]) -> str:
    """An error in our words: Hydra's messages omit the key or the value, and mention internals."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        heard = [line for line in text.splitlines() if not line.startswith(("Error parsing", "See http"))]
        quoted = (
            ", and a value with blanks or brackets as 'key=\"value\"'" if re.search(r"=.*[ ()]", error.override) else ""
        )
        return f"{error.override}: not understood ({' '.join(heard)}); write key=value{quoted}"
    if isinstance(error, MissingConfigException) and error.options:
        missing = str(error.missing_cfg_file)
        # A group of Hydra's own has a slash in its name; a choice of ours may have one by mistake: schedule=1/t.
        is_ours = missing.partition("/")[0] in groups.GROUPS
        group, _, name = missing.partition("/") if is_ours else missing.rpartition("/")
        others = groups.DECLARED[group].also_called if group in groups.DECLARED else {}
        return no_such_choice(group, name, error.options, others)
    if found := re.match(r"Could not override '(cells\..+)'\.\s.* use \+(.*)", text, re.DOTALL):
        return f"{found[2]}: no such cell or key of a cell; add it with a plus, '+{found[2]}'"
    if found := re.match(r"Could not delete from config\. '(cells\b.*)' does not exist", text):
        return _no_such_cell(found[1].removeprefix("cells."), words)
    if found := re.match(r"Could not delete from config\. '(.+)' does not exist", text):
        return unknown_key(found[1], f"~{found[1]}")
    if found := re.match(r"Could not override '(.+)'\.\s.* use \+(.*)", text, re.DOTALL):
        return unknown_key(*found.groups())
    if found := re.match(r"Ambiguous value for argument '(.+)'|Sweep parameters '(.+)' requires", text):
        return f"{found[1] or found[2]}: several values are a sweep, which needs -m (one list is written [1,2])"
    if found := re.match(r"Could not append to config\. .*? '(.+?)'\.\s.*?'\1=(.*?)'\s", text, re.DOTALL):
        return f"+{found[1]}={found[2]}: there is one already; write {found[1]}={found[2]}"
    if found := re.match(r"Multiple values for (\S+)\. .*'override \1: (.*)'", text, re.DOTALL):
        return f"+{found[1]}={found[2]}: there is one already; write {found[1]}={found[2]}"
    if text.startswith("Config group override must be"):
        pairs = [word.partition("=") for word in words]
        wrong = [
            group
            for group, _, name in pairs
            if group in (*groups.GROUPS, "experiment") and not isinstance(safe_load(name), str)
        ]
        return "; ".join(f"{group}: choose one of {', '.join(groups.choices(group))}" for group in wrong) or text
    if "does not support sweep type" in text:
        written = [word for word in words if "interval(" in word]
        return (
            f"{' '.join(written)}: a range without steps cannot be swept; list its values, or use range(from,to,step)"
        )
    return re.split(r"Config search path|See https", text)[0]
