"""The input of ``parallel-core map``: lines as they come, in rounds.

`Parallel` pulls tasks in the thread that wants the next result. While such a pull waits
for input, nobody hands results on: behind a slow producer, or one that waits for our
answer before it goes on, finished results would lie there. So a `Feed` waits without limit
only while no result is owed; otherwise it waits for at most `PATIENCE` between two
results, and then ends the *round*: `Parallel` sees the end of its tasks, and hands out
what there is. The next line starts the next round, on the same warm workers.

States of a feed: *owing* (pulled more than delivered) or *square*. Invariant: in a round,
the time that results are kept back by waiting for input is at most `PATIENCE`.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

PATIENCE = 0.05
"""Seconds that results may be kept back in the hope of more input.

Long beside the gaps in what a busy program writes to a pipe (each end of a round lets the
workers run empty), short beside what a person notices.
"""
_CHUNK = 1 << 16

T = TypeVar("T")


class LineSource:
    """The lines of a descriptor; knows whether the next one is there yet.

    Reads at most `_CHUNK` bytes beyond the line that is asked for, and never waits for more
    than that line. A failure to read ends the lines, and is told by `problem`: the lines
    before it count.

    Parameters
    ----------
    name : str
        The path of a file, or ``"-"`` for standard input.

    Raises
    ------
    OSError
        When the file cannot be opened.
    """

    def __init__(self, name: str) -> None:
        if name == "-":
            if sys.stdin is None:
                raise OSError("standard input is closed")
            self.name = "standard input"
            self._file = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
        else:
            self.name = name
            self._file = open(name, "rb", buffering=0)
        self._descriptor = self._file.fileno()
        self._lines: deque[bytes] = deque()
        self._unfinished: list[bytes] = []
        self._at_end = False
        self.problem: str | None = None

    def close(self) -> None:
        """Close the file, but not standard input."""
        self._file.close()

    def wait(self, seconds: float | None) -> bool:
        """Wait until a line is there.

        Parameters
        ----------
        seconds : float or None
            How long to wait at most; ``None`` for as long as it takes.

        Returns
        -------
        bool
            True when there is a line to take, False when the time or the input is over.

        """
        if self._lines:
            return True
        until = None if seconds is None else time.monotonic() + seconds
        while not self._lines and not self._at_end:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._readable(left):
                return False
            self._read()
        return bool(self._lines)

    def take(self) -> bytes:
        """Return the next line, without its newline; only after `wait` said that it is there."""
        return self._lines.popleft()

    def _readable(self, seconds: float | None) -> bool:
        if os.name == "nt":  # select knows only sockets there: wait for as long as it takes
            return True
        return bool(select.select([self._descriptor], [], [], seconds)[0])

    def _read(self) -> None:
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:  # someone made it non-blocking, and someone else was faster
            return
        except OSError as error:
            self.problem = error.strerror or str(error)
            chunk = b""
        if not chunk:
            self._at_end = True
            rest = b"".join(self._unfinished)
            self._unfinished.clear()
            if rest:
                self._lines.append(rest)
            return
        if b"\n" not in chunk:
            self._unfinished.append(chunk)
            return
        lines = b"".join((*self._unfinished, chunk)).split(b"\n")
        self._unfinished = [lines.pop()]
        if b"\r" in chunk or lines[0].endswith(b"\r"):
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        self._lines.extend(lines)


class Feed(Generic[T]):
    """Makes tasks of lines, a round at a time.

    Parameters
    ----------
    source : LineSource
        Where the lines come from.
    task : callable
        Called with the number of a line, from 1, and the line; makes a task of them.
    """

    def __init__(self, source: LineSource, task: Callable[[int, bytes], T]) -> None:
        self._source = source
        self._task = task
        self._patience = PATIENCE
        self.pulled = 0
        self.delivered = 0

    def round(self) -> Iterator[T]:
        """Yield tasks until the input ends, or pauses while results are owed."""
        source = self._source
        while source.wait(0.0) or self._wait():
            self.pulled += 1
            yield self._task(self.pulled, source.take())

    def deliver(self) -> None:
        """Note that a result has been handed on."""
        self.delivered += 1
        self._patience = PATIENCE

    def _wait(self) -> bool:
        if self.pulled == self.delivered:
            return self._source.wait(None)
        start = time.monotonic()
        came = self._source.wait(self._patience)
        self._patience = max(0.0, self._patience - (time.monotonic() - start))
        return came
