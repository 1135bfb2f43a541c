"""A sweep from its trials to its results: checked, planned, trained side by side, recorded and told."""

import contextlib
import getpass
import logging
import multiprocessing.resource_tracker
import platform
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker
from joblib.externals.loky.process_executor import TerminatedWorkerError
from omegaconf import OmegaConf
from rich.console import Console
from threadpoolctl import threadpool_limits

from ablate import interrupts
from ablate.backends import cuda
from ablate.backends.engine import Engine, Lane
from ablate.backends.numpy import Member, NumpyEngine, Team, meeting_places
from ablate.config.schema import Settings
from ablate.diagnosis import checks as check
from ablate.errors import ConfigError
from ablate.problem import losses
from ablate.problem import mistakes as bugs
from ablate.problem.data import loading as data
from ablate.problem.data.dataset import Dataset
from ablate.problem.models import Architecture
from ablate.records import folder as records
from ablate.records import results, tracking
from ablate.terminal import output as terminal
from ablate.training import loop as train
from ablate.trials.trial import ABSENT, Trial, chunks, cohorts, factors

log = logging.getLogger("ablate")

# So many multiplications forward, about two seconds of one core in all, are worth the start of another process.
WORTH_A_PROCESS = 1.5e10

FINISHED, SOME_FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Sweep:
    """Checked trials, ready to train: their folder and, by trial number, their data sets."""

    folder: Path
    trials: Sequence[Trial]
    datasets: Mapping[int, Dataset]

    @property
    def factors(self) -> list[str]:
        return factors(self.trials)

    @property
    def workers(self) -> int:
        # A sanitiser ends the process in which it finds something, and joblib waits for that process for ever.
        return 1 if cuda.is_sanitized() else self.trials[0].settings.workers or cpu_count()


def prepare(folder: Path, trials: Sequence[Trial]) -> Sweep:
    """Load every data set and check every trial against it.

    Raises ConfigError before anything is created: a file that is missing or wrong, shapes that do not fit, a
    batch larger than the training set, a loss that cannot be had.
    """
    _check_together(trials)
    _check_devices(trials)
    loaded: dict[str, Dataset] = {}
    datasets = {}
    for trial in trials:
        settings = trial.settings
        key = settings.data.model_dump_json() + settings.dtype
        try:
            if key not in loaded:
                loaded[key] = data.load(**settings.data.model_dump(), dtype=np.dtype(settings.dtype))
            _check(settings, loaded[key])
        except ConfigError as error:
            raise ConfigError(str(error), trial.number) from None
        datasets[trial.number] = loaded[key]
    return Sweep(folder, trials, datasets)


def _check_together(trials: Sequence[Trial]) -> None:
    """Refuse what concerns the whole sweep but differs between its trials, and trials that are the same."""
    for key in ("workers", "dry_run", "tracking"):
        if len({str(getattr(trial.settings, key)) for trial in trials}) > 1:
            raise ConfigError(f"{key}: it concerns the whole sweep, so it cannot vary; give it one value")
    seen: dict[str, Trial] = {}
    for trial in trials:
        other = seen.setdefault(trial.digest, trial)
        if other is not trial:
            same = " ".join(f"{key}={value}" for key, value in trial.overrides.items())
            raise ConfigError(f"{same}: trials {other.number} and {trial.number} are the same; give each value once")


def _check_devices(trials: Sequence[Trial]) -> None:
    """Refuse a device that cannot be had here, before anything is created; a plan can be made anywhere."""
    for name in {trial.settings.device for trial in trials if trial.settings.backend == "cuda"}:
        if not trials[0].settings.dry_run:
            cuda.check(name)


def _check(settings: Settings, dataset: Dataset) -> None:
    rows = len(dataset.y_train)
    if settings.batch_size and settings.batch_size > rows:
        raise ConfigError(f"batch_size={settings.batch_size}: the training set has {rows} rows; choose 1 to {rows}")
    network = train.architecture(settings, dataset)
    losses.try_out(losses.build(settings.loss, settings.output), network.units)
    _check_precision(settings)


def _check_precision(settings: Settings) -> None:
    """Refuse numbers that the precision of the arithmetic turns into 0 or infinity."""
    numbers = {
        "lr": settings.lr,
        "output_lr": settings.output_lr,
        "init.scale": settings.init.scale,
        "optimizer.epsilon": getattr(settings.optimizer, "epsilon", None),
        "model.preactivation_divisor": settings.model.preactivation_divisor,
    }
    cast = np.dtype(settings.dtype).type
    for key, value in numbers.items():
        with np.errstate(all="ignore"):
            held = 1.0 if value is None else float(cast(value))
        if not 0 < held < np.inf:
            raise ConfigError(f"{key}={value}: in {settings.dtype} this is {held}; choose a less extreme number")


