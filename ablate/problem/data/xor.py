"""The four patterns of exclusive or, to train and to test on."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from ablate.problem.data.dataset import Raw
from ablate.problem.data.sets import DATA_SETS, DataSet


def load() -> Raw:
    """All four patterns, both as training set and as test set: x `(4, 2)`, two classes."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float64)
    y = np.array([0, 1, 1, 0], dtype=np.int64)
    return Raw(source="built in", x_train=x, y_train=y, x_test=x, y_test=y, classes=2, low=0.0, high=1.0)


@DATA_SETS.declare
class Xor(DataSet):
    """`data=xor`."""

    batch_size: ClassVar[int | None] = None

    name: Literal["xor"] = "xor"

    def read(self) -> Raw:
        return load()
