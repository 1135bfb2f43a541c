"""The others: bare training loops in PyTorch and scikit-learn, without evaluation, records or checks.

They see the same data in the same order as ours, fitted to the network and in memory before the clock starts.
PyTorch is made as fast as it goes without computing something else: rows are gathered by `index_select` (twice as fast
as indexing, and faster than to order the whole set once an epoch), ReLU works in place, and a convolution over
the whole of its input is a `Linear`, which it equals. To pool before ReLU changed nothing, and is left out.
"""

import contextlib
import math
import multiprocessing
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ablate.problem import layers, models
from ablate.training.loop import Orders
from benchmarks.work import Work

Array = np.ndarray[Any, np.dtype[Any]]
Updates = tuple[list[list[float]], list[dict[str, Array]]]

FUNCTIONS = {"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "relu": nn.ReLU(inplace=True)}


class Peer(Protocol):
    """Trains some of a workload's trials, from their initial weights each time."""

    @property
    def lanes(self) -> Sequence[int]:
        """Which of them."""
        ...

    def seconds(self, epochs: int) -> float:
        """Seconds per trial and epoch."""
        ...

    def updates(self, count: int) -> Updates:
        """Updates with the whole training set as one batch: each one's loss before it, and at last the weights.

        Losses are by update and lane, weights by lane, under their public names and shapes.
        """
        ...


# Data and weights, as PyTorch wants them


def initial_weights(work: Work, lane: int) -> dict[str, Array]:
    """A trial's own initial weights, in float32."""
    return {name: weight.astype(np.float32) for name, weight in work.prepared[lane].initial_weights().items()}


@cache
def samples(work: Work) -> Tensor:
    """The training set as the first layer takes it: images fitted to the network, or flat vectors."""
    x, network = work.dataset.x_train, work.architecture
    if isinstance(network.stages[0].layer, layers.Dense):
        return torch.from_numpy(x.reshape(len(x), -1))
    if network.fitted != network.sample:
        channels, height, width = network.sample
        pixels = np.pad(x.reshape(len(x), channels, height * width), ((0, 0), (0, 0), (0, 1)))
        x = np.ascontiguousarray(pixels[:, :, models.fit_indices(network.sample, network.fitted)])
    return torch.from_numpy(x)


def _inward(name: str, weight: Array, shape: Sequence[int]) -> Tensor:
    """A public weight in the shape that PyTorch's layer has: `dense` is (in, out) here and (out, in) there."""
    turned = weight.T if name.startswith("dense") else weight
    return torch.from_numpy(turned.reshape(shape).copy())


def _outward(parameter: models.Parameter, weight: Tensor) -> Array:
    array = weight.detach().numpy()
    return (array.T if parameter.name.startswith("dense") else array).reshape(parameter.shape).copy()


def network(architecture: models.Architecture) -> nn.Sequential:
    """The same layers in PyTorch, named as ours are."""
    modules = OrderedDict[str, nn.Module]()
    for number, stage in enumerate(architecture.stages):
        if number and len(stage.before) == 3 and _is_affine(stage):
            modules[f"flatten{number}"] = nn.Flatten()
        modules[stage.name or f"layer{number}"] = _layer(stage)
    return nn.Sequential(modules)


def _is_affine(stage: models.Stage) -> bool:
    """Whether every output depends on the whole input: dense layers, and convolutions as large as their image."""
    layer = stage.layer
    return isinstance(layer, layers.Dense) or (isinstance(layer, layers.Conv) and layer.covers(stage.before))


def _layer(stage: models.Stage) -> nn.Module:
    if _is_affine(stage):
        return nn.Linear(math.prod(stage.before), stage.after[0])
    match stage.layer:
        case layers.Conv(channels, kernel, stride, padding):
            return nn.Conv2d(stage.before[0], channels, kernel, stride, padding)
        case layers.AvgPool(size):
            return nn.AvgPool2d(size)
        case layers.Pool(size):
            return nn.MaxPool2d(size)
        case layers.Activate(activation):
            return FUNCTIONS[activation.name]
        case other:
            raise NotImplementedError(f"{other} in PyTorch")


# One update


class Eager:
    """One trial as PyTorch's users write it."""

    def __init__(self, work: Work, lanes: Sequence[int], memory_format: torch.memory_format) -> None:
        [lane] = lanes
        self.parameters, self.memory_format = work.architecture.parameters, memory_format
        self.network = network(work.architecture)
        shapes = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        weights = initial_weights(work, lane)
        self.network.load_state_dict({name: _inward(name, weights[name], shape) for name, shape in shapes.items()})
        self.network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=work.settings.lr, fused=True)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Update with one batch; its loss before, `(1,)`."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(x.contiguous(memory_format=self.memory_format)), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()[None]

    def weights(self) -> list[dict[str, Array]]:
        state = self.network.state_dict()
        return [{each.name: _outward(each, state[each.name]) for each in self.parameters}]


