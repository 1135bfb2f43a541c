"""Class labels as people write them: from 1 on, with gaps, -1 and 1, text, one-hot. Each becomes 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.origin import Origin

Policy = Literal["auto", "remap", "as_is"]
POLICY_HELP = (
    "auto: the distinct labels, sorted, become classes 0, 1, 2, ..., with a notice where that changes them; "
    "remap: the same, confirmed; as_is: a label is the number of an output"
)

MAX_CLASSES = 1 << 16  # an output layer of that size is probably a mistake
_EXACT = float(1 << 53)  # beyond, float64 skips whole numbers

# With more classes than this, a small number of rows for each suggests amounts or names.
_MANY_CLASSES, _FEW_ROWS, _TOO_FEW_ROWS = 10, 20, 2

_SHOWN = 6


@dataclass(frozen=True)
class Labels:
    """The classes of the training and the test samples, `(N,)` int64 in 0..classes-1."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    classes: int


def read(
    origin: Origin,
    y: Sequence[NDArray[Any]],
    rows: Sequence[int],
    policy: Policy,
    names: Sequence[str] = ("y_train", "y_test"),
) -> Labels:
    """The classes that the labels of training and test set mean, `rows` samples each; `names` are the arrays' names.

    Labels are `(N,)` or `(N, 1)`, of bools, whole numbers or text, or one-hot `(N, C)`. The training set must have two
    classes at least, and every class of the test set. Raises `origin.error`, and leaves a notice for what was not taken
    as it stands.
    """
    of_test = Origin(origin.named, origin.is_of_any_task)
    vectors = [_vector(origin, names[0], y[0], rows[0]), _vector(of_test, names[1], y[1], rows[1])]
    # Said once of two arrays that are laid out alike.
    if _layout(y[0], rows[0]) != _layout(y[1], rows[1]):
        origin.also(of_test)
    if _is_text(vectors[0]) != _is_text(vectors[1]):
        raise origin.error(f"{names[0]} is of dtype {y[0].dtype}, {names[1]} of {y[1].dtype}; write both alike")
    known = np.unique(vectors[0])
    if len(known) == 1:
        scaled = " (labels are not scaled: divided by 255, all are 0)" if not _is_text(known) and known[0] == 0 else ""
        raise origin.error(f"{names[0]} holds only the label {known[0]}; give samples of at least two classes{scaled}")
    return _as_is(origin, vectors, names) if policy == "as_is" else _remapped(origin, vectors, known, policy, names)


def _remapped(
    origin: Origin, vectors: Sequence[NDArray[Any]], known: NDArray[Any], policy: Policy, names: Sequence[str]
) -> Labels:
    train, test = vectors
    if len(known) > MAX_CLASSES:
        raise origin.error(f"{names[0]} has {len(known)} different labels; at most {MAX_CLASSES} classes were expected")
    if policy == "auto":
        _heed(origin, names[0], known, train)
    unknown = ~np.isin(test, known)
    if unknown.any():
        raise origin.error(_untrained(names, known, test, unknown))
    return Labels(np.searchsorted(known, train), np.searchsorted(known, test), len(known))


def _untrained(names: Sequence[str], known: NDArray[Any], test: NDArray[Any], unknown: NDArray[np.bool_]) -> str:
    train_name, test_name = names
    found = f"{test_name} has the label {test[unknown.argmax()]}, {train_name} only {_listed(known)}"
    advice = f"train on every class that is tested, or leave out {unknown.sum()} of the {len(test)} test rows"
    if not test_name.isidentifier():
        return f"{found}; {advice}"
    kept = f"x_test, {test_name} = x_test[keep], {test_name}[keep]"
    return f"{found}; {advice}: keep = np.isin({test_name}, {train_name}); {kept}"


def _heed(origin: Origin, name: str, known: NDArray[Any], train: NDArray[Any]) -> None:
    """Say what becomes of labels that are no classes yet; ask where there are so many that they may never be."""
    classes, rows = len(known), len(train)
    if not _is_text(known) and known[0] < 0 and 0 in known:
        found = f"{_place(name, int(train.argmin()))} is {known[0]}, beside labels from 0 on ({_listed(known)})"
        raise origin.error(f"{found}: leave out samples without a class, or data.labels=remap if it is one")
    are_many = classes > _MANY_CLASSES and rows < _FEW_ROWS * classes
    if not are_many and not _is_text(known) and np.array_equal(known, np.arange(classes)):
        return
    found = (
        f"{name} has {f'{classes} different labels for {rows} rows,' if are_many else 'the labels'} {_listed(known)}"
    )
    if are_many and rows < _TOO_FEW_ROWS * classes:
        raise origin.error(f"{found}: hardly classes; {_amounts(origin)}data.labels=remap if they are classes")
    confirm = "data.labels=remap confirms it" + (_or_amounts(origin) if are_many else "")
    if not _is_text(known) and known[0] >= 0 and classes <= known[-1] < MAX_CLASSES:
        confirm += f", data.labels=as_is takes them as the numbers of {known[-1] + 1} outputs instead"
    origin.notice(f"{found}: taken as the classes 0..{classes - 1} in this order; {confirm}")


