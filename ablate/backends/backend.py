"""What the program asks of a backend before and around its engines."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ablate.backends.engine import Engine, Lane, Probe
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import Loss
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer


class Backend(ABC):
    """Who computes, `backend=NAME`.

    `devices` are the values of `device` that it knows, none where it takes no notice. `is_reference`: what it computes
    needs no comparison with another backend. `cause_of_death` is what is said of a worker process that died.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ()
    is_reference: ClassVar[bool] = False
    cause_of_death: ClassVar[str] = "out of memory?"

    def unavailable(self, device: str) -> str | None:
        """Why it cannot be used here on this device, in one line; None where it can."""
        return None

    def refusal(self, loss: Loss, optimizer: Optimizer, architecture: Architecture) -> str | None:
        """Why it cannot compute such a trial, in one line; None where it can."""
        return None

    @abstractmethod
    def engine(
        self,
        architecture: Architecture,
        dataset: Dataset,
        lanes: Sequence[Lane],
        batch_size: int,
        device: str,
        processes: ProcessGroup | None = None,
    ) -> Engine:
        """An engine for lanes of one architecture and one mistake on one data set.

        The process shares the work with the others of its group, if there are any. Raises ConfigError where the device
        cannot be had.
        """

    @abstractmethod
    def probe(self, architecture: Architecture, dataset: Dataset, lane: Lane, device: str) -> Probe:
        """The gradient that it computes for one lane, for the checks before training."""

    def most_processes(self, device: str) -> int | None:
        """Over how many processes the lanes of a cohort may be spread at most; None: any number."""
        return None

    def stays_in_process(self) -> bool:
        """Whether everything must run in the process that the sweep was started in."""
        return False

    def largest_process_group(self, architecture: Architecture, batch_size: int) -> int:
        """How many processes can share the work on one batch."""
        return 1

    def turn(self, device: str) -> contextlib.AbstractContextManager[object]:
        """What must be held while its engine works: a lock where one process at a time may use the device."""
        return contextlib.nullcontext()
