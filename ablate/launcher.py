"""The way from Hydra to a sweep: one trial of a run, all trials of a multirun at once, one of a foreign launcher."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from ablate import config, results, sweep, terminal
from ablate.errors import ConfigError
from ablate.trials import Trial

# Hydra's first scan for plugins executes their modules again: a class imported before would not be theirs.
Plugins.instance()
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

# Hydra accepts plugins of this package only; the classes are registered under it and live here.
_NAMESPACE = "hydra_plugins.ablate"


PIPE_WIDTH = 200


def register() -> None:
    """Make Hydra know the launcher, the sweeper and the help text that `conf/config.yaml` names."""
    plugins, store = Plugins.instance(), ConfigStore.instance()
    for kind, cls in (("launcher", CohortLauncher), ("sweeper", GridSweeper)):
        plugins.register(cls)
        plugins.class_name_to_class[f"{_NAMESPACE}.{cls.__name__}"] = cls
        node: dict[str, Any] = {"_target_": f"{_NAMESPACE}.{cls.__name__}"}
        if cls is GridSweeper:
            node |= {"max_batch_size": None, "params": None}
        store.store(group=f"hydra/{kind}", name="ablate", node=node, provider="ablate")
    node = {"app_name": "ablate", "header": "", "footer": "", "template": config.help_text()}
    store.store(group="hydra/help", name="ablate", node=node, provider="ablate")


class GridSweeper(BasicSweeper):
    """Hydra's own grid sweeper, which composes no job: the launcher composes each once, and checks it."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Left to the launcher."""


class CohortLauncher(Launcher):
    """Gets all jobs of a multirun and trains them together."""

    exit_code = sweep.FINISHED

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        try:
            configs = [self._compose(job, initial_job_idx + index) for index, job in enumerate(job_overrides)]
            trials = [trial(_without_hydra(composed), composed.hydra) for composed in configs]
            code = run(folder, trials)
        except Exception:
            _remove_unused(folder)
            raise
        # Hydra raises at the first job that failed, and then leaves out its callbacks: so the code goes this way.
        type(self).exit_code = max(type(self).exit_code, code)
        return [_job_return(folder, composed) for composed in configs]

    def _compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id = f"{self.config.hydra.job.name}_{number}"
            composed.hydra.job.num = number
        return composed


def _without_hydra(composed: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _remove_unused(folder: Path) -> None:
    """Hydra's sweeper makes the folder before anything is checked: where no trial came into it, it goes again."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"multirun.yaml"}:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        folder.rmdir()


def _job_return(folder: Path, composed: DictConfig) -> JobReturn:
    """What a sweeper hears of a job: its final test accuracy, to be made as large as can be."""
    number = composed.hydra.job.num
    row = next((row for row in results.rows(folder) if row["trial"] == number), None)
    overrides = [str(override) for override in composed.hydra.overrides.task]
    done = JobReturn(overrides=overrides, cfg=composed, working_dir=str(folder), status=JobStatus.COMPLETED)
    done.return_value = row["test_accuracy"] if row else None
    return done


def trial(plain: DictConfig, hydra: DictConfig) -> Trial:
    """The trial of one composed job, its configuration and Hydra's. Raises ConfigError where a value is wrong."""
    settings = config.parse(plain)
    choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if group in config.GROUPS}
    resolved = OmegaConf.to_container(plain, resolve=True)
    assert isinstance(resolved, dict)
    return Trial(
        number=int(OmegaConf.select(hydra, "job.num", default=0) or 0),
        settings=settings,
        overrides=_split(hydra.overrides.task),
        choices=choices,
        config={str(key): value for key, value in resolved.items()},
    )


def _split(overrides: Sequence[str]) -> Mapping[str, str]:
    pairs = (str(override).lstrip("+~").split("=", 1) for override in overrides)
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def run(folder: Path, trials: Sequence[Trial]) -> int:
    """Check the trials and train them, or print the plan only; returns the exit code."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    prepared = sweep.prepare(folder, trials)
    if trials[0].settings.dry_run:
        terminal.print_plan(console, trials)
        _remove_unused(folder)
        return sweep.FINISHED
    return sweep.run(prepared, console)


def task(cfg: DictConfig) -> float | None:
    """What Hydra calls for a single run, and a foreign launcher for each of its jobs: a sweep of one.

    A single run ends the process with its exit code; a job returns its test accuracy.
    """
    whole: Any = HydraConfig.instance().cfg
    hydra = whole.hydra
    try:
        one = trial(cfg, hydra)
        folder = Path(str(hydra.sweep.dir)).absolute()
        code = run(folder, [one])
    except ConfigError as error:
        if hydra.mode == RunMode.RUN:
            refuse(error)
        raise
    if hydra.mode == RunMode.RUN:
        raise SystemExit(code)
    row = next(row for row in results.rows(folder) if row["trial"] == one.number)
    if code:
        raise RuntimeError(f"trial {one.number} {row['verdict']}: {row['why']}")
    return row["test_accuracy"]


def refuse(error: Exception) -> None:
    """Tell a user's mistake in one line and end with code 2."""
    print(f"ablate: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(2)
