"""Finds out by experiment which choice in a loss function makes a network train or fail, and by how much."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "compose", "load", "prepare", "run"]

if TYPE_CHECKING:
    from ablate.commands.compose import compose
    from ablate.execution.run import run
    from ablate.records.results import load
    from ablate.trials.prepared import prepare

# Imported on first use: they need Hydra and pandas, and the command line imports this module too.
_HOMES = {
    "compose": "ablate.commands.compose",
    "load": "ablate.records.results",
    "prepare": "ablate.trials.prepared",
    "run": "ablate.execution.run",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ablate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
