"""The loop for backends that take batches: pull, submit, wait, record, refill.

Two limits hold at any time. At most ``pre_dispatch`` batches are *ahead*: pulled, and not yet
finished (or, for a generator, not yet taken by its consumer). And at a worker there are one or
two: with short batches a second one bridges the handing over; long ones are kept here, for
whoever is free first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from parallel_core.backends.base import Completion, Failure, Session
from parallel_core.dispatch.delivery import (
    ListDelivery,
    OrderedDelivery,
    UnorderedDelivery,
    delivery_for,
)
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.sizing import BatchSizer
from parallel_core.dispatch.source import TaskSource
from parallel_core.errors import add_note
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.definitions import Definitions
from parallel_core.tasks.encoding import BatchBuilder

_FIRST_SECONDS = 0.001  # a generator this fast is asked for the whole first window at once


class PushDispatch:
    """One call on a session.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    session : Session
        The workers; given back by whoever leased them, not here.
    plan : CallPlan
        What was asked for.
    aim_seconds : float
        How long a batch should take on this backend.
    definitions : Definitions
        Those of the call.

    Attributes
    ----------
    dispatched, completed : int
        How many tasks were handed over, and how many results have come.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        session: Session,
        plan: CallPlan,
        aim_seconds: float,
        definitions: Definitions,
    ) -> None:
        self._session = session
        self._plan = plan
        self._blind = plan.timeout is not None and not session.names_running
        self._sizer = BatchSizer(1 if self._blind else plan.batch_size, aim_seconds)
        self._source = TaskSource(tasks, BatchBuilder(definitions))
        self._backlog: deque[Batch] = deque()
        self._in_flight = 0
        self._untaken: deque[int] = deque()  # sizes of finished batches not all taken yet
        self._taken = 0  # results that the consumer took, not counted against a batch yet
        self._failure: Failure | None = None
        self.dispatched = 0
        self.completed = 0
        self._delivery: ListDelivery | OrderedDelivery | UnorderedDelivery
        self._delivery = delivery_for(plan.return_as)
        self._deepest = 1 if self._blind else 2
        if plan.return_as is not ReturnAs.LIST and plan.pre_dispatch and not self._blind:
            self._deepest = max(2, -(-plan.pre_dispatch // session.n_workers))
        self._definitions = definitions
        session.begin(definitions.call)

    def start(self) -> None:
        """Pull the first tasks and hand them over."""
        until = time.perf_counter() + _FIRST_SECONDS
        while self._may_pull():
            self._pull()
            if time.perf_counter() > until:
                break
        self._fill()
        if self._plan.return_as is not ReturnAs.LIST:
            self._hand_over_all()

    def run(self) -> list[Any]:
        """Return all results, in order."""
        assert isinstance(self._delivery, ListDelivery)
        while not self._ended():
            self._advance()
        self._report()
        return self._delivery.results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        delivery = self._delivery
        assert not isinstance(delivery, ListDelivery)
        while True:
            values = delivery.take()
            if values is not None:
                self._hand_over_all()
                yield values
                self._note_taken(len(values))
                self._fill()
            elif self._failure is not None:
                raise self._failure.error
            elif self._ended():
                self._report()
                return
            else:
                self._advance()

    def abandon(self) -> None:
        """End the call now; nothing of it goes on."""
        self._backlog.clear()
        self._session.cancel()
        error = self._source.close()
        if error is not None and self._failure is not None:
            words = f"{type(error).__name__}: {error}"
            add_note(self._failure.error, f"the iterable of tasks raised as it was closed: {words}")

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self._source.position if self._source.exhausted else None

    @property
    def _ahead(self) -> int:
        return self._in_flight + len(self._backlog) + len(self._untaken)

    def _may_pull(self) -> bool:
        if self._source.exhausted:
            return False
        limit = self._plan.pre_dispatch
        return limit is None or self._ahead < limit

    def _ended(self) -> bool:
        return self._source.exhausted and not self._in_flight and not self._backlog

    def _pull(self) -> None:
        batch = self._source.pull(self._sizer.size, self._sizer.pull_seconds)
        if batch is not None:
            self._backlog.append(batch)

    def _fill(self) -> None:
        """Hand over and pull until there is no room or nothing more may be pulled."""
        while self._failure is None:
            if self._backlog:
                depth = self._depth()
                while self._backlog and self._session.room(depth):
                    self._submit()
            if not self._may_pull():
                return
            self._pull()
            if self._in_flight:  # so that a worker which is done is known to be free
                self._take_news(0.0)

    def _hand_over_all(self) -> None:
        """Submit what was pulled: it goes on, whatever the consumer does meanwhile."""
        while self._backlog and (not self._blind or self._session.room(1)):
            self._submit()

    def _depth(self) -> int:
        if self._plan.return_as is ReturnAs.LIST and self._sizer.long_tasks:
            return 1
        return self._deepest

    def _submit(self) -> None:
        batch = self._backlog.popleft()
        if self._backlog and self._plan.batch_size is None:
            share = self._share()
            while self._backlog and batch.size + self._backlog[0].size <= share:
                batch.join(self._backlog.popleft())
        self._in_flight += 1
        self.dispatched += batch.size
        self._session.submit(batch)

    def _share(self) -> int:
        """Return how many tasks one batch may have; when all are pulled, every worker gets some."""
        if self._sizer.size == 1 or not self._source.exhausted:
            return self._sizer.size
        left = sum(batch.size for batch in self._backlog)
        return min(self._sizer.size, max(1, left // self._session.n_workers))

    def _advance(self) -> None:
        """Wait for news and act on it."""
        seconds = None
        if self._plan.timeout is not None:
            failure, again = self._session.late(self._plan.timeout)
            if failure is not None:
                self._fail(failure)
                return
            seconds = again - time.monotonic()
        self._take_news(seconds)
        self._fill()

    def _take_news(self, seconds: float | None) -> None:
        failures = []
        for completion in self._session.wait(seconds):
            self._record(completion)
            if completion.failure is not None:
                failures.append(completion.failure)
        if failures:
            self._fail(min(failures, key=_position))

    def _record(self, completion: Completion) -> None:
        count = len(completion.values)
        self.completed += count
        self._sizer.record(count, completion.seconds)
        self._delivery.put(completion.first, completion.values)
        if completion.finished:
            self._in_flight -= 1
            if self._plan.return_as is not ReturnAs.LIST:
                self._untaken.append(completion.batch.size)
        if self._plan.progress is not None:
            self._report()

    def _note_taken(self, count: int) -> None:
        """Count results that the consumer took against the finished batches, oldest first."""
        self._taken += count
        while self._untaken and self._taken >= self._untaken[0]:
            self._taken -= self._untaken.popleft()

    def _report(self) -> None:
        if self._plan.progress is not None:
            self._plan.progress()

    def _fail(self, failure: Failure) -> None:
        """End the call; a generator first yields the results that were there before."""
        self._failure = failure
        self.abandon()
        if self._plan.return_as is ReturnAs.LIST:
            raise failure.error


def _position(failure: Failure) -> int:
    return failure.position
