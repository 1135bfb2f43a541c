"""What Ctrl-C and SIGTERM may do, and when."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def blocked(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back in this thread; processes started meanwhile never hear it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ignored() -> Iterator[None]:
    """A second Ctrl-C, or one while the last results are delivered, must not leave them half written."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen() -> None:
    """From here on Ctrl-C and SIGTERM raise KeyboardInterrupt, and are remembered."""
    global _is_asked
    _is_asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def heed() -> None:
    """Raise KeyboardInterrupt again if it was asked for: a library may have swallowed it while it started up."""
    if _is_asked:
        raise KeyboardInterrupt


_is_asked = False


def _ask(number: int, frame: FrameType | None) -> None:
    global _is_asked
    _is_asked = True
    raise KeyboardInterrupt
