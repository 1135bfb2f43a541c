"""Contenders measured in turns, so that whatever else the machine does meets them alike."""

import sys
from collections.abc import Callable, Mapping

Samples = dict[str, list[float]]
Figures = Mapping[str, float]


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Each contender's figure in each round, after one round that only warms up."""

    def once() -> Figures:
        return {name: run() for name, run in contenders.items()}

    return repeated(once, rounds)


def repeated(once: Callable[[], Figures], rounds: int) -> Samples:
    """The figures of several rounds by their names, after one round that only warms up."""
    _tell("warming up")
    once()
    samples: Samples = {}
    for number in range(rounds):
        _tell(f"round {number + 1} of {rounds}")
        for name, figure in once().items():
            samples.setdefault(name, []).append(figure)
    return samples


def _tell(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
