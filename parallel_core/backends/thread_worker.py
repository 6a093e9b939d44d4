"""One thread of a call on threads: takes batches, runs their tasks, hands in what came of them.

A `Share` is what one thread has of a batch, in a `deque`: at first all of it. The thread takes task
by task from the left, and asks nobody. Others may take from the right, see `thread_call`. Either is
a single step on the deque, so each task is taken once; who empties it has no further task begun.

A time limit needs a lock: it decides whether a task ended before its time did, so that one outcome
counts. A thread whose task has run out of time is *disowned*: it hands in nothing more, and ends
with its task.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, Protocol

from parallel_core import config
from parallel_core.backends.base import CallTerms, SessionFailed
from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.local_worker import LocalWorker
from parallel_core.backends.thread_share import Form, Share
from parallel_core.context.batch_context import BatchContext, ContextFailed
from parallel_core.context.item import ContextItem, Place
from parallel_core.context.this_worker import enter_worker
from parallel_core.observe.events import TaskTimes, WorkerView
from parallel_core.reduction.tree import FoldFailed
from parallel_core.serialization.failure import named
from parallel_core.serialization.handles import to_call
from parallel_core.workers.messages import AfterFailure
from parallel_core.workers.recorder import MARK_SECONDS, Recorder
from parallel_core.workers.thread_pools import PoolLimit


class Crew(Protocol):
    """What a thread asks of the call that it works for."""

    terms: CallTerms
    level: int
    initializer: Callable[[], object] | None
    items: tuple[ContextItem, ...]
    pools: PoolLimit
    is_stopped: bool

    def take(self, slot: int, bell: Any) -> Share | None:
        """Wait for a share; None when it is time to end."""

    def note_begun(self, share: Share) -> None:
        """Have other threads look at those that have tasks waiting."""

    def stop(self) -> None:
        """Have no further task begun."""

    def deliver(self, completion: Completion, finished: Share | None) -> None:
        """Hand a completion to the caller's thread."""

    def tell(self, news: Completion | SessionFailed) -> None:
        """Hand `news` to the caller's thread."""


class _Disowned(BaseException):
    """Nothing that this thread does counts any more."""


def new_bell() -> Any:
    """Return a lock that is taken, for a thread to wait for; whoever rings it gives it up.

    It is waited for in C, so that Ctrl-C gets through. (`queue.SimpleQueue` would do, but when who
    waits for it with a time limit is woken as that is over, it waits for ever, up to Python 3.12.)
    """
    bell = threading.Lock()
    bell.acquire()
    return bell


