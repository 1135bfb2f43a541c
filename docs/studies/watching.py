"""What watching during training costs: the same training with and without it, alternating, in one process.

    python -m docs.studies.watching                        # prints the ratios
    python -m docs.studies.watching --into docs/checks.md  # and puts them into that page

With it is training as it is by default, about 500 logged steps a trial; without it no step is logged after the first
(`log_every` is larger than their number), and so nothing is watched but the share of the largest class. The time is the
processor's, so that other programs count as little as can be.
"""

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

import ablate
from ablate.training.loop import Silent, train
from ablate.trials.prepared import engine
from benchmarks import marks
from benchmarks.templates import render

TEMPLATE = Path(__file__).resolve().parent / "templates" / "watching.md.j2"
ROUNDS = 15
NEVER = "log_every=1000000000"
CASES = {
    "LeNet-5, digits, 1 lane": (["epochs=6"], 1),
    "XOR, 64 lanes": (["data=xor", "model=mlp", "model.hidden=[10]", "epochs=3000"], 64),
}


def training(overrides: Sequence[str], lanes: int) -> Callable[[], float]:
    """A function that trains afresh and returns the seconds of processor time it took, whoever else is at work."""
    trials = ablate.compose(*overrides, f"seed=range(0,{lanes})")
    first = ablate.prepare(trials[0].settings)
    cohort = [first, *(ablate.prepare(trial.settings, first.dataset) for trial in trials[1:])]

    def run() -> float:
        made = engine(cohort)
        start = time.thread_time()
        train(cohort, made, Silent())
        return time.thread_time() - start

    return run


def measure(overrides: Sequence[str], lanes: int, rounds: int) -> tuple[float, float, float]:
    """Medians without and with watching, and the median of the rounds' ratios, each of the two first in turn."""
    without, with_it = training([*overrides, NEVER], lanes), training(overrides, lanes)
    with_it()
    pairs = []
    for number in range(rounds):
        if number % 2:
            later = with_it()
            pairs.append((without(), later))
        else:
            pairs.append((without(), with_it()))
    middle, middle_with = (statistics.median(side) for side in zip(*pairs, strict=True))
    return middle, middle_with, statistics.median(b / a for a, b in pairs)


def main() -> None:
    """Measure the cases, print a table, and put it into a page where one is named."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.studies.watching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--into", type=Path, help="a page with the lines <!-- watching --> and <!-- end of watching -->"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):
        rows = [
            [name, *(f"{figure:.3f}" for figure in measure(overrides, lanes, given.rounds))]
            for name, (overrides, lanes) in CASES.items()
        ]
    text = render(TEMPLATE, date=datetime.date.today(), cores=os.cpu_count(), rounds=given.rounds, rows=rows)
    print(text)
    if given.into:
        marks.put(given.into, "watching", text)


if __name__ == "__main__":
    main()
