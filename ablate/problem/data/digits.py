"""The 1,797 handwritten 8x8 digits that come with scikit-learn: no file, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.problem.data.dataset import Raw
from ablate.problem.data.normalisation import NORMALIZE_HELP, Normalize
from ablate.problem.data.sets import DATA_SETS, DataSet

_TRAIN_ROWS = 1497


def _file() -> Path:
    """The file that `sklearn.datasets.load_digits` reads: 64 pixels and the digit a line."""
    found = find_spec("sklearn")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def load() -> Raw:
    """1,497 images to train and 300 to test, `(N, 1, 8, 8)` with pixels 0..16, ten classes."""
    # Read directly: importing scikit-learn would add a second to every start.
    table = np.loadtxt(_file(), delimiter=",")
    # In the file's own order the last 300 rows are harder than the rest.
    order = np.random.default_rng(0).permutation(len(table))
    x = table[order, :-1].reshape(-1, 1, 8, 8)
    y = table[order, -1].astype(np.int64)
    return Raw(
        source="scikit-learn load_digits",
        x_train=x[:_TRAIN_ROWS],
        y_train=y[:_TRAIN_ROWS],
        x_test=x[_TRAIN_ROWS:],
        y_test=y[_TRAIN_ROWS:],
        classes=10,
        low=0.0,
        high=16.0,
    )


@DATA_SETS.declare
class Digits(DataSet):
    """`data=digits`."""

    batch_size: ClassVar[int | None] = 32

    name: Literal["digits"] = "digits"
    normalize: Normalize = Field("per_image", description=NORMALIZE_HELP)

    def read(self) -> Raw:
        return load()