class ThreadWorker:
    """One of the threads."""

    def __init__(self, call: Crew, local: LocalWorker) -> None:
        self._call = call
        self._local = local
        self.slot = local.known.id
        self.thread_id = 0
        self._is_timed = call.terms.is_timed
        self.bell = new_bell()  # for which it waits
        self._lock = threading.Lock()
        self._first = 0
        self._values: Any = []  # a list, or what folds
        self._began = 0.0
        self._batch_context: BatchContext | None = None
        self._notes: tuple[tuple[str, object], ...] = ()
        self._recorder = Recorder()
        self._task_began = 0.0  # where that is noted
        self._due = 0.0  # when to note it next
        #: What it has of a batch.
        self.share: Share | None = None
        #: Where there is a time limit, when the task began that it is on; 0 between two tasks.
        self.since = 0.0
        #: Whether nothing that it does counts any more.
        self.is_disowned = False

    def run(self) -> None:
        """Run batches until it is time to end."""
        call = self._call
        self.thread_id = threading.get_ident()
        try:
            config.enter_task(call.level, call.terms.settings)
            enter_worker(self._local.known)
            call.pools.enter()
            if call.initializer is not None:
                _initialize(call.initializer)
            while self._run_next():
                pass
        except BaseException as error:  # nothing that happens here may go unsaid
            call.tell(SessionFailed(error))

    def position(self) -> int:
        """Return the position of the task that it is on."""
        return self._first + len(self._values)

    def describe(self) -> str:
        """Return the words for the task that it is on."""
        assert self.share is not None
        batch = self.share.work.batch
        return batch.describe(self.position() - batch.start)

    def view(self) -> WorkerView:
        """Return what it is at, for another thread: it may be past that already."""
        since = self.since
        seconds = monotonic() - since if since else 0.0
        if self.share is None:
            return WorkerView(self.slot, os.getpid())
        done = len(self._values)
        position = self._first + done
        return WorkerView(self.slot, os.getpid(), 1, 0, "RUNNING", position, seconds, done)

    def disown(self, since: float) -> bool:
        """Have nothing of it count from the task on that began then, unless that has ended."""
        with self._lock:
            self.is_disowned = self.since == since
        return self.is_disowned

    def _run_next(self) -> bool:
        """Run a share; return whether to go on."""
        call = self._call
        share = call.take(self.slot, self.bell)
        if share is None:
            return False
        self._begin_at(share.end - len(share.tasks))
        self.share = share
        if call.is_stopped:  # after `share` is there, so either this sees it or who stops does
            return False
        call.note_begun(share)
        self._local.begin()
        self._began = self._task_began = monotonic()
        self._due = self._recorder.begin(self._began, 0) + MARK_SECONDS
        if call.items:
            copy_context().run(self._run_within, BatchContext(call.items, Place.THREAD), share)
        else:
            self._run_tasks(share)
            self._finish()
        return not self.is_disowned

    def _run_within(self, batch_context: BatchContext, share: Share) -> None:
        """Run a share within the `batch context`."""
        try:
            batch_context.begin(self.position)
            self._batch_context = batch_context
            try:
                self._run_tasks(share)
            finally:
                self._batch_context = None
                self._notes = batch_context.end()
        except ContextFailed as failed:
            raise failed.error from failed.error.__cause__
        self._finish()

    def _run_tasks(self, share: Share) -> None:
        """Run what is in it; no task sees what one before it has set in its context."""
        run_task = None if self._is_plain() else self._special(share.form)
        base = copy_context()
        goes_on = True
        while goes_on:
            context = base.copy()
            goes_on = context.run(self._run_held, share.form, share.tasks, run_task, context, base)

    def _is_plain(self) -> bool:
        """Whether there is nothing to be done between two tasks."""
        terms = self._call.terms
        is_watched = self._is_timed or terms.answers_each or terms.records_each
        is_watched = is_watched or self._batch_context is not None
        return not is_watched and "memmapping.sharing" not in sys.modules

    def _run_held(
        self,
        form: Form,
        tasks: deque[Any],
        run_task: Callable[[Any], None] | None,
        context: Context,
        base: Context,
    ) -> bool:
        """Run tasks until one has changed the `context`; return whether that is so.

        If given, `run_task` runs each, and puts its result among the others.
        """
        function: Any = form.function
        is_single = form.is_single and run_task is None
        is_whole = function is None and run_task is None
        append, next_task = self._values.append, tasks.popleft
        while True:
            try:
                item = next_task()
            except IndexError:
                return False
            try:
                if is_single:
                    append(function(item))
                elif is_whole:
                    function, args, kwargs = item
                    append(function(*args, **kwargs))
                elif run_task is None:
                    append(function(*item))
                else:
                    run_task(item)
            except BaseException as error:
                if not self._go_on_after(error):
                    return False
                append = self._values.append
            try:
                if context != base:
                    return True
            except Exception:  # values that cannot be compared are others
                return True

    def _special(self, form: Form) -> Callable[[Any], None]:
        """Return what runs one task where there is more to do about each."""
        batch_context, answers_each = self._batch_context, self._call.terms.answers_each
        may_share = "memmapping.sharing" in sys.modules
        records_each = self._call.terms.records_each

        def run_task(item: Any) -> None:
            if answers_each and len(self._values):
                self.hand_in(False)
            if self._is_timed:
                self.since = monotonic()
            if records_each:
                self._mark(monotonic())
            called, args, kwargs = form.whole(item)
            if may_share:
                args, kwargs = to_call(args, kwargs)
            if batch_context is not None:
                called = batch_context.bind(called, self.position())
            value = called(*args, **kwargs)
            if not self._end_task():
                raise _Disowned
            self._values.append(value)

        return run_task

    def _mark(self, now: float) -> None:
        """Note that a task begins, if the one before it took long or the last mark is old."""
        if now > self._due:
            index = len(self._values)
            if now - self._task_began >= MARK_SECONDS:
                self._recorder.add(index - 1, self._task_began)
            self._recorder.add(index, now)
            self._due = now + MARK_SECONDS
        self._task_began = now

    def _end_task(self) -> bool:
        """Note that a task has ended; return whether that was in time."""
        if not self._is_timed:
            return True
        with self._lock:
            self.since = 0.0
            return not self.is_disowned

    def _go_on_after(self, error: BaseException) -> bool:
        """Hand in a task that has raised; return whether the next one is to be run."""
        if not self._end_task():
            return False
        is_task = not isinstance(error, FoldFailed)
        goes_on = self._call.terms.after_failure is AfterFailure.CARRY_ON and is_task
        if not goes_on:
            self._call.stop()
        if is_task:
            error = named(error, self.describe())
        self.hand_in(False, error)
        return goes_on

    def _finish(self) -> None:
        """Hand in what is left of the share, unless that has been done."""
        if self.share is not None and not self.is_disowned:
            self.hand_in(True)

    def hand_in(self, is_last: bool, error: BaseException | None = None) -> None:
        """Hand in what has come of the tasks since the last time, and one that failed after them.

        In the thread itself, unless that has been disowned.
        """
        share = self.share
        assert share is not None
        if is_last:
            self.share = None
        self._call.deliver(self._completion(share, error), share if is_last else None)

    def _completion(self, share: Share, error: BaseException | None) -> Completion:
        batch, first, now = share.work.batch, self._first, monotonic()
        tasks, values = len(self._values), self._values
        completion = Completion(batch, first, values, now - self._began, False)
        if self._call.terms.records_each and now - self._task_began >= MARK_SECONDS:
            self._recorder.add(tasks if error is not None else tasks - 1, self._task_began)
        completion.worker = self.slot
        completion.times = TaskTimes(*self._recorder.take(now, 0, 0))
        self._began = self._task_began = now
        completion.notes, self._notes = self._notes, ()
        if self._call.terms.make_fold is not None:
            completion.folded = tasks
            try:
                completion.values = values.take()
            except FoldFailed as failed:
                completion.fatal = failed.noted()
        if isinstance(error, FoldFailed):
            completion.fatal = error.noted()
        elif error is not None:
            completion.failures = [Failure(first + tasks, error)]
            if completion.folded is None:
                values.append(None)
        self._begin_at(first + completion.tasks)
        return completion

    def _begin_at(self, position: int) -> None:
        make_fold = self._call.terms.make_fold
        self._first = position
        self._values = [] if make_fold is None else make_fold(position)


def _initialize(initializer: Callable[[], object]) -> None:
    try:
        initializer()
    except BaseException as error:
        from parallel_core.errors import InitializerError

        words = f"the initializer raised in a thread: {type(error).__name__}: {error}"
        raise InitializerError(words) from error
