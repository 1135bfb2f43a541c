"""The cases: what is measured, against whom, and what is aimed at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks import growth, recording, roofline, shell
from benchmarks.rounds import Samples, alternate
from benchmarks.work import Work

TORCH, MNIST = "PyTorch (pip install -e '.[benchmarks]')", "ABLATE_DATA (a folder with mnist/)"
OURS, DIFFERENCE = "ours", "difference: "


@dataclass(frozen=True)
class Race:
    """Ours against peers, in seconds per trial and epoch, with so many sets of BLAS kernels.

    `target` is how many times as fast as the best of them ours shall be: with AVX-512 kernels, and with AVX2's.
    """

    title: str
    words: Sequence[str]
    lanes: int
    ours: Callable[[Work], float]
    peers: Sequence[str]
    peer_epochs: int
    target: tuple[float, float] | None
    needs: Sequence[str] = (TORCH,)
    rounds: int | None = None
    kernels: int = 2

    def measure(self, rounds: int) -> Samples:
        """Everybody's seconds, and how much each peer's numbers differ from ours. Raises DisagreementError."""
        from benchmarks.agreement import check
        from benchmarks.peers import PEERS

        work = Work(*self.words, lanes=self.lanes)
        makers = {name: PEERS[name] for name in self.peers}
        differences = {f"{DIFFERENCE}{name}": [worst] for name, worst in check(work, makers).items()}
        runs = {name: partial(make(work).seconds, self.peer_epochs) for name, make in makers.items()}
        return alternate({OURS: partial(self.ours, work), **runs}, rounds) | differences


@dataclass(frozen=True)
class Limit:
    """A figure that shall stay below a limit; `figure` names it among those measured."""

    title: str
    run: Callable[[int], Samples]
    figure: str
    unit: str
    most: float
    needs: Sequence[str] = ()
    rounds: int | None = None
    kernels: int = 1

    def measure(self, rounds: int) -> Samples:
        return self.run(rounds)


@dataclass(frozen=True)
class Survey:
    """Figures that have no target."""

    title: str
    run: Callable[[int], Samples]
    needs: Sequence[str] = ()
    rounds: int | None = None
    kernels: int = 1

    def measure(self, rounds: int) -> Samples:
        return self.run(rounds)


Case = Race | Limit | Survey


def _alone(name: str, run: Callable[[], float], rounds: int) -> Samples:
    return alternate({name: run}, rounds)


_LENET5 = ("model=lenet5", "data=mnist")
_EAGER_ON_TWO = ("PyTorch, 2 threads", "PyTorch, 1 thread", "PyTorch channels_last, 2 threads")
_EAGER_ON_ONE = ("PyTorch, 1 thread", "PyTorch channels_last, 1 thread")

_XOR_SWEEP = ("-m", "data=xor", "model=mlp", "model.hidden=[10]", "epochs=5000", "seed=range(0,64)")
_MNIST_SWEEP = ("-m", "data=mnist", "epochs=1", "seed=range(0,8)")

CASES: Mapping[str, Case] = {
    "lenet5_mnist": Race(
        "LeNet-5, MNIST, batch 300: one trial on two cores",
        (*_LENET5, "epochs=5"),
        lanes=1,
        ours=Work.on_all_cores,
        peers=_EAGER_ON_TWO,
        peer_epochs=1,
        target=(2.0, 1.6),
        needs=(TORCH, MNIST),
    ),
    "lenet5_mnist_core": Race(
        "LeNet-5, MNIST, batch 300: one trial on one core",
        (*_LENET5, "epochs=5"),
        lanes=1,
        ours=Work.on_one_core,
        peers=_EAGER_ON_ONE,
        peer_epochs=1,
        target=(2.2, 1.6),
        needs=(TORCH, MNIST),
    ),
    "lenet5_sweep": Race(
        "LeNet-5, MNIST, batch 300: a sweep of 8 trials and one epoch on two cores",
        (*_LENET5, "epochs=1"),
        lanes=8,
        ours=Work.on_all_cores,
        peers=("PyTorch, 2 processes", "PyTorch channels_last, 2 processes"),
        peer_epochs=1,
        target=(2.2, 1.5),
        needs=(TORCH, MNIST),
    ),
    "digits": Race(
        "LeNet-5, digits, batch 32: one trial on two cores",
        ("model=lenet5", "epochs=60"),
        lanes=1,
        ours=Work.on_all_cores,
        peers=(*_EAGER_ON_TWO, "PyTorch channels_last, 1 thread"),
        peer_epochs=5,
        target=(2.0, 2.0),
    ),
    "softmax": Race(
        "Softmax regression, MNIST, batch 64: 8 trials on one core",
        ("model=softmax_regression", "data=mnist", "batch_size=64", "epochs=2"),
        lanes=8,
        ours=Work.on_one_core,
        peers=("PyTorch, 1 thread", "PyTorch vmap, 1 thread", "PyTorch baddbmm, 1 thread"),
        peer_epochs=1,
        target=(3.0, 3.0),
        needs=(TORCH, MNIST),
    ),
    "xor": Race(
        "XOR, 10 hidden units, 5,000 epochs: 64 trials on two cores",
        ("model=mlp", "model.hidden=[10]", "data=xor", "epochs=5000"),
        lanes=64,
        ours=Work.on_all_cores,
        peers=(
            "PyTorch, 1 thread",
            "PyTorch vmap, 1 thread",
            "PyTorch vmap, 2 threads",
            "PyTorch baddbmm, 1 thread",
            "PyTorch baddbmm, 2 threads",
        ),
        peer_epochs=500,
        target=(20.0, 20.0),
    ),
    "mlp_digits": Race(
        "30 sigmoid units, digits, batch 32: one trial on one core",
        ("model=mlp", "epochs=50"),
        lanes=1,
        ours=Work.on_one_core,
        peers=("scikit-learn", "PyTorch, 1 thread"),
        peer_epochs=50,
        target=None,
    ),
    "from_the_shell": Limit(
        "`python -m ablate -m loss=mse,ce lr=0.1,0.5`",
        partial(_alone, "seconds", partial(shell.seconds, "-m", "loss=mse,ce", "lr=0.1,0.5")),
        figure="seconds",
        unit="s",
        most=10.0,
    ),
    "from_the_shell_xor": Limit(
        f"`python -m ablate {' '.join(_XOR_SWEEP)}`",
        partial(_alone, "seconds", partial(shell.seconds, *_XOR_SWEEP)),
        figure="seconds",
        unit="s",
        most=15.0,
    ),
    "records": Limit(
        "Share of MLflow and local records in a sweep of LeNet-5, MNIST, 8 trials, 5 epochs, after start-up",
        recording.measure,
        figure="share",
        unit="%",
        most=5.0,
        needs=(MNIST,),
        rounds=3,
    ),
    "memory": Limit(
        f"Peak memory of `python -m ablate {' '.join(_MNIST_SWEEP)}`, all processes",
        partial(_alone, "memory", partial(shell.memory, *_MNIST_SWEEP)),
        figure="memory",
        unit="GB",
        most=1.5,
        needs=(MNIST,),
        rounds=3,
    ),
    "roofline": Survey("How near to the processor's limits", roofline.measure, needs=(MNIST,), kernels=2),
    "growth": Survey("How cost grows", growth.measure, needs=(MNIST,), rounds=3),
}
