"""Trackers of runs besides their folder, each declared once."""

from typing import Annotated, Literal

from pydantic import Field

from ablate.problem.registry import Choice, Group


class Tracking(Choice):
    """An option of the group `tracking`."""


TRACKERS: Group[Tracking] = Group("tracking")


@TRACKERS.declare
class MlflowTracking(Tracking):
    """Every trial is an MLflow run."""

    name: Literal["mlflow"] = "mlflow"
    uri: str | None = Field(
        None, description="mlflow: tracking server or store (null: MLFLOW_TRACKING_URI, else mlflow.db here)"
    )
    experiment: Annotated[str, Field(min_length=1)] = Field("ablate", description="mlflow: name of the experiment")


@TRACKERS.declare
class NoTracking(Tracking):
    """Runs are recorded in their folder only."""

    name: Literal["none"] = "none"
