"""`python -m ablate.report runs/<sweep> ...`: rebuild the report of one sweep, or of several together."""

import argparse
import sys
from pathlib import Path

from ablate import interrupts
from ablate.errors import ConfigError
from ablate.report import page


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with one line if a folder is wrong."""
    interrupts.outlive_readers()
    parser = argparse.ArgumentParser(prog="python -m ablate.report", description=__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="runs/<sweep>", help="folder of a sweep")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where to write (default: the first sweep's folder)"
    )
    given = parser.parse_args(arguments)
    into: Path = given.into or given.sweeps[0]
    try:
        if given.into:
            into.mkdir(parents=True, exist_ok=True)
        print(f"report   {page.write(given.sweeps, into)}")
    except (ConfigError, OSError) as error:
        print(f"ablate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
