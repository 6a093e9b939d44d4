"""Tasks that others put in while their call runs.

::

    put, from any thread ──▶ LiveTasks ── is_ready? ──▶ PushDispatch, which is woken for it
                                 │                      (`Session.waker`) and never waits in here
                                 └── waiting() ───────▶ threads of PullDispatch: one waits in here

To have nothing now is not the end. That comes when no more can be put in, or when for a while there
was nothing to do: whoever keeps workers for a call that does nothing keeps them from others.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

#: After so many seconds without a task at work, or one to begin with, the call is over.
REST_SECONDS = 0.05

_NUDGE = object()  # has who waits look again


class LiveTasks:
    """A source of tasks for one call after the other.

    It is an iterator of what is there now.

    Attributes
    ----------
    is_waited_for : bool
        Whether threads wait in here for tasks.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()  # takes `put` at any moment
        self._wake: Callable[[], None] | None = None
        self._is_closed = False
        self.is_waited_for = False
        self._is_expelling = False
        self._outside = threading.Event()  # nobody is waiting in here
        self._outside.set()

    def put(self, item: Any) -> None:
        """Add something that `accept` makes a task of."""
        self._queue.put(item)
        self._ring()

    def close(self) -> None:
        """Say that no more will be put in."""
        self._is_closed = True
        self.nudge()

    def nudge(self) -> None:
        """Have who waits look again."""
        self._queue.put(_NUDGE)
        self._ring()

    def _ring(self) -> None:
        wake = self._wake
        if wake is not None:
            wake()

    def accept(self, item: Any) -> Any:
        """Return the task that `item` stands for; None where it is not wanted any more."""
        return item

    @property
    def is_at_rest(self) -> bool:
        """Whether no task that was taken from here is at work."""
        return True

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
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return None
            if item is not _NUDGE:
                return item

    def waiting(self) -> WaitingTasks:
        """Return an iterator that waits for tasks."""
        self.is_waited_for = True
        return WaitingTasks(self)

    def take(self) -> Any:
        """Return the next task, when there is one; None when the call is over.

        One thread at a time may wait in here.
        """
        self._outside.clear()
        try:
            return self._take()
        finally:
            self._outside.set()

    def _take(self) -> Any:
        while not self._expels():
            patience = REST_SECONDS if self.is_at_rest else None
            try:
                item = self._queue.get(block=not self._is_closed, timeout=patience)
            except queue.Empty:
                if self._is_closed or self.is_at_rest:
                    return None
                continue
            if self._expels():
                self._queue.put(item)
            elif item is not _NUDGE:
                task = self.accept(item)
                if task is not None:
                    return task
            del item
        return None

    def _expels(self) -> bool:
        return self._is_expelling

    def expel(self) -> None:
        """Have nobody wait in here: the call has failed, and a thread of it would take a task."""
        if self.is_waited_for:
            self._is_expelling = True
            self.nudge()
            self._outside.wait()
            self._is_expelling = False


class WaitingTasks:
    """Waits for the tasks of a `LiveTasks`, until the call is over."""

    def __init__(self, live: LiveTasks) -> None:
        self._live = live

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        task = self._live.take()
        if task is None:
            raise StopIteration
        return task
