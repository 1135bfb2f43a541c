"""The kernels' gradient of one lane, for the checks before training."""

from typing import Any

import numpy as np

from ablate.backends.cuda.device import Device
from ablate.backends.cuda.engine import CudaEngine
from ablate.backends.cuda.epochs import Stepwise
from ablate.backends.engine import Lane
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture

Array = np.ndarray[Any, np.dtype[Any]]


class CudaProbe:
    """The gradient of one lane on the whole of a small training set, by the reference kernels."""

    def __init__(self, architecture: Architecture, dataset: Dataset, lane: Lane, device: Device) -> None:
        rows = len(dataset.y_train)
        self.engine = CudaEngine(architecture, dataset, [lane], rows, device, Stepwise())

    def gradient(self) -> dict[str, Array]:
        """The gradient as coded, the mistake included, by public names; a second call shows state left by the first."""
        return self.engine.gradient(0)
