"""What watching during training costs: the same training with and without it, alternating, in one process.

    python -m benchmarks.watching                        # prints the ratios
    python -m benchmarks.watching --into docs/checks.md  # and puts them into that page

Without watching, the step's loss and the gradient's norm are still logged; what is left out are the norms by layer, the
counts of updates out of range, the hidden units and the share of the largest class.
"""

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tests.in_process import load, settings
from threadpoolctl import threadpool_limits

from ablate.backends.engine import Epoch
from ablate.backends.numpy import NumpyEngine
from ablate.backends.numpy.group import Group
from ablate.report import markdown
from ablate.training import loop as train
from benchmarks import marks

ROUNDS = 15
CASES = {
    "LeNet-5, digits, 1 lane": (["epochs=6"], 1),
    "XOR, 64 lanes": (["data=xor", "model=mlp", "model.hidden=[10]", "epochs=3000"], 64),
}


def _log(group: Group, epoch: Epoch, column: int, loss: Any) -> None:
    """What a step's record needs, and no more."""
    lanes = np.array(group.active)
    squares = np.square(group.gradient, dtype=np.float64)
    epoch.step_loss[lanes, column] = loss
    epoch.gradient_norm[lanes, column] = np.sqrt(squares.sum(axis=1))
    epoch.output_gradient_norm[lanes, column] = np.sqrt(squares[:, group.output].sum(axis=1))


@contextmanager
def unwatched() -> Iterator[None]:
    """The engine without what watching adds."""

    def watched(loop: train._Loop, epoch: Epoch) -> dict[str, Any]:
        return {}

    with mock.patch.object(Group, "_log", _log), mock.patch.object(train._Loop, "_watched", watched):
        yield


def training(overrides: Sequence[str], lanes: int) -> Callable[[], float]:
    """A function that trains afresh and returns the seconds of processor time it took, whoever else is at work."""
    trials = [settings(*overrides, f"seed={seed}") for seed in range(lanes)]
    dataset = load(trials[0])
    network = train.architecture(trials[0], dataset)

    def run() -> float:
        each = [train.lane(trial, network) for trial in trials]
        engine = NumpyEngine(network, dataset, each, train.batch_size(trials[0], dataset))
        start = time.thread_time()
        train.train(trials, dataset, engine, train.Silent())
        return time.thread_time() - start

    return run


def measure(run: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Medians without and with watching, and the median of the rounds' ratios, each pair in turn first."""
    pairs = []
    for number in range(rounds):
        with_it = run() if number % 2 else 0.0
        with unwatched():
            without = run()
        pairs.append((without, with_it or run()))
    without, with_it = (statistics.median(side) for side in zip(*pairs, strict=True))
    return without, with_it, statistics.median(b / a for a, b in pairs)


def main() -> None:
    """Measure the cases, print a table, and put it into a page where one is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching", description=__doc__)
    parser.add_argument(
        "--into", type=Path, help="a page with the lines <!-- watching --> and <!-- end of watching -->"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    rows = []
    with threadpool_limits(1, user_api="blas"):
        for name, (overrides, lanes) in CASES.items():
            run = training(overrides, lanes)
            run()
            without, with_it, ratio = measure(run, given.rounds)
            rows.append([name, *(f"{figure:.3f}" for figure in (without, with_it, ratio))])
    today = f"{datetime.date.today():%Y-%m-%d}, {os.cpu_count()} cores, one thread"
    text = f"Its cost ({today}, medians of {given.rounds} alternating rounds, `python -m benchmarks.watching`):\n\n"
    text += markdown.table(["training", "seconds without watching", "with", "ratio"], rows)
    print(text)
    if given.into:
        marks.put(given.into, "watching", text)


if __name__ == "__main__":
    main()
