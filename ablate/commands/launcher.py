"""The way from Hydra to a sweep: one trial of a run, all trials of a multirun at once, one of a foreign launcher."""

import math
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from ablate.commands.composer import Composer
from ablate.config import schema as config
from ablate.diagnosis import checks as check
from ablate.errors import ConfigError
from ablate.execution import sweep
from ablate.records import results
from ablate.terminal import output as terminal
from ablate.trials.trial import Trial

# Hydra's first scan for plugins executes their modules again: a class imported before would not be theirs.
Plugins.instance()
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

# Hydra accepts plugins of this package only; the classes are registered under it and live here.
_NAMESPACE = "hydra_plugins.ablate"
MAX_TRIALS = 10_000
_ABOUT_CHECK = """\
ablate.check checks gradient and sign by numbers, as every trial is before it trains, and trains nothing.

  python -m ablate.check loss=mse lr=0.1            one trial; code 1 where something is found
  python -m ablate.check -m loss=mse,ce             each of a sweep that differs

Presets and keys are those of the command that trains:
"""


def register(action: Callable[[Path, Sequence[Trial]], int]) -> None:
    """Say what is done with a command's trials, and make Hydra know the launcher, the sweeper and the help text."""
    CohortLauncher.action = staticmethod(action)
    plugins, store = Plugins.instance(), ConfigStore.instance()
    for kind, cls in (("launcher", CohortLauncher), ("sweeper", GridSweeper)):
        plugins.register(cls)
        plugins.class_name_to_class[f"{_NAMESPACE}.{cls.__name__}"] = cls
        node: dict[str, Any] = {"_target_": f"{_NAMESPACE}.{cls.__name__}"}
        if cls is GridSweeper:
            node["params"] = None
        store.store(group=f"hydra/{kind}", name="ablate", node=node, provider="ablate")
    # Hydra asks for it at every start; to write it takes a third of the start's own time.
    text = config.help_text() if any(word.startswith(("-h", "--h")) for word in sys.argv[1:]) else ""
    text = f"{_ABOUT_CHECK}\n{text}" if action is examine else text
    node = {"app_name": "ablate", "header": "", "footer": "", "template": text}
    store.store(group="hydra/help", name="ablate", node=node, provider="ablate")


