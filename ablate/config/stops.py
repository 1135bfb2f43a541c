"""Rules that stop a trial before its last epoch, each declared once."""

import math
from typing import Annotated, Literal

from pydantic import Field

from ablate.problem.registry import Choice, Group
from ablate.problem.section import Count


class Stop(Choice):
    """An option of the group `stop`: a trial stops at the first of these limits, infinity where there is none."""

    @property
    def worse_epochs(self) -> float:
        """Epochs without a lower test loss."""
        return math.inf

    @property
    def reached(self) -> tuple[float, float]:
        """A test accuracy, and at the end of how many epochs it was reached."""
        return math.inf, math.inf


STOPS: Group[Stop] = Group("stop")


@STOPS.declare
class Never(Stop):
    """Every epoch is trained."""

    name: Literal["never"] = "never"


@STOPS.declare
class Patience(Stop):
    """The test loss has not been lower for some epochs."""

    name: Literal["patience"] = "patience"
    patience: Count = Field(5, description="patience: epochs without a lower test loss before the trial stops")

    @property
    def worse_epochs(self) -> float:
        return self.patience


@STOPS.declare
class Target(Stop):
    """A test accuracy was reached, several times if so wished."""

    name: Literal["target"] = "target"
    accuracy: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="target: test accuracy to reach")
    times: Count = Field(1, description="target: epochs at or above it before the trial stops")

    @property
    def reached(self) -> tuple[float, float]:
        return self.accuracy, self.times