def _listed(known: NDArray[Any]) -> str:
    if not _is_text(known) and len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{known[0]}..{known[-1]}"
    shown = [str(label) for label in known]
    return ", ".join(shown if len(shown) <= _SHOWN else [*shown[: _SHOWN - 1], "...", shown[-1]])


def _as_is(origin: Origin, vectors: Sequence[NDArray[Any]], names: Sequence[str]) -> Labels:
    for name, y in zip(names, vectors, strict=True):
        if _is_text(y):
            raise origin.error(f"{name} is of dtype {y.dtype}; data.labels=as_is needs whole numbers from 0")
        wrong = (y < 0) | (y >= MAX_CLASSES)
        if wrong.any():
            first = int(wrong.argmax())
            limits = f"data.labels=as_is needs whole numbers from 0, below {MAX_CLASSES}"
            raise origin.error(f"{_place(name, first)} is {y[first]}; {limits}")
    train, test = (y.astype(np.int64) for y in vectors)
    if test.max() > train.max():
        raise origin.error(
            f"{names[1]} has the label {test.max()}, the largest of {names[0]} is {train.max()}; "
            "train on every class that is tested"
        )
    return Labels(train, test, int(train.max()) + 1)


def _place(name: str, row: int) -> str:
    """A label as it is written where it comes from: an element of an array, or a row of something else."""
    return f"{name}[{row}]" if name.isidentifier() else f"row {row} of {name}"


def _is_text(y: NDArray[Any]) -> bool:
    return y.dtype.kind == "U"


def _vector(origin: Origin, name: str, y: NDArray[Any], rows: int) -> NDArray[Any]:
    """Labels as `(rows,)`, whole numbers or text."""
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "biufU":
        expected = f"whole numbers were expected, {name}.astype(int), or text, {name}.astype(str)"
        raise origin.error(f"{name} is of dtype {y.dtype}; {expected}")
    if y.ndim == 2:
        y = _of_matrix(origin, name, y, rows)
    if y.ndim != 1:
        raise origin.error(f"{name} has shape {y.shape}; (N,) was expected, one label for each sample")
    if len(y) != rows:
        raise origin.error(f"{name} has {len(y)} labels for {rows} samples; one each was expected")
    return y if _is_text(y) else _whole(origin, name, y)


def _layout(y: NDArray[Any], rows: int) -> tuple[int, ...] | None:
    """The shape of one sample's label; None where samples do not come first."""
    return y.shape[1:] if y.shape[:1] == (rows,) else None


def _whole(origin: Origin, name: str, y: NDArray[Any]) -> NDArray[np.int64]:
    numbers = y.astype(np.float64)  # an unsigned number may be larger than any int64
    wrong = ~(np.abs(numbers) < _EXACT) | (numbers != np.floor(numbers))
    if not wrong.any():
        return y.astype(np.int64)
    first = int(wrong.argmax())
    found = f"{_place(name, first)} is {y[first]}"
    if not np.isfinite(numbers[first]):
        raise origin.error(f"{found}; give every sample a label, or leave it out")
    if numbers[first] == np.floor(numbers[first]):
        numbered = f"np.unique({name}, return_inverse=True)[1]" if name.isidentifier() else "0, 1, 2, ..."
        raise origin.error(
            f"{found}, too large for a class to be told from the next; {_amounts(origin)}number the classes: {numbered}"
        )
    raise origin.error(f"{found}; {_amounts(origin)}a class is a whole number: number the classes 0, 1, 2, ...")


def _of_matrix(origin: Origin, name: str, y: NDArray[Any], rows: int) -> NDArray[Any]:
    if y.shape in ((rows, 1), (1, rows)):
        origin.notice(f"{name} has shape {y.shape}, taken as ({rows},), which is {name}.ravel()")
        return y.ravel()
    if _is_text(y):
        return y
    ones = (y == 1).sum(axis=1)
    is_binary = bool(((y == 0) | (y == 1)).all())
    if is_binary and (ones == 1).all():
        taken = f"taken as one-hot: the class is the column of the 1, which is {name}.argmax(axis=1)"
        origin.notice(f"{name} has shape {y.shape} and one 1 in every row, {taken}")
        return y.argmax(axis=1)
    if is_binary:
        first = int((ones != 1).argmax())
        several = ", or data.task=multilabel" if origin.is_of_any_task else ""
        found = f"{name} has shape {y.shape}, {ones[first]} ones in row {first}"
        raise origin.error(f"{found}; one class each was expected{several}")
    advice = f"one label each was expected, {name}.argmax(axis=1) if a row has a number for each class"
    raise origin.error(f"{name} has shape {y.shape}; {advice}{_or_amounts(origin)}")


def _amounts(origin: Origin) -> str:
    """What numbers are that hardly mean classes, first."""
    return "data.task=regression if they are amounts; " if origin.is_of_any_task else ""


def _or_amounts(origin: Origin) -> str:
    return ", data.task=regression if they are amounts" if origin.is_of_any_task else ""
