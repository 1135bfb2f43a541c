"""Evidence: what the data and the start of a trial that did not train show, in numbers.

It is measured when the trial ends, since its data may be gone later, and for trials that did not train only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ablate.backends.engine import WATCHED_ROWS
from ablate.backends.numpy.probe import NumpyProbe
from ablate.problem.activations import ACTIVATIONS
from ablate.problem.data.facts import Facts
from ablate.problem.layers import Activate, Divide, Pool
from ablate.problem.losses import LossFailedError
from ablate.problem.models import Stage
from ablate.training.loop import INITIAL_ROWS, Summary
from ablate.trials.prepared import PreparedTrial, engine

# The first loss is this many times what the classes imply, or more: outputs are wrong and sure before any training.
HIGH_LOSS = 5.0
# On so many samples the size of a gradient is measured.
FEW_ROWS = 64

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Evidence:
    """What is known of a trial besides how its training went.

    `initial_loss` is the loss before the first update (NaN: not finite), `expected_loss` that of outputs that know
    nothing, all logits 0; `dead_units` and `saturated` are shares of the hidden units before the first update. `gains`
    are by layer the root mean square of its weights times sqrt(fan_in), over its divisor: 1 keeps the size of what
    passes. `alike` names the hidden layers whose units all start with the same weights. `divisors` has those of the
    layers that have one, `data` is the data set's digest. `gradients` are by layer the norms of the weights' gradient
    before the first update, on the first samples; empty if the loss fails there. `is_linear` says that all hidden
    layers together are a linear function; `too_large` is how many times a number of the output layer moved by more than
    1 in one step, `dead_at_end` the share of dead units at the end. Another NaN is what the trial does not have.
    """

    facts: Facts
    initial_loss: float
    expected_loss: float
    dead_units: float
    saturated: float
    gains: Mapping[str, float]
    alike: tuple[str, ...]
    divisors: Mapping[str, float] = field(default_factory=dict)
    data: str | None = None
    is_linear: bool = False
    too_large: int = 0
    dead_at_end: float = math.nan
    gradients: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_sure(self) -> bool:
        """Whether the untrained outputs are wrong and sure: their loss is far above that of knowing nothing."""
        return self.expected_loss > 0 and not self.initial_loss < HIGH_LOSS * self.expected_loss

    @property
    def size(self) -> float:
        """The root mean square of the inputs."""
        return math.hypot(self.facts.mean, self.facts.deviation)


def evidence(trial: PreparedTrial, summary: Summary) -> Evidence:
    """Measure it on the first training and test samples, by the NumPy engine."""
    dead, saturated = _units(trial)
    parameters = [each for each in trial.architecture.parameters if not each.is_bias]
    weights = trial.initial_weights()
    layers = {each.name.rpartition(".")[0]: (each, weights[each.name]) for each in parameters}
    hidden = list(layers)[:-1]
    stages = pairwise(trial.architecture.stages)
    divisors = {stage.name: after.layer.divisor for stage, after in stages if isinstance(after.layer, Divide)}
    return Evidence(
        facts=trial.dataset.facts,
        initial_loss=summary.initial_loss if math.isfinite(summary.initial_loss) else math.nan,
        expected_loss=_expected(trial),
        dead_units=dead,
        saturated=saturated,
        gains={
            name: float(np.sqrt(np.mean(np.square(tensor)) * parameter.fan_in)) / divisors.get(name, 1.0)
            for name, (parameter, tensor) in layers.items()
        },
        alike=tuple(name for name in hidden if _is_alike(layers[name][1])),
        divisors={name: divisors[name] for name in layers if name in divisors},
        data=trial.dataset.digest,
        is_linear=bool(hidden) and all(map(_is_linear, trial.architecture.stages)),
        too_large=summary.too_large,
        dead_at_end=summary.dead_units,
        gradients=_gradients(trial, list(layers)),
    )


def _gradients(trial: PreparedTrial, layers: Sequence[str]) -> dict[str, float]:
    few = replace(trial.dataset, x_train=trial.dataset.x_train[:FEW_ROWS], y_train=trial.dataset.y_train[:FEW_ROWS])
    part = trial.on(few)
    try:
        with np.errstate(all="ignore"):
            gradient = NumpyProbe(part.architecture, few, part.lane()).gradient()
    except LossFailedError:
        return {}
    return {layer: float(np.linalg.norm(gradient[f"{layer}.weight"])) for layer in layers}


def _is_linear(stage: Stage) -> bool:
    layer = stage.layer
    return layer == Activate(ACTIVATIONS.get("identity")) or not isinstance(layer, Activate | Pool)


def _units(trial: PreparedTrial) -> tuple[float, float]:
    """The shares of dead and of saturated units before the first update."""
    few = trial.dataset
    few = replace(few, x_train=few.x_train[:1], y_train=few.y_train[:1])
    few = replace(few, x_test=few.x_test[:WATCHED_ROWS], y_test=few.y_test[:WATCHED_ROWS])
    part = trial.on(few)
    settings = part.settings.model_copy(update={"backend": "numpy", "bug": "none", "batch_size": 1})
    units = engine([replace(part, settings=settings)]).units()
    return float(units.dead[0]), float(units.saturated[0])


def _expected(trial: PreparedTrial) -> float:
    """The mean loss of the first training samples where every logit is 0; NaN if the loss fails there."""
    dataset, objective = trial.dataset, trial.lane().objective
    rows = np.arange(min(INITIAL_ROWS, len(dataset.y_train)))[None]
    truth = dataset.task.truth(dataset.y_train, rows)
    targets = dataset.task.targets(truth, trial.architecture.units, np.dtype(np.float64))
    z = np.zeros(targets.shape)
    try:
        return float(np.mean(objective.value(z, objective.outputs(z), targets)))
    except LossFailedError:
        return math.nan


def _is_alike(tensor: Array) -> bool:
    """Whether all units of a layer have the same weights: on the last axis of a dense layer's, else on the first."""
    units = tensor.T if tensor.ndim == 2 else tensor
    return len(units) > 1 and bool(np.ptp(units, axis=0).max() <= 1e-6 * np.abs(units).max())
