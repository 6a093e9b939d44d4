"""Threads that take tasks from the caller's iterable themselves.

They take chunks of some 100 µs of work from a `Feed`, and from each other what nobody has begun.
One lock guards everything but the iterable, and is never held for long. The caller's thread sleeps
until there is something for it: results that its consumer waits for, progress, a failure, a task
over its time, or the end.

Threads share the caller's memory, so arguments are what they are when the task runs. They cannot
be killed: when a call ends early, a thread that is inside a task is left to finish it and then
ends; and when the task runs out of time, the thread is disowned, and another takes its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from time import monotonic
from typing import Any

from parallel_core import config
from parallel_core.backends.base import NEVER
from parallel_core.dispatch.aftermath import ArrivedResults, Replay
from parallel_core.dispatch.deadline import Deadline
from parallel_core.dispatch.delivery import ListDelivery
from parallel_core.dispatch.gaps import without_gaps
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.plan import CallPlan
from parallel_core.dispatch.policy import Action
from parallel_core.dispatch.thread_loop import ThreadLoop
from parallel_core.dispatch.thread_work import Running
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task


class PullDispatch:
    """One call on threads of its own, seen from the caller's.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    plan : CallPlan
        What was asked for.
    level : int
        Nesting level of the tasks.
    initializer : callable, optional
        Called in each thread first, without arguments.
    settings : Settings, optional
        What is in force in the tasks.
        Numeric libraries use no more threads than they say.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        plan: CallPlan,
        level: int,
        initializer: Callable[[], object] | None = None,
        settings: config.Settings | None = None,
    ) -> None:
        self._plan = plan
        self._outcomes = Outcomes(tasks, plan)
        self._lock = self._outcomes.lock
        self._news = self._outcomes.news
        self._feed = self._outcomes.feed
        self._loop = ThreadLoop(self._outcomes, plan, level, initializer, settings)
        self._pools = self._loop.pools
        self._deadline = Deadline(plan.call_timeout)
        if plan.interruption is not None:
            plan.interruption.wake_by(self._outcomes.wake)

    def start(self) -> None:
        """Pull the first tasks, as many as may be ahead, and start the threads."""
        self._pools.begin()
        self._feed.pull_first()
        for _ in range(self._plan.n_jobs):
            with self._lock:
                if not self._feed.may_take():
                    return
            if not self._start_thread():
                return

    def _start_thread(self, again: tuple[float, int, Any] | None = None) -> bool:
        """Start a thread, with a task that it is to try `again` first; return whether it could be.

        Raises
        ------
        RuntimeError
            When the system has no thread at all for us.
        """
        running = Running()
        context = copy_context()
        with self._lock:
            self._feed.takers.append(running)
            self._outcomes.alive += 1
            number = len(self._feed.takers) - 1
        thread = threading.Thread(
            target=context.run,
            args=(self._loop.work, running, again),
            name=f"parallel-core-{number}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._outcomes.alive -= 1
                if self._outcomes.alive == 0:
                    raise RuntimeError(
                        f"not even one thread can be started for the tasks: {error} (if the "
                        "program is not ending, see ulimit -u); n_jobs=1 needs none"
                    ) from error
            return False
        return True

    def run(self) -> Any:
        """Return all results, in order; or what they were folded to."""
        assert isinstance(self._outcomes.delivery, ListDelivery)
        while True:
            with self._news:
                self._wait(self._plan.progress is not None)
                ended = self._ended()
            self._check()
            self._report()
            if ended:
                if self._outcomes.hit:
                    self.abandon()
                self._pools.end()
                if self._outcomes.folded is not None:
                    return self._outcomes.folded.finish(self._feed.position)
                results = self._outcomes.delivery.results
                return without_gaps(results) if self._outcomes.has_gaps else results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        delivery = self._outcomes.delivery
        assert not isinstance(delivery, ListDelivery)
        while True:
            with self._news:
                values = delivery.take()
                ended = False
                if values is None:
                    self._wait(True)
                    ended = self._ended()
                    if self._outcomes.hit:
                        self._outcomes.is_over = True
                        delivery.pass_over()
                    values = delivery.take()
            if values is not None:
                yield without_gaps(values) if self._outcomes.has_gaps else values
                with self._lock:
                    self._feed.give_space()
                self._report()
                continue
            self._check()
            self._report()
            if ended:
                if self._outcomes.hit:
                    self.abandon()
                self._pools.end()
                return

    def abandon(self) -> None:
        """End the call: no further task is started."""
        with self._lock:
            self._outcomes.is_over = True
            self._outcomes.stop()
        self._pools.end()
        self._feed.close()

    def aftermath(self) -> tuple[ArrivedResults, Replay | None]:
        """Return the results of a call that ended early, and how to replay what ended it."""
        with self._lock:
            return ArrivedResults(self._outcomes.delivery.arrived()), self._outcomes.replay

    @property
    def completed(self) -> int:
        """How many results there are."""
        return self._outcomes.completed

    @property
    def dispatched(self) -> int:
        """How many tasks the threads have taken."""
        return self._feed.position

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self._feed.position if self._feed.exhausted else None

    def _ended(self) -> bool:
        return self._outcomes.alive == 0 or self._outcomes.hit

    def _wait(self, any_news: bool) -> None:
        """Wait for something to do in the caller's thread; the lock is held."""
        if (
            self._ended()
            or self._outcomes.failure is not None
            or self._outcomes.source_error is not None
        ):
            return
        if self._plan.interruption is not None and self._plan.interruption.is_set:
            return
        until = self._deadline.at
        if self._plan.timeout is not None:
            now = monotonic()
            since = min((slot.since for slot in self._watched() if slot.since), default=now)
            until = min(until, since + self._plan.timeout)
        self._outcomes.awaited = any_news
        self._news.wait(None if until == NEVER else max(0.0, until - monotonic()) + 0.001)
        self._outcomes.awaited = False

    def _watched(self) -> Iterator[Running]:
        return (slot for slot in self._feed.takers if not slot.is_disowned)

    def _check(self) -> None:
        """Raise what has to be raised in the caller."""
        if self._plan.interruption is not None and self._plan.interruption.is_set:
            self.abandon()
            self._plan.interruption.check()
        if self._outcomes.source_error is not None:
            self.abandon()
            raise self._outcomes.source_error
        if self._outcomes.failure is not None:
            self.abandon()
            raise self._outcomes.failure.error
        if self._deadline.is_over() and not self._ended():
            self.abandon()
            raise self._deadline.error(self._outcomes.completed)
        limit = self._plan.timeout
        if limit is not None:
            for slot in list(self._watched()):
                self._enforce(limit, slot)

    def _enforce(self, limit: float, slot: Running) -> None:
        """Where a task has run for over `limit` seconds, disown its thread and judge it."""
        with self._lock:
            since, position, item = slot.since, slot.position, slot.item
            if not since or monotonic() - since <= limit:
                return
            # `Outcomes.finish` looks, so either its result counts or this does.
            slot.is_disowned = True
            self._outcomes.alive -= 1
        from parallel_core.errors import TaskTimeoutError

        what = describe_task(position, describe_call(*check_task(item, position)))
        error = TaskTimeoutError(f"{what} has run for more than timeout={limit:g} s")
        verdict = self._outcomes.judge(error, position, item)
        if verdict.action is Action.RAISE:
            self.abandon()
            raise error
        again = None
        if verdict.action is Action.RETRY:
            again = verdict.seconds, position, item
        elif verdict.action is Action.DELIVER:
            self._outcomes.put_instead(position, verdict.value)
        if not self._start_thread(again) and again is not None:
            self.abandon()
            raise error

    def _report(self) -> None:
        if self._plan.progress is not None:
            self._plan.progress()
