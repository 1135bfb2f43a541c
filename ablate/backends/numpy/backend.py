"""The NumPy backend as the program sees it."""

from collections.abc import Sequence
from typing import ClassVar

from ablate.backends.backend import Backend
from ablate.backends.engine import Engine, Lane, Probe
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.layers import Activate, AvgPool, Conv, Dense, Divide, Dropout, Pool
from ablate.problem.losses import Loss
from ablate.problem.mistakes import Mistake
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer

# The layers that `network.py` has operations for.
LAYERS = (Activate, AvgPool, Conv, Dense, Divide, Dropout, Pool)


class NumpyBackend(Backend):
    """`backend=numpy`: the reference with which other backends are compared."""

    name: ClassVar[str] = "numpy"
    is_reference: ClassVar[bool] = True

    def refusal(self, loss: Loss, optimizer: Optimizer, architecture: Architecture, mistake: Mistake) -> str | None:
        unknown = [stage.layer for stage in architecture.stages if not isinstance(stage.layer, LAYERS)]
        return f"model.layers: {unknown[0]}: backend=numpy has no operation for this layer" if unknown else None

    def engine(
        self,
        architecture: Architecture,
        dataset: Dataset,
        lanes: Sequence[Lane],
        batch_size: int,
        device: str,
        processes: ProcessGroup | None = None,
    ) -> Engine:
        from ablate.backends.numpy.engine import NumpyEngine

        return NumpyEngine(architecture, dataset, lanes, batch_size, processes)

    def probe(self, architecture: Architecture, dataset: Dataset, lane: Lane, device: str) -> Probe:
        from ablate.backends.numpy.probe import NumpyProbe

        return NumpyProbe(architecture, dataset, lane)

    def largest_process_group(self, architecture: Architecture, batch_size: int) -> int:
        from ablate.backends.numpy.layout import Layout

        return len(Layout(architecture).partial_sums(batch_size))