class GridSweeper(BasicSweeper):
    """Hydra's own grid, handed over as it is: all jobs at once, none composed, and no folder made for them yet."""

    def __init__(self, params: dict[str, str] | None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        count = math.prod(_levels(override) for override in overrides)
        if not 0 < count <= MAX_TRIALS:
            swept = " ".join(str(override.input_line) for override in overrides if _levels(override) != 1)
            raise ConfigError(f"{swept}: {count} trials; a sweep has 1 to {MAX_TRIALS}")
        [jobs] = self.split_arguments(overrides, None)
        done = self.launcher.launch(jobs, initial_job_idx=0)
        for job in done:
            _ = job.return_value  # raises where a job of a foreign launcher failed
        return [done]


def _levels(override: Override) -> int:
    """How many values an override sweeps over, without making them."""
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        return max(0, math.ceil((value.stop - value.start) / value.step))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


class TrialFailedError(RuntimeError):
    """How a foreign launcher hears that its job failed, after the job's row is written."""


class CohortLauncher(Launcher):
    """Gets all jobs of a multirun at once, to do with their trials what the command is for (`action`)."""

    action: Callable[[Path, Sequence[Trial]], int]
    exit_code = sweep.FINISHED

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        composer = Composer(self.hydra_context.config_loader, self.config)
        configs = [composer.compose(job, initial_job_idx + index) for index, job in enumerate(job_overrides)]
        trials = [trial(_without_hydra(composed), composed.hydra) for composed in configs]
        code = type(self).action(folder, trials)
        # Hydra raises at the first job that failed, and then leaves out its callbacks: so the code goes this way.
        type(self).exit_code = max(type(self).exit_code, code)
        return [_job_return(folder, composed) for composed in configs]


def _without_hydra(composed: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _job_return(folder: Path, composed: DictConfig) -> JobReturn:
    """What a sweeper hears of a job: its final test accuracy, to be made as large as can be."""
    number = composed.hydra.job.num
    row = next((row for row in results.rows(folder) if row["trial"] == number), None)
    done = JobReturn(
        overrides=_written(composed.hydra), cfg=composed, working_dir=str(folder), status=JobStatus.COMPLETED
    )
    done.return_value = row["test_accuracy"] if row else None
    return done


def trial(plain: DictConfig, hydra: DictConfig) -> Trial:
    """The trial of one composed job, its configuration and Hydra's. Raises ConfigError where a value is wrong."""
    overrides = _split(_written(hydra))
    for key, value in overrides.items():
        group, _, rest = key.partition(".")
        if rest == "name" and group in config.GROUPS:
            raise ConfigError(f"{key}={value}: an option is chosen by its group; write {group}={value}")
    for group, choice in overrides.items():
        if group in config.GROUPS and choice.startswith("["):
            allowed = ", ".join(config.choices(group))
            raise ConfigError(
                f"{group}={choice}: choose one of {allowed}; a sweep is written -m {group}={choice[1:-1]}"
            )
    settings = config.parse(plain)
    choices = {str(group): str(choice) for group, choice in hydra.runtime.choices.items() if group in config.GROUPS}
    resolved = OmegaConf.to_container(plain, resolve=True)
    assert isinstance(resolved, dict)
    return Trial(
        number=int(OmegaConf.select(hydra, "job.num", default=0) or 0),
        settings=settings,
        overrides=overrides,
        choices=choices,
        config={str(key): value for key, value in resolved.items()},
    )


def _written(hydra: DictConfig) -> list[str]:
    """The overrides as the user wrote them, a `${...}` in them included."""
    written: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return [str(override) for override in written]


def _split(overrides: Sequence[str]) -> Mapping[str, str]:
    pairs = (override.lstrip("+~").split("=", 1) for override in overrides)
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def run(folder: Path, trials: Sequence[Trial]) -> int:
    """Check the trials and train them, or print the plan only; returns the exit code."""
    console = terminal.console()
    prepared = sweep.prepare(folder, trials)
    if trials[0].settings.dry_run:
        terminal.print_plan(console, trials)
        return sweep.FINISHED
    return sweep.run(prepared, console)


def examine(folder: Path, trials: Sequence[Trial]) -> int:
    """Print the checks before training, each distinct one once; returns 1 where one found something."""
    console = terminal.console()
    prepared = sweep.prepare(folder, trials)
    distinct = {check.key(one.settings): one for one in trials}
    found = [check.check(one.settings, prepared.datasets[one.number]) for one in distinct.values()]
    for one, result in zip(distinct.values(), found, strict=True):
        values = [f"{key}={config.shown(one.value(key))}" for key in one.overrides]
        console.print(" ".join(values) or "the defaults", markup=False, highlight=False, soft_wrap=True, style="bold")
        terminal.print_check(console, result)
    return sweep.FINISHED if all(result.is_right for result in found) else sweep.SOME_FAILED


def task(cfg: DictConfig) -> float | None:
    """What Hydra calls for a single run, and a foreign launcher for each of its jobs: a sweep of one.

    A single run ends the process with its exit code; a job returns its test accuracy.
    """
    whole: Any = HydraConfig.instance().cfg
    hydra = whole.hydra
    try:
        one = trial(cfg, hydra)
        folder = Path(str(hydra.sweep.dir)).absolute()
        # In a process that a foreign launcher started nothing is registered: there is only training to do.
        code = getattr(CohortLauncher, "action", run)(folder, [one])
    except ConfigError as error:
        if hydra.mode == RunMode.RUN:
            refuse(error)
        raise
    if hydra.mode == RunMode.RUN:
        raise SystemExit(code)
    row = next((row for row in results.rows(folder) if row["trial"] == one.number), None)
    if row is None:
        return None
    if code:
        raise TrialFailedError(f"trial {one.number} {row['verdict']}: {row['why']}")
    return row["test_accuracy"]


def is_mistake(error: Exception) -> bool:
    """Whether an error is the user's: a wrong value, or a command or YAML that Hydra cannot compose."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    by_hydra = isinstance(error, ValueError) and str(frame.f_globals["__name__"]).startswith("hydra.")
    return by_hydra or isinstance(error, ConfigError | HydraException | OmegaConfBaseException | YAMLError)


def refuse(error: Exception, code: int = 2) -> NoReturn:
    """Tell a user's mistake in one line and end with code 2."""
    said = " ".join(_said(error).split()) or f"{type(error).__name__} in the command or in a YAML of --config-dir"
    print(f"ablate: {said}", file=sys.stderr)
    raise SystemExit(code)


def _said(error: Exception) -> str:
    """An error in our words: Hydra's leave out the key or the value, and tell of its insides."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        heard = [line for line in text.splitlines() if not line.startswith(("Error parsing", "See http"))]
        return f"{error.override}: not understood ({' '.join(heard)}); write key=value"
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such choice; choose one of {', '.join(error.options)}"
    if found := re.match(r"Could not override '(.+)'\.\s.* use \+(.*)", text, re.DOTALL):
        return config.unknown_key(*found.groups())
    if found := re.match(r"Ambiguous value for argument '(.+)'|Sweep parameters '(.+)' requires", text):
        return f"{found[1] or found[2]}: several values are a sweep, which needs -m (one list is written [1,2])"
    if found := re.match(r"Multiple values for (\S+)\. .*'override \1: (.*)'", text, re.DOTALL):
        return f"+{found[1]}={found[2]}: there is one already; write {found[1]}={found[2]}"
    if text.startswith("Config group override must be"):
        pairs = [word.partition("=") for word in sys.argv[1:]]
        wrong = [
            group
            for group, _, name in pairs
            if group in (*config.GROUPS, "experiment") and not isinstance(safe_load(name), str)
        ]
        return "; ".join(f"{group}: choose one of {', '.join(config.choices(group))}" for group in wrong) or text
    if "does not support sweep type" in text:
        written = [word for word in sys.argv[1:] if "interval(" in word]
        return (
            f"{' '.join(written)}: a range without steps cannot be swept; list its values, or use range(from,to,step)"
        )
    return re.split(r"Config search path|See https", text)[0]
