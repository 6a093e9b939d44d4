"""The status board: one shared page for each worker, written by it at every task.

::

    word   0        1      2      3       4      5           6          8      9     10
         STARTED  SINCE  PHASE  MEMORY  FENCED  HAS_OUTPUT  HAS_STATE  LIMIT  STOP  SLOT
         ◀───────────────── written by the worker ───────────────▶     ◀─── parent ────▶
    behind the page: STACK, which the worker writes as it dies, or when asked

Tasks of a worker are numbered from 1, through all its batches. Before task ``k`` it stores the
time, stores ``STARTED = k``, and loads ``LIMIT``: with ``k > LIMIT`` the task is not run and the
batch ends there. The parent lowers ``LIMIT`` to cancel or to take tasks back (see `stealing`), and
raises it again only when every batch that it had sent has been answered, so a limit never meets a
task that it was not meant for. ``FENCED`` says whether the worker takes part in memory barriers (a
`Fence`), ``HAS_OUTPUT`` that it has sent output (an `OutputNotice`) since the parent cleared it.
``HAS_STATE`` says that something asked for `this_worker`, so that there may be a state to forget
when the worker is given back; ``SLOT`` is the number that `this_worker` tells.

``PHASE`` and ``SINCE`` tell what the worker is doing and since when (`time.monotonic`), which is
how a task that ran out of time, or whose worker was killed, is known by name; what happens while
results are folded, or around all tasks of a batch, is no task's. ``STOP`` is the number of a task
that the parent wants interrupted: the worker's handler of SIGINT raises only while it is on that
very task, so that a signal which comes late never meets the next one. ``MEMORY`` is how many bytes
the worker held when it looked last; over its limit, it lowers its own ``LIMIT``.
`faulthandler` writes the ``STACK`` into the same file.
"""

from __future__ import annotations

import enum
import mmap
import os
import threading
import time
from collections.abc import Callable

from parallel_core.workers.system import memory_file

PAGE_SIZE = 4096
SIZE = 16 * PAGE_SIZE
STARTED, SINCE, PHASE, MEMORY, FENCED, HAS_OUTPUT, HAS_STATE = range(7)  # of the worker
LIMIT, STOP, SLOT = 8, 9, 10  # of the parent
TAKEN_LIMIT = 11  # of what carries boards to another host and back: the limit that was taken in
NO_LIMIT = 1 << 62


class Phase(enum.IntEnum):
    """What a worker is doing."""

    IDLE = 0
    UNPICKLING = 1
    RUNNING = 2
    PICKLING = 3
    SENDING = 4
    LOADING = 5  #: the function of the next task, with the modules that it needs
    FOLDING = 6  #: results, whatever task comes next
    CONTEXT = 7  #: setting up what is to hold inside the tasks, or putting it back
    INIT = 8  #: what comes before the first task
    EXIT = 9  #: what comes after the last one
    REQUEST = 10  #: something else that the parent has asked for between two tasks


class Fence(enum.IntEnum):
    """Whether a worker takes part in memory barriers."""

    LATER = 0  #: it joins them before its second task
    JOINED = 1
    REFUSED = 2  #: the system has none for it


class Board:
    """A view of one worker's page: a file of `SIZE` bytes, whose descriptor may be closed then."""

    __slots__ = ("_memory", "_stack_from", "times", "words")

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._stack_from = PAGE_SIZE  # what is before that was read
        view = memoryview(self._memory)[:PAGE_SIZE]
        self.words = view.cast("Q")
        self.times = view.cast("d")

    @staticmethod
    def make() -> tuple[Board, int]:
        """Return a new board and the descriptor to hand to the worker."""
        descriptor = memory_file(SIZE)
        try:
            board = Board(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        board.words[LIMIT] = NO_LIMIT
        return board, descriptor

    def running(self) -> tuple[int, float, Phase]:
        """Return the number of the task started last, since when at the earliest, and the phase."""
        while True:
            number = self.words[STARTED]
            since, phase = self.times[SINCE], self.words[PHASE]
            if self.words[STARTED] == number:
                return number, since, Phase(phase)

    def cancel(self) -> None:
        """Let the worker start no further task."""
        self.words[LIMIT] = 0

    def allow(self, up_to: int = NO_LIMIT) -> None:
        """Let it start tasks up to that number; only when no batch is at the worker."""
        self.words[LIMIT] = up_to

    def ask_to_stop(self, number: int) -> None:
        """Want task `number` interrupted, by the next SIGINT, and none after it started."""
        self.words[LIMIT] = number
        self.words[STOP] = number

    def stack(self) -> str:
        """Return what `faulthandler` has written, if it has."""
        written = self._memory[self._stack_from :].partition(b"\0")[0]
        return written.decode(errors="replace")

    def take_stack(self) -> str:
        """Return what `faulthandler` has written since the last time."""
        written = self._memory[self._stack_from :].partition(b"\0")[0]
        self._stack_from += len(written)
        return written.decode(errors="replace")

    def close(self) -> None:
        """Unmap the page."""
        self.words.release()
        self.times.release()
        try:
            self._memory.close()
        except BufferError:  # a view is still in use somewhere; it goes with the process
            pass


class PrivateBoard(Board):
    """A board at which nobody else looks: no file, so it costs next to nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        view = memoryview(bytearray(PAGE_SIZE))
        self.words = view.cast("Q")
        self.times = view.cast("d")
        self.words[LIMIT] = NO_LIMIT


class OutputNotice:
    """Notes on a board that its worker has sent output, and when it waits for a parent at rest."""

    def __init__(self, board: Board, stop_if_wanted: Callable[[], object]) -> None:
        self._board = board
        self._stop_if_wanted = stop_if_wanted  #: raises if the task that runs is to stop
        self._main_thread = threading.get_ident()

    def note_output(self) -> None:
        """Note that something was sent."""
        self._board.words[HAS_OUTPUT] = 1

    def wait_for_parent(self, send: Callable[[], bool]) -> bool:
        """Return what `send` returns, which waits; a task that runs does not age meanwhile."""
        words, times = self._board.words, self._board.times
        if threading.get_ident() != self._main_thread or words[PHASE] != Phase.RUNNING:
            return send()
        since = time.monotonic()
        try:
            words[PHASE] = Phase.SENDING
            return send()
        finally:
            times[SINCE] += time.monotonic() - since
            words[PHASE] = Phase.RUNNING
            self._stop_if_wanted()  # the signal may have come meanwhile
