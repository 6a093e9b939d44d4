"""What threads take tasks from: the caller's iterable, and each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from itertools import islice
from time import monotonic
from typing import Any

from parallel_core.dispatch.live import WaitingTasks
from parallel_core.dispatch.source import close_generator
from parallel_core.dispatch.thread_work import Chunk, Running

_AIM_SECONDS = 1e-4
_MOST = 512
_PULL_SECONDS = 2e-4  # for more tasks to come, when there is one to run
_SOURCE_SECONDS = 1e-3  # the iterable may take its time; then there may be something else to do


class SourceFailed(Exception):
    """The iterable has raised.

    Parameters
    ----------
    error : BaseException
        That.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Turn:
    """A lock that whoever has released it may take again at once, though others wait for it.

    A `threading.Lock` passes to a thread that waits, which then still has to wait for the
    interpreter's lock. So whoever has released it finds it taken, sleeps, and so on: from the first
    time that two threads meet, each chunk would cost two switches between threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_taken = False

    def acquire(self, timeout: float | None = None) -> bool:
        """Take it, and return whether it could be had within `timeout` seconds."""
        with self._changed:
            if self._is_taken and not self._changed.wait_for(self._is_free, timeout):
                return False
            self._is_taken = True
            return True

    def release(self) -> None:
        """Give it up."""
        with self._changed:
            self._is_taken = False
            self._changed.notify()

    def _is_free(self) -> bool:
        return not self._is_taken


class Feed:
    """The tasks of a call that no thread has begun.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    batch_size : int or None
        How many are taken at a time, if that is fixed.
    most_ahead : int or None
        How many chunks may be taken and not done, or not passed by the consumer.
    lock : threading.Lock
        Of everything but the iterable, and never held for long.

    Attributes
    ----------
    position : int
        How many tasks were taken from the iterable.
    exhausted : bool
        Whether there are no more.
    stopped : bool
        Whether no task is to be taken any more.
    space : threading.Condition
        For threads that are too far ahead.
    takers : list of Running
        The threads.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        batch_size: int | None,
        most_ahead: int | None,
        lock: threading.Lock,
    ) -> None:
        self._iterator = iter(tasks)
        self._turn = Turn()  # inside the iterable, which may take its time
        self._ready: deque[Any] = deque()  # pulled before the threads were there
        self._fixed = batch_size is not None
        self._size = batch_size or 1
        self._most_ahead = most_ahead
        self._ahead = 0
        self._lock = lock
        self.space = threading.Condition(lock)
        self.takers: list[Running] = []
        self.position = 0
        self.exhausted = False
        self.stopped = False

    def pull_first(self) -> None:
        """Pull as many tasks as may be ahead, before there are threads."""
        if not isinstance(self._iterator, WaitingTasks):  # a thread of ours is to wait there
            self._ready.extend(islice(self._iterator, self._most_ahead))

    def may_take(self) -> bool:
        """Whether a thread may find something here; the lock is held."""
        if self.stopped:
            return False
        return not self.exhausted or any(taker.chunk.tasks for taker in self.takers)

    def take(self, taker: Running) -> Chunk | None:
        """Return some tasks; None when it is time to end.

        Raises
        ------
        SourceFailed
            When the iterable does.
        """
        if not self._turn.acquire(_SOURCE_SECONDS):
            chunk = self._take_from_another(taker)
            if chunk is not None:
                return chunk
            self._turn.acquire()
        try:
            chunk = self._take_from_iterator(taker)
        finally:
            self._turn.release()
        return chunk or self._take_from_another(taker)

    def give_space(self) -> None:
        """Note that a chunk is done, or passed by the consumer; the lock is held."""
        self._ahead -= 1
        self.space.notify()

    def note_speed(self, tasks: int, seconds: float) -> None:
        """Adapt how many tasks are taken at a time; the lock is held."""
        if not self._fixed:
            ideal = int(_AIM_SECONDS * tasks / max(seconds, 1e-9))
            self._size = max(1, min(ideal, 8 * tasks, _MOST))

    def stop(self) -> None:
        """Hand out nothing any more; the lock is held."""
        self.stopped = True
        self.space.notify_all()

    def close(self) -> None:
        """Close the caller's generator, unless a thread is in it, which will end."""
        if self._turn.acquire(0.0):
            try:
                close_generator(self._iterator)
            finally:
                self._turn.release()

    def _take_from_iterator(self, taker: Running) -> Chunk | None:
        with self._lock:
            if not self._has_space():
                chunk = self._part_of_another(taker)
                if chunk is not None:
                    return chunk
                while not self._has_space():
                    self.space.wait()
            if self.stopped or self.exhausted:
                return None
            size = self._size
        try:
            tasks, is_last = self._pull(size)
        except BaseException as error:
            raise SourceFailed(error) from None
        with self._lock:
            chunk = Chunk(self.position, tasks)
            self.position += len(tasks)
            if is_last:
                self.exhausted = True
                self.space.notify_all()
            return self._hand(chunk, taker) if tasks else None

    def _take_from_another(self, taker: Running) -> Chunk | None:
        """Return tasks that another thread has taken and not begun; None where there are none."""
        with self._lock:
            return self._part_of_another(taker)

    def _part_of_another(self, taker: Running) -> Chunk | None:
        """Do so, from the thread that has the most; the lock is held."""
        if self.stopped:
            return None
        other = max(self.takers, key=lambda one: len(one.chunk.tasks))
        chunk = other.chunk.part()
        return None if chunk is None else self._hand(chunk, taker)

    def _hand(self, chunk: Chunk, taker: Running) -> Chunk:
        self._ahead += 1
        taker.chunk = chunk
        return chunk

    def _has_space(self) -> bool:
        most = self._most_ahead
        return most is None or self._ahead < most or self.stopped or self.exhausted

    def _pull(self, most: int) -> tuple[deque[Any], bool]:
        """Return at most that many tasks, no more than come at once, and whether that was all."""
        ready = self._ready
        tasks = deque(ready.popleft() for _ in range(min(most, len(ready))))
        until = monotonic() + _PULL_SECONDS
        while (missing := most - len(tasks)) > 0:
            wanted = missing if self._fixed else min(missing, 4 * len(tasks) + 1)
            before = len(tasks)
            tasks.extend(islice(self._iterator, wanted))
            if len(tasks) < before + wanted:
                return tasks, True
            if monotonic() > until:
                break
        return tasks, False