class Vmap:
    """Trials side by side by `torch.func`: one network, stacked weights."""

    def __init__(self, work: Work, lanes: Sequence[int]) -> None:
        self.parameters, self.lanes, self.rate = work.architecture.parameters, len(lanes), work.settings.lr
        module = network(work.architecture)
        each = [initial_weights(work, lane) for lane in lanes]
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        self.state = {
            name: torch.stack([_inward(name, weights[name], shape) for weights in each])
            for name, shape in shapes.items()
        }

        def loss(state: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(module, dict(state), (x,)), y)

        self.differentiate = vmap(grad_and_value(loss))

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Update with one batch a lane, one after the other on the first axis; losses before, `(K,)`."""
        gradient, losses = self.differentiate(
            self.state, x.unflatten(0, (self.lanes, -1)), y.unflatten(0, (self.lanes, -1))
        )
        torch._foreach_sub_(
            list(self.state.values()), [gradient[name] for name in self.state], alpha=self.rate
        )  # the quickest way to update
        return losses

    def weights(self) -> list[dict[str, Array]]:
        return [
            {each.name: _outward(each, self.state[each.name][lane]) for each in self.parameters}
            for lane in range(self.lanes)
        ]


class Stacked:
    """Trials side by side by hand: dense layers as `baddbmm` over stacked weights, and autograd."""

    def __init__(self, work: Work, lanes: Sequence[int]) -> None:
        self.stages, self.lanes = work.architecture.stages, len(lanes)
        each = [initial_weights(work, lane) for lane in lanes]
        self.state = {
            name: torch.from_numpy(np.stack([weights[name] for weights in each])).requires_grad_() for name in each[0]
        }
        self.optimizer = torch.optim.SGD(list(self.state.values()), lr=work.settings.lr, fused=True)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Update with one batch a lane, one after the other on the first axis; losses before, `(K,)`."""
        self.optimizer.zero_grad()
        z = x.unflatten(0, (self.lanes, -1))
        for stage in self.stages:
            if isinstance(stage.layer, layers.Activate):
                z = FUNCTIONS[stage.layer.activation.name](z)
            else:
                z = torch.baddbmm(self.state[f"{stage.name}.bias"].unsqueeze(1), z, self.state[f"{stage.name}.weight"])
        losses = F.cross_entropy(z.flatten(0, 1), y, reduction="none").unflatten(0, (self.lanes, -1)).mean(1)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def weights(self) -> list[dict[str, Array]]:
        arrays = {name: stacked.detach().numpy() for name, stacked in self.state.items()}
        return [{name: stacked[lane].copy() for name, stacked in arrays.items()} for lane in range(self.lanes)]


# Whole trainings


