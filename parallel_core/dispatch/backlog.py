"""Batches that were pulled and that no worker has, and tasks that are to run again."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

from parallel_core.backends.base import NEVER
from parallel_core.serialization.batch import Batch


class Backlog(deque[Batch]):
    """Batches in the order in which they are to be submitted.

    If they `may_join`, small ones become one. With a `turn`, each of the slots gets so many tasks
    in turn, from a multiple of `turn` on.
    """

    def __init__(self, n_slots: int, may_join: bool, turn: int) -> None:
        super().__init__()
        self.turn = turn  #: 0 if any worker may have any task
        self._n_slots = n_slots
        self._may_join = may_join
        self._later: list[tuple[float, int, Batch]] = []  # tasks to run again, and when; a heap

    @property
    def n_later(self) -> int:
        """How many tasks wait until they are to run again."""
        return len(self._later)

    @property
    def n_waiting(self) -> int:
        """How many batches there are, those of `n_later` among them."""
        return len(self) + len(self._later)

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._later.clear()

    def take(self, share: int) -> Batch:
        """Take off the next batch, joined with those behind it to at most `share` tasks."""
        batch = self.popleft()
        if self._may_join:
            while len(self) >= self._n_slots:  # each other worker is left one
                following = self[0]
                if batch.size + following.size > share or not batch.is_followed_by(following):
                    break
                batch.join(self.popleft())
        return batch

    # --- in turn ---

    def slot_of(self, batch: Batch) -> int:
        """Return the slot whose turn `batch` is."""
        return batch.start // self.turn % self._n_slots

    def left_of_turn(self, position: int) -> int:
        """Return how many tasks from `position` on are of the same turn."""
        return self.turn - position % self.turn

    def advance(self, has_room: Callable[[int], bool]) -> bool:
        """Put the first batch whose slot `has_room` in front; return whether there is one."""
        for index, batch in enumerate(self):
            if has_room(self.slot_of(batch)):
                del self[index]
                self.appendleft(batch)
                return True
        return False

    # --- to run again ---

    def run_again(self, batch: Batch, index: int, due: float) -> None:
        """Have the task at `index` of `batch`, which has failed, be a batch of its own when due."""
        again = batch.part(index, index + 1)
        batch.n_requeued += 1
        batch.nbytes_requeued += again.nbytes
        heapq.heappush(self._later, (due, again.start, again))

    def next_due(self) -> float:
        """Return when the next task is to run again."""
        return self._later[0][0] if self._later else NEVER

    def take_due(self, now: float) -> None:
        """Put tasks that are due by `now` in front of the others."""
        while self._later and self._later[0][0] <= now:
            self.appendleft(heapq.heappop(self._later)[2])
