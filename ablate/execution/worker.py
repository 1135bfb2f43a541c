"""What runs in a worker process: the training of one chunk."""

import contextlib
import logging
import traceback
from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from ablate.backends.engine import OutOfMemoryError
from ablate.backends.process_group import ALONE, Rendezvous
from ablate.diagnosis.checks import check_all
from ablate.errors import in_a_line
from ablate.records.recorder import Recorder
from ablate.records.sweep_folder import SweepFolder
from ablate.training.loop import Silent, train
from ablate.trials.cohorts import chunks
from ablate.trials.prepared import PreparedTrial, engine
from ablate.trials.trial import Trial

log = logging.getLogger("ablate")


def train_chunk(
    folder: SweepFolder, trials: Sequence[Trial], prepared: Sequence[PreparedTrial], rendezvous: Rendezvous = ALONE
) -> int:
    """Train trials of one cohort together, in this process, and write their folders; returns the first's number.

    Errors go into the trials' rows; only an interrupt is raised. If a device has too little memory for all of them,
    they are trained in halves, one after the other.
    """
    recorder = Recorder(folder, trials, prepared)
    turn = prepared[0].backend.turn(prepared[0].settings.device)
    halves: Sequence[Sequence[int]] = ()
    try:
        with threadpool_limits(1, user_api="blas"), contextlib.closing(rendezvous.join()) as group, turn:
            recorder.checked(check_all(prepared))
            train(prepared, engine(prepared, group), recorder)
    except OutOfMemoryError as error:
        if len(trials) > 1 and recorder.unfinished == set(range(len(trials))):
            log.warning("%s: %d trials are trained in halves", error, len(trials))
            halves = chunks(range(len(trials)), 2)
        else:
            recorder.fail(in_a_line(error))
    except (Exception, SystemExit) as error:
        _log_error(folder)
        recorder.fail(in_a_line(error))
    finally:
        recorder.close()
    for half in halves:
        train_chunk(folder, [trials[place] for place in half], [prepared[place] for place in half])
    return trials[0].number


def help_to_train(
    folder: SweepFolder, trials: Sequence[Trial], prepared: Sequence[PreparedTrial], rendezvous: Rendezvous
) -> None:
    """Train the same trials as rank 0 of the process group, and write nothing.

    An error here ends the group, and rank 0 reports it.
    """
    try:
        with threadpool_limits(1, user_api="blas"), contextlib.closing(rendezvous.join()) as group:
            train(prepared, engine(prepared, group), Silent())
    except (Exception, SystemExit):
        _log_error(folder)


def _log_error(folder: SweepFolder) -> None:
    with folder.log.open("a", encoding="utf-8") as log_file:
        log_file.write(traceback.format_exc())
