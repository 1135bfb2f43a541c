"""What the program asks of a backend besides its engines."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from ablate.backends.engine import Engine, Lane, Probe
from ablate.backends.process_group import ProcessGroup
from ablate.problem.data.dataset import Dataset
from ablate.problem.losses import Loss
from ablate.problem.mistakes import Mistake
from ablate.problem.models import Architecture
from ablate.problem.optimizers import Optimizer


class Backend(ABC):
    """What computes the trials, `backend=NAME`.

    `devices` are the values of `device` that it knows, none if it ignores the key. `is_reference`: whether other
    backends are compared with it. `cause_of_death` is the likely reason, given to the user, if a worker process dies;
    `fault` is what is wrong where it computes other numbers than the reference does.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ()
    is_reference: ClassVar[bool] = False
    cause_of_death: ClassVar[str] = "out of memory?"
    fault: ClassVar[str] = "the mathematics is right, the backend is not"

    @property
    def possessive(self) -> str:
        """Whose the numbers are that it computes, in a message."""
        return f"backend={self.name}'s"

    def unavailable(self, device: str) -> str | None:
        """Why it cannot be used here on this device, in one line; None if it can."""
        return None

    def refusal(self, loss: Loss, optimizer: Optimizer, architecture: Architecture, mistake: Mistake) -> str | None:
        """Why it cannot compute such a trial, in one line; None if it can."""
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

        The process shares the work with the others of its group, if there are any. Raises ConfigError if the device is
        not available.
        """

    @abstractmethod
    def probe(self, architecture: Architecture, dataset: Dataset, lane: Lane, device: str) -> Probe:
        """A probe of the gradient that it computes for one lane, for the checks before training."""

    def most_processes(self, device: str) -> int | None:
        """The largest number of processes over which the lanes of a cohort may be spread; None: any number."""
        return None

    def stays_in_process(self) -> bool:
        """Whether everything must run in the process in which the sweep was started."""
        return False

    def largest_process_group(self, architecture: Architecture, batch_size: int) -> int:
        """The largest number of processes that can share the work on one batch."""
        return 1

    def turn(self, device: str) -> contextlib.AbstractContextManager[object]:
        """What must be held while its engine works: a lock if only one process at a time may use the device."""
        return contextlib.nullcontext()
