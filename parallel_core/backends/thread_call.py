"""What the threads of one call share: the batches, and the way of outcomes to the caller's thread.

A thread that has nothing to do takes half of what another has not begun, from the right of its
`Share`, where that other stays on one task, or will need a while for the rest. Whether that is so
shows by looking twice, `LOOK_SECONDS` apart. One thread at a time looks, only while another has
tasks that it has not begun, and for that a thread more than there are batches is started. So
nothing waits for the caller's thread, which may be inside its iterable.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from time import monotonic
from typing import Any

from parallel_core.backends.base import LONGEST_WAIT, CallTerms, SessionFailed
from parallel_core.backends.completion import Completion
from parallel_core.backends.local_worker import LocalWorker, SlotThread
from parallel_core.backends.thread_share import Share
from parallel_core.backends.thread_worker import ThreadWorker, new_bell
from parallel_core.context.batch_context import items_for
from parallel_core.context.item import Place
from parallel_core.workers.thread_pools import PoolLimit

#: Between two looks at the tasks that other threads have not begun. A batch takes about as long.
LOOK_SECONDS = 0.005


class ThreadCall:
    """What the threads of one call share.

    `slot_thread` returns the thread that stays for a slot; without it, each ends with the call.
    Where each thread `keeps_order`, it runs its tasks in the order of the input: nobody steals.
    """

    def __init__(
        self,
        terms: CallTerms,
        n_workers: int,
        level: int,
        initializer: Callable[[], object] | None,
        slot_thread: Callable[[int], SlotThread] | None = None,
        keeps_order: bool = False,
    ) -> None:
        self._keeps_order = keeps_order
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
        if self._is_watched or not (self._can_be_split(share, 1) or self._has_tasks(share)):
            return
        self.start_workers(n_spare=1)
        with self._lock:
            self._wake_one()

    def _has_tasks(self, besides: Share | None = None) -> bool:
        """Whether a thread has tasks that it has not begun."""
        shares = (worker.share for worker in self.workers)
        return any(share and share is not besides and self._can_be_split(share) for share in shares)

    def _can_be_split(self, share: Share, keep: int = 0) -> bool:
        """Whether other threads may have some of it, all but `keep`."""
        return share.slot is None and len(share.tasks) > keep and not self._keeps_order

    def _steal(self) -> Share | None:
        """Return half of what a thread has not begun that is not through with it soon."""
        with self._lock:
            now = monotonic()
            elapsed, self._seen_at = now - self._seen_at, now
            seen, self._seen = self._seen, {}
            longest, victim = 2 * LOOK_SECONDS, None
            for worker in self.workers:
                share = worker.share
                if share is None or not self._can_be_split(share):
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
