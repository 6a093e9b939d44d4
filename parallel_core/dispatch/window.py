"""How far ahead tasks are pulled: the window that ``pre_dispatch`` opens."""

from __future__ import annotations

from collections import deque

from parallel_core.dispatch.limits import Limits
from parallel_core.serialization.batch import Batch


class Window:
    """Batches that are ahead: pulled and not finished, or finished and not taken by a consumer."""

    __slots__ = ("_counts_taken", "_max_batches", "_max_nbytes", "_nbytes", "_sizes", "_taken",
                 "in_flight")  # fmt: skip

    def __init__(self, limits: Limits, counts_taken: bool) -> None:
        self._max_batches = limits.pre_dispatch
        self._max_nbytes = limits.pre_dispatch_nbytes
        self._counts_taken = counts_taken  # by a consumer, as from a generator
        self._nbytes = 0  # of arguments of tasks that are not done
        self._sizes: deque[int] = deque()  # of finished batches that were not taken in full
        self._taken = 0  # results that were taken and are not counted against a batch yet
        self.in_flight = 0  #: batches that were handed over and are not finished

    def is_full(self, waiting: int) -> bool:
        """Whether no more may be pulled, with `waiting` batches pulled and not handed over."""
        if self._max_nbytes is not None and self._nbytes >= self._max_nbytes:
            return True  # nothing is ahead of a task by itself, so any size gets its turn
        return self._max_batches is not None and self.ahead(waiting) >= self._max_batches

    def ahead(self, waiting: int) -> int:
        """Return how many batches are ahead, `waiting` ones included."""
        return self.in_flight + len(self._sizes) + waiting

    def pulled(self, batch: Batch) -> None:
        """Count a batch that was pulled."""
        self._nbytes += batch.nbytes

    def resolved(self) -> None:
        """Count a task that was pulled and needs no worker."""
        if self._counts_taken:
            self._sizes.append(1)

    def finished(self, batch: Batch, unrun: list[Batch]) -> int:
        """Count a batch as finished, but for what runs again or has not run; return how many."""
        open_tasks = batch.n_requeued + sum(part.size for part in unrun)
        open_nbytes = batch.nbytes_requeued + sum(part.nbytes for part in unrun)
        self.in_flight -= 1
        self._nbytes -= batch.nbytes - open_nbytes
        if self._counts_taken and batch.size > open_tasks:
            self._sizes.append(batch.size - open_tasks)
            self.taken(0)  # all that it had may have been taken before it was finished
        return open_tasks

    def taken(self, count: int) -> None:
        """Count results that the consumer took against the finished batches, oldest first."""
        self._taken += count
        while self._sizes and self._taken >= self._sizes[0]:
            self._taken -= self._sizes.popleft()
