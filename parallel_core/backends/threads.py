"""Threads of this process that run batches.

::

    caller's thread                                  each thread of the call
    submit ───▶ inbox: what no thread has ───▶  takes a batch, and runs its tasks; or takes a part
    wait ◀───── news: completions, or a ring ◀─ of one, from a thread that will not be done soon
    enforce     disowns a thread whose task runs for too long; another takes its place

Nothing is encoded, and whoever waits is woken by a lock that another thread gives up.

The threads are those of one call, started when there is more to do than the others have taken.
They cannot be killed. When a call ends early, those inside a task are left to finish it, and end
then.

- `thread_call`: what the threads of a call share; `thread_worker`: each of them; `thread_share`: a
  part of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import monotonic
from typing import Any

from parallel_core.backends.base import LONGEST_WAIT, CallTerms, Session, SessionFailed
from parallel_core.backends.completion import Completion
from parallel_core.backends.control import ThreadControl
from parallel_core.backends.local_worker import SlotThread
from parallel_core.backends.options import WorkerOptions, WorkerSetup
from parallel_core.backends.thread_call import ThreadCall
from parallel_core.backends.thread_share import share_of
from parallel_core.observe.events import WorkerView
from parallel_core.serialization.batch import Batch
from parallel_core.tasks.description import function_name
from parallel_core.workers.board import Phase
from parallel_core.workers.requests import Request


class ThreadSession(Session):
    """Threads for one call after the other, each with its own."""

    holds_tasks = True
    runs_here = True
    handover_seconds = 2e-5  # a thread has to wake up

    def __init__(self, n_jobs: int, level: int, options: WorkerOptions) -> None:
        self.n_workers = self._n_jobs = n_jobs
        self._level = level
        self._initializer: Callable[[], object] | None = None
        if options.initializer is not None:
            self._initializer = functools.partial(options.initializer, *options.initargs)
        self._setup = options.setup
        self._threads: dict[int, SlotThread] = {}  # those that stay, by slot
        self._call: ThreadCall | None = None
        self._in_flight = 0  # batches
        self._slots: dict[Batch, int] = {}  # of those for one thread alone
        self._fatal: SessionFailed | None = None

    def begin(self, terms: CallTerms) -> None:
        """Start a call."""
        self.n_workers = self._n_jobs
        self._in_flight = 0
        self._slots = {}
        self._fatal = None
        setup = self._setup
        self._call = ThreadCall(
            terms,
            self._n_jobs,
            self._level,
            self._initializer,
            None if setup is None else self._slot_thread,
            keeps_order=setup is not None and setup.passed.state,
        )
        self._call.pools.begin()

    def end(self) -> None:
        """Have the threads end."""
        call, self._call = self._call, None
        if call is not None:
            call.end()

    def _slot_thread(self, slot: int) -> SlotThread:
        """Return the thread of `slot` for all calls of this session."""
        assert self._setup is not None
        if slot not in self._threads:
            self._threads[slot] = SlotThread(slot, self._setup)
        return self._threads[slot]

    def _drop_thread(self, slot: int) -> None:
        """Have the thread of `slot` end after its task; another one takes its place."""
        thread = self._threads.pop(slot, None)
        if thread is not None:
            thread.leave()

    def slot_has_capacity(self, slot: int, queued: int) -> bool:
        """Whether there are fewer than `queued` batches for the thread of `slot`."""
        return sum(other == slot for other in self._slots.values()) < queued

    def submit_to(self, slot: int, batch: Batch) -> None:
        """Put `batch` where the thread of `slot` takes it."""
        assert self._call is not None
        self._slots[batch] = slot
        self._call.give(share_of(batch, slot))
        self._in_flight += 1

    def request(self, slot: int, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """Call `function` in the thread of `slot`, after what it has to do now; while a call runs.

        Returns a `Request`.
        """
        assert self._call is not None
        request = Request(Phase.REQUEST, b"", f"the request {function_name(function)}")

        def job() -> None:
            try:
                request.answer(function(*args))
            except BaseException as error:
                request.answer(None, error)

        self._call.ask(slot, job)
        return request

    def has_capacity(self, queued: int) -> bool:
        """Whether there are fewer than `queued` batches for each thread."""
        return self._in_flight < queued * self.n_workers

    def submit(self, batch: Batch) -> None:
        """Put `batch` where the next free thread takes it."""
        assert self._call is not None
        self._call.give(share_of(batch))
        self._in_flight += 1

    def start_workers(self) -> None:
        """Start a thread for each batch that no thread is free for, as far as there may be.

        Not with each batch: starting a thread waits for it, and it begins with what is there.
        """
        if self._call is None:
            return
        try:
            self._call.start_workers()
        except RuntimeError as error:
            self._fatal = SessionFailed(error)
        self.n_workers = self._call.n_workers

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for what the threads have handed in."""
        if self._call is None:
            return []
        if self._fatal is not None:
            raise self._fatal
        news: list[Completion] = []
        seconds = self._look_at_init(seconds)
        for item in self._call.completions(seconds):
            if isinstance(item, SessionFailed):
                self._fatal = item
            else:
                if item.finished:
                    self._in_flight -= 1
                    self._slots.pop(item.batch, None)
                news.append(item)
        if self._fatal is not None and not news:
            raise self._fatal
        return news

    def _look_at_init(self, seconds: float | None) -> float | None:
        """Look for init functions over their time; return when to look again, or `seconds`."""
        setup = self._setup
        if setup is None or setup.init_timeout is None:
            return seconds
        now = monotonic()
        for slot, thread in list(self._threads.items()):
            if thread.worker.is_late(now):
                late = thread.worker.late("worker_init", setup.init, setup.init_timeout)
                self._fatal = SessionFailed(late)
                self._drop_thread(slot)
                return 0.0
        look = setup.init_timeout / 4 if self._in_flight else LONGEST_WAIT
        return look if seconds is None else min(look, seconds)

    def look(self) -> list[WorkerView]:
        """Return what each thread is at."""
        if self._call is None:
            return []
        return [worker.view() for worker in list(self._call.workers)]

    def control(self) -> ThreadControl:
        """Return what reads stacks of threads."""
        return ThreadControl(lambda: () if self._call is None else self._call.workers)

    def waker(self) -> Callable[[], None]:
        """Return what has `wait` return."""
        assert self._call is not None
        return self._call.ring

    def enforce_timeout(self, limit: float) -> float:
        """Look for tasks over their time; disown their threads."""
        assert self._call is not None
        now = monotonic()
        again = now + limit
        for worker in list(self._call.workers):
            since, seconds = worker.since, limit
            if since and self._call.terms.timeout_of is not None:
                seconds = self._call.terms.timeout_of(worker.position())
            if since and now - since <= seconds:
                again = min(again, since + seconds)
            elif since and worker.disown(since):
                self._drop_thread(worker.slot)
                self._call.replace(worker)
                worker.hand_in(True, _too_late(worker.describe(), seconds))
                self.start_workers()
        return again

    def cancel(self) -> None:
        """Have no further task begun; those that run are left to end."""
        if self._call is not None:
            for worker in list(self._call.workers):
                if worker.share is not None:
                    self._drop_thread(worker.slot)
            self._call.stop()
            self.end()

    def change_setup(self, setup: WorkerSetup) -> None:
        """Use other init and exit functions from now on; threads that are set up stay so."""
        self._setup = setup
        for thread in self._threads.values():
            thread.worker.change_setup(setup)

    def finish(self) -> list[Any]:
        """Call the exit function in each thread that has had tasks; return results by slots."""
        setup = self._setup
        if setup is None or setup.exit is None:
            return []
        self.end()
        endings = [self._threads[slot].finish() for slot in sorted(self._threads)]
        found = [ending.results(setup.exit_timeout, setup.exit) for ending in endings]
        return [value for values in found for value in values]

    def close(self) -> None:
        """Let the threads go."""
        self.cancel()
        for slot in list(self._threads):
            self._drop_thread(slot)


def _too_late(what: str, limit: float) -> BaseException:
    from parallel_core.errors import TaskTimeoutError

    return TaskTimeoutError(f"{what} has run for more than timeout={limit:g} s")
