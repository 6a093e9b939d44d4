"""One simulated worker, and the heap that finds whom to take tasks from."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from parallel_core.serialization.batch import Batch


class Sent:
    """A batch at a worker: when it gets there, and how many of its results have arrived.

    The worker runs no more than `limit` of its tasks, if there is one.
    """

    __slots__ = ("answered", "at", "batch", "limit")

    def __init__(self, batch: Batch, at: float) -> None:
        self.batch = batch
        self.at = at
        self.answered = 0
        self.limit: int | None = None

    @property
    def end(self) -> int:
        """Position at which the worker is done with it."""
        size = self.batch.size
        return self.batch.start + (size if self.limit is None else min(self.limit, size))


class SimulatedWorker:
    """What a worker is on, as far as time is concerned.

    Attributes
    ----------
    sent : deque of Sent
        As the dispatcher knows it: not answered to the end.
    queue : deque of Sent
        As it is: not done to the end; the first is being run.
    ready_at : float
        When it was born.
    shift : float
        Of the batch that is run: the task at position p starts at ``shift + starts[p]``.
    next : int
        Position of the first task that was not looked at for what might happen in it.
    unsent : int
        Position of the first result that has not been sent.
    flushed : float
        When something was sent last.
    version : int
        Events of another one are void.
    """

    __slots__ = (
        "flushed",
        "has_answered",
        "is_gone",
        "is_limited",
        "key",
        "next",
        "number",
        "queue",
        "ready_at",
        "sent",
        "shift",
        "unsent",
        "version",
    )

    def __init__(self, number: int, ready_at: float) -> None:
        self.number = number
        self.ready_at = ready_at
        self.sent: deque[Sent] = deque()
        self.queue: deque[Sent] = deque()
        self.shift = 0.0
        self.next = self.unsent = 0
        self.flushed = 0.0
        self.version = 0
        self.key = 0
        self.has_answered = False
        self.is_limited = False
        self.is_gone = False

    def started(self, now: float, starts: array[float]) -> int:
        """Return how many tasks of the batch that it is on have been started."""
        batch = self.queue[0].batch
        first, end = batch.start, batch.start + batch.size
        started = bisect_right(starts, now - self.shift, first, end)
        return max(started, self.unsent) - first  # rounded, it may be one that is done

    def running(self, now: float, starts: array[float]) -> tuple[int, float] | None:
        """Return the index of the task that it is on, in its batch, and since when; or None."""
        if not self.queue:
            return None
        started = self.started(now, starts)
        if not started:
            return None
        return started - 1, self.shift + starts[self.queue[0].batch.start + started - 1]

    def unstarted(self, now: float, starts: array[float]) -> tuple[int, int, float]:
        """Return how many tasks wait here, how many before them, and since when: as a `Worker`."""
        if not self.queue or self.is_gone:
            return 0, 0, now
        waiting = sum(sent.batch.size for sent in self.queue)
        running = self.running(now, starts)
        if running is not None:
            return waiting - running[0] - 1, 0, running[1]
        begins = int(self.ready_at <= now and waiting > 0)
        return waiting - begins, begins, max(self.queue[0].at, self.ready_at)

    def limit(self, keep: int, now: float, starts: array[float]) -> None:
        """Have it stop after the next `keep` tasks that it has not started."""
        self.is_limited = True
        left = self.started(now, starts) + keep
        for sent in self.queue:
            sent.limit = left
            left = max(0, left - sent.batch.size)

    def steal_from(self, keep: int, now: float, starts: array[float]) -> list[Batch]:
        """Take all but the next `keep` tasks that it has not started."""
        self.is_limited = True
        left = self.started(now, starts) + keep
        taken = []
        for sent in self.queue:
            if left < sent.batch.size:
                taken.append(sent.batch.split_off(left))
            left = max(0, left - sent.batch.size)
        return taken


class LazyHeap:
    """The worker with the largest key, where keys only get smaller until they are pushed again.

    What is in the heap is an upper bound of each key. The one on top is looked at: if its key has
    become smaller, it goes back in with that, and the next is looked at.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, SimulatedWorker]] = []
        self._stamps: dict[SimulatedWorker, int] = {}
        self._count = 0

    def push(self, worker: SimulatedWorker, key: float) -> None:
        """Put in a worker, or give it another key."""
        self._count += 1
        self._stamps[worker] = self._count
        heapq.heappush(self._heap, (-key, self._count, worker))
        if len(self._heap) > 4 * len(self._stamps) + 64:
            self._heap = [entry for entry in self._heap if self._stamps.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def best(self, key_of: Callable[[SimulatedWorker], float | None]) -> SimulatedWorker | None:
        """Return the worker with the largest key; those whose key is None are let go."""
        heap, stamps = self._heap, self._stamps
        while heap:
            bound, stamp, worker = heap[0]
            if stamps.get(worker) != stamp:
                heapq.heappop(heap)
                continue
            key = key_of(worker)
            if key is None:
                heapq.heappop(heap)
                del stamps[worker]
            elif key < -bound:
                self._count += 1
                stamps[worker] = self._count
                heapq.heapreplace(heap, (-key, self._count, worker))
            else:
                return worker
        return None


class Loads:
    """Workers by how bad a choice they are for the next batch.

    For each load there is a stack. A worker that has another load by now stays in it, and is passed
    over, until it comes up or the stack is cleared of such.
    """

    def __init__(self, workers: Iterable[SimulatedWorker]) -> None:
        self._stacks: dict[int, list[SimulatedWorker]] = {0: list(workers)}
        self._counts = {0: len(self._stacks[0])}

    def note(self, worker: SimulatedWorker, key: int) -> None:
        """Note that `worker` has the load `key` now."""
        if key != worker.key:
            self._counts[worker.key] -= 1
            worker.key = key
            self.add(worker)

    def add(self, worker: SimulatedWorker) -> None:
        """Note a new worker."""
        key = worker.key
        stack = self._stacks.setdefault(key, [])
        stack.append(worker)
        self._counts[key] = self._counts.get(key, 0) + 1
        if len(stack) > 4 * self._counts[key] + 64:
            stack[:] = [each for each in dict.fromkeys(stack) if each.key == key]

    def drop(self, worker: SimulatedWorker) -> None:
        """Forget a worker."""
        self._counts[worker.key] -= 1
        worker.key = -1

    def idle(self) -> Iterator[SimulatedWorker]:
        """Return those that have nothing."""
        if not self._counts[0]:
            return iter(())
        return (worker for worker in reversed(self._stacks[0]) if worker.key == 0)

    def any_below(self, key: int) -> bool:
        """Whether a worker has a load of less than `key`."""
        counts = self._counts
        return counts[0] > 0 or any(counts.get(load) for load in range(1, key))

    def least(self) -> SimulatedWorker:
        """Return the best choice."""
        best = 0 if self._counts[0] else min(key for key, count in self._counts.items() if count)
        stack = self._stacks[best]
        while stack[-1].key != best:
            stack.pop()
        return stack[-1]
