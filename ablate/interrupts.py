"""How and when Ctrl-C, SIGTERM and a closed pipe take effect."""

import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def blocked(number: signal.Signals) -> Iterator[None]:
    """Block a signal in this thread; processes started meanwhile inherit the mask and never receive it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM, so that a second Ctrl-C does not leave the last results half written."""
    with _handled(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    with _handled(_ask, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals; nothing in another thread than the main one, which alone receives them and may say how."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def listen() -> None:
    """From here on, make Ctrl-C and SIGTERM raise KeyboardInterrupt, and remember that they were received."""
    global _is_asked
    _is_asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def heed() -> None:
    """Raise KeyboardInterrupt again if it was received: a library may have swallowed it while starting up."""
    if _is_asked:
        raise KeyboardInterrupt


_is_asked = False


def _ask(number: int, frame: FrameType | None) -> None:
    global _is_asked
    _is_asked = True
    raise KeyboardInterrupt


class _Pipe(io.FileIO):
    """A stream of this process; once its reader is gone, what is written is discarded."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From here on, do not fail when a reader such as `head` closes the pipe."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # Not a replacement that a test has installed.
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            raw = _Pipe(stream.fileno(), "w", closefd=False)
            patient = io.TextIOWrapper(
                raw if stream.write_through else io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, patient)
