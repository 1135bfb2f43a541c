"""Training against test set: what makes a test meaningless although each of the two looks right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablate.problem.data.dataset import Dataset

# Inputs whose size and range both differ by more than this factor are on different scales.
UNLIKE = 4.0

_ROWS = 1000  # looked at, evenly spaced, for the size
_VALUES = 100  # with fewer, chance alone makes sizes differ


def unlike(data: Dataset, rows: int) -> Iterator[str]:
    """A sentence for each way in which the rows in use, of `rows` to train on, do not go together."""
    x_train, y_train, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
    if _is_unlike(_size(x_train), _size(x_test)) and _is_unlike(_extent(x_train), _extent(x_test)):
        yield (
            f"the inputs to train on lie between {x_train.min():.4g} and {x_train.max():.4g}, those to test on between "
            f"{x_test.min():.4g} and {x_test.max():.4g}: scale both by the same numbers"
        )
    if y_train.ndim != 1 or y_train.dtype.kind != "i":
        return
    trained, tested = (np.bincount(y, minlength=data.classes) for y in (y_train, y_test))
    if np.count_nonzero(trained) == 1 and data.classes > 1:
        found = f"all {len(y_train)} training rows in use are of class {trained.argmax()}"
        if len(y_train) < rows:
            yield f"{found}: data.train_limit takes the first rows, so give more, or shuffle them in the file"
        else:
            yield f"{found}, and there are no others: from one class nothing can be learned"
    elif len(missing := np.flatnonzero((tested > 0) & (trained == 0))):
        lost = tested[missing].sum()
        named = f"class{'es' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
        yield f"no training row in use is of {named}, but {lost} of the {len(y_test)} test rows are"


def _is_unlike(train: float, test: float) -> bool:
    return max(train, test) > UNLIKE * min(train, test)


def _extent(x: NDArray[Any]) -> float:
    return max(abs(float(x.min())), abs(float(x.max())))


def _size(x: NDArray[Any]) -> float:
    """The median magnitude of what is not 0 in some of the rows; NaN, which is unlike nothing, for too few values.

    A few outliers do not move it, nor does the share of the background of images.
    """
    some = np.abs(x[:: max(1, len(x) // _ROWS)].astype(np.float64))
    if some.size < _VALUES:
        return float("nan")
    return float(np.median(some[some > 0])) if some.any() else 0.0
