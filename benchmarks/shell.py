"""Whole commands in an empty folder, as a user types them: how long they take and how much memory."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.05


def seconds(*words: str) -> float:
    """Wall time of `python -m ablate` with these words, from the start of Python to its end."""
    start = time.perf_counter()
    with _started(words) as command:
        command.wait()
    return time.perf_counter() - start


def memory(*words: str) -> float:
    """The largest resident memory, in GB, of the command and its processes at one time.

    Each process counts with its proportional share of what it has in common with others (PSS).
    """
    most = 0
    with _started(words) as command:
        first = psutil.Process(command.pid)
        while command.poll() is None:
            most = max(most, sum(map(_resident, [first, *first.children(recursive=True)])))
            time.sleep(SAMPLE_SECONDS)
    return most / 1e9


@contextmanager
def _started(words: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work in a folder of its own; an error where it fails."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        command = subprocess.Popen(
            [sys.executable, "-m", "ablate", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield command
        finally:
            command.terminate()  # nothing where it has ended
            command.wait()
        if command.returncode:
            raise RuntimeError(f"python -m ablate {' '.join(words)} ended with {command.returncode}")


def _resident(process: psutil.Process) -> int:
    """Bytes; 0 for a process that has ended meanwhile."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
