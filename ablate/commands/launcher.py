"""From Hydra to a sweep: one trial of a run, all trials of a multirun at once, or one for another launcher."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from ablate.commands.belonging import as_sweeps, is_not_a_sweep
from ablate.commands.cells import Cell
from ablate.commands.composer import Composer
from ablate.commands.grid import BasicSweeper, grid
from ablate.commands.job import compose_job, trial, written_overrides
from ablate.commands.refusals import refuse
from ablate.config import groups
from ablate.diagnosis import checks as check
from ablate.errors import ConfigError
from ablate.execution import sweep
from ablate.execution.prepare import prepare
from ablate.records.scores import score
from ablate.records.sweep_folder import SweepFolder
from ablate.terminal import tables
from ablate.terminal.console import terminal
from ablate.trials.factors import cell, written
from ablate.trials.trial import Trial

# Hydra accepts plugins of this package only; the classes are registered under it and live here.
_NAMESPACE = "hydra_plugins.ablate"


def register(action: Callable[[Path, Sequence[Trial]], int]) -> None:
    """Set what is done with a command's trials, and register our plugins and options with Hydra."""
    CohortLauncher.action = staticmethod(action)
    declare()


def declare() -> None:
    """Register with Hydra the launcher, the sweeper, and the options that are declared as classes."""
    plugins, store = Plugins.instance(), ConfigStore.instance()
    for kind, cls in (("launcher", CohortLauncher), ("sweeper", GridSweeper)):
        plugins.register(cls)
        plugins.class_name_to_class[f"{_NAMESPACE}.{cls.__name__}"] = cls
        node: dict[str, Any] = {"_target_": f"{_NAMESPACE}.{cls.__name__}"}
        if cls is GridSweeper:
            node["params"] = None
        store.store(group=f"hydra/{kind}", name="ablate", node=node, provider="ablate")
    for group, options in groups.DECLARED.items():
        for option in options:
            name = str(option.defaults()["name"])
            store.store(group=group, name=name, node=option.defaults(), provider="ablate")
    # Hydra copies the store with its sources whenever it composes or looks up a group, and changes no copy.
    setattr(store, "__deepcopy__", lambda memo: store)  # noqa: B010


def start(application: Callable[[], Any]) -> None:
    """Run a Hydra application with the words of the command.

    Hydra refuses a key that the option chosen by default does not have; a sweep may choose another that has it.
    """
    words = CohortLauncher.words = sys.argv[1:]
    try:
        application()
    except ConfigCompositionException as refused:
        sys.argv[1:] = as_sweeps(words)
        if sys.argv[1:] == words:
            raise
        try:
            application()
        except HydraException as error:
            raise (refused if is_not_a_sweep(error) else error) from None
        finally:
            sys.argv[1:] = words


