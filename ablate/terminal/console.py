"""The terminal that everything is printed to."""

import io
import os
import sys

from rich.console import Console

PIPE_WIDTH = 200


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        """A reader that has seen enough, such as `head`, is no reason to fail."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminal() -> Console:
    """The terminal; where there is none, lines wide enough for a table, and nowhere if the output is closed."""
    if sys.stdout is None:
        return Console(file=io.StringIO())
    return _Terminal() if sys.stdout.isatty() else _Terminal(width=PIPE_WIDTH)
