"""How far the CUDA backend's weights move from NumPy's: after 1, 10 and 100 steps, per model and loss.

    python -m benchmarks.parity                        # prints the table; the kernels run emulated
    python -m benchmarks.parity --device gpu           # on a GPU
    python -m benchmarks.parity --into docs/cuda.md    # and puts it into that page

Both backends start from the same weights and meet the same rows in the same order; they add in another order, and that
is all. The figure is the largest difference of a weight, over the largest weight of its tensor, over all tensors.
Some trainings amplify any rounding; the last column shows how much: NumPy against NumPy, from initial weights that
differ by one rounding.
"""

import argparse
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.in_process import Array, load, settings
from threadpoolctl import threadpool_limits

from ablate.backends import cuda
from ablate.backends.engine import Engine, Lane
from ablate.backends.numpy import NumpyEngine
from ablate.config.settings import Settings
from ablate.problem.data.dataset import Dataset
from ablate.training import loop as train
from benchmarks import machine, marks
from benchmarks.page import Rows

STEPS = (1, 10, 100)
MODELS = {
    "lenet5": ["model=lenet5"],
    "mlp": ["model=mlp"],
    "softmax_regression": ["model=softmax_regression"],
    "mlp on xor": ["model=mlp", "data=xor"],
}
LOSSES = (
    "ce",
    "ce loss.from_logits=false loss.eps_log=1e-10",
    "mse",
    "mse model.output=sigmoid",
    "bce",
    "mae",
    "hinge",
    "focal",
    "label_smoothing",
)


def differences(trials: Sequence[Settings], device: cuda.Device) -> list[list[float]]:
    """For each trial of a cohort the relative difference of its weights after each of `STEPS`, and of NumPy's own."""
    dataset = load(trials[0])
    network = train.architecture(trials[0], dataset)
    lanes = [train.lane(trial, network) for trial in trials]
    batch = train.batch_size(trials[0], dataset)
    rows = np.random.default_rng(0).permutation(np.resize(np.arange(len(dataset.y_train)), STEPS[-1] * batch))
    found, nudged = [], [_nudged(lane, dataset.x_train.dtype) for lane in lanes]
    for steps in STEPS:
        part, order = _rows(dataset, rows[: steps * batch]), [np.arange(steps * batch)] * len(lanes)
        one = _trained(NumpyEngine(network, part, lanes, batch), order)
        other = _trained(cuda.CudaEngine(network, part, lanes, batch, device), order)
        found.append([_difference(*pair) for pair in zip(one, other, strict=True)])
    own = _trained(NumpyEngine(network, part, nudged, batch), order)
    found.append([_difference(*pair) for pair in zip(one, own, strict=True)])
    return [list(column) for column in zip(*found, strict=True)]


def _trained(engine: Engine, orders: Sequence[Array]) -> list[dict[str, Array]]:
    engine.train_epoch(orders, [])
    return [engine.weights(lane) for lane in range(len(orders))]


def _nudged(lane: Lane, dtype: np.dtype[Any]) -> Lane:
    """The lane with every initial weight rounded to the next number above."""
    up = {name: np.nextafter(tensor.astype(dtype), dtype.type(np.inf)) for name, tensor in lane.weights.items()}
    return replace(lane, weights=up)


def _rows(dataset: Dataset, rows: Array) -> Dataset:
    """A training set that consists of these rows, some of them more than once."""
    return replace(dataset, x_train=dataset.x_train[rows], y_train=dataset.y_train[rows])


def _difference(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    return max(float(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max()) for name in one)


def table(device: cuda.Device) -> Rows:
    """The largest relative difference of weights, by model and loss."""
    lines = []
    for name, model in MODELS.items():
        trials = [settings(*model, *f"loss={loss}".split()) for loss in LOSSES]
        with threadpool_limits(1, user_api="blas"):
            found = differences(trials, device)
        for loss, figures in zip(LOSSES, found, strict=True):
            lines.append([name, loss, *(f"{figure:.1e}" for figure in figures)])
    return Rows(["model", "loss", *(f"{steps} step{'s' * (steps > 1)}" for steps in STEPS), "NumPy's own"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("emulated", "gpu"), default="emulated")
    parser.add_argument("--into", type=Path, help="a page with the lines <!-- parity --> and <!-- end of parity -->")
    given = parser.parse_args()
    head = f"{datetime.date.today()}, device={given.device}, float32, {machine.processor()}"
    text = f"{head}\n\n{table(cuda.device(given.device)).markdown()}\n"
    print(text)
    if given.into:
        marks.put(given.into, "parity", text)


if __name__ == "__main__":
    main()
