"""What lies on the device: the data set, the lanes' state for the whole training, and the arrays of one batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ablate.backends.cuda.device import Buffer, Device
from ablate.backends.cuda.plan import Plan
from ablate.backends.engine import Lane
from ablate.config import schema as config
from ablate.problem.data.dataset import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

# As the enumerations in `cuda/loss.cuh` and `cuda/update.cuh`.
LOSSES = ("ce", "mse", "bce", "mae", "hinge", "focal", "label_smoothing")
OUTPUTS = ("softmax", "sigmoid", "identity")
MISTAKES = ("none", "diagonal_jacobian", "unshifted_softmax", "double_softmax")
RULES = ("sgd", "momentum", "adam", "rmsprop", "adagrad")


class Rows:
    """A data set on the device: rows `(N, D)`, labels `(N,)`, and the order of the file."""

    def __init__(self, device: Device, x: Array, labels: Array) -> None:
        self.count = len(labels)
        self.x = device.put(x.reshape(self.count, -1), x.dtype)
        self.labels = device.put(labels, np.int32)
        self.plain = device.put(np.arange(self.count), np.int32)


class Lanes:
    """What a lane keeps from step to step: arrays `(K, ...)`, by lane."""

    def __init__(self, device: Device, plan: Plan, lanes: Sequence[Lane], dataset: Dataset) -> None:
        dtype, count = dataset.x_train.dtype, len(lanes)
        self.theta = device.put(np.stack([plan.flatten(lane.weights, dtype) for lane in lanes]), dtype)
        zeros = np.zeros((count, plan.size), dtype)
        self.gradient, self.first, self.second = (device.put(zeros, dtype) for _ in range(3))
        self.kinds = device.put(np.array([_kind(lane) for lane in lanes]), np.int32)
        self.constants = device.put(np.array([_constants(lane.settings) for lane in lanes]), dtype)
        is_mean = [lane.reduction == "mean" and lane.bug != "sum_for_mean" for lane in lanes]
        self.is_mean = device.put(np.array(is_mean), np.int32)
        self.rules = _rules(device, lanes, dtype)
        self.rates = device.put(np.array([[lane.rate, lane.output_rate] for lane in lanes]), dtype)
        self.sums = device.allocate((count, 3), np.float64)
        self.counts = device.allocate((count, dataset.classes), np.int32)
        self.dead, self.saturated = (device.allocate((count,), np.int32) for _ in range(2))
        self.active = device.allocate((count,), np.int32)
        # Where the order of an evaluation lies: all lanes read rows as they come.
        self.as_they_come = device.put(np.zeros(count), np.int32)


class Batch:
    """The arrays of one batch of at most `capacity` samples, for as many lanes as fit: `(L, ...)`, by slot.

    Raises DeviceMemoryError where not even one lane fits.
    """

    def __init__(self, device: Device, plan: Plan, lanes: int, capacity: int, dtype: np.dtype[Any]) -> None:
        sizes = [plan.fitted, *(layer.after for layer in plan.layers)]
        units, self.lanes, self.capacity = sizes[-1], lanes, capacity

        def numbers(size: int) -> Buffer:
            return device.allocate((lanes, capacity * size), dtype)

        self.outputs = [numbers(size) for size in sizes]
        self.errors = [numbers(size) for size in sizes]
        self.p, self.values, self.confidence = numbers(units), numbers(1), numbers(1)
        self.targets, self.predicted = (device.allocate((lanes, capacity), np.int32) for _ in range(2))
        self.partial = device.allocate((lanes, plan.partials), dtype)

    @staticmethod
    def bytes(plan: Plan, capacity: int, dtype: np.dtype[Any]) -> int:
        """What one lane takes."""
        sizes = [plan.fitted, *(layer.after for layer in plan.layers)]
        numbers = capacity * (2 * sum(sizes) + sizes[-1] + 2) + plan.partials
        return numbers * dtype.itemsize + 2 * capacity * 4


def _kind(lane: Lane) -> tuple[int, int, int, int]:
    assert not isinstance(lane.settings, config.CustomLoss)
    mistake = lane.bug if lane.bug in MISTAKES else "none"
    return (
        LOSSES.index(lane.settings.name),
        OUTPUTS.index(lane.loss.output),
        int(not lane.settings.from_logits),
        MISTAKES.index(mistake),
    )


def _constants(loss: config.Loss) -> tuple[float, float, float, float]:
    assert isinstance(loss, config.BuiltinLoss)
    return loss.eps_log, loss.eps_sum, getattr(loss, "gamma", 0.0), getattr(loss, "smoothing", 0.0)


def _rules(device: Device, lanes: Sequence[Lane], dtype: np.dtype[Any]) -> Buffer:
    rules = np.zeros(len(lanes), np.dtype([("name", np.int32), ("constants", dtype, 3)], align=True))
    for rule, lane in zip(rules, lanes, strict=True):
        rule["name"] = RULES.index(lane.optimizer.name)
        rule["constants"] = _rule_constants(lane.optimizer)
    return device.put(rules, rules.dtype)


def _rule_constants(optimizer: config.Optimizer) -> tuple[float, float, float]:
    match optimizer:
        case config.Momentum():
            return optimizer.momentum, 0.0, 0.0
        case config.Adam():
            return 1 - optimizer.beta1, 1 - optimizer.beta2, optimizer.epsilon
        case config.RmsProp():
            return 1 - optimizer.decay, 0.0, optimizer.epsilon
        case config.Adagrad():
            return 0.0, 0.0, optimizer.epsilon
        case _:
            return 0.0, 0.0, 0.0


def corrections(lanes: Sequence[Lane], done: int, steps: int) -> Array:
    """Adam's corrections `(K, steps, 2)`, in float64, of the steps after the first `done`; 1 for other rules."""
    table = np.ones((len(lanes), steps, 2))
    step = np.arange(done + 1, done + steps + 1, dtype=np.float64)
    for row, lane in zip(table, lanes, strict=True):
        if isinstance(lane.optimizer, config.Adam):
            row[:, 0] = 1 / (1 - lane.optimizer.beta1**step)
            row[:, 1] = 1 / (1 - lane.optimizer.beta2**step)
    return table
