"""Finds out by experiment which choice in a loss function makes a network train or fail, and by how much."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from ablate.records.results import load


def __getattr__(name: str) -> Any:
    # `load` needs pandas; the command line, which imports this module too, does not.
    if name == "load":
        from ablate.records.results import load

        return load
    raise AttributeError(f"module 'ablate' has no attribute {name!r}")
