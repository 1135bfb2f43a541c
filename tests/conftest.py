"""Two ways to run the command: in this process, which is fast, and as a process of its own."""

import contextlib
import gc
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


def cells_of(preset: str) -> Mapping[str, Mapping[str, Any]]:
    """The cells of a preset that ablate ships, by name; none where it has none."""
    text = (ROOT / "conf" / "experiment" / f"{preset}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, yaml.CSafeLoader).get("cells") or {}


def cell_of(preset: str, row: Mapping[str, Any]) -> str:
    """The name of a trial's cell: of those whose values are all the trial's, the one with most."""
    fitting = [
        (len(values), name)
        for name, values in cells_of(preset).items()
        if all(row["overrides"][key] == value for key, value in values.items())
    ]
    return max(fitting)[1]


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that finds this checkout from any folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **changes}


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: many tests wait for processes of their own."""
    return (os.cpu_count() or 1) + 1


# Files are dealt out to the processes in this order, the longest first; then the others.
_LONGEST = (
    "test_lanes.py", "test_readme.py", "test_cells.py", "test_command.py", "test_experiments.py", "test_nvcc.py",
    "test_tracking.py", "test_bad_input.py", "test_hostile.py", "test_check.py", "test_cuda.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """So that no process is left with a long file at the end."""
    places = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: looking through it for garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def run_in_process(folder: Path, *arguments: str, **changes: str) -> Done:
    """Run `ablate` in this process, in `folder`, and undo what it leaves behind: signals, handlers, modules.

    `changes` are to its environment.
    """
    from ablate import __main__
    from ablate.commands import launcher

    logger, before = logging.getLogger("ablate"), signal.getsignal(signal.SIGTERM)
    handlers = list(logger.handlers)
    launcher.CohortLauncher.exit_code = 0
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["ablate", *arguments]),
        mock.patch.object(sys, "path", list(sys.path)),
    ):
        os.environ.pop("HYDRA_FULL_ERROR", None)
        os.environ.update(changes)
        try:
            __main__.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            logger.handlers = handlers
            signal.signal(signal.SIGTERM, before)
            for name in [name for name, module in dict(sys.modules).items() if _is_in(folder, module)]:
                del sys.modules[name]
    return Done(code, out.getvalue(), err.getvalue())


def _is_in(folder: Path, module: ModuleType) -> bool:
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(folder)


def run_as_process(folder: Path, *arguments: str, **changes: str) -> Done:
    """Run `python -m ablate` in `folder`; `changes` are to its environment."""
    done = subprocess.run(
        [sys.executable, "-m", "ablate", *arguments],
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ablate(tmp_path: Path) -> Callable[..., Done]:
    """Runs the command in this process, in the test's own folder."""
    return lambda *arguments, **changes: run_in_process(tmp_path, *arguments, **changes)


@pytest.fixture
def ablate_process(tmp_path: Path) -> Callable[..., Done]:
    """Runs the command as a process, in the test's own folder."""
    return lambda *arguments, **changes: run_as_process(tmp_path, *arguments, **changes)
