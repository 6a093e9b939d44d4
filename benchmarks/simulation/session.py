"""The interface of a backend over simulated workers."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

from benchmarks.simulation.model import Model
from benchmarks.simulation.workers import LazyHeap, Loads, Sent, SimulatedWorker
from parallel_core import delayed
from parallel_core.backends.base import NEVER, CallTerms, Session, SessionFailed
from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.losses import given_back
from parallel_core.backends.placement import choose_victim, load
from parallel_core.serialization.batch import Batch
from parallel_core.workers.messages import AfterFailure
from parallel_core.workers.sent import ExitInfo, TimedOutTask

_LOOK_SECONDS = 0.01  # as a `ChannelSession` has it
_ROUNDING = 1e-9  # seconds; a clock that stands still would be looked at for ever
_MOST_WAITS = 1000  # for a task
_DEATH = ExitInfo("was simulated to death", None, 0, "")


class SimulatedError(Exception):
    """What a task raises that is to fail."""


class AllDead(Exception):
    """There are no workers any more, and none comes."""


class SimulatedSession(Session):
    """Workers that take virtual time.

    The result of a task is its position. What is taken back, from whom, and who gets a batch is
    decided by the functions of `backends.placement`, as in `ChannelSession`, but without looking at
    all workers each time.

    Parameters
    ----------
    model : Model
        What happens.

    Attributes
    ----------
    now : float
        The virtual time.
    ran : bytearray
        How many times each task was run to its end.
    n_submitted, n_taken_back : int
        Batches handed over, and tasks taken back.
    """

    def __init__(self, model: Model, reports_running_task: bool = True) -> None:
        self._model = model
        self._starts = model.starts
        self.reports_running_task = reports_running_task
        self.n_workers = model.n_workers
        self.now = 0.0
        self.clock = partial(attrgetter("now"), self)
        self.ran = bytearray(model.n_tasks)
        self.n_submitted = self.n_taken_back = 0
        self._failures, self._kills = dict(model.failures), dict(model.kills)
        self._special = sorted({*self._failures, *self._kills})
        self._carry_on = False
        self._news: list[Completion] = []
        self._events: list[tuple[float, int, Any]] = []
        self._count = self._waits = 0
        born = chain(model.births, repeat(0.0))
        self._workers = {
            number: SimulatedWorker(number, at)
            for number, at in zip(range(model.n_workers), born, strict=False)
        }
        self._loads = Loads(self._workers.values())
        self._most, self._longest = LazyHeap(), LazyHeap()
        for at, number in model.deaths:
            self._at(at, partial(self._kill, number))

    def begin(self, terms: CallTerms) -> None:
        assert terms.folding is None, "nothing is folded here"
        self._carry_on = terms.after_failure is AfterFailure.CARRY_ON
        for worker in self._workers.values():
            worker.has_answered = False

    # --- what the dispatcher asks ---

    def has_capacity(self, queued: int) -> bool:
        return self._loads.any_below(queued)

    def submit(self, batch: Batch) -> None:
        if not self._workers:
            raise SessionFailed(AllDead())
        self.now += self._model.submit_seconds
        self.n_submitted += 1
        worker = self._loads.least()
        sent = Sent(batch, self.now + self._model.latency)
        worker.sent.append(sent)
        worker.queue.append(sent)
        self._note_load(worker)
        if self._model.takes_back:
            waiting = sum(each.batch.size for each in worker.queue)
            if waiting > 1 or worker.ready_at > self.now:
                self._most.push(worker, waiting)
                self._longest.push(worker, -worker.queue[0].at)
        if len(worker.queue) == 1 and not worker.is_gone:
            self._start(worker, self.now)

    def steal(self, task_seconds: float) -> tuple[list[Batch], float]:
        self._catch_up()
        now, starts = self.now, self._starts
        if not self._model.takes_back:
            return [], NEVER
        if not any(worker.ready_at <= now for worker in self._loads.idle()):
            return [], min((worker.ready_at for worker in self._loads.idle()), default=NEVER)

        def waiting(worker: SimulatedWorker) -> float | None:
            if worker.is_limited and not self._model.has_barriers:
                return None  # its answer will give back what it has
            return worker.unstarted(now, starts)[0] or None

        def minus_since(worker: SimulatedWorker) -> float | None:
            return -worker.unstarted(now, starts)[2] if waiting(worker) else None

        candidates = []
        for worker in (self._most.best(waiting), self._longest.best(minus_since)):
            if worker is not None:
                unstarted, begins, since = worker.unstarted(now, starts)
                candidates.append(((worker, begins), unstarted, max(now - since, 0.0)))
        chosen, keep, again = choose_victim(candidates, now, task_seconds)
        if chosen is None:
            return [], again
        victim, begins = chosen
        keep += begins
        taken = []
        if self._model.has_barriers:
            taken = victim.steal_from(keep, now, starts)
        else:
            victim.limit(keep, now, starts)
        self.n_taken_back += sum(batch.size for batch in taken)
        self._note_load(victim)
        victim.version += 1
        self._go_on(victim)
        return taken, now if taken else now + _LOOK_SECONDS

    def wait(self, seconds: float | None) -> list[Completion]:
        self._waits += 1
        assert self._waits < _MOST_WAITS * (self._model.n_tasks + 100), "it goes round in circles"
        until = NEVER if seconds is None else self.now + max(seconds, 0.0)
        if seconds:
            until += _ROUNDING
        events = self._events
        while True:
            self._catch_up()
            if self._news or not self._workers or self.now >= until:
                break
            at = min(events[0][0] if events else NEVER, until)
            assert at != NEVER, "the dispatcher waits for what will never come"
            self.now = at
        if not self._news and not self._workers:
            raise SessionFailed(AllDead())
        news, self._news = self._news, []
        self.now += self._model.answer_seconds * len(news)
        return news

    def enforce_timeout(self, limit: float) -> float:
        self._catch_up()
        again = self.now + limit
        for worker in list(self._workers.values()):
            running = None if worker.is_gone else worker.running(self.now, self._starts)
            if running is None:
                continue
            index, since = running
            if self.now - since < limit - _ROUNDING:
                again = min(again, since + limit)
                continue
            timed_out: Any = TimedOutTask(worker.queue[0], index, limit, [], 0.0)  # type: ignore[arg-type]
            self._die(worker, index, timed_out)
        return again

    def cancel(self) -> None:
        self._events.clear()
        self._news = []
        for worker in self._workers.values():
            worker.version += 1
            worker.sent.clear()
            worker.queue.clear()
            self._note_load(worker)

    def close(self) -> None:
        self.cancel()

    # --- what happens ---

    def _catch_up(self) -> None:
        """Have everything happen that is due: the dispatcher was busy meanwhile."""
        events = self._events
        while events and events[0][0] <= self.now:
            heapq.heappop(events)[2]()

    def _at(self, when: float, act: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, act))

    def _note_load(self, worker: SimulatedWorker) -> None:
        queued = len(worker.sent)
        worker.is_limited = worker.is_limited and queued > 0
        self._loads.note(worker, load(queued, worker.has_answered, worker.is_limited))

    def _start(self, worker: SimulatedWorker, now: float) -> None:
        """Have `worker` begin with the first batch of its queue."""
        sent = worker.queue[0]
        first = sent.batch.start
        began = max(now, sent.at, worker.ready_at) + self._model.batch_seconds
        worker.shift = began - self._starts[first]
        worker.next = worker.unsent = first
        worker.flushed = began
        self._go_on(worker)

    def _go_on(self, worker: SimulatedWorker) -> None:
        """Find what happens next at `worker`: an answer, something bad, or the end of its batch."""
        end, starts, shift = worker.queue[0].end, self._starts, worker.shift
        bad = self._next_special(worker.next, end) if self._special else None
        flush = self._model.flush_seconds
        if flush is not None:
            old = bisect_right(starts, worker.flushed + flush - shift, worker.next, end)
            answer = max(old, worker.unsent + 1)
            if answer < end and (bad is None or answer <= bad):
                self._schedule(worker, shift + starts[answer], partial(self._flush, answer))
                return
        if bad is None:
            self._schedule(worker, shift + starts[end], self._finish)
        elif self._kills.get(bad):
            middle = (starts[bad] + starts[bad + 1]) / 2
            self._schedule(worker, shift + middle, partial(self._break, bad))
        else:
            self._schedule(worker, shift + starts[bad + 1], partial(self._fail, bad))

    def _next_special(self, first: int, end: int) -> int | None:
        for index in range(bisect_left(self._special, first), len(self._special)):
            position = self._special[index]
            if position >= end:
                return None
            if self._failures.get(position) or self._kills.get(position):
                return position
        return None

    def _schedule(self, worker: SimulatedWorker, when: float, act: Any) -> None:
        self._at(when, partial(self._happen, worker, worker.version, act))

    def _happen(self, worker: SimulatedWorker, version: int, act: Any) -> None:
        if version == worker.version:
            worker.version += 1
            act(worker)

    def _flush(self, position: int, worker: SimulatedWorker) -> None:
        self._answer(worker, position, False)
        worker.flushed = worker.shift + self._starts[position]
        worker.next = position
        self._go_on(worker)

    def _finish(self, worker: SimulatedWorker) -> None:
        end = worker.queue[0].end
        self._answer(worker, end, True)
        self._next_batch(worker, worker.shift + self._starts[end])

    def _next_batch(self, worker: SimulatedWorker, now: float) -> None:
        worker.queue.popleft()
        if worker.queue:
            self._start(worker, now)

    def _fail(self, position: int, worker: SimulatedWorker) -> None:
        self._failures[position] -= 1
        failure = Failure(position, SimulatedError(position))
        self._answer(worker, position, not self._carry_on, failure)
        now = worker.shift + self._starts[position + 1]
        if self._carry_on:
            worker.next, worker.flushed = position + 1, now
            self._go_on(worker)
        else:
            self._next_batch(worker, now)

    def _answer(
        self, worker: SimulatedWorker, end: int, is_end: bool, failure: Failure | None = None
    ) -> None:
        """Send the results up to `end`; the task there has failed if there is a `failure`."""
        first, sent = worker.unsent, worker.queue[0]
        values: list[Any] = list(range(first, end))
        for position in values:
            self.ran[position] = min(self.ran[position] + 1, 255)
        if failure is not None:
            values.append(None)
        seconds = self._starts[first + len(values)] - self._starts[first]
        worker.unsent = first + len(values)
        failures = () if failure is None else [failure]
        completion = Completion(sent.batch, first, values, seconds, is_end, failures)
        self._message(partial(self._arrive, worker, sent, completion))

    def _message(self, act: Any) -> None:
        if self._model.latency:
            self._at(self.now + self._model.latency, act)
        else:
            act()

    def _arrive(self, worker: SimulatedWorker, sent: Sent, completion: Completion) -> None:
        sent.answered += len(completion.values)
        self._news.append(completion)
        batch = sent.batch
        if completion.finished:
            if sent.answered < batch.size and (self._carry_on or not completion.failures):
                completion.unrun = [batch.part(sent.answered, batch.size)]
            assert worker.sent.popleft() is sent
            worker.has_answered = True
            self._note_load(worker)

    def _kill(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is not None and not worker.is_gone and worker.ready_at <= self.now:
            running = worker.running(self.now, self._starts)
            self._die(worker, None if running is None else running[0])

    def _break(self, position: int, worker: SimulatedWorker) -> None:
        self._kills[position] -= 1
        self._die(worker, position - worker.queue[0].batch.start)

    def _die(
        self, worker: SimulatedWorker, index: int | None, timed_out: TimedOutTask | None = None
    ) -> None:
        worker.version += 1
        worker.is_gone = True  # which the dispatcher does not know yet
        running = worker.queue[0] if index is not None else None
        self._message(partial(self._reap, worker, running, index, timed_out))

    def _reap(
        self,
        worker: SimulatedWorker,
        running: Sent | None,
        index: int | None,
        timed_out: TimedOutTask | None,
    ) -> None:
        for sent in worker.sent:
            blamed = index if sent is running else None
            if index is None and sent is worker.sent[0]:
                sent.batch.losses += 1
            entry: Any = sent  # it has what is needed of a SentBatch
            self._news.append(given_back(entry, blamed, _DEATH, timed_out))
        self._loads.drop(worker)
        worker.queue.clear()
        if self._model.is_replaced:
            fresh = SimulatedWorker(worker.number, self.now + self._model.birth_seconds)
            self._workers[worker.number] = fresh
            self._loads.add(fresh)
        else:
            del self._workers[worker.number]
            self.n_workers -= 1


def feed(session: SimulatedSession, model: Model) -> Iterator[Any]:
    """Yield the tasks of `model`; each takes its time to come."""
    call = delayed(abs)
    if not model.pull_seconds:
        yield from map(call, range(model.n_tasks))
        return
    for position in range(model.n_tasks):
        session.now += model.pull_seconds
        yield call(position)
