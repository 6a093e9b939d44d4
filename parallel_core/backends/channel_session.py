"""Batches to workers of our own, over their channels.

One `poll` object waits for everything: answers, room to send, and deaths. A worker's end is its
pidfd; what it had sent before is read first, so results that were on their way count.
"""

from __future__ import annotations

import select
import time
from typing import Any

from parallel_core.backends.answers import read_answer
from parallel_core.backends.base import Completion, Failure, Session
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.failure import unpack
from parallel_core.workers import messages
from parallel_core.workers.birth import BirthError, Spawn
from parallel_core.workers.board import Phase
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.pool import WorkerPool
from parallel_core.workers.setup import Surroundings, WorkerKey
from parallel_core.workers.worker import Worker

_SPIN_SECONDS = 1e-4  # waking up takes as long as a tiny call: so look, before going to sleep
_UNPROVEN = 1000
_GRACE = 0.02  # seconds for a cancelled worker between two tasks to say so, before it is killed


class ChannelSession(Session):
    """Leased workers of the local pool.

    Parameters
    ----------
    pool : WorkerPool
        Where they come from and go back to.
    n_jobs : int
        How many to lease.
    key : WorkerKey
        What the workers must be set up for.
    surroundings : Surroundings
        What they are told about this process.
    spawn : callable, optional
        How new ones are born.
    """

    def __init__(
        self,
        pool: WorkerPool,
        n_jobs: int,
        key: WorkerKey,
        surroundings: Surroundings,
        spawn: Spawn | None,
    ) -> None:
        self._pool = pool
        self._n_jobs = n_jobs
        self._key = key
        self._surroundings = surroundings
        self._spawn = spawn
        self._call = ""
        self._spins = True
        self._team = pool.lease(n_jobs, key, surroundings, spawn)
        self._workers = self._team.workers
        self.n_workers = len(self._workers)
        self._news: list[Completion] = []

    def begin(self, call: str) -> None:
        """Start a call."""
        self._call = call
        self._news = []
        for worker in self._workers:
            worker.has_answered = False
        self._spins = True

    def room(self, depth: int) -> bool:
        """Whether some worker has fewer than `depth` batches, and would soon get to another."""
        for worker in self._workers:
            queued = len(worker.sent)
            if not queued or (queued < depth and worker.has_answered):
                return True
        return False

    def submit(self, batch: Batch) -> None:
        """Send `batch` to the worker with the fewest; a worker that has left is replaced."""
        while self._workers:  # none are left only when there is news of a failure
            worker = min(self._workers, key=_load)
            try:
                worker.submit(batch, self._call)
            except ChannelClosed:
                worker.sent.pop()
                self._bury(worker)
                continue
            if worker.channel.pending:
                self._team.want_to_send(worker, True)
            return

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for answers and deaths."""
        if self._news:
            news, self._news = self._news, []
            return news
        for descriptor, event in self._poll(seconds):
            worker = self._team.by_descriptor.get(descriptor)
            if worker is None:
                continue  # buried by an event before this one
            if descriptor == worker.pidfd:
                while worker in self._workers and self._read(worker):
                    pass
                if worker in self._workers:
                    self._bury(worker)
                continue
            if event & select.POLLOUT:
                self._flush(worker)
            if event & ~select.POLLOUT:
                self._read(worker)
        news, self._news = self._news, []
        return news

    def _poll(self, seconds: float | None) -> list[tuple[int, int]]:
        """Wait for a descriptor; without going to sleep while answers come at once."""
        poll = self._team.poller.poll
        if self._spins and seconds != 0:
            self._spins = False
            until = time.monotonic() + _SPIN_SECONDS
            while time.monotonic() < until:
                events = poll(0)
                if events:
                    self._spins = True
                    return events
        return poll(None if seconds is None else max(0.0, seconds) * 1000)

    def late(self, limit: float) -> tuple[Failure | None, float]:
        """Look at the boards for a task over its time."""
        now = time.monotonic()
        again = now + limit
        for worker in self._workers:
            running = worker.running() if worker.sent else None
            if running is None:
                continue
            sent, index, since, phase = running
            if phase == Phase.IDLE or index < sent.answered:
                continue
            if now - since > limit:
                from parallel_core.errors import TaskTimeoutError

                what = sent.batch.describe(index)
                error = TaskTimeoutError(f"{what} has run for more than timeout={limit:g} s")
                return Failure(sent.batch.start + index, error), now
            again = min(again, since + limit)
        return None, again

    def cancel(self) -> None:
        """Stop what is between two tasks, kill what is inside one."""
        busy = [worker for worker in self._workers if worker.sent]
        for worker in busy:
            worker.board.cancel()
        deadline = time.monotonic() + _GRACE
        while any(worker.sent for worker in busy) and (left := deadline - time.monotonic()) > 0:
            for descriptor, event in self._team.poller.poll(left * 1000):
                worker = self._team.by_descriptor[descriptor]
                try:
                    if event & select.POLLOUT:
                        self._flush(worker)
                    self._discard_answers(worker)
                except ChannelClosed:
                    worker.kill()
                    self._team.ignore(descriptor)
        stuck = [worker for worker in busy if worker.sent or not worker.alive()]
        for worker in stuck:
            self._team.remove(worker)
        self._pool.discard(stuck)
        for worker in self._workers:
            worker.board.allow()
        self._news = []

    def close(self) -> None:
        """Give the workers back."""
        if any(worker.sent for worker in self._workers):
            self.cancel()
        self._pool.release(self._team, self._n_jobs)
        self._workers = []

    def _discard_answers(self, worker: Worker) -> None:
        for message in worker.channel.receive() or ():
            if message[0] == messages.ANSWER and message[6]:
                worker.sent.popleft()
            elif message[0] == messages.READY:
                worker.ready = True

    def _flush(self, worker: Worker) -> None:
        try:
            worker.channel.flush()
        except ChannelClosed:
            return  # what it had sent is still to be read; its pidfd says the rest
        if not worker.channel.pending:
            self._team.want_to_send(worker, False)

    def _read(self, worker: Worker) -> bool:
        """Take in answers that are there; return whether there may be more."""
        try:
            received = worker.channel.receive()
        except ChannelClosed:
            if worker.pidfd is None:
                self._bury(worker)
            else:  # the end of the socket says nothing that the pidfd will not say
                self._team.ignore(worker.channel.fileno())
            return False
        for message in received or ():
            self._take(worker, message)
        return received is not None

    def _take(self, worker: Worker, message: Any) -> None:
        kind = message[0]
        if kind == messages.READY:
            worker.ready = True
        elif kind == messages.UNUSABLE:
            self._note_unusable(message[1], message[2])
        else:
            self._take_answer(worker, message)

    def _take_answer(self, worker: Worker, message: Any) -> None:
        sent = worker.sent[0]
        assert sent.number == message[1], "answers come in the order of the batches"
        completion = read_answer(sent.batch, message)
        sent.answered = completion.first - sent.batch.start + len(completion.values)
        if completion.finished:
            worker.sent.popleft()
            worker.has_answered = True
        self._news.append(completion)

    def _note_unusable(self, data: bytes, text: str) -> None:
        from parallel_core.errors import InitializerError

        original = unpack(data, text, "raised by the initializer of a worker")
        error = InitializerError(
            f"the initializer raised in a worker: {type(original).__name__}: {original}"
        )
        error.__cause__ = original
        self._report(error)

    def _report(self, error: BaseException, position: int = -1, batch: Batch | None = None) -> None:
        nothing = Batch(max(position, 0), 0, [], {}) if batch is None else batch
        failure = Failure(position, error)
        self._news.append(Completion(nothing, position, [], 0.0, True, failure))

    def _bury(self, worker: Worker) -> None:
        """Replace a worker that has ended, and say what that did to the call."""
        running = worker.running()
        phase = worker.board.running()[2]
        words = worker.obituary()
        lost = list(worker.sent)
        worker.sent.clear()
        self._team.remove(worker)
        self._pool.discard([worker])
        words = worker.obituary() if words.startswith("closed") else words
        if not worker.ready:
            if not any(news.failure for news in self._news):
                self._report(_died(f"a worker process {words} before it was ready to work"))
            return
        try:
            fresh = self._pool.replace(self._key, self._surroundings, self._spawn)
        except BirthError as error:
            if not self._workers:
                self._report(
                    _died(f"the last worker process {words}, and no other starts: {error}")
                )
                return
            self.n_workers -= 1
        else:
            self._team.add(fresh)
        if running is not None and phase != Phase.IDLE and running[0] in lost:
            sent, index, _, _ = running
            index = max(index, sent.answered)
            if index < sent.batch.size:
                what = sent.batch.describe(index)
                self._report(_died(f"a worker process {words} at {what}"), sent.batch.start + index)
                return
        for sent in lost:
            if sent.answered:
                what = sent.batch.describe(min(sent.answered, sent.batch.size - 1))
                self._report(
                    _died(f"a worker process {words} at or before {what}"), sent.batch.start
                )
            else:
                self.submit(sent.batch)


def _died(message: str) -> BaseException:
    from parallel_core.errors import WorkerDiedError

    return WorkerDiedError(message)


def _load(worker: Worker) -> int:
    """Return how bad a choice `worker` is: one that has not answered yet may be on a long task."""
    queued = len(worker.sent)
    return queued if worker.has_answered or not queued else queued + _UNPROVEN