class Torch:
    """Trains lanes in PyTorch, in this process: all at once, or the one there is."""

    def __init__(self, work: Work, learner: Callable[..., Any], threads: int, lanes: Sequence[int]) -> None:
        self.work, self.learner, self.threads, self.lanes = work, learner, threads, lanes
        self.x, self.y = samples(work), torch.from_numpy(work.dataset.y_train)

    def seconds(self, epochs: int) -> float:
        torch.set_num_threads(self.threads)
        learner = self.learner(self.work, self.lanes)
        start = time.perf_counter()
        for x, y in self._batches(epochs):
            learner.step(x, y)
        return (time.perf_counter() - start) / len(self.lanes) / epochs

    def updates(self, count: int) -> Updates:
        learner, (x, y) = self.learner(self.work, self.lanes), self._whole()
        losses = [learner.step(x, y).tolist() for _ in range(count)]
        return losses, learner.weights()

    def _whole(self) -> tuple[Tensor, Tensor]:
        """The whole training set as one batch, once a lane."""
        rows = torch.arange(self.work.rows).repeat(len(self.lanes))
        return self.x[rows], self.y[rows]

    def _batches(self, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self.work.batch == self.work.rows:
            yield from repeat(self._whole(), epochs)
            return
        trials = [self.work.trials[lane].settings for lane in self.lanes]
        orders = Orders(trials, self.work.rows, self.work.batch)
        for _ in range(epochs):
            for rows in torch.from_numpy(np.stack(orders.next())).split(self.work.batch, dim=1):
                chosen = rows.flatten()
                yield self.x.index_select(0, chosen), self.y.index_select(0, chosen)


class Processes:
    """Two processes of one thread each, each training its half of the trials one after the other."""

    def __init__(self, work: Work, memory_format: torch.memory_format) -> None:
        self.work, self.memory_format, self.lanes = work, memory_format, range(len(work.trials))
        self.ends: list[Connection] = []

    def seconds(self, epochs: int) -> float:
        if not self.ends:
            self._start()
        start = time.perf_counter()
        for end in self.ends:
            end.send(epochs)
        for end in self.ends:
            end.recv()
        return (time.perf_counter() - start) / len(self.lanes) / epochs

    def updates(self, count: int) -> Updates:
        """Those of its trials one by one: the processes do nothing else."""
        each = [peer.updates(count) for peer in _one_by_one(self.work, self.lanes, self.memory_format)]
        losses = [[lane[update][0] for lane, _ in each] for update in range(count)]
        return losses, [weights[0] for _, weights in each]

    def _start(self) -> None:
        """Start the processes, and wait until each has its data."""
        context = multiprocessing.get_context("spawn")
        middle = len(self.lanes) // 2
        for lanes in (self.lanes[:middle], self.lanes[middle:]):
            here, there = context.Pipe()
            context.Process(
                target=_serve, args=(there, self.work.words, lanes, self.memory_format), daemon=True
            ).start()
            self.ends.append(here)
        for end in self.ends:
            end.recv()


def _one_by_one(work: Work, lanes: Sequence[int], memory_format: torch.memory_format) -> list[Torch]:
    return [Torch(work, partial(Eager, memory_format=memory_format), 1, [lane]) for lane in lanes]


def _serve(end: Connection, words: Sequence[str], lanes: Sequence[int], memory_format: torch.memory_format) -> None:
    """What one of the processes does: train its lanes as often as it is told to."""
    mine = _one_by_one(Work(*words, lanes=max(lanes) + 1), lanes, memory_format)
    end.send("ready")
    with contextlib.suppress(EOFError):  # the other end is gone
        while True:
            epochs = end.recv()
            for peer in mine:
                peer.seconds(epochs)
            end.send("done")


class ScikitLearn:
    """`MLPClassifier` with plain SGD, one trial on one core; its weights are its own, its order too."""

    lanes = (0,)

    def __init__(self, work: Work) -> None:
        self.work, self.x = work, samples(work).numpy()

    def seconds(self, epochs: int) -> float:
        model = self._model(epochs)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = time.perf_counter()
            model.fit(self.x, self.work.dataset.y_train)
            return (time.perf_counter() - start) / epochs

    def updates(self, count: int) -> Updates:
        """As the other peers': the first `partial_fit` makes the network, whose weights are then replaced by ours.

        Each further one is one update, and leaves the loss before it in `loss_`; without momentum nothing else is
        remembered of the first. So losses and weights can be checked as PyTorch's are.
        """
        model, y = self._model(1), self.work.dataset.y_train
        names = [parameter.name for parameter in self.work.architecture.parameters]
        model.partial_fit(self.x, y, classes=range(self.work.dataset.classes))
        weights = initial_weights(self.work, 0)
        model.coefs_ = [weights[name].copy() for name in names if name.endswith(".weight")]
        model.intercepts_ = [weights[name].copy() for name in names if name.endswith(".bias")]
        losses = []
        for _ in range(count):
            model.partial_fit(self.x, y)
            losses.append([float(model.loss_)])
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        return losses, [dict(zip(names, (array for pair in pairs for array in pair), strict=True))]

    def _model(self, epochs: int) -> MLPClassifier:
        hidden = [stage.layer.units for stage in self.work.architecture.stages if isinstance(stage.layer, layers.Dense)]
        activation = {"sigmoid": "logistic", "relu": "relu", "tanh": "tanh"}[self.work.settings.model.activation]
        return MLPClassifier(
            hidden[:-1],
            activation=activation,
            solver="sgd",
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            learning_rate="constant",
            learning_rate_init=self.work.settings.lr,
            batch_size=min(self.work.batch, self.work.rows),
            shuffle=True,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=10 * epochs,
            random_state=0,
        )


def _eager(threads: int, memory_format: torch.memory_format = torch.contiguous_format) -> Callable[[Work], Peer]:
    """The first trial alone."""
    return lambda work: Torch(work, partial(Eager, memory_format=memory_format), threads, [0])


def _together(learner: Callable[..., Any], threads: int) -> Callable[[Work], Peer]:
    return lambda work: Torch(work, learner, threads, range(len(work.trials)))


def _processes(memory_format: torch.memory_format) -> Callable[[Work], Peer]:
    return lambda work: Processes(work, memory_format)


PEERS: Mapping[str, Callable[[Work], Peer]] = {
    "PyTorch, 1 thread": _eager(1),
    "PyTorch, 2 threads": _eager(2),
    "PyTorch channels_last, 1 thread": _eager(1, torch.channels_last),
    "PyTorch channels_last, 2 threads": _eager(2, torch.channels_last),
    "PyTorch, 2 processes": _processes(torch.contiguous_format),
    "PyTorch channels_last, 2 processes": _processes(torch.channels_last),
    "PyTorch vmap, 1 thread": _together(Vmap, 1),
    "PyTorch vmap, 2 threads": _together(Vmap, 2),
    "PyTorch baddbmm, 1 thread": _together(Stacked, 1),
    "PyTorch baddbmm, 2 threads": _together(Stacked, 2),
    "scikit-learn": ScikitLearn,
}
