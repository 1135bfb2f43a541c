"""The text of `--help`: every key with its allowed values and its sentence, derived from the types that check it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ablate.config.groups import DECLARED, GROUPS, choices, defaults, option, presets, primary
from ablate.config.settings import Settings, shown
from ablate.problem.models import Model
from ablate.problem.section import Called, InsteadOfZero, Section

A = TypeVar("A")


def keys() -> Iterator[tuple[str, str, str]]:
    """Every key with its allowed values and its sentence, in the order of the help."""
    chosen = {group: choice for entry in primary().defaults if entry != "_self_" for group, choice in entry.items()}
    plain = _fields(Settings)
    for name, field in Settings.model_fields.items():
        if name not in GROUPS:
            yield name, *plain[name]
            continue
        # The default first, as for every key.
        yield name, "|".join(sorted(choices(name), key=lambda choice: choice != chosen[name])), field.description or ""
        seen: set[str] = set()
        for section in _options(name):
            for key, (allowed, sentence) in _fields(section).items():
                if key != "name" and key not in seen and sentence:
                    seen.add(key)
                    yield f"{name}.{key}", allowed, sentence
    # Not part of a trial's settings: they belong to the sweep (`ablate.commands.cells`).
    yield "cells", "mapping", "named combinations of keys, each crossed with the other keys of the sweep"


def also_called() -> Mapping[str, Sequence[str]]:
    """By key, the names by which it is known elsewhere."""
    return {key: each.names for key, each in _annotated(Called)}


def instead_of_zero() -> Mapping[str, str]:
    """By key that does not allow 0, what to write instead."""
    return {key: each.advice for key, each in _annotated(InsteadOfZero)}


def _annotated(kind: type[A]) -> Iterator[tuple[str, A]]:
    """The keys with an annotation of this kind, and the annotation."""
    sections: list[tuple[str, type[Section]]] = [("", Settings)]
    sections += [(f"{group}.", section) for group in GROUPS for section in _options(group)]
    for above, section in sections:
        for key, field in section.model_fields.items():
            yield from ((f"{above}{key}", each) for each in field.metadata if isinstance(each, kind))


def _options(group: str) -> Sequence[type[Section]]:
    return list(DECLARED[group]) if group in DECLARED else [Model]


def _fields(section: type[Section]) -> dict[str, tuple[str, str]]:
    """By key: what is allowed, and its sentence."""
    properties = section.model_json_schema()["properties"]
    return {key: (_allowed(schema), schema.get("description", "")) for key, schema in properties.items()}


_TYPES = {
    "boolean": "true|false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
_BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}


def _allowed(schema: Mapping[str, Any]) -> str:
    """A JSON schema as a person writes it: the choices, or the kind of number and its range."""
    if "anyOf" in schema:
        return "|".join(_allowed(either) for either in schema["anyOf"])
    if "enum" in schema:
        return "|".join(schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    bounds = [f"{words} {schema[name]:g}" for name, words in _BOUNDS.items() if name in schema]
    return " ".join([_TYPES[schema.get("type", "object")], *bounds])


def _preset(name: str, sentence: str) -> Iterator[str]:
    yield f"  experiment={name:<25} {sentence}"
    if cells := option("experiment", name).get("cells"):
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
        *[line for name, sentence in presets().items() for line in _preset(name, sentence)],
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
    return "\n".join(lines)
