"""PyTorch on the GPU, against which `benchmarks.gpu` measures: bare training loops, as fast as is fair.

The data is on the GPU before the clock starts, an epoch's order goes there in one copy, and batches are gathered by
`index_select`. TF32 is off, as it is for ours, and cuDNN tries its algorithms out in the warm-up. Eager and graphs come
in both memory formats and with both of SGD's fast updates: the best of them counts. The graphs hold a whole update,
the gathering included, so that the host does nothing but replay them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.work import Work

Array = np.ndarray[Any, np.dtype[Any]]

# PyTorch's own advice: cuDNN and autograd settle in the first updates, which must not be captured.
UPDATES_BEFORE_CAPTURE = 3
FORMATS = {"": torch.contiguous_format, "channels_last, ": torch.channels_last}
UPDATES = {"fused SGD": {"fused": True}, "foreach SGD": {"foreach": True}}


class CaptureError(Exception):
    """An update that cannot become a CUDA graph."""


class Eager(peers.Eager):
    """One trial on the GPU."""

    def __init__(
        self, work: Work, device: torch.device, memory_format: torch.memory_format, update: dict[str, bool]
    ) -> None:
        super().__init__(work, [0], memory_format)
        self.network.to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=work.settings.lr, **update)

    @property
    def state_tensors(self) -> list[Tensor]:
        return list(self.network.parameters())


class Vmap(peers.Vmap):
    """Trials side by side on the GPU, by `torch.func`."""

    def __init__(self, work: Work, device: torch.device, lanes: int) -> None:
        super().__init__(work, range(lanes))
        self.state = {name: tensor.to(device) for name, tensor in self.state.items()}

    @property
    def state_tensors(self) -> list[Tensor]:
        return list(self.state.values())


Learner = Eager | Vmap


class Looped:
    """A learner whose updates the host launches operation by operation."""

    def __init__(self, work: Work, learner: Learner, device: torch.device) -> None:
        self.work, self.learner, self.device = work, learner, device
        self.x, self.y = on_device(work, device)

    def epoch(self, orders: Sequence[Array]) -> None:
        """Train for an epoch, and wait for its end."""
        for _ in self._updates(orders):
            pass
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def losses(self, orders: Sequence[Array]) -> Array:
        """Train for an epoch; the losses before its updates, `(S, K)`."""
        # A graph writes each loss to the same place.
        return torch.stack([loss.clone() for loss in self._updates(orders)]).cpu().numpy()

    def _updates(self, orders: Sequence[Array]) -> Iterator[Tensor]:
        for rows in by_step(orders, self.work.batch).to(self.device):
            yield self._update(rows)

    def _update(self, rows: Tensor) -> Tensor:
        return self.learner.step(self.x.index_select(0, rows), self.y.index_select(0, rows))


class Graphed(Looped):
    """A learner whose whole update is one CUDA graph. Raises CaptureError."""

    def __init__(self, work: Work, learner: Learner, device: torch.device) -> None:
        super().__init__(work, learner, device)
        # The graph reads and writes these: which rows each step takes, and the step it is at.
        self.order = by_step([np.arange(work.rows)] * _lanes(learner), work.batch).to(device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        before = [tensor.detach().clone() for tensor in learner.state_tensors]
        self._settle()
        self.graph, self.loss = self._captured()
        with torch.no_grad():
            for tensor, values in zip(learner.state_tensors, before, strict=True):
                tensor.copy_(values)

    def _updates(self, orders: Sequence[Array]) -> Iterator[Tensor]:
        self.order.copy_(by_step(orders, self.work.batch))
        self.step.zero_()
        for _ in range(len(self.order)):
            self.graph.replay()
            yield self.loss

    def _settle(self) -> None:
        """Update a few times on a stream of its own, and forget the gradients: the graph shall own its memory."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(UPDATES_BEFORE_CAPTURE):
                self.step.zero_()
                self._gathered_update()
        torch.cuda.current_stream().wait_stream(aside)
        for tensor in self.learner.state_tensors:
            tensor.grad = None

    def _captured(self) -> tuple[Any, Tensor]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                loss = self._gathered_update()
        except RuntimeError as error:
            raise CaptureError(str(error).strip().splitlines()[0]) from error
        return graph, loss

    def _gathered_update(self) -> Tensor:
        loss = self._update(self.order.index_select(0, self.step).flatten())
        self.step.add_(1)
        return loss


@cache
def on_device(work: Work, device: torch.device) -> tuple[Tensor, Tensor]:
    """The training set, once for all peers."""
    return peers.samples(work).to(device), torch.from_numpy(work.dataset.y_train).to(device)


def by_step(orders: Sequence[Array], batch: int) -> Tensor:
    """The lanes' orders as the rows of each update, one lane's after the other's: `(S, K batch)`, on the host."""
    stacked = torch.from_numpy(np.stack(orders))
    return stacked.unflatten(1, (-1, batch)).transpose(0, 1).flatten(1)


def plain_float32() -> None:
    """No TF32 in products and convolutions; the quickest algorithms that are left."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def makers(name: str, lanes: Sequence[int]) -> Iterator[tuple[str, str, int, Callable[[Work], Looped]]]:
    """Who runs on a device, `cuda` or `cpu`: kind, variant, lanes, and how it is made for a work.

    The graphs of `vmap` come last: a capture that fails may leave traces.
    """
    device = torch.device(name)
    kinds: dict[str, type[Looped]] = {"eager": Looped, "CUDA graphs": Graphed} if name == "cuda" else {"eager": Looped}
    for kind, run in kinds.items():
        for layout, memory_format in FORMATS.items():
            for update, options in UPDATES.items():
                learner = partial(Eager, device=device, memory_format=memory_format, update=options)
                yield kind, f"{layout}{update}", 1, partial(_made, run, learner, device)
    for kind, run in kinds.items():
        for count in (count for count in lanes if count > 1):
            yield "vmap", kind, count, partial(_made, run, partial(Vmap, device=device, lanes=count), device)


def versions() -> str:
    """What PyTorch's CUDA side consists of."""
    return f"PyTorch's CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _made(run: type[Looped], learner: Callable[[Work], Learner], device: torch.device, work: Work) -> Looped:
    return run(work, learner(work), device)


def _lanes(learner: Learner) -> int:
    return learner.lanes if isinstance(learner, Vmap) else 1
