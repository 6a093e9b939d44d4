"""Stealing from a worker what it has not started, without waiting for its answer.

Tasks of a worker have numbers, in the order in which they were sent. Two words of its board decide
who has a task::

    the worker, before task k            the parent, to leave it the tasks up to m

    1. STARTED = k                       1. LIMIT = m
    2. if k > LIMIT: stop here           2. a barrier in both, `barrier.for_all`
    3. run it                            3. s = STARTED
                                         4. tasks after max(s, m) are the parent's, at once

*No task runs twice.* A processor may let the load of step 2 on the left pass the store of step 1,
and then neither side would see what the other had written. The barrier excludes that: whatever the
worker does, it falls before its barrier or after. If the worker's store of ``STARTED = k`` is
before, the parent reads ``s >= k`` and leaves task k alone. If it is after, so is its load, which
then finds ``LIMIT = m``, and a task ``k > m`` is not run. Ordering within one process is all that
is asked of the hardware (on each side, a store and a load), and the barrier gives it on both; the
worker pays nothing for it, task after task.

*None is lost.* For the tasks after m up to s both may hold: the worker has written that it starts
task s, and then found the limit. So these stay the worker's until its answer says how many it ran;
what it did not run comes back with that (`Completion.unrun`).

*A limit meets only what it was meant for.* Numbers are never used again, and the parent raises the
limit again only when everything that it had sent has been answered. Until then it sends nothing
more to this worker. Others may lower the limit at any time (the worker itself, when it has grown
too large), for then the answer gives back what it did not run.

*A task gets to start.* The first task of a worker stays with it, whether it has begun it or not
(`Worker.next_kept`).

*A worker joins late.* It takes part in the barrier from its first batch of more than one task on,
or its second: so none pays for it before its first result. One that has not joined when the parent
has its barrier has started no task but its first, which stays with it. Joining is a barrier in the
worker, too: every load of ``LIMIT`` that comes after it finds m. What lies behind the first task of
a new worker, in the socket or in a batch that it has not read, is the parent's at once, then.

Without barriers (``REFUSED`` on its board) the limit is lowered all the same, and the answer gives
back the tasks, when the one that runs is done. The board is looked at for that after the barrier:
a worker that had not joined before may have been refused meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from parallel_core.serialization.batch import Batch
from parallel_core.workers import barrier
from parallel_core.workers.board import LIMIT, STARTED, Board
from parallel_core.workers.sent import SentBatch


class Robbed(Protocol):
    """As much of a `Worker` as stealing needs."""

    board: Board
    sent: deque[SentBatch]
    is_limited: bool
    taken_back: int

    @property
    def next_kept(self) -> int:
        """As a `Worker` has it."""

    @property
    def is_fenced(self) -> bool:
        """As a `Worker` has it."""


def steal_from(
    worker: Robbed, keep: int, fence: Callable[[], bool] = barrier.for_all
) -> list[Batch]:
    """Take back all tasks but the next `keep` that `worker` has not started.

    `fence` is the barrier.

    Returns those that are the parent's now; its answer may give back more.
    """
    words = worker.board.words
    limit = min(words[LIMIT], worker.next_kept + keep)
    words[LIMIT] = limit
    worker.is_limited = True
    if not fence() or not worker.is_fenced:
        return []
    limit = max(limit, words[STARTED])
    taken = []
    for sent in worker.sent:
        left = max(limit - sent.base, 0)
        if left < sent.batch.size:
            taken.append(sent.batch.split_off(left))
    worker.taken_back += sum(batch.size for batch in taken)
    return taken
