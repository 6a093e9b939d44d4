"""What has come of a call on threads, and whether it goes on.

Shared by its threads and the caller's. One lock guards everything here and in the `Feed`; methods
say so where they want it held already.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from parallel_core.backends.base import Failure
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import aspects_for
from parallel_core.dispatch.aftermath import Replay, replay_task
from parallel_core.dispatch.delivery import Delivery, delivery_for
from parallel_core.dispatch.feed import Feed
from parallel_core.dispatch.live import LiveTasks
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.policy import Action, Verdict
from parallel_core.dispatch.thread_work import Done, Running
from parallel_core.tasks.delayed import check_task


class Outcomes:
    """The outcomes of one call on threads.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    plan : CallPlan
        What was asked for.

    Attributes
    ----------
    lock : Lock
        For everything but the iterable, and never for long.
    news : Condition
        For the caller's thread, which is told of anything new only while it is `awaited`.
    feed : Feed
        Where the tasks come from.
    ending : Event
        For threads that wait before they try again.
    alive : int
        How many threads there are that are not disowned.
    completed : int
        How many results there are.
    is_over : bool
        Whether nobody waits for results any more.
    hit : bool
        Whether a result was all that is wanted.
    has_gaps : bool
        Whether something is delivered that stands for no result.
    failure : Failure or None
        What ends the call, the earliest.
    source_error : BaseException or None
        What the caller's iterable has raised.
    replay : callable or None
        Runs the task again whose failure ends the call.
    folded : FoldedResults or None
        What takes in the results, where they are folded; else `delivery` does.
    """

    def __init__(self, tasks: Iterable[Any], plan: CallPlan) -> None:
        self._plan = plan
        self.lock = threading.Lock()
        self.news = threading.Condition(self.lock)
        is_live = isinstance(tasks, LiveTasks)
        if isinstance(tasks, LiveTasks):
            tasks = tasks.waiting()
        self.feed = Feed(
            tasks if plan.journal is None else plan.journal.look_up(tasks),
            1 if plan.timeout is not None else plan.batch_size,
            plan.pre_dispatch,
            self.lock,
        )
        self._judging = threading.Lock()
        self.ending = threading.Event()
        self.alive = 0
        self.completed = 0
        self.awaited = False
        self.is_over = False
        self.hit = False
        self.has_gaps = False
        self.failure: Failure | None = None
        self.source_error: BaseException | None = None
        self.replay: Replay | None = None
        self.delivery: Delivery = delivery_for(plan.return_as, is_live)
        self._keeps_results = plan.return_as is ReturnAs.LIST
        self.folded = None if plan.reduction is None else plan.reduction.begin()

    def finish(self, done: Done, running: Running, seconds: float) -> None:
        """Take in what has come of a chunk, unless nobody waits for it any more."""
        values = done.values
        with self.lock:
            if running.is_disowned or self.is_over:
                return  # something else is in its place, or nobody waits for it any more
            if values:
                self.feed.note_speed(len(values), seconds)
            self.has_gaps = self.has_gaps or bool(done.not_results)
            if self.folded is None:
                self._put(done.start, values)
        if self.folded is not None and done.failure is None:
            self._put_folded(done.start, values)
        if self._plan.journal is not None or self._plan.stop_when is not None:
            for first, results in done.results():
                if self._plan.journal is not None:
                    self._plan.journal.record(first, results)
                self.look_for_hit(results)
        if done.failure is not None:
            self.fail(done.failure)

    def put_instead(self, position: int, value: Any) -> None:
        """Deliver what stands in the place of the result of a task that ran out of time."""
        if self.folded is not None:
            fold = self.folded.fold(position)
            fold.append(value)
            self._put_folded(position, fold)
            return
        with self.lock:
            self.has_gaps = True
            self._put(position, [value])

    def _put_folded(self, start: int, fold: Any) -> None:
        """Fold on, with the lock not held."""
        assert self.folded is not None
        count = len(fold)
        cause = self.folded.take(start, fold)
        if cause is not None:
            self.fail(Failure(start, cause))
        with self.lock:
            self._count(count)

    def _put(self, start: int, values: list[Any]) -> None:
        """Deliver outcomes; the lock is held."""
        self.delivery.put(start, values)
        self._count(len(values))

    def _count(self, tasks: int) -> None:
        self.completed += tasks
        if self._keeps_results or not tasks:
            self.feed.give_space()
        if self.awaited:
            self.news.notify()

    def look_for_hit(self, results: list[Any]) -> None:
        """End the call where one of `results` is all that is wanted."""
        stop_when = self._plan.stop_when
        if stop_when is not None and any(map(stop_when, results)):
            with self.lock:
                self.hit = self.has_gaps = True
                self.stop()

    def judge(self, error: BaseException, position: int, item: Any) -> Verdict:
        """Return what to do with a task that failed; note how to replay it."""
        with self._judging:
            verdict = self._plan.policy.judge(Failure(position, error))
        if verdict.action is Action.RAISE:
            aspects = aspects_for(self._plan.aspects, Place.CALLER)
            self.replay = replay_task(position, check_task(item, position), aspects)
        elif verdict.action is Action.DELIVER and self.folded is not None:
            return verdict._replace(value=self.folded.leaf(verdict.value, error))
        return verdict

    def fail(self, failure: Failure) -> None:
        """End the call with `failure`, or an earlier one."""
        with self.lock:
            if self.failure is None or failure.position < self.failure.position:
                self.failure = failure
            self.stop()

    def stop(self) -> None:
        """Have no further task begun; the lock is held."""
        self.feed.stop()
        self.ending.set()
        self.news.notify_all()

    def wake(self) -> None:
        """Have the caller's thread look: another one has interrupted the call."""
        if not self.lock.acquire(blocking=False):  # by this thread itself, if it is a finalizer
            threading.Thread(target=self._stop_soon, name="parallel-core-stop").start()
            return
        try:
            self.stop()
        finally:
            self.lock.release()

    def _stop_soon(self) -> None:
        with self.lock:
            self.stop()
