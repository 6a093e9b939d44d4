"""One thread of a call on threads: takes batches, runs their tasks, hands in what came of them.

A `Share` is what one thread has of a batch, in a `deque`: at first all of it. The thread takes task
by task from the left, and asks nobody. One that has nothing to do takes half of what is left, from
the right, where another stays on one task, or will need a while for the rest. Either is a single
step on the deque, so each task is taken once; who empties it has no further task begun.

Whether that is so shows by looking twice, `LOOK_SECONDS` apart. One thread at a time looks, only
while another has tasks that it has not begun, and for that a thread more than there are batches is
started. So nothing waits for the caller's thread, which may be inside its iterable.

A time limit needs a lock: it decides whether a task ended before its time did, so that one outcome
counts. A thread whose task has run out of time is *disowned*: it hands in nothing more, and ends
with its task.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from time import monotonic
from typing import Any

from parallel_core import config
from parallel_core.backends.base import (
    LONGEST_WAIT,
    CallTerms,
    Completion,
    Failure,
    SessionFailed,
)
from parallel_core.backends.local_worker import LocalWorker, SlotThread
from parallel_core.backends.thread_share import Form, Share
from parallel_core.context.batch_context import BatchContext, ContextFailed, items_for
from parallel_core.context.item import Place
from parallel_core.context.this_worker import enter_worker
from parallel_core.reduction.tree import FoldFailed
from parallel_core.serialization.failure import named
from parallel_core.serialization.handles import to_call
from parallel_core.workers.messages import AfterFailure
from parallel_core.workers.thread_pools import PoolLimit

#: Between two looks at the tasks that other threads have not begun. A batch takes about as long.
LOOK_SECONDS = 0.005


class ThreadCall:
    """What the threads of one call share.

    Parameters
    ----------
    terms : CallTerms
        What was asked for.
    n_workers : int
        How many threads there may be.
    level : int
        Nesting level of the tasks.
    initializer : callable, optional
        Called in each thread first, without arguments.
    slot_thread : callable, optional
        Returns the thread that stays for a slot; without it, each thread ends with the call.
    """

    def __init__(
        self,
        terms: CallTerms,
        n_workers: int,
        level: int,
        initializer: Callable[[], object] | None,
        slot_thread: Callable[[int], SlotThread] | None = None,
    ) -> None:
        self._slot_thread = slot_thread
        self.terms = terms
        self.n_workers = n_workers
        self.level = level
        self.initializer = initializer
        self.items = items_for(terms.context_items, Place.THREAD)
        threads = terms.settings.threads if terms.settings is not None else None
        self.pools = PoolLimit(threads or sys.maxsize)
        self.workers: list[ThreadWorker] = []
        self.is_stopped = False
        self._news: deque[Completion | SessionFailed] = deque()
        self._bell = new_bell()  # of the caller's thread
        self._context = copy_context()
        # For what follows, and `workers`; who ends the call may be a finalizer within.
        self._lock = threading.RLock()
        self._inbox: deque[Share] = deque()  # what no thread has
        self._directed: dict[int, deque[Share]] = {}  # the same, for one thread alone
        self._asked: dict[int, deque[Callable[[], None]]] = {}  # of one thread, between two shares
        self._waiting: deque[Any] = deque()  # the bells of threads that have nothing
        self._n_open = 0  # shares
        self._is_watched = False  # one of these looks
        self._seen: dict[int, int] = {}  # by the identity of a share: how many tasks it had left
        self._seen_at = 0.0

    def give(self, share: Share) -> None:
        """Put `share` where the next free thread takes it."""
        with self._lock:
            self._n_open += 1
            share.work.n_open += 1
            if share.slot is None:
                self._inbox.append(share)
                self._wake_one()
            else:
                self._directed.setdefault(share.slot, deque()).append(share)
                self._wake(share.slot)

    def ask(self, slot: int, job: Callable[[], None]) -> None:
        """Have the thread of `slot` do `job`, which raises nothing, before it takes a share."""

        def do() -> None:
            job()
            self.ring()

        with self._lock:
            self._asked.setdefault(slot, deque()).append(do)
            self._wake(slot)
        self.start_workers()

    def _wake(self, slot: int) -> None:
        """Wake the thread of `slot`, if it waits."""
        for worker in self.workers:
            if worker.slot == slot and worker.bell in self._waiting:
                self._waiting.remove(worker.bell)
                worker.bell.release()

    def start_workers(self, n_spare: int = 0) -> None:
        """Start threads until there is one for each share, and so many besides.

        Raises
        ------
        RuntimeError
            When the system has no thread at all for us.
        """
        while True:
            with self._lock:
                slot = None if self.is_stopped else self._next_slot(n_spare)
                if slot is None:
                    return
                thread = None if self._slot_thread is None else self._slot_thread(slot)
                worker = ThreadWorker(
                    self, LocalWorker(slot, None) if thread is None else thread.worker
                )
                self.workers.append(worker)  # before it starts: an interrupt may come in between
            run = functools.partial(self._context.copy().run, worker.run)
            try:
                if thread is None:
                    name = f"parallel-core-{slot}"
                    threading.Thread(target=run, name=name, daemon=True).start()
                else:
                    thread.do(run)
            except RuntimeError as error:
                with self._lock:
                    self.workers.remove(worker)
                    self.n_workers = len(self.workers)
                    self._inbox += self._directed.pop(slot, ())  # better elsewhere than never
                if self.n_workers == 0:
                    raise RuntimeError(
                        f"not even one thread can be started for the tasks: {error} (if the "
                        "program is not ending, see ulimit -u); n_jobs=1 needs none"
                    ) from error

    def _next_slot(self, n_spare: int) -> int | None:
        """Return the slot of the next thread to start, if there is to be one more."""
        taken = {worker.slot for worker in self.workers}
        for waiting in (self._directed, self._asked):
            for slot, some in waiting.items():
                if some and slot not in taken:
                    return slot
        if len(taken) >= min(self._n_open + n_spare, self.n_workers):
            return None
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def take(self, slot: int, bell: Any) -> Share | None:
        """Wait for a share, be it a part of another thread's; None when it is time to end."""
        looks = False
        share: Share | None = None
        while share is None:
            job: Callable[[], None] | None = None
            with self._lock:
                if self.is_stopped:
                    return None
                if asked := self._asked.get(slot):
                    job = asked.popleft()
                elif own := self._directed.get(slot):
                    share = own.popleft()
                elif self._inbox:
                    share = self._inbox.popleft()
                elif looks:
                    share = self._steal()
                is_idle = share is None and job is None
                looks = is_idle and not self._is_watched and self._has_tasks()
                if is_idle:
                    self._waiting.append(bell)
                    self._is_watched = self._is_watched or looks
            if job is not None:
                job()
            elif is_idle:
                self._wait(bell, looks)
        return share

    def _wait(self, bell: Any, looks: bool) -> None:
        """Wait to be woken, or until it is time to look again."""
        is_rung = bell.acquire(timeout=LOOK_SECONDS if looks else -1)
        with self._lock:
            if looks:
                self._is_watched = False
            if not is_rung:
                try:
                    self._waiting.remove(bell)
                except ValueError:  # it was rung just now
                    bell.acquire()

    def _wake_one(self) -> None:
        if self._waiting:
            self._waiting.popleft().release()

    def note_begun(self, share: Share) -> None:
        """Have a thread look at those that have tasks waiting, as the one has that begins `share`.

        The thread that begins it may have been the one that looked at others.
        """
        if self._is_watched or not (_can_be_split(share, 1) or self._has_tasks(share)):
            return
        self.start_workers(n_spare=1)
        with self._lock:
            self._wake_one()

    def _has_tasks(self, besides: Share | None = None) -> bool:
        """Whether a thread has tasks that it has not begun."""
        shares = (worker.share for worker in self.workers)
        return any(share and share is not besides and _can_be_split(share) for share in shares)

    def _steal(self) -> Share | None:
        """Return half of what a thread has not begun that is not through with it soon."""
        with self._lock:
            now = monotonic()
            elapsed, self._seen_at = now - self._seen_at, now
            seen, self._seen = self._seen, {}
            longest, victim = 2 * LOOK_SECONDS, None
            for worker in self.workers:
                share = worker.share
                if share is None or not _can_be_split(share):
                    continue
                left = len(share.tasks)
                self._seen[id(share)] = left
                done = seen.get(id(share), math.inf) - left
                seconds = left * elapsed / done if done > 0 else math.inf
                if seconds > longest:
                    longest, victim = seconds, share
            part = None if victim is None else victim.split(len(victim.tasks) // 2)
            if part is not None:
                self._n_open += 1
                part.work.n_open += 1
            return part

    def deliver(self, completion: Completion, finished: Share | None) -> None:
        """Hand a completion to the caller's thread; with it, a share may be `finished`."""
        with self._lock:  # what comes last of a batch has to be delivered last
            if finished is not None:
                self._n_open -= 1
                finished.work.n_open -= 1
                completion.finished = finished.work.n_open == 0
            self.tell(completion)

    def replace(self, worker: ThreadWorker) -> None:
        """Go on without `worker`, which was disowned, and with what it has not begun."""
        assert worker.share is not None
        with self._lock:
            self.workers.remove(worker)
            rest = worker.share.split(0)
            if rest is not None:
                self.give(rest)

    def stop(self) -> None:
        """Have no further task begun; any thread may call this."""
        self.is_stopped = True
        for worker in list(self.workers):
            share = worker.share
            if share is not None:
                share.tasks.clear()

    def end(self) -> None:
        """Have the threads end that have nothing to do; the others do so after their task."""
        with self._lock:
            self.is_stopped = True  # so none is started any more
            while self._waiting:
                self._wake_one()
        self.pools.end()

    def tell(self, news: Completion | SessionFailed) -> None:
        """Hand `news` to the caller's thread."""
        self._news.append(news)
        self.ring()

    def ring(self) -> None:
        """Wake the caller's thread, now or when it waits next; any thread may call this."""
        with suppress(RuntimeError):  # somebody has rung already
            self._bell.release()

    def completions(self, seconds: float | None) -> list[Completion | SessionFailed]:
        """Return the news, when there are any, or somebody has rung, or the time is over."""
        if seconds is None or seconds > 0:
            self._bell.acquire(timeout=-1 if seconds is None else min(seconds, LONGEST_WAIT))
        else:
            self._bell.acquire(blocking=False)
        found = []
        while self._news:  # whatever comes after this has rung again
            found.append(self._news.popleft())
        return found


def _can_be_split(share: Share, keep: int = 0) -> bool:
    """Whether other threads may have some of it, all but `keep`."""
    return share.slot is None and len(share.tasks) > keep


def new_bell() -> Any:
    """Return a lock that is taken, for a thread to wait for; whoever rings it gives it up.

    It is waited for in C, so that Ctrl-C gets through. (`queue.SimpleQueue` would do, but when who
    waits for it with a time limit is woken as that is over, it waits for ever, up to Python 3.12.)
    """
    bell = threading.Lock()
    bell.acquire()
    return bell


class ThreadWorker:
    """One of the threads.

    Parameters
    ----------
    call : ThreadCall
        What it shares with the others.
    local : LocalWorker
        What it knows of itself.

    Attributes
    ----------
    slot : int
        Its number.
    bell : lock
        For which it waits.
    share : Share or None
        What it has of a batch.
    since : float
        Where there is a time limit, when the task began that it is on; 0 between two tasks.
    is_disowned : bool
        Whether nothing that it does counts any more.
    """

    def __init__(self, call: ThreadCall, local: LocalWorker) -> None:
        self._call = call
        self._local = local
        self.slot = local.known.id
        self._is_timed = call.terms.is_timed
        self.bell = new_bell()
        self._lock = threading.Lock()
        self._first = 0
        self._values: Any = []  # a list, or what folds
        self._began = 0.0
        self._batch_context: BatchContext | None = None
        self._notes: tuple[tuple[str, object], ...] = ()
        self.share: Share | None = None
        self.since = 0.0
        self.is_disowned = False

    def run(self) -> None:
        """Run batches until it is time to end."""
        call = self._call
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
        self._began = monotonic()
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
        run = self._run_plain if self._is_plain() else self._run_all
        base = copy_context()
        goes_on = True
        while goes_on:
            context = base.copy()
            goes_on = context.run(run, share.form, share.tasks, context, base)

    def _is_plain(self) -> bool:
        """Whether there is nothing to be done between two tasks."""
        is_watched = (
            self._is_timed or self._call.terms.answers_each or self._batch_context is not None
        )
        return not is_watched and "memmapping.sharing" not in sys.modules

    def _run_plain(self, form: Form, tasks: deque[Any], context: Context, base: Context) -> bool:
        """Run tasks until one has changed the `context`; return whether that is so."""
        function: Any = form.function
        is_single, is_whole = form.is_single, function is None
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
                else:
                    append(function(*item))
            except BaseException as error:
                if not self._go_on_after(error):
                    return False
                append = self._values.append
            try:
                if context != base:
                    return True
            except Exception:  # values that cannot be compared are others
                return True

    def _run_all(self, form: Form, tasks: deque[Any], context: Context, base: Context) -> bool:
        """Do the same where there is more to do for each task."""
        batch_context, answers_each = self._batch_context, self._call.terms.answers_each
        may_share = "memmapping.sharing" in sys.modules
        while True:
            try:
                task = tasks.popleft()
            except IndexError:
                return False
            if self._is_timed:
                self.since = monotonic()
            try:
                called, args, kwargs = form.whole(task)
                if may_share:
                    args, kwargs = to_call(args, kwargs)
                if batch_context is not None:
                    called = batch_context.bind(called, self.position())
                value = called(*args, **kwargs)
                if not self._end_task():
                    return False
                self._values.append(value)
                del value
            except BaseException as error:
                if not self._go_on_after(error):
                    return False
            if answers_each and tasks:
                self.hand_in(False)
            try:
                if context != base:
                    return True
            except Exception:  # values that cannot be compared are others
                return True

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
        self._began = now
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
