"""Rules for early stopping, each declared once."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ablate.problem.registry import Choice, Group
from ablate.problem.section import Count


class Stop(Choice):
    """An option of the group `stop`: a trial stops at the first of these limits; infinity means no limit."""

    @property
    def worse_epochs(self) -> float:
        """The number of epochs without a lower test loss."""
        return math.inf

    @property
    def reached(self) -> tuple[float, float]:
        """A test accuracy, and the number of epochs at whose end it must have been reached."""
        return math.inf, math.inf


STOPS: Group[Stop] = Group("stop")


@STOPS.declare
class Never(Stop):
    """Every epoch is trained."""

    name: Literal["never"] = "never"


@STOPS.declare
class Patience(Stop):
    """Stop when the test loss has not improved for some epochs."""

    name: Literal["patience"] = "patience"
    also_called: ClassVar[tuple[str, ...]] = ("early_stopping",)
    patience: Count = Field(5, description="patience: epochs without a lower test loss before the trial stops")

    @property
    def worse_epochs(self) -> float:
        return self.patience


@STOPS.declare
class Target(Stop):
    """Stop when a test accuracy has been reached, once or several times."""

    name: Literal["target"] = "target"
    accuracy: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="target: test accuracy to reach")
    times: Count = Field(1, description="target: epochs at or above it before the trial stops")

    @property
    def reached(self) -> tuple[float, float]:
        return self.accuracy, self.times
