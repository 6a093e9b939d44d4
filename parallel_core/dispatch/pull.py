"""Threads that take tasks from the caller's iterable themselves.

One lock guards the iterable, which may take its time; a thread holds it to take some 50 µs of work.
Another guards everything else, and is never held for long. The caller's thread sleeps until there
is something for it: results that its consumer waits for, progress, a failure, a task over its
time, or the end.

Threads share the caller's memory, so arguments are what they are when the task runs. They cannot
be killed: when a call ends early, a thread that is inside a task is left to finish it and then
ends.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import Any

from parallel_core import config
from parallel_core.backends.base import Failure
from parallel_core.dispatch.delivery import (
    ListDelivery,
    OrderedDelivery,
    UnorderedDelivery,
    delivery_for,
)
from parallel_core.dispatch.inline import named
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.source import close_generator
from parallel_core.errors import InvalidTaskError
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.handles import to_call

_AIM_SECONDS = 5e-5
_MOST = 512
_THREAD = "parallel-core"


class _Running:
    """What a thread is on: kept up to date only when there is a time limit."""

    __slots__ = ("item", "position", "since")

    def __init__(self) -> None:
        self.item: Any = None
        self.position = 0
        self.since = 0.0


class PullDispatch:
    """One call on threads of its own.

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

    Attributes
    ----------
    completed : int
        How many results there are.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        plan: CallPlan,
        level: int,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self._iterator = iter(tasks)
        self._ready: deque[Any] = deque()  # pulled before the threads were there
        self._plan = plan
        self._level = level
        self._initializer = initializer
        self._source_lock = threading.Lock()  # for the iterable, which may take its time
        self._lock = threading.Lock()  # for everything else, and never for long
        self._news = threading.Condition(self._lock)  # for the caller's thread
        self._space = threading.Condition(self._lock)  # for threads that are too far ahead
        self._size = plan.batch_size or 1
        self._position = 0
        self.completed = 0
        self._exhausted = False
        self._stopped = False
        self._failure: Failure | None = None
        self._source_error: BaseException | None = None
        self._alive = 0
        self._batches = 0  # taken and not finished, or not passed by the consumer
        self._waiting_for_news = False
        self._slots: list[_Running] = []
        self._delivery: ListDelivery | OrderedDelivery | UnorderedDelivery
        self._delivery = delivery_for(plan.return_as)
        self._keeps_results = plan.return_as is ReturnAs.LIST

    def start(self) -> None:
        """Pull the first tasks, as many as may be ahead, and start the threads."""
        limit = self._plan.pre_dispatch
        most = None if limit is None else min(limit, sys.maxsize)
        self._ready.extend(islice(self._iterator, most))
        for number in range(self._plan.n_jobs):
            running = _Running()
            context = contextvars.copy_context()
            thread = threading.Thread(
                target=context.run,
                args=(self._work, running),
                name=f"{_THREAD}-{number}",
                daemon=True,
            )
            with self._lock:
                if self._exhausted or self._stopped:
                    return
                self._slots.append(running)
                self._alive += 1
            try:
                thread.start()
            except RuntimeError as error:  # the system has no more threads for us
                with self._lock:
                    self._alive -= 1
                    if self._alive == 0:
                        raise RuntimeError(
                            f"not even one thread can be started for the tasks: {error} (if the "
                            "program is not ending, see ulimit -u); n_jobs=1 needs none"
                        ) from error
                return

    def run(self) -> list[Any]:
        """Return all results, in order."""
        assert isinstance(self._delivery, ListDelivery)
        while True:
            with self._news:
                self._wait(self._plan.progress is not None)
                ended = self._ended()
            self._check()
            self._report()
            if ended:
                return self._delivery.results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        delivery = self._delivery
        assert not isinstance(delivery, ListDelivery)
        while True:
            with self._news:
                values = delivery.take()
                if values is None:
                    self._wait(True)
                    ended = self._ended()
                    values = delivery.take()
                else:
                    ended = False
            if values is not None:
                yield values
                with self._lock:
                    self._batches -= 1
                    self._space.notify()
                self._report()
                continue
            self._check()
            self._report()
            if ended:
                return

    def abandon(self) -> None:
        """End the call: no further task is started."""
        with self._lock:
            self._stopped = True
            self._space.notify_all()
        if self._source_lock.acquire(blocking=False):  # else a thread is in it, and will end
            try:
                close_generator(self._iterator)
            finally:
                self._source_lock.release()

    @property
    def dispatched(self) -> int:
        """How many tasks the threads have taken."""
        return self._position

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self._position if self._exhausted else None

    def _ended(self) -> bool:
        return self._alive == 0

    def _wait(self, any_news: bool) -> None:
        """Wait for something to do in the caller's thread; the lock is held."""
        if self._ended() or self._failure is not None or self._source_error is not None:
            return
        timeout = self._plan.timeout
        self._waiting_for_news = any_news
        if timeout is None:
            self._news.wait()
        else:
            oldest = min((slot.since for slot in self._slots if slot.since), default=monotonic())
            self._news.wait(max(0.0, oldest + timeout - monotonic()) + 0.001)
        self._waiting_for_news = False

    def _check(self) -> None:
        """Raise what has to be raised in the caller."""
        if self._source_error is not None:
            self.abandon()
            raise self._source_error
        if self._failure is not None:
            self.abandon()
            raise self._failure.error
        limit = self._plan.timeout
        if limit is None:
            return
        now = monotonic()
        for slot in self._slots:
            since, position, item = slot.since, slot.position, slot.item
            if since and now - since > limit and slot.since == since:
                from parallel_core.errors import TaskTimeoutError

                self.abandon()
                function, args, kwargs = check_task(item, position)
                what = describe_task(position, describe_call(function, args, kwargs))
                raise TaskTimeoutError(f"{what} has run for more than timeout={limit:g} s")

    def _report(self) -> None:
        if self._plan.progress is not None:
            self._plan.progress()

    def _work(self, running: _Running) -> None:
        """Take and run tasks until there are no more: what each thread does."""
        config.enter_task(self._level)
        try:
            if self._initializer is not None:
                self._initialize()
            while True:
                start, items = self._take()
                if not items:
                    return
                began = monotonic()
                values, failure = self._run(start, items, running)
                self._finish(start, values, failure, monotonic() - began)
        except BaseException as error:  # nothing that happens here may go unsaid
            self._fail(Failure(-1, error))
        finally:
            with self._lock:
                self._alive -= 1
                if self._alive == 0:
                    self._news.notify_all()

    def _initialize(self) -> None:
        assert self._initializer is not None
        try:
            self._initializer()
        except BaseException as error:
            from parallel_core.errors import InitializerError

            failed = InitializerError(
                f"the initializer raised in a thread: {type(error).__name__}: {error}"
            )
            failed.__cause__ = error
            self._fail(Failure(-1, failed))

    def _take(self) -> tuple[int, list[Any]]:
        """Return some tasks and the position of the first; none when it is time to end."""
        with self._source_lock:
            with self._space:
                while self._must_wait():
                    self._space.wait()
                if self._stopped or self._exhausted:
                    return 0, []
                size = self._size
            try:
                items = self._next_items(size)
            except BaseException as error:
                with self._lock:
                    self._source_error = error
                    self._stop()
                return 0, []
            with self._lock:
                start = self._position
                self._position += len(items)
                if len(items) < size:
                    self._exhausted = True
                    self._space.notify_all()
                if items:
                    self._batches += 1
                return start, items

    def _must_wait(self) -> bool:
        limit = self._plan.pre_dispatch
        ahead = limit is not None and self._batches >= limit
        return ahead and not (self._stopped or self._exhausted)

    def _next_items(self, size: int) -> list[Any]:
        ready = self._ready
        if not ready:
            return list(islice(self._iterator, size))
        items = [ready.popleft() for _ in range(min(size, len(ready)))]
        if len(items) < size:
            items.extend(islice(self._iterator, size - len(items)))
        return items

    def _run(
        self, start: int, items: list[Any], running: _Running
    ) -> tuple[list[Any], Failure | None]:
        timed = self._plan.timeout is not None
        values: list[Any] = []
        append = values.append
        may_share = "memmapping.sharing" in sys.modules
        for item in items:
            if timed:
                running.since = 0.0
                running.item, running.position = item, start + len(values)
                running.since = monotonic()
            try:
                if type(item) is tuple and len(item) == 3:
                    function, args, kwargs = item
                    if type(args) is not tuple or type(kwargs) is not dict:
                        function, args, kwargs = check_task(item, start + len(values))
                else:
                    function, args, kwargs = check_task(item, start + len(values))
                if may_share:
                    args, kwargs = to_call(args, kwargs)
                append(function(*args, **kwargs))
            except BaseException as error:
                running.since = 0.0
                return values, Failure(
                    start + len(values), self._named(error, start + len(values), item)
                )
            if self._stopped:
                break
        running.since = 0.0
        return values, None

    @staticmethod
    def _named(error: BaseException, position: int, item: Any) -> BaseException:
        if isinstance(error, InvalidTaskError):
            return error
        try:
            return named(error, position, item)
        except InvalidTaskError as invalid:  # it could not be called at all
            return invalid

    def _finish(
        self, start: int, values: list[Any], failure: Failure | None, seconds: float
    ) -> None:
        with self._lock:
            if self._plan.batch_size is None and values:
                ideal = int(_AIM_SECONDS * len(values) / max(seconds, 1e-9))
                self._size = max(1, min(ideal, 8 * len(values), _MOST))
            self._delivery.put(start, values)
            self.completed += len(values)
            if self._keeps_results or not values:
                self._batches -= 1
                self._space.notify()
            if self._waiting_for_news:
                self._news.notify()
        if failure is not None:
            self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            if self._failure is None or failure.position < self._failure.position:
                self._failure = failure
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._space.notify_all()
        self._news.notify_all()
