"""What runs in a worker process: the training of one chunk."""

import contextlib
import getpass
import logging
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from threadpoolctl import threadpool_limits

from ablate.backends import cuda
from ablate.backends.engine import Engine, Lane
from ablate.backends.numpy import Member, NumpyEngine, Team
from ablate.config.schema import Settings
from ablate.diagnosis import checks as check
from ablate.problem import mistakes as bugs
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture
from ablate.records.recorder import Recorder
from ablate.records.sweep_folder import SweepFolder
from ablate.training import loop as train
from ablate.trials.cohorts import chunks
from ablate.trials.trial import Trial

log = logging.getLogger("ablate")


@dataclass(frozen=True)
class Seat:
    """A process's place in the training of a chunk: alone, or one of a team that meets in a folder."""

    rank: int = 0
    size: int = 1
    folder: Path = Path()

    def team(self) -> Team:
        return Member(self.folder, self.rank, self.size) if self.size > 1 else Team()


def train_chunk(folder: SweepFolder, trials: Sequence[Trial], dataset: Dataset, seat: Seat = Seat()) -> int:
    """Train trials of one cohort together, in this process, and write their folders; returns the first's number.

    Whatever goes wrong is in the trials' rows: nothing but an interrupt is raised. Where a device has too little memory
    for all of them, they are trained in halves, one after the other.
    """
    settings = [trial.settings for trial in trials]
    recorder = Recorder(folder, trials)
    halves: Sequence[Sequence[Trial]] = ()
    try:
        with threadpool_limits(1, user_api="blas"), contextlib.closing(seat.team()) as team, _turn(settings[0]):
            recorder.checked(check.check_all(settings, dataset))
            _train_lanes(settings, dataset, team, recorder)
    except cuda.DeviceMemoryError as error:
        if len(trials) > 1 and recorder.unfinished == set(range(len(trials))):
            log.warning("%s: %d trials are trained in halves", error, len(trials))
            halves = chunks(trials, 2)
        else:
            recorder.fail(f"{type(error).__name__}: {error}")
    except (Exception, SystemExit) as error:
        _log_error(folder)
        recorder.fail(f"{type(error).__name__}: {' '.join(str(error).split())}")
    finally:
        recorder.close()
    for half in halves:
        train_chunk(folder, half, dataset)
    return trials[0].number


def _turn(settings: Settings) -> contextlib.AbstractContextManager[object]:
    """One process at a time has the GPU: each takes as much of its memory as there is, and blocks that wait for each
    other must all be resident."""
    if settings.backend == "numpy" or settings.device == "emulated":
        return contextlib.nullcontext()
    return FileLock(Path(tempfile.gettempdir()) / f"ablate-gpu-{getpass.getuser()}.lock")


def help_to_train(folder: SweepFolder, trials: Sequence[Trial], dataset: Dataset, seat: Seat) -> None:
    """Train the same trials as another process of the team does, and write nothing.

    What goes wrong here ends the team, and the one that records says so.
    """
    try:
        with threadpool_limits(1, user_api="blas"), contextlib.closing(seat.team()) as team:
            _train_lanes([trial.settings for trial in trials], dataset, team, train.Silent())
    except (Exception, SystemExit):
        _log_error(folder)


def _train_lanes(settings: Sequence[Settings], dataset: Dataset, team: Team, observer: train.Observer) -> None:
    network = train.architecture(settings[0], dataset)
    lanes = [train.lane(each, network) for each in settings]
    dataset = bugs.labels(settings[0].bug, dataset)
    engine = _engine(settings[0], network, dataset, lanes, team)
    train.train(settings, dataset, engine, observer)


def _engine(settings: Settings, network: Architecture, dataset: Dataset, lanes: Sequence[Lane], team: Team) -> Engine:
    batch_size = train.batch_size(settings, dataset)
    if settings.backend == "numpy":
        return NumpyEngine(network, dataset, lanes, batch_size, team)
    return cuda.CudaEngine(network, dataset, lanes, batch_size, cuda.device(settings.device))


def _log_error(folder: SweepFolder) -> None:
    with folder.log.open("a", encoding="utf-8") as log_file:
        log_file.write(traceback.format_exc())
