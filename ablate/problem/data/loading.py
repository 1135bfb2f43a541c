"""Data sets by name."""

from typing import Any

import numpy as np
from pydantic import ValidationError

from ablate.errors import ConfigError
from ablate.problem.data import csv, diabetes, digits, mnist, npz, xor
from ablate.problem.data.dataset import Dataset
from ablate.problem.data.sets import DATA_SETS

__all__ = ["DATA_SETS", "csv", "diabetes", "digits", "load", "mnist", "npz", "xor"]


def load(name: str, *, dtype: np.dtype[Any], **keys: Any) -> Dataset:
    """Load the data set `name` with values of its keys, cast to `dtype`.

    Raises ConfigError for a wrong name, key or value, and for files missing or bad.
    """
    # `DataSet.load` checks the limits: its message gives the number of rows there are.
    limits: dict[str, Any] = {key: keys.pop(key) for key in ("train_limit", "test_limit") if key in keys}
    try:
        chosen = DATA_SETS.read({"name": name, **keys})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"data.{key}={first['input']}: {first['msg'].lower()}") from None
    return chosen.model_copy(update=limits).load(dtype)