class GridSweeper(BasicSweeper):
    """Hydra's own grid, crossed with the preset's cells, which vary slowest.

    All jobs are handed to the launcher at once, uncomposed and without folders.
    """

    def __init__(self, params: dict[str, str] | None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        params, given = parser.parse_overrides(self._parse_config()), parser.parse_overrides(arguments)
        planned = grid(self.hydra_context.config_loader, self.config, params, given)
        try:
            done = self.launcher.launch(planned.jobs, initial_job_idx=0)
            for job in done:
                _ = job.return_value  # raises if a job of another launcher failed
        except ConfigError as error:
            if error.trial is None:
                raise
            number = error.trial
            advised = self._advised(str(error), planned.cell(number), planned.without_cell(number))
            raise ConfigError(advised) from error
        return [done]

    def _advised(self, said: str, cell: Cell, without: Sequence[str]) -> str:
        """What is wrong with a job and, if its cell contributes to it, what to do about that.

        The cell contributes if the message names one of its values, or if the job without it is not refused likewise.
        """
        if cell.values and (cell.is_named_in(said) or self._refusal(without) != said):
            return f"{said}; {cell.advice}"
        return said

    def _refusal(self, job: Sequence[str]) -> str | None:
        """What is wrong with a job, if anything."""
        assert self.hydra_context is not None
        assert self.config is not None
        try:
            _, one = compose_job(Composer(self.hydra_context.config_loader, self.config), job, 0)
            prepare(Path(), [one])
        except ConfigError as error:
            return str(error)
        return None


class TrialFailedError(RuntimeError):
    """Tells another launcher that its job failed, after the job's row is written."""


class CohortLauncher(Launcher):
    """Gets all jobs of a multirun at once, and calls the command's `action` with their trials."""

    action: Callable[[Path, Sequence[Trial]], int]
    # The command's words, as they were given.
    words: Sequence[str] = ()
    exit_code = sweep.FINISHED

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        composer = Composer(self.hydra_context.config_loader, self.config)
        jobs = [compose_job(composer, job, initial_job_idx + index) for index, job in enumerate(job_overrides)]
        code = type(self).action(folder, [one for _, one in jobs])
        # Hydra raises at the first failed job and then skips its callbacks: so the exit code is kept here.
        type(self).exit_code = max(type(self).exit_code, code)
        return [_job_return(folder, whole) for whole, _ in jobs]


def _job_return(folder: Path, composed: DictConfig) -> JobReturn:
    """What a sweeper is told about a job: its final score on the test set, to be maximised."""
    row = SweepFolder(folder).trial(composed.hydra.job.num).read_result()
    done = JobReturn(
        overrides=written_overrides(composed.hydra), cfg=composed, working_dir=str(folder), status=JobStatus.COMPLETED
    )
    done.return_value = score(row) if row else None
    return done


def run(folder: Path, trials: Sequence[Trial]) -> int:
    """Check the trials and train them, or with `dry_run` print the plan; returns the exit code."""
    console = terminal()
    prepared = prepare(folder, trials, shlex.join(["ablate", *(CohortLauncher.words or sys.argv[1:])]))
    if trials[0].settings.dry_run:
        sweep.say_notices(prepared)
        tables.print_plan(console, trials)
        return sweep.FINISHED
    return sweep.run(prepared, console)


def examine(folder: Path, trials: Sequence[Trial]) -> int:
    """Print the checks before training, each distinct one once; returns 1 if one found something."""
    console = terminal()
    prepared = prepare(folder, trials)
    sweep.say_notices(prepared)
    alike: dict[str, list[Trial]] = {}
    for one in trials:
        alike.setdefault(check.key(one.settings), []).append(one)
    found = [check.check(prepared.prepared[group[0].number]) for group in alike.values()]
    for group, result in zip(alike.values(), found, strict=True):
        console.print(_together(group), markup=False, highlight=False, soft_wrap=True, style="bold")
        tables.print_check(console, result)
    return sweep.FINISHED if all(result.is_right for result in found) else sweep.SOME_FAILED


def _together(trials: Sequence[Trial]) -> str:
    """Trials that share a check, by their levels: `lr=0.1,0.2 model=mlp (one check for 2 trials)`."""
    cells = [cell(one, one.overrides) for one in trials]
    keys = dict.fromkeys(key for levels in cells for key in levels)
    levels = {key: ",".join(dict.fromkeys(one[key] for one in cells if key in one)) for key in keys}
    count = f" (one check for {len(trials)} trials)" if len(trials) > 1 else ""
    return f"{written(levels) or 'the defaults'}{count}"


def task(cfg: DictConfig) -> float | None:
    """What Hydra calls for a single run, and another launcher for each of its jobs: a sweep of one trial.

    A single run ends the process with its exit code; a job returns its score on the test set.
    """
    whole: Any = HydraConfig.instance().cfg
    hydra = whole.hydra
    try:
        one = trial(cfg, hydra)
        folder = Path(str(hydra.sweep.dir)).absolute()
        # In a process that another launcher started no action is registered: train.
        code = getattr(CohortLauncher, "action", run)(folder, [one])
    except ConfigError as error:
        if hydra.mode == RunMode.RUN:
            refuse(error)
        raise
    if hydra.mode == RunMode.RUN:
        raise SystemExit(code)
    row = SweepFolder(folder).trial(one.number).read_result()
    if row is None:
        return None
    if code:
        raise TrialFailedError(f"trial {one.number} {row['verdict']}: {row['why']}")
    return score(row)
