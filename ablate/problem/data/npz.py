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
from ablate.problem.data.dataset import Raw, brief
from ablate.problem.data.sets import DATA_SETS, DataSet

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 1 << 16  # a larger label is probably an identifier, and an output layer of that size a mistake


def load(path: str | None) -> Raw:
    """Read the file at `path` (the key `data.path`).

    x is `(N, D)`, `(N, H, W)` (taken as `(N, 1, H, W)`) or `(N, C, H, W)`, of bools, integers or floats;
    y is `(N,)`, whole numbers from 0. There are max(y_train) + 1 classes.
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
    y_train = _labels(file, "y_train", y_train, len(x_train))
    y_test = _labels(file, "y_test", y_test, len(x_test))
    _check_labels_agree(file, y_train, y_test)
    return Raw(
        source=str(file),
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=int(y_train.max()) + 1,
        low=float(x_train.min()),
        high=float(x_train.max()),
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


def _labels(file: Path, name: str, y: NDArray[Any], samples: int) -> NDArray[np.int64]:
    if y.dtype.kind not in "biuf":
        raise _error(file, f"{name} is of dtype {y.dtype}; whole numbers from 0 were expected")
    if y.ndim != 1:
        raise _error(file, f"{name} has shape {y.shape}; (N,) was expected, whole numbers from 0")
    if len(y) != samples:
        raise _error(file, f"{name} has {len(y)} labels for {samples} samples; one each was expected")
    wrong = (y != np.floor(y)) | (y < 0) | (y >= _MAX_CLASSES)
    if wrong.any():
        first = int(wrong.argmax())
        raise _error(file, f"{name}[{first}] is {y[first]}; number the classes 0, 1, 2, ... (below {_MAX_CLASSES})")
    return y.astype(np.int64)


def _check_labels_agree(file: Path, y_train: NDArray[np.int64], y_test: NDArray[np.int64]) -> None:
    if y_train.min() == y_train.max():
        raise _error(file, f"y_train holds only the label {y_train[0]}; give samples of at least two classes")
    if y_test.max() > y_train.max():
        raise _error(
            file,
            f"y_test has the label {y_test.max()}, the largest of y_train is {y_train.max()}; "
            "train on every class that is tested",
        )


@DATA_SETS.declare
class Npz(DataSet):
    """`data=npz`."""

    batch_size: ClassVar[int | None] = 32

    name: Literal["npz"] = "npz"
    path: str | None = Field(None, description="npz: file with x_train, y_train, x_test, y_test")

    def read(self) -> Raw:
        return load(self.path)
