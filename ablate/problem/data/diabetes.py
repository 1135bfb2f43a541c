"""The 442 diabetes patients that come with scikit-learn, a regression: no file, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data.dataset import Raw
from ablate.problem.data.normalisation import NORMALIZE_HELP, Normalize
from ablate.problem.data.sets import DATA_SETS
from ablate.problem.data.targets import NORMALIZE_TARGETS_HELP, TASK_HELP, OwnTargets
from ablate.problem.section import OneOf
from ablate.problem.tasks import TASKS

_TRAIN_ROWS = 342


def _folder() -> Path:
    """Where `sklearn.datasets.load_diabetes` has its files."""
    found = find_spec("sklearn")
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"


def load() -> Raw:
    """342 patients to train and 100 to test: x `(N, 10)` in its own units, y the progress of the disease in a year.

    Efron, Hastie, Johnstone and Tibshirani, 2004. The target is from 25 to 346.
    """
    # Read directly: importing scikit-learn would add a second to every start.
    x, y = (np.loadtxt(_folder() / f"diabetes_{part}.csv.gz") for part in ("data_raw", "target"))
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order].reshape(-1, 1)
    return Raw(
        source="scikit-learn load_diabetes(scaled=False)",
        x_train=x[:_TRAIN_ROWS],
        y_train=y[:_TRAIN_ROWS],
        x_test=x[_TRAIN_ROWS:],
        y_test=y[_TRAIN_ROWS:],
        classes=1,
        low=float(x[:_TRAIN_ROWS].min()),
        high=float(x[:_TRAIN_ROWS].max()),
        task=TASKS.get("regression"),
    )


@DATA_SETS.declare
class Diabetes(OwnTargets):
    """`data=diabetes`."""

    batch_size: ClassVar[int | None] = 32

    name: Literal["diabetes"] = "diabetes"
    task: Annotated[str, OneOf(TASKS.names)] = Field("regression", description=TASK_HELP)
    normalize: Normalize = Field("per_feature", description=NORMALIZE_HELP)
    normalize_targets: bool = Field(True, description=NORMALIZE_TARGETS_HELP)

    def read(self) -> Raw:
        if self.task != "regression":
            raise ConfigError(f"data.task={self.task}: data=diabetes has numbers to learn, data.task=regression")
        return load()
