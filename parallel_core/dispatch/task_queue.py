"""Tasks that other threads add while their call runs.

::

    put, from any thread ──▶ TaskQueue ── is_empty? ──▶ BatchLoop, which is woken for it
                                                        (`Session.waker`) and never waits in here

An empty queue is not the end of the call. The call ends when no more tasks can be added, or when
there was nothing to do for a while: a call that does nothing would keep its workers from other
calls.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator
from typing import Any

#: After so many seconds without a task at work, or one to begin with, the call is over.
REST_SECONDS = 0.05


class TaskQueue:
    """A source of tasks for one call after the other; iterates over those that are there now."""

    #: Whether each result has a future of its own, which can be cancelled before its task is sent.
    #: If not, results come as `ReturnAs` says, and no more are ahead than for a generator.
    answers_each = True
    #: Whether tasks have time limits of their own, by `timeout_of`.
    times_each = False

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()  # takes `put` at any moment
        self._wake: Callable[[], None] | None = None
        self._is_closed = False
        self._rests_since = math.inf
        #: Whether this call is over: no task will come, or none has come for a while.
        self.has_rested = False

    def begin(self) -> None:
        """Start a call."""
        self._rests_since = math.inf
        self.has_rested = False

    def rest_until(self, now: float, is_idle: bool) -> float:
        """Return when to look again whether the call is over; `is_idle`: no task is under way."""
        if not is_idle or not self.is_empty():
            self._rests_since = math.inf
            return math.inf
        self._rests_since = min(self._rests_since, now)
        over = self._rests_since + REST_SECONDS
        self.has_rested = self.is_over() or now >= over
        return now if self.has_rested else over

    def put(self, item: Any) -> None:
        """Add something that `accept` makes a task of."""
        self._queue.put(item)
        self.ring()

    def close(self) -> None:
        """Say that no more will be put in."""
        self._is_closed = True
        self.ring()

    def ring(self) -> None:
        """Wake the dispatch."""
        wake = self._wake
        if wake is not None:
            wake()

    def accept(self, item: Any) -> Any:
        """Return the task that `item` stands for; None where it is not wanted any more."""
        return item

    def timeout_of(self, position: int) -> float:
        """Return the seconds that the task at `position` may run."""
        del position
        return math.inf

    def least_timeout(self) -> float:
        """Return the smallest of these, of all tasks that are under way."""
        return math.inf

    def wake_by(self, wake: Callable[[], None] | None) -> None:
        """Have `wake` called, from whatever thread, when something was put in."""
        self._wake = wake

    def is_empty(self) -> bool:
        """Whether there is nothing now."""
        return self._queue.empty()

    def count(self) -> int:
        """Return about how many there are now."""
        return self._queue.qsize()

    def is_over(self) -> bool:
        """Whether there is nothing, and never will be."""
        return self._is_closed and self._queue.empty()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while (item := self.take_item()) is not None:
            task = self.accept(item)
            if task is not None:
                return task
            del item
        raise StopIteration

    def take_item(self) -> Any:
        """Return what was put in first, as it is; None when there is nothing."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None
