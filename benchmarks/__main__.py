"""Ours against others, side by side: prints tables and writes `docs/benchmarks.md`.

    ABLATE_DATA=<folder with mnist/> python -m benchmarks                # all cases
    python -m benchmarks xor digits                                      # some of them
    python -m benchmarks --reuse runs/benchmarks/<time>.json             # the page again, from figures that are there
    python -m benchmarks xor --reuse runs/benchmarks/<time>.json         # the same with one case measured anew

Every case runs in processes of its own, once with `OPENBLAS_CORETYPE` as the shell has it and once the other way: unset
where it was set, else `Haswell`, which holds OpenBLAS to AVX2. The figures are kept in `runs/benchmarks/`. Without
`--into` the page goes to `docs/benchmarks.md` where it has all cases, else beside the figures.
"""

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import page
from benchmarks.cases import CASES, MNIST, TORCH
from benchmarks.machine import SWITCH

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "runs" / "benchmarks"

Results = dict[str, dict[str, Any]]


def lacking() -> set[str]:
    """What the cases may need and is not there."""
    torch = set() if importlib.util.find_spec("torch") else {TORCH}
    return torch if os.environ.get("ABLATE_DATA") else torch | {MNIST}


def environments() -> Iterator[Mapping[str, str]]:
    """The environment as it is, and with the other BLAS kernels."""
    here = dict(os.environ)
    if "ABLATE_DATA" in here:
        here["ABLATE_DATA"] = str(Path(here["ABLATE_DATA"]).resolve())
    yield here
    yield (
        {key: value for key, value in here.items() if key != SWITCH} if SWITCH in here else {**here, SWITCH: "Haswell"}
    )


def run(name: str, rounds: int) -> dict[str, Any]:
    """A case's figures by the BLAS kernels that ran; without those of a process that stopped, which has said why."""
    figures: dict[str, Any] = {}
    for environment in islice(environments(), CASES[name].kernels):
        print(f"{name}, {SWITCH} {environment.get(SWITCH, 'not set')}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.measure", name, "--rounds", str(rounds)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode == 0:
            measured = json.loads(done.stdout.splitlines()[-1])
            kernels = measured.pop("kernels")
            figures[f"{kernels} again" if kernels in figures else kernels] = measured
    return figures


def chosen(parser: argparse.ArgumentParser, names: Sequence[str], reused: Results) -> list[str]:
    """The cases to measure: those named, else all that are not there and that need nothing that is missing."""
    if unknown := set(names) - set(CASES):
        parser.error(f"{', '.join(sorted(unknown))}: no such case; choose from {', '.join(CASES)}")
    missing = lacking()
    stopped = {name: sorted(missing & set(CASES[name].needs)) for name in names or CASES}
    for name, needs in stopped.items():
        if needs and names:
            parser.error(f"{name} needs {' and '.join(needs)}")
        if needs and not reused:
            print(f"left out: {name}, which needs {' and '.join(needs)}", file=sys.stderr)
    return list(names) if names or reused else [name for name in CASES if not stopped[name]]


def main() -> int:
    """Measure, print, keep the figures and write the page; 1 where a case could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="rounds a case, 5 if not given; the longest take 3")
    parser.add_argument("--into", type=Path, help="the page to write")
    parser.add_argument("--reuse", type=Path, help="figures that are there: only the cases named are measured anew")
    given = parser.parse_args()
    if given.reuse and not given.reuse.is_file():
        parser.error(f"--reuse {given.reuse}: no such file")
    results: Results = json.loads(given.reuse.read_text(encoding="utf-8")) if given.reuse else {}
    names = chosen(parser, given.cases, results)
    kept = FIGURES / f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        results[name] = run(name, given.rounds)
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
    into = given.into or (PAGE if CASES.keys() == results.keys() else kept.with_suffix(".md"))
    page.write(results, into)
    page.print_tables(results, Console(width=None if sys.stdout.isatty() else 150))
    print(f"page     {os.path.relpath(into)}")
    return int(any(len(results[name]) < CASES[name].kernels for name in names))


if __name__ == "__main__":
    sys.exit(main())
