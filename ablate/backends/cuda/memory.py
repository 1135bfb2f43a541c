"""What is stored on the device: the data set, the lanes' state for the whole training, the arrays of one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ablate.backends.cuda.declarations import (
    NORM_PARTS,
    loss_number,
    most_loss_constants,
    output_number,
    padded,
    rule_number,
)
from ablate.backends.cuda.device import Buffer, Device
from ablate.backends.cuda.layout import Layout
from ablate.backends.engine import Lane, Rates
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import BuiltinLoss, Loss
from ablate.problem.optimizers import MOST_CONSTANTS, MOST_DECAYS, correction
from ablate.problem.scoring import Scorer

Array = np.ndarray[Any, np.dtype[Any]]


class Rows:
    """A set of samples on the device: rows `(N, D)`, labels `(N,)` or targets `(N, C)`, and the order of the file.

    `facts` are what its scorer knows of it.
    """

    def __init__(self, device: Device, x: Array, known: Array, scorer: Scorer) -> None:
        self.count, self.scorer = len(known), scorer
        self.x = device.put(x.reshape(self.count, -1), x.dtype)
        self.known = device.put(known, np.int32 if known.ndim == 1 else x.dtype)
        self.facts = device.put(scorer.facts, np.float64)
        self.plain = device.put(np.arange(self.count), np.int32)


class Lanes:
    """What lanes keep from step to step: arrays `(K, ...)`, by lane."""

    def __init__(self, device: Device, layout: Layout, lanes: Sequence[Lane], dataset: Dataset) -> None:
        dtype, count = dataset.x_train.dtype, len(lanes)
        self.theta = device.put(np.stack([layout.flatten(lane.weights, dtype) for lane in lanes]), dtype)
        zeros = np.zeros((count, layout.size), dtype)
        self.gradient, self.first, self.second = (device.put(zeros, dtype) for _ in range(3))
        self.kinds = device.put(np.array([_kind(lane) for lane in lanes]), np.int32)
        self.constants = device.put(np.array([_constants(lane.loss) for lane in lanes]), dtype)
        self.is_mean = device.put(np.array([_is_mean(lane) for lane in lanes]), np.int32)
        alike = (1.0,) * dataset.classes
        self.class_weights = device.put(np.array([lane.class_weights or alike for lane in lanes]), dtype)
        self.rules = _rules(device, lanes, dtype)
        self.schedule = Rates(lanes)
        # Of one step for all.
        self.rates = device.put(self.schedule.first[:, None], dtype)
        self.clip_norms = any(lane.optimizer.clip_norm for lane in lanes)
        self.norm_parts = device.allocate((count, NORM_PARTS), np.float64)
        self.keys = device.put(np.array([lane.dropout_key for lane in lanes], np.uint64), np.uint64)
        tested = dataset.scorers["test"]
        self.scoring = tested.kernel
        self.sums = device.allocate((count, 1 + tested.when_tested - tested.counted), np.float64)
        self.counts = device.allocate((count, max(tested.counted, 1)), np.int32)
        self.dead, self.saturated = (device.allocate((count,), np.int32) for _ in range(2))
        self.active = device.allocate((count,), np.int32)
        # The index of the order for evaluation, 0 for every lane: rows are read in the order of the file.
        self.as_they_come = device.put(np.zeros(count), np.int32)


class Batch:
    """The arrays of one batch of at most `capacity` samples, for as many lanes as fit: `(L, ...)`, by slot.

    Raises DeviceMemoryError if they do not fit.
    """

    def __init__(
        self, device: Device, layout: Layout, lanes: int, capacity: int, dtype: np.dtype[Any], rows: Rows
    ) -> None:
        sizes = [layout.fitted, *(layer.after for layer in layout.layers)]
        units, self.lanes, self.capacity = sizes[-1], lanes, capacity

        def numbers(size: int) -> Buffer:
            return device.allocate((lanes, capacity * size), dtype)

        self.outputs = [numbers(size) for size in sizes]
        self.errors = [numbers(size) for size in sizes]
        self.p, self.values, self.confidence = numbers(units), numbers(1), numbers(1)
        each = rows.known.bytes // (rows.count * rows.known.dtype.itemsize)
        self.targets = device.allocate((lanes, capacity * each), rows.known.dtype)
        self.predicted = device.allocate((lanes, capacity), np.int32)
        self.partial = device.allocate((lanes, layout.partials), dtype)

    @staticmethod
    def bytes(layout: Layout, capacity: int, dtype: np.dtype[Any]) -> int:
        """The bytes that one lane needs."""
        sizes = [layout.fitted, *(layer.after for layer in layout.layers)]
        numbers = capacity * (2 * sum(sizes) + 2 * sizes[-1] + 2) + layout.partials
        return numbers * dtype.itemsize + 2 * capacity * 4


def _kind(lane: Lane) -> tuple[int, int, int]:
    assert isinstance(lane.loss, BuiltinLoss), "refused before"
    return loss_number(lane.loss), output_number(lane.objective.output), int(not lane.loss.from_logits)


def _is_mean(lane: Lane) -> bool:
    scale = lane.mistake.scale(lane.loss.reduction, 2)
    assert scale in (0.5, 1.0), f"bug={lane.mistake.name}: the kernels know the mean and the sum over a batch only"
    return scale == 0.5


def _constants(loss: Loss) -> tuple[float, ...]:
    assert isinstance(loss, BuiltinLoss), "refused before"
    return loss.eps_log, loss.eps_sum, *padded(loss.own_constants(), most_loss_constants())


def _rules(device: Device, lanes: Sequence[Lane], dtype: np.dtype[Any]) -> Buffer:
    """`Rule` of `cuda/rules.cuh` for each lane."""
    common = [(name, dtype) for name in ("clip_norm", "clip_value", "l2", "decoupled")]
    kind = np.dtype([("name", np.int32), ("constants", dtype, MOST_CONSTANTS), *common], align=True)
    rules = np.zeros(len(lanes), kind)
    for rule, lane in zip(rules, lanes, strict=True):
        rule["name"] = rule_number(lane.optimizer)
        rule["constants"] = padded(lane.optimizer.constants(), MOST_CONSTANTS)
        rule["clip_norm"], rule["clip_value"] = lane.optimizer.clip_norm or 0, lane.optimizer.clip_value or 0
        rule["decoupled" if lane.optimizer.is_decoupled else "l2"] = lane.weight_decay
    return device.put(rules, rules.dtype)


def corrections(lanes: Sequence[Lane], done: int, steps: int) -> Array:
    """The rules' corrections `(K, steps, n)`, in float64, for the steps after the first `done`; 1 if unused."""
    table = np.ones((len(lanes), steps, MOST_DECAYS))
    step = np.arange(done + 1, done + steps + 1, dtype=np.float64)
    for row, lane in zip(table, lanes, strict=True):
        for column, decay in enumerate(lane.optimizer.decays()):
            row[:, column] = correction(np.array(decay), step)
    return table
