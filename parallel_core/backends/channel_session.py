"""Batches to workers of our own, over their channels.

One `poll` object waits for everything: answers, room to send, and deaths. A worker's end is its
pidfd; what it had sent before is read first, so results that were on their way count.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

from memmapping.interrupts import HeldInterrupts
from parallel_core.backends.answers import initializer_error, read_answer
from parallel_core.backends.base import (
    LONGEST_WAIT,
    NEVER,
    CallTerms,
    Completion,
    Session,
    SessionFailed,
    WorkerSetup,
    WorkerView,
)
from parallel_core.backends.losses import died, given_back, note_timed_out, returned
from parallel_core.backends.placement import WORTH_SECONDS, choose_victim, load
from parallel_core.backends.session_setup import SessionSetup, answer_request, lost_requests
from parallel_core.errors import warn_caller
from parallel_core.observe.events import WorkerEnded, WorkerStarted
from parallel_core.serialization.batch import Batch
from parallel_core.tasks.description import function_name
from parallel_core.workers.bell import Bell
from parallel_core.workers.board import Phase
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.messages import (
    AfterFailure,
    Answer,
    Born,
    Expecting,
    Message,
    Offer,
    Placed,
    Ready,
    Reply,
    Unusable,
    from_wire,
    to_wire,
)
from parallel_core.workers.pool import WorkerPool
from parallel_core.workers.reloads import reloads
from parallel_core.workers.requests import Request, pickle_call
from parallel_core.workers.setup import ProcessState, WorkerKey, process_state
from parallel_core.workers.starting import Spawn, WorkerStartError
from parallel_core.workers.stealing import steal_from
from parallel_core.workers.worker import ExitInfo, Worker, wait_for_end

_SPIN_SECONDS = 1e-4  # waking up takes as long as a tiny call: so look, before going to sleep
_MAX_FAILED_STARTS = 2  # for each job: workers that may end, all in a row, before they are ready
_TIMED = (Phase.UNPICKLING, Phase.RUNNING, Phase.PICKLING)
_BLAMED = (Phase.LOADING, *_TIMED)  # in these, death is the task's
_START_SECONDS = 0.1  # what it takes to replace a worker, and to be worth it
_LOOK_SECONDS = 0.01  # until a worker that has something may have begun with it
_CLOSED_SECONDS = 1.0  # for a worker to end whose channel has ended
_GRACE = 0.02  # seconds for a cancelled worker between two tasks to say so, before it is killed


class ChannelSession(Session):
    """Leased workers of the local pool.

    A worker that dies, or is killed because its task ran for too long, costs one task, which fails;
    the others that it had come back as `Completion.unrun`, and the next batch has it replaced.

    Parameters
    ----------
    pool : WorkerPool
        Where they come from and go back to.
    n_jobs : int
        How many to lease.
    key : WorkerKey
        What the workers must be set up for.
    now : ProcessState
        What they are told about this process.
    spawn : callable, optional
        How new ones are born.
    setup : SessionSetup, optional
        What is to be done for each worker by itself.
    """

    def __init__(
        self,
        pool: WorkerPool,
        n_jobs: int,
        key: WorkerKey,
        now: ProcessState,
        spawn: Spawn | None,
        setup: SessionSetup | None = None,
    ) -> None:
        self._pool = pool
        self._n_jobs = n_jobs
        self._setup = setup
        self._key = key
        self._slot_keys: Sequence[WorkerKey] | None = None
        self._idle_seconds = now.idle_seconds
        if setup is not None:
            self._key = setup.key(key)
            self._slot_keys = setup.slot_keys(self._key, n_jobs)
            now = now._replace(idle_seconds=None)  # for what it keeps, it is to stay
        self._process_state = now
        self._spawn = spawn
        self._lifespan: int | None = None  # in tasks, during a call
        self._terms = CallTerms()
        self._spins = True
        self._bell: Bell | None = None
        self._fatal: BaseException | None = None  # why no task can be run any more
        self._failed_starts = 0  # workers that ended before they were ready, since one last was
        if self._slot_keys is None:
            self._group = pool.lease(n_jobs, self._key, now, spawn)
        else:
            self._group = pool.lease_slots(self._slot_keys, now, spawn)
        self._workers = self._group.workers
        self.n_workers = len(self._workers)
        try:
            for number, worker in enumerate(self._workers):
                self._give_slot(worker, number if self._slot_keys is None else worker.slot)
        except BaseException:
            self._give_back(clean=True)
            raise
        self._closed: list[tuple[float, Worker]] = []  # those whose channel has ended, until when
        self._news: list[Completion] = []
        self._unshown: Exception | None = None  # why what tasks print cannot be shown
        self._is_deaf = False  # the caller knows that it cannot

    def _give_slot(self, worker: Worker, slot: int) -> None:
        worker.take_slot(slot)
        if self._setup is not None:
            self._setup.pin(worker)

    def begin(self, terms: CallTerms) -> None:
        """Start a call."""
        self._terms = terms
        self._news = []
        self._unshown, self._is_deaf = None, False
        for worker in self._workers:
            worker.has_answered = False
            self._tell_started(worker)
        if terms.lifespan is not None:
            self._limit_lives(terms.lifespan)
        elif self._lifespan is not None:
            for worker in self._workers:
                worker.allow(None)
        self._lifespan = terms.lifespan
        self._spins = True

    def _limit_lives(self, lifespan: int) -> None:
        """Let each worker start as many tasks as its lifespan leaves."""
        for worker in list(self._workers):
            if worker.tasks >= lifespan:
                self._retire(worker)
            else:
                worker.allow(lifespan)

    def end(self) -> None:
        """Have the workers let go of the arrays of the call; a new one opens them again."""
        for worker in self._workers:
            try:
                worker.release_memory()
            except ChannelClosed:
                pass  # it has left; the next batch goes to another
            else:
                if worker.channel.pending:
                    self._group.want_to_send(worker, True)

    def is_current(self) -> bool:
        """Whether the workers are as new ones would be: nothing was reloaded, no folder changed."""
        told = self._process_state
        if any(worker.gone for worker in self._workers):
            return False  # this process is a fork of the one that leased them
        now = process_state(told.idle_seconds, told.level, told.threads, told.max_memory)
        if self._group.reloads != reloads():
            return False
        if now != told and self._setup is not None:  # what its workers keep would be lost
            self._tell(now)
            return True
        return now == told

    def _tell(self, now: ProcessState) -> None:
        """Tell the workers what has changed in this process."""
        self._process_state = now
        for worker in list(self._workers):
            try:
                worker.tell(now)
            except ChannelClosed:
                self._lose(worker)
            else:
                self._group.want_to_send(worker, worker.channel.pending)

    def has_capacity(self, queued: int) -> bool:
        """Whether some worker has fewer than `queued` batches, and would soon get to another."""
        if len(self._workers) < self.n_workers:
            return True
        return any(_load(worker) < queued for worker in self._workers)

    def slot_has_capacity(self, slot: int, queued: int) -> bool:
        """Whether the worker of `slot` has fewer; or some worker, if it has none any more."""
        worker = self._worker_of(slot)
        if worker is None:
            return len(self._workers) < self.n_workers or self.has_capacity(queued)
        return _load(worker) < queued

    def _worker_of(self, slot: int) -> Worker | None:
        return next((worker for worker in self._workers if worker.slot == slot), None)

    def submit_to(self, slot: int, batch: Batch) -> None:
        """Send `batch` to the worker of `slot`; to any, if none can be had for it any more."""
        while (worker := self._worker_of(slot) or self._replace(slot)) is not None:
            if self._send(worker, batch, is_directed=True):
                return
        self.submit(batch)

    def submit(self, batch: Batch) -> None:
        """Send `batch` to the worker with the fewest; a worker that has left is replaced."""
        while True:
            worker = min(self._workers, key=_load, default=None)
            if (worker is None or worker.sent) and len(self._workers) < self.n_workers:
                worker = self._replace() or worker
            if worker is None:
                assert self._fatal is not None
                raise SessionFailed(self._fatal)
            if self._send(worker, batch):
                return

    def _send(self, worker: Worker, batch: Batch, is_directed: bool = False) -> bool:
        """Send `batch` to `worker`, prepared for it; return whether that was still there."""
        if batch.uses:
            self._pool.listen()
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
            self._group.want_to_send(worker, True)
        return True

    def _replace(self, slot: int | None = None) -> Worker | None:
        """Return a new worker for one that has left, if there is to be one."""
        if self._fatal is not None or len(self._workers) >= self.n_workers:
            return None
        if slot is None:
            taken = {worker.slot for worker in self._workers}
            slot = next(slot for slot in range(self._n_jobs) if slot not in taken)
        key = self._key if self._slot_keys is None else self._slot_keys[slot]
        try:
            with HeldInterrupts():
                fresh = self._pool.replace(key, self._process_state, self._spawn)
                if self._lifespan is not None:
                    fresh.allow(self._lifespan)
                self._group.add(fresh)
                self._give_slot(fresh, slot)
        except WorkerStartError as error:
            self.n_workers = len(self._workers)
            if not self._workers:
                words = f"the last worker process is gone, and no other starts: {error}"
                self._fatal = died(words)
            return None
        self._tell_started(fresh)
        return fresh

    def steal(self, task_seconds: float) -> tuple[list[Batch], float]:
        """Take from the worker that has the most, in time, of what it has not started."""
        now = time.monotonic()
        least = WORTH_SECONDS
        if not any(worker.ready and not worker.sent for worker in self._workers):
            if len(self._workers) == self.n_workers:
                return [], NEVER  # whoever is still being born may come too late
            least = _START_SECONDS
        candidates, not_yet = [], False
        for worker in self._workers:
            if not worker.sent or (worker.is_limited and not worker.is_fenced):
                continue  # its answer will give back what it has
            if any(sent.is_directed for sent in worker.sent):
                continue
            waiting, running_for = worker.waiting(now)
            if not waiting:
                continue
            if worker.channel.pending or not (worker.is_fenced or worker.has_begun):
                not_yet = True
            else:
                candidates.append((worker, waiting, running_for))
        victim, keep, again = choose_victim(candidates, now, task_seconds, least)
        if victim is None:
            return [], min(again, now + _LOOK_SECONDS) if not_yet else again
        taken = steal_from(victim, keep)
        return taken, now if taken else now + _LOOK_SECONDS

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
            again = self._setup.look(self._workers)
            seconds = again if seconds is None else min(again, seconds)
        for descriptor, event in self._poll(seconds):
            worker = self._group.by_descriptor.get(descriptor)
            if worker is None:
                if self._bell is not None and descriptor == self._bell.descriptor:
                    self._bell.clear()
                continue  # or buried by an event before this one
            if descriptor == worker.pidfd:
                self._lose(worker)
                continue
            if descriptor == worker.output.fileno():
                self._read_output(worker)
                continue
            if event & select.POLLOUT:
                self._flush(worker)
            if event & ~select.POLLOUT:
                self._read(worker)
        if self._unshown is not None and not self._is_deaf:
            self._is_deaf = True
            raise self._unshown
        news, self._news = self._news, []
        return news

    def waker(self) -> Callable[[], None]:
        """Return what has `wait` return."""
        if self._bell is None:
            self._bell = Bell()
            self._group.poller.register(self._bell.descriptor, select.POLLIN)
        return self._bell.ring

    def _poll(self, seconds: float | None) -> list[tuple[int, int]]:
        """Wait for a descriptor; without going to sleep while answers come at once."""
        poll = self._group.poller.poll
        if self._spins and seconds != 0:
            self._spins = False
            until = time.monotonic() + _SPIN_SECONDS
            while time.monotonic() < until:
                events = poll(0)
                if events:
                    self._spins = True
                    return events
        return poll(None if seconds is None else max(0.0, min(seconds, LONGEST_WAIT)) * 1000)

    def enforce_timeout(self, limit: float) -> float:
        """Look at the boards for tasks over their time: ask them to end, then kill the worker."""
        now = time.monotonic()
        again = now + limit
        for worker in self._workers:
            if worker.timed_out is not None:
                again = min(again, worker.escalate(now))
                continue
            running = worker.running() if worker.sent else None
            if running is None:
                continue
            sent, index, since, phase = running
            if phase not in _TIMED or index < sent.answered:
                continue
            seconds = self._terms.limit_for(sent.batch.start + index, limit)
            if now - since > seconds:
                again = min(again, worker.stop_task(sent, index, seconds))
            else:
                again = min(again, since + seconds)
        return again

    def cancel(self) -> None:
        """Stop what is between two tasks, kill what is inside one."""
        self._workers[:] = [worker for worker in self._workers if not worker.gone]
        busy = [worker for worker in self._workers if worker.is_busy]
        for worker in busy:
            worker.board.cancel()
        deadline = time.monotonic() + _GRACE
        while any(worker.is_busy for worker in busy) and (left := deadline - time.monotonic()) > 0:
            for descriptor, event in self._group.poller.poll(left * 1000):
                if self._bell is not None and descriptor == self._bell.descriptor:
                    self._bell.clear()
                    continue
                worker = self._group.by_descriptor[descriptor]
                try:
                    if descriptor == worker.output.fileno():
                        self._read_output(worker)
                        continue
                    if event & select.POLLOUT:
                        self._flush(worker)
                    self._discard_answers(worker)
                except Exception:  # closed, or torn apart by an interrupt between two steps
                    worker.kill()
                    self._group.unwatch(descriptor)
        stuck = [one for one in busy if one.is_busy or one.leaving or not one.alive()]
        for worker in stuck:
            self._tell_ended(worker, "was inside a task when the call ended")
            self._group.remove(worker)
        self._pool.discard(stuck)
        for worker in self._workers:
            worker.allow(None)
            if worker.has_output:
                self._read_output(worker)
        self._news = []

    def close(self) -> None:
        """Give the workers back."""
        clean = False
        try:
            if any(worker.is_busy or worker.gone for worker in self._workers):
                self.cancel()
            clean = self._fatal is None
            if self._lifespan is not None:
                for worker in self._workers:
                    worker.allow(None)
        finally:
            self._give_back(clean)

    def _give_back(self, clean: bool) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            self._group.unwatch(bell.descriptor)
            bell.close()
        try:
            if not clean:
                unusable = list(self._workers)
                for worker in unusable:
                    self._group.remove(worker)
                self._pool.discard(unusable)
        finally:
            if self._setup is not None:
                self._leave_setup()
            if self._key.exclusive is not None:
                self._pool.dismiss(self._group, self._n_jobs, self._key)
            elif self._slot_keys is not None:
                self._pool.release_slots(self._group, self._slot_keys)
            else:
                self._pool.release(self._group, self._n_jobs, self._key)
            self._workers = []

    def _leave_setup(self) -> None:
        """Have workers that go back be as others are."""
        now = self._process_state._replace(idle_seconds=self._idle_seconds)
        for worker in self._workers:
            worker.unpin()
            with contextlib.suppress(ChannelClosed):  # it has left; the next lease sees that
                worker.tell(now)
        self._group.told = None

    def finish(self) -> list[Any]:
        """Call the exit function in each worker that has had tasks; return the results by slots."""
        setup = self._setup
        if setup is None:
            return []
        for worker in list(self._workers):
            self._end_worker(worker)
        try:
            while any(worker.requests for worker in self._workers):
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
        while (worker := self._worker_of(slot) or self._replace(slot)) is not None:
            try:
                waits = self._setup is not None and self._setup.begin(worker)
                waits |= worker.ask(asked)
            except ChannelClosed:
                self._lose(worker)
                continue
            if waits:
                self._group.want_to_send(worker, True)
            return asked
        raise SessionFailed(self._fatal or died(f"there is no worker {slot} any more"))

    def change_setup(self, setup: WorkerSetup) -> None:
        """Use other init and exit functions from now on; workers that are set up stay so."""
        if self._setup is not None:
            self._setup.change(setup)

    def _end_worker(self, worker: Worker) -> bool:
        """Have `worker` call its exit function; return whether there is something to wait for."""
        try:
            is_asked = self._setup is not None and self._setup.end(worker)
        except ChannelClosed:
            self._lose(worker)
            return True
        if is_asked and worker.channel.pending:
            self._group.want_to_send(worker, True)
        return is_asked

    def _discard_answers(self, worker: Worker) -> None:
        for message in map(from_wire, worker.channel.receive() or ()):
            if isinstance(message, Unusable):
                self._fatal = initializer_error(message)
            elif isinstance(message, Expecting):
                worker.channel.let_pass()
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

    def _flush(self, worker: Worker) -> None:
        try:
            waits = worker.channel.flush()
        except ChannelClosed:
            return  # what it had sent is still to be read; its pidfd says the rest
        self._group.want_to_send(worker, waits)

    def _read_output(self, worker: Worker) -> None:
        """Show what tasks have printed; where that cannot be shown, this is said once."""
        try:
            worker.read_output()
        except Exception as error:
            self._unshown = self._unshown or error

    def _read(self, worker: Worker) -> bool:
        """Take in answers that are there; return whether there may be more."""
        try:
            received = worker.channel.receive()
        except ChannelClosed:
            if worker.pidfd is None:
                self._reap(worker)
            else:  # the end of the process follows, unless a task has closed all descriptors
                self._group.unwatch(worker.channel.fileno())
                self._closed.append((time.monotonic() + _CLOSED_SECONDS, worker))
            return False
        for message in received or ():
            self._take(worker, from_wire(message))
        return received is not None

    def _take(self, worker: Worker, message: Message) -> None:
        if worker.has_output:
            self._read_output(worker)
        if isinstance(message, Answer):
            self._take_answer(worker, message)
        elif isinstance(message, Ready):
            worker.ready = True
            self._failed_starts = 0
        elif isinstance(message, Expecting):
            worker.channel.let_pass()
            self._flush(worker)
        elif isinstance(message, Unusable):
            self._fatal = initializer_error(message)
        elif isinstance(message, Reply):
            self._take_reply(worker, message)
        elif isinstance(message, (Offer, Placed)):
            answer = self._read_memory(worker, message)
            if answer is not None:
                self._take_answer(worker, answer)

    def _take_reply(self, worker: Worker, reply: Reply) -> None:
        if self._setup is None:
            answer_request(worker.requests.popleft(), worker.slot, reply)
            return
        error = self._setup.take_reply(worker, reply)
        self._fatal = self._fatal or error
        if worker.leaving and not worker.is_busy:
            self._retire(worker)

    def _read_memory(self, worker: Worker, message: Offer | Placed) -> Answer | None:
        """Accept what a worker offers, or read and return an answer that it has placed."""
        from parallel_core.workers.remote_memory import reply_to

        reply, answer = reply_to(worker.pid, message)
        if not worker.alive():
            return None  # what was read may be of another process
        with contextlib.suppress(ChannelClosed):
            if worker.channel.send(to_wire(reply)):
                self._group.want_to_send(worker, True)
        return answer

    def _take_answer(self, worker: Worker, answer: Answer) -> None:
        sent = worker.sent[0]
        batch = sent.batch
        assert sent.number == answer.number, "answers come in the order of the batches"
        completion = read_answer(batch, answer)
        completion.worker = worker.slot
        sent.answered = completion.first - batch.start + completion.tasks
        if worker.timed_out is not None:
            note_timed_out(completion, worker.timed_out, sent)
        self._news.append(completion)
        if not completion.finished:
            return
        if sent.answered < batch.size and (
            self._terms.after_failure is AfterFailure.CARRY_ON or not completion.failures
        ):
            completion.unrun = [batch.part(sent.answered, batch.size)]
        worker.sent.popleft()
        worker.has_answered = True
        if worker.is_limited:
            worker.taken_back += batch.size - sent.answered
            if not worker.sent:
                worker.allow(self._lifespan)
        self._retire_if_due(worker)

    def _retire_if_due(self, worker: Worker) -> None:
        """Replace a worker that is at the end of its lifespan, too big, or was stopped."""
        lifespan, most = self._lifespan, self._process_state.max_memory
        worker.leaving = (
            worker.leaving
            or (lifespan is not None and worker.tasks >= lifespan)
            or (most is not None and worker.memory > most)
        )
        if worker.leaving and not worker.is_busy:
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        """Let a worker leave that has nothing to do, when it has called its exit function."""
        if self._end_worker(worker):
            worker.leaving = True
            return
        self._tell_ended(worker, "was replaced after its last task")
        self._group.remove(worker)
        self._pool.retire(worker)

    def _tell_started(self, worker: Worker) -> None:
        emit = self._terms.emit
        if emit is not None:
            emit(WorkerStarted(self._terms.number, worker.slot, worker.pid))

    def _tell_ended(self, worker: Worker, reason: str) -> None:
        emit = self._terms.emit
        if emit is not None:
            emit(WorkerEnded(self._terms.number, worker.slot, worker.pid, reason))

    def look(self) -> list[WorkerView]:
        """Return what each worker is at, by its board."""
        now = time.monotonic()
        views = []
        for worker in self._workers:
            running = worker.running() if worker.sent else None
            view = WorkerView(worker.slot, worker.pid, len(worker.sent), worker.memory)
            if running is not None:
                sent, index, began, phase = running
                position = sent.batch.start + index
                view = view._replace(
                    phase=Phase(phase).name, position=position, seconds=now - began
                )
            elif worker.is_on_request:
                phase = worker.requests[0].phase
                view = view._replace(phase=phase.name, seconds=now - worker.since)
            views.append(view)
        return views

    def _lose(self, worker: Worker) -> None:
        """Read what a worker that has ended had sent, then let it go."""
        while worker in self._workers and self._read(worker):
            pass
        if worker in self._workers:
            self._reap(worker)

    def _reap_closed(self, seconds: float | None) -> float:
        """Bury who has not ended in time; return how long to wait for others, at most `seconds`."""
        now = time.monotonic()
        closed = [entry for entry in self._closed if entry[1] in self._workers]
        self._closed = [entry for entry in closed if entry[0] > now]
        for due, worker in closed:
            if due <= now:
                self._reap(worker)
        until = [0.0] if self._news else [due - now for due, _ in self._closed]
        return min([*until, LONGEST_WAIT if seconds is None else seconds])

    def _reap(self, worker: Worker) -> None:
        """Let go of a worker that has ended: one task may be to blame, the others are left over."""
        wait_for_end(worker, _GRACE)
        death, running, timed_out = worker.exit_info(), worker.running(), worker.timed_out
        lost = list(worker.sent)
        fatal = lost_requests(worker.requests, worker.slot, death, worker.is_on_request)
        self._fatal = self._fatal or fatal
        self._tell_ended(worker, death.words)
        self._group.remove(worker)
        self._pool.discard([worker])
        if not worker.ready:
            self._note_failed_start(death)
            self._news += [returned(sent.batch) for sent in lost]
            return
        known = len(self._news)
        for sent in lost:
            if timed_out is not None:  # it was us who killed it; what it was on then is innocent
                late = timed_out.sent is sent and timed_out.index >= sent.answered
                self._news.append(
                    given_back(sent, timed_out.index if late else None, death, timed_out)
                )
            elif running is not None and running[0] is sent and running[3] in _BLAMED:
                self._news.append(given_back(sent, max(running[1], sent.answered), death))
            else:
                if sent is lost[0]:  # it was to begin next, so it may have been its frame
                    sent.batch.losses += 1
                self._news.append(given_back(sent, None, death))
        for completion in self._news[known:]:
            completion.worker = worker.slot

    def _note_failed_start(self, death: ExitInfo) -> None:
        """After several in a row, go on without: with the other workers, if there are any."""
        self._failed_starts += 1
        if self._failed_starts < _MAX_FAILED_STARTS * self._n_jobs:
            return
        words = f"a worker process {death.words} before it was ready to work"
        self.n_workers = len(self._workers)
        if any(worker.ready for worker in self._workers):
            goes_on = f"the call goes on with {self.n_workers} of {self._n_jobs} workers"
            attempts = f"and so did those before it, {self._failed_starts} in a row"
            warn_caller(f"{words}, {attempts}; {goes_on}", RuntimeWarning)
        elif not self._workers and self._fatal is None:
            self._fatal = died(words, death=death)


def _load(worker: Worker) -> int:
    queued = len(worker.sent)
    takes_no_more = worker.leaving or (queued > 0 and worker.is_limited)
    return load(queued, worker.has_answered, takes_no_more)
