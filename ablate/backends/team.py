"""Processes that train the same lanes together: each computes its shares of every batch, all get all of them."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# At most: SHARES partial sums in double precision on two boards, and some.
BYTES_A_NUMBER = 100
ARRIVAL_SECONDS, FAREWELL_SECONDS = 60.0, 3.0


class Team:
    """The team of one: whoever is alone computes everything and waits for nobody."""

    def mine(self, count: int) -> range:
        """Which of `count` shares are computed here."""
        return range(count)

    def complete(self, arrays: Sequence[Array]) -> None:
        """Fill in what the others computed: the first axis of each array is the share."""

    def close(self) -> None:
        """Leave; it is an error for those who still wait."""


@contextmanager
def meeting_places(count: int, numbers: int) -> Iterator[list[Path]]:
    """A folder for each of `count` teams that exchange gradients of so many numbers in all; gone afterwards.

    Where nothing is exchanged nobody meets, and no folder is made.
    """
    if not numbers:
        yield [Path() for _ in range(count)]
        return
    memory = _memory(numbers * BYTES_A_NUMBER)
    with TemporaryDirectory(prefix="ablate-", dir=memory, ignore_cleanup_errors=True) as root:
        places = [Path(root) / str(number) for number in range(count)]
        for place in places:
            place.mkdir()
        yield places


def _memory(needed: int) -> str | None:
    """A folder in memory with so many bytes of room, if the system has one."""
    place = Path("/dev/shm")
    has_room = os.access(place, os.W_OK) and shutil.disk_usage(place).free > needed
    return str(place) if has_room else None


class _Board:
    """A file mapped into memory, as large as was asked for so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.memory = path, np.zeros(0, np.uint8)
        self.known: dict[Sequence[tuple[Any, ...]], list[Array]] = {}

    def places(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays on the board of these shapes and kinds; every member that asks for the same gets the same."""
        shapes = tuple((array.dtype, array.shape) for array in arrays)
        if shapes not in self.known:
            sizes = [-(-array.nbytes // 64) * 64 for array in arrays]
            self._grow(sum(sizes))
            starts = np.cumsum([0, *sizes[:-1]]).tolist()
            self.known[shapes] = [
                np.frombuffer(self.memory, array.dtype, array.size, start).reshape(array.shape)
                for array, start in zip(arrays, starts, strict=True)
            ]
        return self.known[shapes]

    def _grow(self, size: int) -> None:
        if size > self.memory.size:
            with self.path.open("ab") as file:
                file.truncate(size)
            self.memory = np.memmap(self.path, np.uint8, "r+")


class Member(Team):
    """One of several processes that run the same training side by side.

    They meet in a folder, which must be theirs alone. Each has its own copy of everything and makes every update
    itself; only sums are exchanged, through two files mapped into memory, used in turn: so what was exchanged
    last may still be read while the next is written. Raises ConnectionError where another does not come or left.
    """

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self.folder, self.rank, self.size = folder, rank, size
        self.boards = [_Board(folder / "even"), _Board(folder / "odd")]
        self.connections = self._receive() if rank == 0 else [self._visit()]

    def mine(self, count: int) -> range:
        return range(self.rank, count, self.size)

    def complete(self, arrays: Sequence[Array]) -> None:
        self.boards.reverse()
        pinned = self.boards[0].places(arrays)
        for array, board in zip(arrays, pinned, strict=True):
            board[self.rank :: self.size] = array[self.rank :: self.size]
        self._meet()
        for array, board in zip(arrays, pinned, strict=True):
            for other in range(self.size):
                if other != self.rank:
                    array[other :: self.size] = board[other :: self.size]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def _receive(self) -> "list[Connection[bytes, bytes]]":
        with Listener(str(self.folder / "door")) as listener:
            return [listener.accept() for _ in range(self.size - 1)]

    def _visit(self) -> "Connection[bytes, bytes]":
        end = time.monotonic() + ARRIVAL_SECONDS
        while time.monotonic() < end:
            with suppress(OSError):
                return Client(str(self.folder / "door"))
            time.sleep(0.01)
        raise ConnectionError("the process to train with did not come")

    def _meet(self) -> None:
        """Go on when every member is here. The first knows all others; two know each other, more have to be told."""
        try:
            self._send()
            for connection in self.connections:
                connection.recv_bytes()
            if self.size > 2 and self.rank == 0:
                self._send()
            elif self.size > 2:
                self.connections[0].recv_bytes()
        except (EOFError, OSError) as error:
            # Who ends the whole team ends one process after the other: this one may be next, and has nothing to say.
            time.sleep(FAREWELL_SECONDS)
            raise ConnectionError("a process that trained the same trial ended too early") from error

    def _send(self) -> None:
        for connection in self.connections:
            connection.send_bytes(b".")
