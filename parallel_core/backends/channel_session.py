"""Batches to workers of our own, over their channels.

One `poll` object waits for everything: answers, room to send, and deaths. A worker's end is its
pidfd; what it had sent before is read first, so results that were on their way count.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Generic

from parallel_core.backends.answers import initializer_error, take_answer
from parallel_core.backends.base import LONGEST_WAIT, NEVER, CallTerms, Session, SessionFailed
from parallel_core.backends.completion import Completion
from parallel_core.backends.control import ProcessControl
from parallel_core.backends.losses import FailedStarts, died, lost_batches
from parallel_core.backends.options import WorkerSetup
from parallel_core.backends.session_setup import SessionSetup, answer_request, lost_requests
from parallel_core.backends.watching import load_of, steal_from_busiest, stop_late_tasks, view_of
from parallel_core.backends.worker_handle import W, Workers
from parallel_core.observe.events import WorkerEnded, WorkerStarted, WorkerView
from parallel_core.serialization.batch import Batch
from parallel_core.tasks.description import function_name
from parallel_core.workers.board import Phase
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.messages import (
    Answer,
    Born,
    Expecting,
    Message,
    Offer,
    Placed,
    Ready,
    Reply,
    Unusable,
)
from parallel_core.workers.requests import Request, pickle_call
from parallel_core.workers.sent import Source
from parallel_core.workers.starting import WorkerStartError

_PLACED_SECONDS = 1.0  # for an answer after its offer was accepted
_CLOSED_SECONDS = 1.0  # for a worker to end whose channel has ended
_GRACE = 0.02  # seconds for a cancelled worker between two tasks to say so, before it is killed


class ChannelSession(Session, Generic[W]):
    """A session on `workers`, which it gives back in the end.

    A worker that dies, or is killed because its task ran for too long, costs one task, which fails;
    the others that it had come back as `Completion.unrun`, and the next batch has it replaced.
    """

    def __init__(self, workers: Workers[W], setup: SessionSetup | None = None) -> None:
        self._workers = workers
        self.n_workers = workers.n_wanted
        self._setup = setup
        self._lifespan: int | None = None  # in tasks, during a call
        self._terms = CallTerms()
        self._fatal: BaseException | None = None  # why no task can be run any more
        self._failed_starts = FailedStarts(workers.n_wanted)
        self.ready_at: dict[int, float] = {}
        self.deaths: list[tuple[int, str]] = []
        self._closed: list[tuple[float, W]] = []  # those whose channel has ended, until when
        self._news: list[Completion] = []
        self._unshown: Exception | None = None  # why what tasks print cannot be shown
        self._is_told = False  # the caller knows that it cannot

    def begin(self, terms: CallTerms) -> None:
        """Start a call."""
        self._terms = terms
        self._news = []
        self._unshown, self._is_told = None, False
        for worker in self._workers.all:
            worker.has_answered = False
            self._tell_started(worker)
        if terms.lifespan is not None:
            self._limit_lives(terms.lifespan)
        elif self._lifespan is not None:
            for worker in self._workers.all:
                worker.allow(None)
        self._lifespan = terms.lifespan
        self._workers.spins = True

    def _limit_lives(self, lifespan: int) -> None:
        """Let each worker start as many tasks as its lifespan leaves."""
        for worker in list(self._workers.all):
            if worker.tasks >= lifespan:
                self._retire(worker)
            else:
                worker.allow(lifespan)

    def end(self) -> None:
        """Have the workers let go of the arrays of the call; a new one opens them again."""
        self._workers.release_memory()

    def is_current(self) -> bool:
        """Whether the workers are as new ones would be: nothing was reloaded, no folder changed."""
        return self._workers.is_current()

    def has_capacity(self, queued: int) -> bool:
        """Whether some worker has fewer than `queued` batches, and would soon get to another."""
        if self._workers.is_short:
            return True
        return any(load_of(worker) < queued for worker in self._workers.all)

    def slot_has_capacity(self, slot: int, queued: int) -> bool:
        """Whether the worker of `slot` has fewer; or some worker, if it has none any more."""
        worker = self._workers.of(slot)
        return self.has_capacity(queued) if worker is None else load_of(worker) < queued

    def submit_to(self, slot: int, batch: Batch) -> None:
        """Send `batch` to the worker of `slot`; to any, if none can be had for it any more."""
        while (worker := self._workers.of(slot) or self._replace(slot)) is not None:
            if self._send(worker, batch, is_directed=True):
                return
        self.submit(batch)

    def submit(self, batch: Batch) -> None:
        """Send `batch` to the worker with the fewest; a worker that has left is replaced."""
        while True:
            worker = min(self._workers.all, key=load_of, default=None)
            is_free = worker is not None and not worker.sent and not worker.leaving
            if not is_free and self._workers.is_short:
                worker = self._replace() or worker
            if self._send(worker or self._await_worker(), batch):
                return

    def _await_worker(self) -> W:
        """Return the next worker that comes, where there is none at the moment."""
        if self._fatal is None:
            try:
                fresh = self._workers.start()
            except WorkerStartError as error:
                self._fatal = died(f"there is no worker any more, and no other comes: {error}")
            else:
                self._welcome(fresh)
                return fresh
        raise SessionFailed(self._fatal)

    def _send(self, worker: W, batch: Batch, is_directed: bool = False) -> bool:
        """Send `batch` to `worker`, prepared for it; return whether that was still there."""
        if batch.uses:
            self._workers.listen()
        terms = self._terms
        try:
            waits = self._setup is not None and self._setup.begin(worker)
            waits |= worker.submit(
                batch,
                terms.call,
                terms.after_failure,
                terms.answers_each,
                terms.folding,
                terms.context,
            )
        except ChannelClosed:
            if worker.sent and worker.sent[-1].batch is batch:  # else it came not even so far
                worker.sent.pop()
            self._lose(worker)
            return False
        worker.sent[-1].is_directed = is_directed
        if waits:
            self._workers.want_to_send(worker, True)
        return True

    def _replace(self, slot: int | None = None) -> W | None:
        """Return a new worker for one that has left, if there is to be one."""
        if self._fatal is not None or not self._workers.is_short:
            return None
        try:
            fresh = self._workers.start(slot)
        except WorkerStartError as error:
            self.n_workers = self._workers.n_wanted
            if not self._workers.all:
                words = f"the last worker process is gone, and no other starts: {error}"
                self._fatal = died(words)
            return None
        self._welcome(fresh)
        return fresh

    def _welcome(self, fresh: W) -> None:
        """Begin with a worker that has come in the middle of a call."""
        if self._lifespan is not None:
            fresh.allow(self._lifespan)
        self._tell_started(fresh)

    def steal(self, task_seconds: float) -> tuple[list[Batch], float]:
        """Take from the worker that has the most, in time, of what it has not started."""
        if self._setup is not None and self._setup.keeps_order:
            return [], NEVER
        return steal_from_busiest(self._workers.all, task_seconds, self._workers.is_short)

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for answers and deaths."""
        if self._news:
            news, self._news = self._news, []
            return news
        if self._fatal is not None:
            raise SessionFailed(self._fatal)
        if self._closed:
            seconds = self._reap_closed(seconds)
        if self._setup is not None:
            again = self._setup.look(self._workers.all)
            seconds = again if seconds is None else min(again, seconds)
        events = self._workers.poll(seconds)
        began = time.monotonic()
        for worker, source, event in events:
            if source is Source.END:
                self._lose(worker)
            elif source is Source.OUTPUT:
                self._read_output(worker)
            elif source is Source.START:
                self._welcome(worker)
            else:
                if event & select.POLLOUT:
                    self._flush(worker)
                if event & ~select.POLLOUT:
                    self._read(worker)
        self.reading_seconds += time.monotonic() - began
        if self._unshown is not None and not self._is_told:
            self._is_told = True
            raise self._unshown
        news, self._news = self._news, []
        return news

    def waker(self) -> Callable[[], None]:
        """Return what has `wait` return."""
        return self._workers.ring()

    def enforce_timeout(self, limit: float) -> float:
        """Look at the boards for tasks over their time: ask them to end, then kill the worker."""
        return stop_late_tasks(self._workers.all, limit, self._terms)

    def cancel(self) -> None:
        """Stop what is between two tasks, kill what is inside one."""
        self._workers.forget_gone()
        busy = [worker for worker in self._workers.all if worker.is_busy]
        for worker in busy:
            worker.cancel()
        deadline = time.monotonic() + _GRACE
        while any(worker.is_busy for worker in busy) and (left := deadline - time.monotonic()) > 0:
            for worker, source, event in self._workers.poll(left):
                try:
                    if source is Source.OUTPUT:
                        self._read_output(worker)
                        continue
                    if source is Source.START:
                        continue
                    if event & select.POLLOUT:
                        self._flush(worker)
                    self._discard_answers(worker)
                except Exception:  # closed, or torn apart by an interrupt between two steps
                    worker.kill()
                    self._workers.ignore(worker, source)
        stuck = [one for one in busy if one.is_busy or one.leaving or not one.alive()]
        for worker in stuck:
            self._tell_ended(worker, "was inside a task when the call ended")
        self._workers.discard(stuck)
        for worker in self._workers.all:
            worker.allow(None)
            if worker.has_output:
                self._read_output(worker)
        self._news = []

    def close(self) -> None:
        """Give the workers back."""
        is_clean = False
        try:
            if any(worker.is_busy or worker.gone for worker in self._workers.all):
                self.cancel()
            is_clean = self._fatal is None
            if self._lifespan is not None:
                for worker in self._workers.all:
                    worker.allow(None)
        finally:
            self._workers.give_back(is_clean)

    def finish(self) -> list[Any]:
        """Call the exit function in each worker that has had tasks; return the results by slots."""
        setup = self._setup
        if setup is None:
            return []
        for worker in list(self._workers.all):
            self._end_worker(worker)
        try:
            while any(worker.requests for worker in self._workers.all):
                self.wait(None)
        except SessionFailed as failed:
            raise failed.error from failed.error.__cause__
        if self._fatal is not None:
            raise self._fatal
        return setup.results()

    def request(
        self, slot: int, function: Callable[..., Any], args: tuple[Any, ...] = ()
    ) -> Request:
        """Call `function` in the worker of `slot`, after what it has to do now."""
        what = f"the request {function_name(function)}"
        asked = Request(Phase.REQUEST, pickle_call(function, args, what), what)
        while (worker := self._workers.of(slot) or self._replace(slot)) is not None:
            try:
                waits = self._setup is not None and self._setup.begin(worker)
                waits |= worker.ask(asked)
            except ChannelClosed:
                self._lose(worker)
                continue
            if waits:
                self._workers.want_to_send(worker, True)
            return asked
        raise SessionFailed(self._fatal or died(f"there is no worker {slot} any more"))

    def change_setup(self, setup: WorkerSetup) -> None:
        """Use other init and exit functions from now on; workers that are set up stay so."""
        if self._setup is not None:
            self._setup.change(setup)

    def _end_worker(self, worker: W) -> bool:
        """Have `worker` call its exit function; return whether there is something to wait for."""
        try:
            is_asked = self._setup is not None and self._setup.end(worker)
        except ChannelClosed:
            self._lose(worker)
            return True
        if is_asked and worker.pending:
            self._workers.want_to_send(worker, True)
        return is_asked

    def _discard_answers(self, worker: W) -> None:
        for message in worker.receive() or ():
            if isinstance(message, Unusable):
                self._fatal = initializer_error(message)
            elif isinstance(message, Expecting):
                worker.pass_descriptors()
            elif isinstance(message, Reply):
                answer_request(worker.requests.popleft(), worker.slot, message)
            elif isinstance(message, (Offer, Placed)):
                answer = self._read_memory(worker, message)
                if answer is not None and answer.finished:
                    worker.sent.popleft()
            elif not isinstance(message, Born):  # Ready may have been lost to the interrupt
                worker.ready = True
                if isinstance(message, Answer) and message.finished:
                    worker.sent.popleft()

    def _flush(self, worker: W) -> None:
        try:
            waits = worker.flush()
        except ChannelClosed:
            return  # what it had sent is still to be read; its pidfd says the rest
        self._workers.want_to_send(worker, waits)

    def _read_output(self, worker: W) -> None:
        """Show what tasks have printed; where that cannot be shown, this is said once."""
        try:
            worker.read_output()
        except Exception as error:
            self._unshown = self._unshown or error

    def _read(self, worker: W) -> bool:
        """Take in answers that are there; return whether there may be more."""
        try:
            received = worker.receive()
        except ChannelClosed:
            if not worker.ends_by_itself:
                self._reap(worker)
            else:  # the end of the process follows, unless a task has closed all descriptors
                self._workers.ignore(worker, Source.CHANNEL)
                self._closed.append((time.monotonic() + _CLOSED_SECONDS, worker))
            return False
        for message in received or ():
            self._take(worker, message)
        return received is not None

    def _take(self, worker: W, message: Message) -> None:
        if worker.has_output:
            self._read_output(worker)
        if isinstance(message, Answer):
            self._take_answer(worker, message)
        elif isinstance(message, Ready):
            worker.ready = True
            self.ready_at[worker.slot] = time.monotonic()
            self._failed_starts.count = 0
        elif isinstance(message, Expecting):
            self._workers.want_to_send(worker, worker.pass_descriptors())
        elif isinstance(message, Unusable):
            self._fatal = initializer_error(message)
        elif isinstance(message, Reply):
            self._take_reply(worker, message)
        elif isinstance(message, (Offer, Placed)):
            answer = self._read_memory(worker, message)
            if answer is not None:
                self._take_answer(worker, answer)
            elif isinstance(message, Offer):
                self._await_placed(worker)

    def _take_reply(self, worker: W, reply: Reply) -> None:
        if self._setup is None:
            answer_request(worker.requests.popleft(), worker.slot, reply)
            return
        error = self._setup.take_reply(worker, reply)
        self._fatal = self._fatal or error
        if worker.leaving and not worker.is_busy:
            self._retire(worker)

    def _read_memory(self, worker: W, message: Offer | Placed) -> Answer | None:
        """Accept what a worker offers, or read and return an answer that it has placed."""
        answer, waits = worker.read_memory(message)
        if waits:
            self._workers.want_to_send(worker, True)
        return answer

    # Whoever consumes results may rest next, and a worker whose offer was accepted waits until its
    # answer is taken. It places it at once; or it had given up, and the answer itself follows.
    def _await_placed(self, worker: W) -> None:
        """Read what follows an accepted offer."""
        n_news = len(self._news)
        until = time.monotonic() + _PLACED_SECONDS
        while len(self._news) == n_news and (left := until - time.monotonic()) > 0:
            if not worker.has_input(left) or not self._read(worker):
                return

    def _take_answer(self, worker: W, answer: Answer) -> None:
        completion = take_answer(worker, answer, self._terms.after_failure)
        self._news.append(completion)
        if completion.finished:
            if worker.is_limited and not worker.sent:
                worker.allow(self._lifespan)
            self._retire_if_due(worker)

    def _retire_if_due(self, worker: W) -> None:
        """Replace a worker that is at the end of its lifespan, too big, or was stopped."""
        lifespan, max_memory = self._lifespan, self._workers.max_memory
        is_old = lifespan is not None and worker.tasks >= lifespan
        is_big = max_memory is not None and worker.memory > max_memory
        worker.leaving = worker.leaving or is_old or is_big
        if worker.leaving and not worker.is_busy:
            self._retire(worker)

    def _retire(self, worker: W) -> None:
        """Let a worker leave that has nothing to do, when it has called its exit function."""
        if self._end_worker(worker):
            worker.leaving = True
            return
        self._tell_ended(worker, "was replaced after its last task")
        self._workers.retire(worker)

    def _tell_started(self, worker: W) -> None:
        emit = self._terms.emit
        if emit is not None:
            emit(WorkerStarted(self._terms.number, worker.slot, worker.pid))

    def _tell_ended(self, worker: W, reason: str) -> None:
        emit = self._terms.emit
        if emit is not None:
            emit(WorkerEnded(self._terms.number, worker.slot, worker.pid, reason))

    def look(self) -> list[WorkerView]:
        """Return what each worker is at, by its board."""
        now = time.monotonic()
        return [view_of(worker, now) for worker in self._workers.all]

    def control(self) -> ProcessControl:
        """Return what reads stacks of workers, and ends them."""
        return ProcessControl(self._workers.of)

    def _lose(self, worker: W) -> None:
        """Read what a worker that has ended had sent, then let it go."""
        while worker in self._workers.all and self._read(worker):
            pass
        if worker in self._workers.all:
            self._reap(worker)

    def _reap_closed(self, seconds: float | None) -> float:
        """Let go of those that have not ended in time; return how long to wait for the others."""
        now = time.monotonic()
        closed = [entry for entry in self._closed if entry[1] in self._workers.all]
        self._closed = [entry for entry in closed if entry[0] > now]
        for due, worker in closed:
            if due <= now:
                self._reap(worker)
        until = [0.0] if self._news else [due - now for due, _ in self._closed]
        return min([*until, LONGEST_WAIT if seconds is None else seconds])

    def _reap(self, worker: W) -> None:
        """Let go of a worker that has ended: one task may be to blame, the others are left over."""
        worker.wait_for_end(_GRACE)
        death, is_ready = worker.exit_info(), worker.ready
        fatal = lost_requests(worker.requests, worker.slot, death, worker.is_on_request)
        self._fatal = self._fatal or fatal
        self._news += lost_batches(worker, death)
        self._tell_ended(worker, death.words)
        if worker.timed_out is None:
            self.deaths.append((worker.slot, death.words))
        self._workers.discard([worker])
        if is_ready:
            return
        left = self._workers.all
        error = self._failed_starts.note(death, len(left), any(one.ready for one in left))
        self._fatal = self._fatal or error
        if self._failed_starts.are_too_many:
            self.n_workers = self._workers.n_wanted = len(left)
