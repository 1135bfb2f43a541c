"""Processes that train the same lanes together: each computes its shares of every batch, and an all-gather follows.

Why processes, and not threads, although NumPy and BLAS release the interpreter's lock? The code between two such calls
holds the lock, and if the calls are short the threads wait for each other. Time for gradient and update of one LeNet-5
in float32, with BLAS on one thread, relative to two processes:

| batches | BLAS kernels | two threads | one process alone |
| --- | --- | --- | --- |
| MNIST, 300 | Haswell (AVX2) | 1.05 | 1.73 to 1.74 |
| MNIST, 300 | SkylakeX (AVX-512) | 1.12 to 1.30 | 1.55 to 1.66 |
| digits, 32 | Haswell (AVX2) | 1.23 to 1.47 | 1.56 to 1.64 |
| digits, 32 | SkylakeX (AVX-512) | 1.31 to 1.50 | 1.35 to 1.55 |

Measured on 2 cores of an AMD EPYC, Python 3.11.7, NumPy 2.4.6: medians of two runs of 12 rounds, those in which other
programs used at most 6 % of the cores. One thread added the sums and updated while the other waited; two threads that
each did everything that the processes do took 1.05 to 1.62, whatever the interpreter's switch interval. All gave the
same bits. A Python without that lock was not tried.
"""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# An upper bound: PARTIAL_SUMS (`numpy/layout.py`) copies in double precision, in two buffers, and a reserve.
BYTES_A_NUMBER = 100
ARRIVAL_SECONDS, FAREWELL_SECONDS = 60.0, 3.0


@dataclass(frozen=True)
class Rendezvous:
    """Where a process meets the others of its group, and its rank among them. By default it is alone."""

    rank: int = 0
    size: int = 1
    folder: Path = Path()

    def join(self) -> "ProcessGroup":
        """Wait for the others. Raises ConnectionError if one does not come."""
        return ProcessGroup(self.rank, self.size, self.folder)


ALONE = Rendezvous()


@contextmanager
def rendezvous_folders(count: int, numbers: int) -> Iterator[list[Path]]:
    """A folder for each of `count` groups, which exchange `numbers` numbers in all; removed afterwards.

    If nothing is exchanged, no folder is created.
    """
    if not numbers:
        yield [Path() for _ in range(count)]
        return
    memory = _memory(numbers * BYTES_A_NUMBER)
    with TemporaryDirectory(prefix="ablate-", dir=memory, ignore_cleanup_errors=True) as root:
        folders = [Path(root) / str(number) for number in range(count)]
        for folder in folders:
            folder.mkdir()
        yield folders


def _memory(needed: int) -> str | None:
    """A folder in memory with room for that many bytes, if the system has one."""
    folder = Path("/dev/shm")
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > needed
    return str(folder) if has_room else None


class ProcessGroup:
    """Processes that run the same training side by side; by default a group of one, which computes everything itself.

    They meet in a folder that no other group uses. Each has its own copy of everything and makes every update itself.
    Only sums are exchanged, through two buffers that all of them map into memory and use in turn, so that one can still
    be read while the other is written. Raises ConnectionError if another process does not come, or has left.
    """

    # Files rather than `multiprocessing.shared_memory`: if /dev/shm is small, as in containers, they can lie elsewhere;
    # they can grow; and no resource tracker of a process that ends removes them while the others need them.

    def __init__(self, rank: int = 0, size: int = 1, folder: Path = Path()) -> None:
        self.rank, self.size = rank, size
        self.buffers = [_SharedBuffer(folder / "even"), _SharedBuffer(folder / "odd")]
        self.connections = _connected(folder / "rendezvous", rank, size)

    def shares(self, count: int) -> range:
        """Which of `count` shares this process computes."""
        return range(self.rank, count, self.size)

    def all_gather(self, arrays: Sequence[Array]) -> None:
        """Fill in what the other processes computed: the first axis of each array counts the shares."""
        if self.size == 1:
            return
        self.buffers.reverse()
        shared = self.buffers[0].views(arrays)
        for array, view in zip(arrays, shared, strict=True):
            view[self.rank :: self.size] = array[self.rank :: self.size]
        self._barrier()
        for array, view in zip(arrays, shared, strict=True):
            for other in range(self.size):
                if other != self.rank:
                    array[other :: self.size] = view[other :: self.size]

    def close(self) -> None:
        """Leave the group. Others that still wait get a ConnectionError."""
        for connection in self.connections:
            connection.close()

    def _barrier(self) -> None:
        """Wait for every process. Rank 0 is connected to all others; with more than two, it tells them to go on."""
        try:
            self._send()
            for connection in self.connections:
                connection.recv_bytes()
            if self.size > 2 and self.rank == 0:
                self._send()
            elif self.size > 2:
                self.connections[0].recv_bytes()
        except (EOFError, OSError) as error:
            # Whoever terminates the group ends one process after another: this one may be next, so say nothing yet.
            time.sleep(FAREWELL_SECONDS)
            raise ConnectionError("a process that trained the same trial ended too early") from error

    def _send(self) -> None:
        for connection in self.connections:
            connection.send_bytes(b".")


def _connected(address: Path, rank: int, size: int) -> "list[Connection[bytes, bytes]]":
    """Connections of rank 0 to all others, and of each of these to rank 0."""
    if size == 1:
        return []
    if rank == 0:
        with Listener(str(address)) as listener:
            return [listener.accept() for _ in range(size - 1)]
    end = time.monotonic() + ARRIVAL_SECONDS
    while time.monotonic() < end:
        with suppress(OSError):
            return [Client(str(address))]
        time.sleep(0.01)
    raise ConnectionError("the process to train with did not come")


class _SharedBuffer:
    """A file mapped into memory, as large as the largest request so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.memory = path, np.zeros(0, np.uint8)
        self.known: dict[Sequence[tuple[Any, ...]], list[Array]] = {}

    def views(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays in the buffer with these shapes and dtypes; processes that ask for the same get the same memory."""
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