def run(sweep: Sweep, console: Console) -> int:
    """Train the sweep, keep going when a trial fails, and end with one table.

    Returns the exit code: 0, 1 where a trial failed, 130 where the user interrupted.
    """
    _create(sweep)
    with _log_file(sweep.folder), interrupts.terminable():
        tracker = _tracker(sweep)
        interrupted = False
        try:
            tracker.start()
            with terminal.progress(console, sweep.folder, sweep.trials):
                for _ in _train(sweep):
                    results.write(sweep.folder, sweep.factors)
        except KeyboardInterrupt:
            interrupted = True
        with interrupts.ignored():
            if interrupted:
                get_reusable_executor().shutdown(wait=True, kill_workers=True)
                console.print("interrupted: writing the results so far")
            _close_unfinished(sweep, interrupted)
            results.write(sweep.folder, sweep.factors)
            # Before the tracker ends: its thread delivers meanwhile. A process that has trained draws on another core.
            report = _report(sweep.folder, 1 if interrupted else min(sweep.workers, len(sweep.trials)))
            with console.status("sending the rest to MLflow (Ctrl-C has to wait for it)"):
                tracker.finish()
            rows = results.write(sweep.folder, sweep.factors)
    terminal.print_results(console, rows, sweep.factors or results.varying(rows))
    _print_places(console, sweep, tracker, report)
    if interrupted:
        return INTERRUPTED
    own = {trial.number for trial in sweep.trials}
    return SOME_FAILED if any(row["status"] == "failed" and row["trial"] in own for row in rows) else FINISHED


