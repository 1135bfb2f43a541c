"""`python -m ablate.report runs/<sweep> ...`: rebuild the report of one sweep, or of several together."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ablate import interrupts
from ablate.errors import ConfigError
from ablate.records.sweep_folder import SweepFolder
from ablate.report import page


def _with_results(paths: Sequence[Path]) -> list[Path]:
    """Of several paths, as `runs/*` gives them, those of sweeps; a line for each other that is there.

    Raises ConfigError for what is not there, and where none is a sweep's.
    """
    refused: dict[Path, ConfigError] = {}
    for path in paths:
        try:
            SweepFolder(path).check_begun()
        except ConfigError as error:
            refused[path] = error
    for path, reason in refused.items():
        if len(refused) == len(set(paths)) or not path.exists():
            raise reason
    for reason in refused.values():
        print(f"ablate: left out: {reason}", file=sys.stderr)
    return [path for path in paths if path not in refused]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line if a folder is wrong."""
    interrupts.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m ablate.report", description=__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="runs/<sweep>", help="folder of a sweep")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where to write (default: the first sweep's folder)"
    )
    given = parser.parse_args(arguments)
    try:
        sweeps = _with_results(given.sweeps)
        into: Path = given.into or sweeps[0]
        if given.into:
            into.mkdir(parents=True, exist_ok=True)
        print(f"report   {page.write(sweeps, into)}")
    except (ConfigError, OSError) as error:
        print(f"ablate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
