"""How far the CUDA backend's weights move from NumPy's: after 1, 10 and 100 steps, per model and loss.

    python -m docs.studies.parity                        # prints the table; the kernels run emulated
    python -m docs.studies.parity --device gpu           # on a GPU
    python -m docs.studies.parity --into docs/cuda.md    # and puts it into that page

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
from threadpoolctl import threadpool_limits

import ablate
from ablate import backends
from ablate.backends.engine import Engine, Lane
from ablate.problem.data.dataset import Dataset
from ablate.trials.prepared import PreparedTrial
from benchmarks import machine, marks
from benchmarks.templates import render

Array = np.ndarray[Any, np.dtype[Any]]

TEMPLATE = Path(__file__).resolve().parent / "templates" / "parity.md.j2"
NUMPY, CUDA = backends.get("numpy"), backends.get("cuda")
STEPS = (1, 10, 100)
MODELS = {
    "lenet5": ["model=lenet5"],
    "mlp": ["model=mlp"],
    "softmax_regression": ["model=softmax_regression"],
    "mlp on xor": ["model=mlp", "data=xor"],
    "stack": [
        "model=lenet5",
        "model.fit=null",
        "model.layers=[{conv: 8, kernel: 3, padding: 1}, {leaky_relu: 0.1}, {avg_pool: 2}, {conv: 12, kernel: 3,"
        " stride: 2}, elu, {dense: 32}, {dropout: 0.2}, softmax, {dense: classes}]",
    ],
}
LOSSES = (
    "ce",
    "ce loss.from_logits=false loss.eps_log=1e-10",
    "mse",
    "mse model.output=sigmoid",
    "bce",
    "mae",
    "mae model.output=sigmoid",
    "hinge",
    "squared_hinge",
    "focal",
    "focal model.output=sigmoid loss.alpha=0.25",
    "label_smoothing",
    "kl loss.smoothing=0.1",
    "reverse_kl",
    "ce loss.class_weights=balanced",
)


def differences(trials: Sequence[PreparedTrial], device: str) -> list[list[float]]:
    """For each trial of a cohort the relative difference of its weights after each of `STEPS`, and of NumPy's own."""
    first, lanes = trials[0], [trial.lane() for trial in trials]
    dataset, batch = first.dataset, first.batch_size
    rows = np.random.default_rng(0).permutation(np.resize(np.arange(len(dataset.y_train)), STEPS[-1] * batch))

    def trained(backend: backends.Backend, lanes: Sequence[Lane], steps: int) -> list[dict[str, Array]]:
        part = _rows(dataset, rows[: steps * batch])
        engine = backend.engine(first.architecture, part, lanes, batch, device)
        return _trained(engine, [np.arange(steps * batch)] * len(lanes))

    found = []
    for steps in STEPS:
        one, other = trained(NUMPY, lanes, steps), trained(CUDA, lanes, steps)
        found.append([_difference(*pair) for pair in zip(one, other, strict=True)])
    own = trained(NUMPY, [_nudged(lane, dataset.x_train.dtype) for lane in lanes], STEPS[-1])
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


def rows_of(device: str) -> list[list[str]]:
    """The largest relative difference of weights, by model and loss."""
    rows = []
    for name, model in MODELS.items():
        trials = [trial for loss in LOSSES for trial in ablate.compose(*model, *f"loss={loss}".split())]
        first = ablate.prepare(trials[0].settings)
        cohort = [first, *(ablate.prepare(trial.settings, first.dataset) for trial in trials[1:])]
        with threadpool_limits(1, user_api="blas"):
            found = differences(cohort, device)
        for loss, figures in zip(LOSSES, found, strict=True):
            rows.append([name, loss, *(f"{figure:.1e}" for figure in figures)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=CUDA.devices, default="emulated")
    parser.add_argument("--into", type=Path, help="a page with the lines <!-- parity --> and <!-- end of parity -->")
    given = parser.parse_args()
    if reason := CUDA.unavailable(given.device):
        parser.error(reason)
    text = render(
        TEMPLATE,
        date=datetime.date.today(),
        device=given.device,
        processor=machine.processor(),
        steps=STEPS,
        rows=rows_of(given.device),
    )
    print(text)
    if given.into:
        marks.put(given.into, "parity", text)


if __name__ == "__main__":
    main()