def _create(sweep: Sweep) -> None:
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        for trial in sweep.trials:
            hydra = sweep.folder / str(trial.number) / ".hydra"
            hydra.mkdir(parents=True, exist_ok=True)
            (hydra / "config.yaml").write_text(
                OmegaConf.to_yaml(OmegaConf.create(dict(trial.config))), encoding="utf-8"
            )
            given = [f"{key}={value}" for key, value in trial.overrides.items() if value != ABSENT]
            (hydra / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(given)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{sweep.folder}: cannot be written ({error.strerror}); start where you may write") from None
    _describe(sweep)


def _describe(sweep: Sweep) -> None:
    """`sweep.yaml`: how the sweep was started, with what, and of what it consists.

    A foreign launcher's jobs share the folder: each adds its trial to those that are there.
    """
    packages = ("ablate", "numpy", "hydra-core", "mlflow")
    path = sweep.folder / "sweep.yaml"
    with FileLock(sweep.folder / ".results.lock"):
        listed = {entry["trial"]: entry for entry in _listed(path)}
        for trial in sweep.trials:
            entry = {"trial": trial.number, "overrides": dict(trial.overrides), "config": trial.digest}
            listed[trial.number] = entry
        trials = [listed[number] for number in sorted(listed)]
        described = {
            "command": shlex.join(["ablate", *sys.argv[1:]]),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
            "git_commit": tracking.git_commit(),
            "factors": sweep.factors or results.varying(trials),
            "trials": trials,
        }
        records.replace_file(path, OmegaConf.to_yaml(OmegaConf.create(described)))


def _listed(path: Path) -> Sequence[Any]:
    """The trials in a `sweep.yaml` that is there already."""
    described: Any = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {"trials": []}
    trials: Sequence[Any] = described["trials"]
    return trials


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _tracker(sweep: Sweep) -> tracking.Tracker:
    settings = sweep.trials[0].settings.tracking
    if settings.name == "none":
        return tracking.Tracker()
    return tracking.MlflowTracker(settings, sweep.folder, sweep.trials, sweep.factors, sweep.datasets)


@dataclass(frozen=True)
class Seat:
    """A process's place in the training of a chunk: alone, or one of a team that meets in a folder."""

    rank: int = 0
    size: int = 1
    folder: Path = Path()

    def team(self) -> Team:
        return Member(self.folder, self.rank, self.size) if self.size > 1 else Team()


def _train(sweep: Sweep) -> Iterator[None]:
    """Train every chunk of every cohort, in processes where there are several; one item as each ends."""
    work = [chunk for cohort in cohorts(sweep.trials) for chunk in chunks(cohort, _processes(sweep, cohort))]
    left = {chunk[0].number: chunk for chunk in work}
    # Lanes fill the cores first; where there are more cores than chunks, several share a chunk.
    sizes = [_team_size(sweep, chunk, sweep.workers // len(work)) for chunk in work]
    try:
        with meeting_places(len(work), _numbers_exchanged(sweep, work, sizes)) as places:
            seated = [
                (chunk, Seat(rank, size, place))
                for chunk, size, place in zip(work, sizes, places, strict=True)
                for rank in range(size)
            ]
            for first in _spread(sweep, seated, min(sweep.workers, len(seated))):
                if first is not None:
                    del left[first]
                    yield
    except TerminatedWorkerError:
        # One process died and took the others' work with it: the rest each in turn, so that only the guilty fail.
        log.warning("a worker process died; its trials and those not finished start again, one process at a time")
        for chunk in left.values():
            yield from _alone(sweep, chunk)


def _processes(sweep: Sweep, cohort: Sequence[Trial]) -> int:
    """How many processes a cohort's lanes are dealt out to: one GPU takes them all."""
    settings = cohort[0].settings
    return 1 if settings.backend == "cuda" and settings.device == "gpu" else sweep.workers


def _team_size(sweep: Sweep, chunk: Sequence[Trial], spare: int) -> int:
    """How many processes are to train a chunk, where there are so many for it."""
    settings, dataset = [trial.settings for trial in chunk], sweep.datasets[chunk[0].number]
    network = train.architecture(settings[0], dataset)
    forward = network.multiplications * len(dataset.y_train) * settings[0].epochs * len(chunk)
    # A user's loss is asked by one process alone: it may keep something in mind from call to call.
    alone = settings[0].backend == "cuda" or any(each.loss.name == "custom" for each in settings)
    if forward < WORTH_A_PROCESS or alone:
        return 1
    return max(1, min(spare, NumpyEngine.largest_team(network, train.batch_size(settings[0], dataset))))


def _numbers_exchanged(sweep: Sweep, work: Sequence[Sequence[Trial]], sizes: Sequence[int]) -> int:
    """How many numbers the parameters are of all lanes that a team trains."""
    shared = [chunk for chunk, size in zip(work, sizes, strict=True) if size > 1]
    networks = [train.architecture(chunk[0].settings, sweep.datasets[chunk[0].number]) for chunk in shared]
    return sum(len(chunk) * network.size for chunk, network in zip(shared, networks, strict=True))


def _spread(sweep: Sweep, work: Sequence[tuple[Sequence[Trial], Seat]], workers: int) -> Iterator[int | None]:
    tasks = (
        delayed(train_chunk if seat.rank == 0 else help_to_train)(
            sweep.folder, chunk, sweep.datasets[chunk[0].number], seat
        )
        for chunk, seat in work
    )
    # The workers must not hear Ctrl-C, which a terminal sends to all: this process ends them in order. They
    # start with the first task and inherit the blocked signal. The trackers' start would unblock it again.
    for tracker in (multiprocessing.resource_tracker, loky_tracker) if workers > 1 else ():
        tracker.ensure_running()
    with interrupts.blocked(signal.SIGINT):
        ended = Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")(tasks)
    interrupts.heed()
    yield from ended


def _alone(sweep: Sweep, chunk: Sequence[Trial]) -> Iterator[None]:
    try:
        for _ in _spread(sweep, [(chunk, Seat())], 2):
            yield
    except TerminatedWorkerError:
        for trial in chunk:
            _close_row(sweep, trial, "failed", "failed", f"its worker process died ({_guess(trial.settings)})")
        yield


def _guess(settings: Settings) -> str:
    if settings.backend == "cuda":
        return "a kernel that writes outside its arrays? docs/cuda.md says how to find it"
    return "out of memory?"


def train_chunk(folder: Path, trials: Sequence[Trial], dataset: Dataset, seat: Seat = Seat()) -> int:
    """Train trials of one cohort together, in this process, and write their folders; returns the first's number.

    Whatever goes wrong is in the trials' rows: nothing but an interrupt is raised. Where a device has too little memory
    for all of them, they are trained in halves, one after the other.
    """
    settings = [trial.settings for trial in trials]
    recorder = records.Recorder(folder, trials)
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


def help_to_train(folder: Path, trials: Sequence[Trial], dataset: Dataset, seat: Seat) -> None:
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


def _log_error(folder: Path) -> None:
    with (folder / "ablate.log").open("a", encoding="utf-8") as log_file:
        log_file.write(traceback.format_exc())


def _close_unfinished(sweep: Sweep, interrupted: bool) -> None:
    why = "interrupted before its end" if interrupted else "it ended without a result"
    for trial in sweep.trials:
        if records.read_result(sweep.folder / str(trial.number)) is None:
            _close_row(sweep, trial, "killed", "failed", why)


def _close_row(sweep: Sweep, trial: Trial, status: str, verdict: str, why: str) -> None:
    records.close(sweep.folder / str(trial.number), trial, status, verdict, why)


@contextlib.contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    handler = logging.FileHandler(folder / "ablate.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        log.debug("started: %s", " ".join(sys.argv[1:]) or "defaults")
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _report(folder: Path, workers: int) -> Path | None:
    """Write the report. What goes wrong with it costs the sweep nothing: one line, and no report."""
    try:
        [path] = Parallel(n_jobs=workers)([delayed(_write_report)(folder)])
        return Path(path)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        log.warning("no report: %s: %s", type(error).__name__, " ".join(str(error).split()))
        return None


def _write_report(folder: Path) -> Path:
    from ablate import report

    return report.write([folder], folder)


def _print_places(console: Console, sweep: Sweep, tracker: tracking.Tracker, report: Path | None) -> None:
    here = Path.cwd()
    folder: Any = sweep.folder.relative_to(here) if sweep.folder.is_relative_to(here) else sweep.folder
    console.print(f"\nresults  {folder}/results.csv", highlight=False, soft_wrap=True)
    if report:
        console.print(f"report   {folder}/{report.name}", highlight=False, soft_wrap=True)
    if tracker.how:
        console.print(f"curves   {tracker.how}", highlight=False, markup=False, soft_wrap=True)
