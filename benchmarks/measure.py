"""One case in this process, under the BLAS kernels that the environment gives: what `python -m benchmarks` starts.

python -m benchmarks.measure CASE --rounds 5    # the last line of its output is JSON
"""

import argparse
import datetime
import json
import sys
from typing import Any

from benchmarks import machine
from benchmarks.cases import CASES


def measured(name: str, rounds: int) -> dict[str, Any]:
    """The case's figures, when and on what they were measured, and in how many rounds."""
    rounds = min(rounds, CASES[name].rounds or rounds)
    return {
        "kernels": machine.kernels(),
        "rounds": rounds,
        "samples": CASES[name].measure(rounds),
        "machine": machine.described(),
        "date": f"{datetime.date.today():%Y-%m-%d}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    try:
        print(json.dumps(measured(given.case, given.rounds)))
    except Exception as error:
        sys.exit(f"{given.case}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
