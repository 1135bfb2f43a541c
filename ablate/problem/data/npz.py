"""The user's own data set: a NumPy `.npz` file with the arrays x_train, y_train, x_test and y_test."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data import labels
from ablate.problem.data.dataset import Raw, brief
from ablate.problem.data.labels import POLICY_HELP, Policy
from ablate.problem.data.origin import Origin
from ablate.problem.data.sets import DATA_SETS, DataSet

_NAMES = ("x_train", "y_train", "x_test", "y_test")


def load(path: str | None, policy: labels.Policy = "auto") -> Raw:
    """Read the file at `path` (the key `data.path`).

    x is `(N, D)`, `(N, H, W)` (taken as `(N, 1, H, W)`) or `(N, C, H, W)`, of bools, integers or floats;
    y is what `labels.read` takes, by the key `data.labels`.
    Raises ConfigError if the file cannot be read or its arrays are not of that kind.
    """
    if not path:
        raise ConfigError(f"data.path={path or 'null'}: data=npz needs a file; give an .npz with {', '.join(_NAMES)}")
    file = Path(path).expanduser()
    x_train, y_train, x_test, y_test = _arrays(file)
    x_train, x_test = _pixels(file, "x_train", x_train), _pixels(file, "x_test", x_test)
    if x_test.shape[1:] != x_train.shape[1:]:
        shapes = f"x_test has samples of shape {x_test.shape[1:]}, x_train of {x_train.shape[1:]}"
        raise _error(file, f"{shapes}; make them equal")
    origin = Origin(f"data.path={file}")
    read = labels.read(origin, y_train, y_test, (len(x_train), len(x_test)), policy)
    return Raw(
        source=str(file),
        x_train=x_train,
        y_train=read.train,
        x_test=x_test,
        y_test=read.test,
        classes=read.classes,
        low=float(x_train.min()),
        high=float(x_train.max()),
        notices=tuple(origin.notices),
    )


def _error(file: Path, complaint: str) -> ConfigError:
    return ConfigError(f"data.path={file}: {complaint}")


def _arrays(file: Path) -> list[NDArray[Any]]:
    advice = "give an .npz file written by numpy.savez"
    try:
        archive = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _error(file, f"cannot be read ({brief(error)}); {advice}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _error(file, f"it is a single array; {advice}")
    with archive:
        return [_array(file, archive, name) for name in _NAMES]


def _array(file: Path, archive: np.lib.npyio.NpzFile, name: str) -> NDArray[Any]:
    if name not in archive.files:
        there = ", ".join(archive.files) or "nothing"
        raise _error(file, f"no array {name} in it, it holds {there}; add {name} with numpy.savez")
    try:
        array = archive[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        if "allow_pickle" in str(error):
            advice = f"{name} = {name}.astype(float), or .astype(str) for labels that are text, before numpy.savez"
            raise _error(file, f"{name} holds Python objects, which need allow_pickle; {advice}") from error
        complaint = f"{name} cannot be read ({brief(error)})"
        raise _error(file, f"{complaint}; write it again as plain numbers with numpy.savez") from error
    if not isinstance(array, np.ndarray):
        raise _error(file, f"{name} is not a NumPy array; write it again with numpy.savez")
    return array


def _pixels(file: Path, name: str, x: NDArray[Any]) -> NDArray[Any]:
    """`x` as `(N, D)` or `(N, C, H, W)`, after checking its kind, shape and values."""
    if x.dtype.kind not in "biuf":
        raise _error(file, f"{name} is of dtype {x.dtype}; bools, integers or floats were expected")
    if x.ndim not in (2, 3, 4):
        raise _error(file, f"{name} has shape {x.shape}; (N, D), (N, H, W) or (N, C, H, W) was expected")
    if x.size == 0:
        raise _error(file, f"{name} is empty, its shape is {x.shape}; at least one sample was expected")
    bad = ~np.isfinite(x)
    if bad.any():
        first = [int(i) for i in np.unravel_index(int(bad.argmax()), x.shape)]
        raise _error(file, f"{name} has {bad.sum()} NaN or infinite values, the first at {first}; replace them")
    return x[:, np.newaxis] if x.ndim == 3 else x


@DATA_SETS.declare
class Npz(DataSet):
    """`data=npz`."""

    batch_size: ClassVar[int | None] = 32

    name: Literal["npz"] = "npz"
    path: str | None = Field(None, description="npz: file with x_train, y_train, x_test, y_test")
    labels: Policy = Field("auto", description=POLICY_HELP)

    def read(self) -> Raw:
        return load(self.path, self.labels)
