"""Files: replaced atomically, read even if they may be missing, empty or truncated, named relative to here."""

import os
from collections.abc import Set
from pathlib import Path
from typing import Any

import orjson
import yaml

from ablate.errors import ConfigError

# Ten times as fast, if PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def read_file(path: Path) -> bytes | None:
    """The bytes of a file; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: Path, needed: Set[str]) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no file. Raises ConfigError if it is none, or lacks a key."""
    data = read_file(path)
    if data is None:
        return None
    try:
        return _with(needed, orjson.loads(data), path)
    except orjson.JSONDecodeError:
        raise broken(path) from None


def read_yaml(path: Path, needed: Set[str]) -> dict[str, Any]:
    """The mapping in a YAML file; empty if the file is missing or empty.

    Raises ConfigError if it is not a mapping, or lacks a key.
    """
    try:
        found = yaml.load(read_file(path) or b"", Loader=_Loader)
    except yaml.YAMLError:
        raise broken(path) from None
    return {} if found is None else _with(needed, found, path)


def _with(needed: Set[str], found: Any, path: Path) -> dict[str, Any]:
    if not isinstance(found, dict) or not found.keys() >= needed:
        raise broken(path)
    return found


def broken(path: Path) -> ConfigError:
    """The error for a file that was truncated, or that another program wrote."""
    return ConfigError(f"{path}: damaged (empty, cut off or not ablate's own); restore it, or delete it to do without")


def from_here(path: Path) -> Path:
    """A path relative to the working directory, if it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
