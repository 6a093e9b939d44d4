"""How much memory a worker holds: written on its board, and compared with a limit."""

from __future__ import annotations

import contextlib
import os

from parallel_core.workers.board import LIMIT, MEMORY, Board

_LOOK_SECONDS = 0.1  # reading it costs 20 µs after a task that has slept
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Looks at the resident memory of this process, and writes it on the board.

    Over the limit, the worker starts no further task: it lowers its own ``LIMIT``, and the parent
    has it replaced.
    """

    __slots__ = ("_board", "_file", "due", "most")

    def __init__(self, board: Board) -> None:
        self._board = board
        self.most: int | None = None  #: the limit, in bytes
        self.due = 0.0  #: when to look again, `time.monotonic`
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no such file on this system: nothing to look at
            self._file = -1
            self.due = float("inf")

    def look(self, now: float) -> None:
        """Write down how much it is, after a task, and start no other if that is too much."""
        self.due = now + _LOOK_SECONDS if self.most is None else 0.0
        held = self.note()
        if self.most is not None and held > self.most:
            self._board.words[LIMIT] = 0

    def note(self) -> int:
        """Write down how much it is, and return that."""
        held = 0
        if self._file >= 0:
            with contextlib.suppress(OSError, IndexError, ValueError):  # a task has closed it
                held = int(os.pread(self._file, 100, 0).split()[1]) * _PAGE
        self._board.words[MEMORY] = held
        return held
