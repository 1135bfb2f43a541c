"""What all data sets in a user's own file have in common: from its arrays to samples and labels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ablate.errors import ConfigError
from ablate.problem.data import samples
from ablate.problem.data.dataset import Raw
from ablate.problem.data.labels import POLICY_HELP, Policy
from ablate.problem.data.origin import Origin
from ablate.problem.data.targets import OwnTargets, read_targets
from ablate.problem.section import Count

Share = Annotated[float, Field(gt=0, lt=1)]
Rows = slice | NDArray[np.int64]

TEST_SHARE = 0.2
SPLIT = "numpy.random.default_rng(0).permutation"


@dataclass(frozen=True)
class Part:
    """Samples and their labels, with the names that the file has for them."""

    x: NDArray[Any]
    y: NDArray[Any]
    x_name: str
    y_name: str

    def check_lengths(self, origin: Origin) -> None:
        """Raise `origin.error` unless there is a label for each sample."""
        x = self.x
        is_row = self.y.ndim == 2 and len(self.y) == 1 < len(x)
        labels = max(self.y.shape if is_row else self.y.shape[:1], default=0)
        if labels == len(x) or self.y.ndim not in (1, 2) or self.y.dtype.kind not in "biufUS":
            return  # right, or no labels at all, which is said elsewhere
        advice = "one each was expected"
        if x.shape[-1] == labels:
            moved = f"{self.x_name}.T" if x.ndim == 2 else f"np.moveaxis({self.x_name}, -1, 0)"
            advice = f"{self.x_name} has shape {x.shape}: {moved} if the last axis is that of the samples"
        raise origin.error(f"{self.y_name} has {labels} labels for {len(x)} samples; {advice}")


class OwnFile(OwnTargets):
    """A data set in a file of the user's."""

    # What a file has to be, in words.
    wanted: ClassVar[str]

    path: str | None = Field(
        None, description="npz: file with x_train, y_train, x_test, y_test; csv: file with a table, a row a sample"
    )
    labels: Policy = Field("auto", description=POLICY_HELP)
    channels: samples.Channels = Field("auto", description=samples.CHANNELS_HELP)
    shape: list[Count] | None = Field(None, description=samples.SHAPE_HELP)
    test_share: Share | None = Field(
        None, description=f"the share of the rows to test on, where there is no test set (null: {TEST_SHARE})"
    )

    @abstractmethod
    def parts(self, origin: Origin) -> tuple[Part, Part | None]:
        """Training and test set as the file gives them, None for a test set that it does not have.

        Raises `origin.error` if the file cannot be read, or holds something else.
        """

    def read(self) -> Raw:
        """Raises ConfigError if the file is not there, or holds what are no samples or labels."""
        if not self.path:
            raise ConfigError(f"data.path={self.path or 'null'}: data={self.name} needs a file; give {self.wanted}")
        file = Path(self.path).expanduser()
        origin = Origin(f"data.path={file}", is_of_any_task=True)
        whole, test = self.parts(origin)
        for part in (whole, test) if test else (whole,):
            samples.check(origin, part.x_name, part.x)
            part.check_lengths(origin)
        train, tested = self._rows(origin, len(whole.x), test)
        # Of the whole set before it is split: errors name rows as the file counts them.
        given = (whole, test or whole)
        x_names, y_names = [part.x_name for part in given], [part.y_name for part in given]
        x_train, x_test = samples.arranged(origin, [part.x for part in given], self.channels, self.shape, x_names)
        rows = (len(x_train), len(x_test))
        y = read_targets(self.learned, origin, [part.y for part in given], rows, self.labels, y_names)
        x_train, x_test = x_train[train], x_test[tested]
        return Raw(
            source=str(file),
            x_train=x_train,
            y_train=y.train[train],
            x_test=x_test,
            y_test=y.test[tested],
            classes=y.classes,
            low=float(x_train.min()),
            high=float(x_train.max()),
            notices=tuple(origin.notices),
            task=self.learned,
        )

    def _rows(self, origin: Origin, rows: int, test: Part | None) -> tuple[Rows, Rows]:
        """The rows to train on and those to test on: all, or without a test set some of each, in a fixed order."""
        if test is not None:
            if self.test_share is not None:
                raise ConfigError(f"data.test_share={self.test_share}: {origin.named} has a test set; leave it out")
            return slice(None), slice(None)
        tested = round((self.test_share or TEST_SHARE) * rows)
        if not 0 < tested < rows:
            raise origin.error(f"{tested} of its {rows} rows to test on; another data.test_share leaves some for both")
        if self.test_share is None:
            split = f"the last {tested} of the {rows} rows, in the order of {SPLIT}({rows}), are tested on"
            origin.notice(f"no test set in it: {split}; data.test_share={TEST_SHARE} confirms it")
        order = np.random.default_rng(0).permutation(rows)
        return order[:-tested], order[-tested:]
