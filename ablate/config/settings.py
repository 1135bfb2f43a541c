"""The typed configuration of one trial: every key, its type, its range and its sentence of help."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny

from ablate import backends
from ablate.config.stops import Stop
from ablate.config.trackers import Tracking
from ablate.problem.data.loading import DATA_SETS
from ablate.problem.data.sets import DataSet
from ablate.problem.initialisation import Init
from ablate.problem.losses import Loss
from ablate.problem.mistakes import MISTAKES
from ablate.problem.models import Model
from ablate.problem.optimizers import Optimizer
from ablate.problem.schedules import Schedule
from ablate.problem.section import Called, Count, OneOf, Positive, Section, Share


def _batch_sizes() -> str:
    return ", ".join(f"{name} {DATA_SETS.get(name).batch_size or 'all'}" for name in DATA_SETS.names())


class Settings(Section):
    """One trial's resolved configuration. Equal settings and an equal seed train to equal weights."""

    loss: Annotated[SerializeAsAny[Loss], Called("criterion", "loss_function", "loss_fn", "objective", "cost")] = Field(
        description="the loss function"
    )
    model: Annotated[Model, Called("network", "net", "arch", "architecture")] = Field(description="the network")
    optimizer: Annotated[SerializeAsAny[Optimizer], Called("optim", "solver", "update_rule")] = Field(
        description="how a gradient becomes a step"
    )
    schedule: Annotated[SerializeAsAny[Schedule], Called("scheduler", "lr_schedule", "lr_scheduler")] = Field(
        description="how the learning rates change during training (inverse_time: as 1/t)"
    )
    data: Annotated[SerializeAsAny[DataSet], Called("dataset")] = Field(description="the data set")
    init: Annotated[
        SerializeAsAny[Init], Called("initialization", "initializer", "weight_init", "kernel_initializer")
    ] = Field(description="how the weights start")
    stop: Annotated[SerializeAsAny[Stop], Called("early_stopping")] = Field(
        description="when a trial may stop before its last epoch"
    )
    tracking: SerializeAsAny[Tracking] = Field(description="where runs are tracked besides runs/")
    description: str | None = Field(None, description="what the sweep asks, in a sentence: the title of its report")
    update_sign: Literal["minus", "plus"] = Field(description="w -= lr*g, or w += lr*g")
    residual: Literal["p-y", "y-p"] = Field(
        description="the output error as the author wrote it: the gradient, or its negative"
    )
    lr: Annotated[Positive, Called("learning_rate", "learning_rate_init", "step_size", "eta")] = Field(
        description="learning rate"
    )
    output_lr: Positive | None = Field(description="learning rate of the output layer (null: lr)")
    backend: Annotated[str, OneOf(backends.names)] = Field(description="who computes")
    device: Annotated[str, OneOf(backends.devices)] = Field(description="where the cuda backend runs its kernels")
    epochs: Annotated[Count, Called("n_epochs", "num_epochs", "max_epochs", "max_iter")] = Field(
        description="passes over the training set"
    )
    batch_size: Annotated[Count | None, Called("batch", "minibatch", "minibatch_size", "bs")] = Field(
        description=f"samples an update (null: {_batch_sizes()})"
    )
    shuffle: bool = Field(description="a new order of the training set every epoch")
    seed: Annotated[int, Field(ge=0), Called("random_state", "random_seed", "manual_seed")] = Field(
        description="feeds the initial weights, the order of the data and the masks of dropout"
    )
    dtype: Annotated[Literal["float32", "float64"], Called("precision")] = Field(
        description="precision of weights and arithmetic"
    )
    target_accuracy: Share = Field(description="the test accuracy from which a trial counts as trained")
    target_r2: Share = Field(description="regression: the R² on the test set from which a trial counts as trained")
    check: bool = Field(description="check gradient and sign by numbers before training")
    bug: Annotated[str, OneOf(MISTAKES.names)] = Field(description="make one known mistake on purpose")
    workers: Annotated[Count | None, Called("n_jobs", "num_workers", "processes")] = Field(
        description="processes for the sweep, or for a long trial alone (null: all cores)"
    )
    log_every: Count | None = Field(
        description="steps between two records of step metrics (null: about 500 points a trial)"
    )
    dry_run: bool = Field(description="print trials, factors and cohorts, and start nothing")

    @property
    def output(self) -> str:
        """The output function, with `auto` resolved (a custom loss names its own: `auto` stays)."""
        if self.model.output != "auto" or self.loss.is_foreign:
            return self.model.output
        return next(iter(self.loss.outputs_for(self.data.learned)), "auto")


def shown(value: Any) -> str:
    """A value as a user writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(shown, value))}]" if isinstance(value, list) else str(value)
