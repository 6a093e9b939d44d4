"""What a thread of `pull` has taken, what it is on, and what came of that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextvars import Context
from typing import Any

from parallel_core.backends.base import Failure
from parallel_core.context.envelope import Envelope


class Chunk:
    """Consecutive tasks that a thread has taken.

    It takes one after the other from the left, and asks nobody; a thread that finds nothing else to
    do takes some from the right. Either is a single operation on a `deque`, which threads may do at
    the same time, so each task is taken once.

    Attributes
    ----------
    start : int
        Position of the first.
    tasks : deque
        Those that nobody has begun.
    """

    __slots__ = ("_end", "start", "tasks")

    def __init__(self, start: int, tasks: deque[Any]) -> None:
        self.start = start
        self.tasks = tasks
        self._end = start + len(self.tasks)

    def part(self) -> Chunk | None:
        """Take away half of what nobody has begun; only one thread at a time may ask for it."""
        taken: deque[Any] = deque()
        try:
            for _ in range((len(self.tasks) + 1) // 2):
                taken.appendleft(self.tasks.pop())
        except IndexError:  # its owner was quicker
            pass
        self._end -= len(taken)
        return Chunk(self._end, taken) if taken else None


class Running:
    """What a thread is on.

    Attributes
    ----------
    chunk : Chunk
        What it has taken.
    item : object
        The task; this and what follows is kept up to date only when there is a time limit.
    position : int
        Its position.
    since : float
        When it began; 0 between two tasks.
    is_disowned : bool
        Whether nobody waits for the thread any more, since its task ran out of time.
    envelope : Envelope or None
        What surrounds its tasks.
    done : Done or None
        What has come of the chunk.
    base : Context
        In which each of its tasks begins.
    """

    __slots__ = ("base", "chunk", "done", "envelope", "is_disowned", "item", "position", "since")

    def __init__(self) -> None:
        self.chunk = Chunk(0, deque())
        self.item: Any = None
        self.position = 0
        self.since = 0.0
        self.is_disowned = False
        self.envelope: Envelope | None = None
        self.done: Done | None = None
        self.base = Context()

    def current(self) -> int:
        """Return the position of the task that it is on."""
        return -1 if self.done is None else self.done.next


class Done:
    """What came of some consecutive tasks.

    Attributes
    ----------
    start : int
        Position of the first.
    values : list or Fold
        What stands in the place of each that is done; or what folds that as it is appended.
    not_results : list of int
        Positions where that is not what the task has returned just now.
    failure : Failure or None
        Of the task after them, which ends the call.
    """

    __slots__ = ("failure", "not_results", "start", "values")

    def __init__(self, start: int, values: Any) -> None:
        self.start = start
        self.values = values
        self.not_results: list[int] = []
        self.failure: Failure | None = None

    @property
    def next(self) -> int:
        """Position of the first task that is not done."""
        return self.start + len(self.values)

    def results(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield what tasks have returned: consecutive results, and the position of the first."""
        first = self.start
        for end in [*self.not_results, self.next]:
            if end > first:
                yield first, self.values[first - self.start : end - self.start]
            first = end + 1
