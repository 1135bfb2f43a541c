"""The user's own data set: a NumPy `.npz` file with the arrays x_train, y_train, x_test and y_test."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.dataset import brief
from ablate.problem.data.origin import Origin
from ablate.problem.data.own import OwnFile, Part
from ablate.problem.data.sets import DATA_SETS

_NAMES = ("x_train", "y_train", "x_test", "y_test")

# What arrays are called, in lower case and without what joins the words; of several, the first named is taken.
_PARTS = {
    "train": ("train", "training", "tr"),
    "test": ("test", "testing", "te", "val", "valid", "validation", "dev"),
}
_KINDS = {
    "x": ("x", "data", "images", "image", "imgs", "img", "features", "inputs", "input", "samples", ""),
    "y": ("y", "labels", "label", "targets", "target", "classes", "class", "lbls", "lbl"),
}
_ROLES = {
    word: (kind, part, rank)
    for kind, nouns in _KINDS.items()
    for noun in nouns
    for part, prefixes in _PARTS.items()
    for rank, prefix in enumerate(prefixes)
    for word in (f"{prefix}{noun}", f"{noun}{prefix}")
}
_WHOLE = {noun: (kind, "", 0) for kind, nouns in _KINDS.items() for noun in nouns if noun}


@DATA_SETS.declare
class Npz(OwnFile):
    """`data=npz`."""

    batch_size: ClassVar[int | None] = 32
    wanted: ClassVar[str] = f"an .npz with {', '.join(_NAMES)}"

    name: Literal["npz"] = "npz"

    def parts(self, origin: Origin) -> tuple[Part, Part | None]:
        """The arrays by their names, or by names that mean the same."""
        assert self.path is not None
        archive = _archive(origin, Path(self.path).expanduser())
        with archive:
            names = _found(origin, archive.files)
            x, y, *tested = [_array(origin, archive, name) for name in names]
        whole = Part(x, y, names[0], names[1])
        return whole, Part(tested[0], tested[1], names[2], names[3]) if tested else None


def _archive(origin: Origin, file: Path) -> np.lib.npyio.NpzFile:
    advice = "give an .npz file written by numpy.savez"
    try:
        archive = np.load(file, allow_pickle=False)
    except OSError as error:
        raise origin.error(f"cannot be read ({brief(error)}); {advice}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error):  # so numpy says of any other kind of file
            raise origin.error(f"it is no .npz; {advice}, or data=csv for a table as text") from error
        raise origin.error(f"cannot be read ({brief(error)}); {advice}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise origin.error(f"it is a single array; {advice}")
    return archive


def _found(origin: Origin, names: Sequence[str]) -> list[str]:
    """The names of the arrays that are x_train, y_train and, unless there is no test set, x_test, y_test."""
    if set(_NAMES) <= set(names):
        return list(_NAMES)
    ranked = sorted((role, name) for name in names if (role := _role(name)) is not None)
    by_role: dict[tuple[str, str], str] = {}
    for (kind, part, _), name in ranked:
        by_role.setdefault((kind, part), name)
    parts = ["train", "test"]
    if ("x", "test") not in by_role and ("y", "test") not in by_role:
        # A whole set, of which the test set is split off.
        parts = [""] if {("x", ""), ("y", "")} <= by_role.keys() and ("x", "train") not in by_role else ["train"]
    wanted = [(kind, part) for part in parts for kind in ("x", "y")]
    missing = [f"{kind}_{part or 'train'}" for kind, part in wanted if (kind, part) not in by_role]
    if missing:
        raise origin.error(_missing(missing[0], names))
    found = [by_role[role] for role in wanted]
    standing = [f"{kind}_{part}" for kind, part in wanted if part]
    if standing and found != standing:
        origin.notice(f"its arrays {', '.join(found)} are taken as {', '.join(standing)}")
    return found


def _role(name: str) -> tuple[str, str, int] | None:
    """Which array a name means: x or y, of training or test set or of both (""), and how usual the name is."""
    word = re.sub(r"[^a-z]|set|orig", "", name.lower())
    return _ROLES.get(word) or _WHOLE.get(word)


def _missing(name: str, names: Sequence[str]) -> str:
    there = ", ".join(names) or "nothing"
    every = ", ".join(f"{each}=..." for each in _NAMES)
    return f"no array {name} in it, it holds {there}; write it again with np.savez(path, {every})"


def _array(origin: Origin, archive: np.lib.npyio.NpzFile, name: str) -> NDArray[Any]:
    try:
        array = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        if "allow_pickle" in str(error):
            advice = f"{name} = {name}.astype(float), or .astype(str) for labels that are text, before numpy.savez"
            raise origin.error(f"{name} holds Python objects, which need allow_pickle; {advice}") from error
        complaint = f"{name} cannot be read ({brief(error)})"
        raise origin.error(f"{complaint}; write it again as plain numbers with numpy.savez") from error
    if not isinstance(array, np.ndarray):
        raise origin.error(f"{name} is not a NumPy array; write it again with numpy.savez")
    return array
