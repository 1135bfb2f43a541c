"""How near ours comes to what the processor can do, and where the rest of the time goes.

The floor of a training is the time of its matrix products alone (GEMM) at the rate that a large float32 product reaches
on the same cores. Products of small matrices never get there, and everything else comes on top.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from ablate.backends.numpy.network import Network
from ablate.problem import models
from benchmarks.rounds import Figures, Samples, repeated
from benchmarks.work import Work

SIDE, TRIES = 2048, 3
# By the case whose work it is: trained here on one core, whatever the case itself does.
WORKS: Mapping[str, Callable[[], Work]] = {
    "lenet5_mnist_core": lambda: Work("model=lenet5", "data=mnist", "epochs=1"),
    "digits": lambda: Work("model=lenet5", "epochs=10"),
    "softmax": lambda: Work("model=softmax_regression", "data=mnist", "batch_size=64", "epochs=2", lanes=8),
    "xor": lambda: Work("model=mlp", "model.hidden=[10]", "data=xor", "epochs=2000", lanes=64),
}


def measure(rounds: int) -> Samples:
    """GFLOP a second of large products by cores, and per case its GFLOP and the parts of its time."""
    works = {name: make() for name, make in WORKS.items()}
    counted = {f"{name}/gflop": gflop(work) for name, work in works.items()}

    def once() -> Figures:
        figures = {f"peak/{cores}": peak(cores) for cores in (1, 2)}
        for name, work in works.items():
            figures |= {f"{name}/{part}": figure for part, figure in parts(work).items()}
        return counted | figures

    return repeated(once, rounds)


def peak(cores: int) -> float:
    """GFLOP a second of a large float32 product: the best of a few."""
    a, b, c = np.ones((3, SIDE, SIDE), np.float32)
    with threadpool_limits(cores, user_api="blas"):
        seconds = []
        for _ in range(TRIES):
            start = time.perf_counter()
            np.matmul(a, b, out=c)
            seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(seconds) / 1e9


def gflop(work: Work) -> float:
    """Floating-point operations of an epoch's matrix products, one trial: forward, and both gradients.

    A product of (m, k) and (k, n) is 2 m n k. The gradient by the input of the first layer is not needed.
    """
    forward = [_forward(stage) for stage in work.architecture.stages if stage.parameters]
    return work.rows * (3 * sum(forward) - forward[0]) / 1e9


def _forward(stage: models.Stage) -> int:
    """Operations of a layer for one sample."""
    weight = stage.parameters[0]
    places = prod(stage.after[1:])  # 1 for a dense layer
    return 2 * weight.size * places


class Stopwatch:
    """Adds up how long calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def parts(work: Work) -> dict[str, float]:
    """Seconds per trial and epoch on one core, and those in matrix products and in the rest of the layers.

    The stopwatches cost something themselves, which shows where steps are short: `timed` against `total`.
    """
    products, layers = Stopwatch(), Stopwatch()
    total = work.on_one_core()
    with mock.patch.object(np, "matmul", products.around(np.matmul)), _timed_layers(layers):
        timed = work.on_one_core()
    share = 1 / len(work.trials) / work.settings.epochs
    return {
        "total": total,
        "timed": timed,
        "products": products.seconds * share,
        "rest of the layers": (layers.seconds - products.seconds) * share,
    }


@contextmanager
def _timed_layers(watch: Stopwatch) -> Iterator[None]:
    """Every network made meanwhile has its layers' steps timed, forward and backward."""
    make = Network.__init__

    def timed(network: Network, *given: Any, **named: Any) -> None:
        make(network, *given, **named)
        network.forwards[:] = [watch.around(step) for step in network.forwards]
        network.backwards[:] = [watch.around(step) for step in network.backwards]

    with mock.patch.object(Network, "__init__", timed):
        yield
