"""The input of ``parallel-core map``: lines as they come, as tasks of a call that runs already.

::

    descriptor ──read, split──▶ lists of lines ──a thread──▶ queue ──▶ LineTasks ◀── the dispatch
                                                 (bounded)       └── wakes ────────────┘

A producer may pause, or wait for our answer before it goes on. The dispatch must then hand out what
is done, so it never waits in here. But where tasks run in the calling thread itself, one by one,
nothing is ever done and not handed out: there is no thread then, and the next line is waited for.
"""

from __future__ import annotations

import math
import os
import queue
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from parallel_core.dispatch.task_queue import TaskQueue

_CHUNK = 1 << 16  # bytes that are read at once
_MAX_CHUNKS = 16  # read ahead
_PLENTY = 1 << 12  # lines: more at a time need not be known


class LineSource:
    """The lines of a file, or with the name ``"-"`` of standard input.

    A failure to read ends the lines, and is told by `problem`: the lines before it count.
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
        self.problem: str | None = None

    def close(self) -> None:
        """Close the file, but not standard input."""
        self._file.close()

    def chunks(self) -> Iterator[list[bytes]]:
        """Yield lists of lines without their newlines, each as soon as it can be read."""
        unfinished: list[bytes] = []
        while chunk := self._read():
            if b"\n" not in chunk:
                unfinished.append(chunk)
                continue
            lines = b"".join((*unfinished, chunk)).split(b"\n")
            unfinished = [lines.pop()]
            if b"\r" in chunk or lines[0].endswith(b"\r"):
                lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
            yield lines
        rest = b"".join(unfinished)
        if rest:
            yield [rest]

    def _read(self) -> bytes:
        """Return what comes next; nothing at the end."""
        while True:
            try:
                descriptor = self._file.fileno()
                return os.read(descriptor, _CHUNK)
            except BlockingIOError:  # another program has made it non-blocking
                select.select([descriptor], [], [])
            except OSError as error:
                self.problem = error.strerror or str(error)
                return b""
            except ValueError:  # the run is over, and the file is closed
                return b""


class LineTasks(TaskQueue):
    """A task for each line: what `task` returns for its number, from 1, and the line."""

    answers_each = False

    def __init__(self, source: LineSource, task: Callable[[int, bytes], Any]) -> None:
        super().__init__()
        self._chunks = source.chunks()
        self._task = task
        self._reader: threading.Thread | None = None
        self._read: queue.Queue[list[bytes]] = queue.Queue(_MAX_CHUNKS)
        self._is_read = False  # everything is in the queue
        self._lines: deque[bytes] = deque()
        self.pulled = 0

    def wake_by(self, wake: Callable[[], None] | None) -> None:
        """Have `wake` called when there are lines; read them in a thread from now on."""
        super().wake_by(wake)
        if self._reader is None:
            name = "parallel-core-input"
            self._reader = threading.Thread(target=self._read_ahead, name=name, daemon=True)
            self._reader.start()

    def _read_ahead(self) -> None:
        for lines in self._chunks:
            self._read.put(lines)
            self.ring()
        self._is_read = True
        self.ring()

    def rest_until(self, now: float, is_idle: bool) -> float:
        """Never rest: the call ends with the input."""
        return math.inf

    def is_empty(self) -> bool:
        """Whether there is nothing now."""
        return not (self._lines or self._refill())

    def count(self) -> int:
        """Return about how many there are now."""
        while len(self._lines) < _PLENTY and self._refill():
            pass
        return len(self._lines)

    def is_over(self) -> bool:
        """Whether there is nothing, and never will be."""
        return self._is_read and self.is_empty()

    def __next__(self) -> Any:
        while not self._lines:
            if not self._refill():
                if self._reader is not None:
                    raise StopIteration
                self._lines.extend(next(self._chunks))
        self.pulled += 1
        return self._task(self.pulled, self._lines.popleft())

    def _refill(self) -> bool:
        try:
            self._lines.extend(self._read.get_nowait())
        except queue.Empty:
            return False
        return True
