"""The loop for backends that take batches: pull, submit, wait, record, refill.

Two limits hold at any time. At most ``pre_dispatch`` batches are *ahead*: pulled, and not yet
finished (or, for a generator, not yet taken by its consumer). And a worker has one or two: with
short batches, the second bridges the time of submission; long batches are kept here for the worker
that is free first.

`Outcomes` decides about results and failures. Tasks that are to run again, and tasks that a worker
has not run, go back to the front of the backlog, as batches of their own.

`TaskQueue` may have nothing now. They are asked only when there is something, and for no more than
some worker has room for; what arrives in the meantime wakes the session.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from parallel_core.backends.base import NEVER, CallTerms, Session, SessionFailed, broken
from parallel_core.backends.completion import Completion, Failure
from parallel_core.config import Settings
from parallel_core.context.batch_context import pickle_context
from parallel_core.dispatch.backlog import Backlog
from parallel_core.dispatch.call_errors import Replay, replay_from, replay_task
from parallel_core.dispatch.delivery import NumberedDelivery
from parallel_core.dispatch.ending import CallInterrupted, Deadline
from parallel_core.dispatch.limits import Limits
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.policy import Action
from parallel_core.dispatch.sizing import BatchSizer
from parallel_core.dispatch.source import ResolvedTask, TaskSource, known_length
from parallel_core.dispatch.tally import Tally
from parallel_core.dispatch.task_queue import TaskQueue
from parallel_core.dispatch.window import Window
from parallel_core.observe.events import (
    BatchSubmitted,
    CallerWaited,
    TasksPulled,
    TasksStolen,
    WorkersSeen,
)
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definitions
from parallel_core.serialization.encoding import BatchBuilder
from parallel_core.serialization.held import HeldBuilder
from parallel_core.tasks.placeholders import KnownResult

_LIVE_AIM = 0.001  # seconds: what is behind others in a batch cannot be cancelled any more
_LOOK_SECONDS = 0.01  # an engine that nobody can wake is asked so often
_FIRST_SECONDS = 0.001  # a generator this fast is asked for the whole first window at once


class BatchLoop:
    """One call on a session, which `CallResources` closes; `settings` are for tasks in threads."""

    def __init__(
        self,
        tasks: Iterable[Any],
        session: Session,
        outcomes: Outcomes,
        limits: Limits,
        aim_seconds: float,
        definitions: Definitions,
        settings: Settings | None = None,
    ) -> None:
        self.outcomes = outcomes
        self.dispatched = 0  #: tasks that were handed over and not taken back
        self._session = session
        self._limits = limits
        self._definitions = definitions
        self._settings = settings
        self._clock = session.clock
        self._live = tasks if isinstance(tasks, TaskQueue) else None
        self._answers_each = self._live is not None and self._live.answers_each
        # An engine that cannot say which task runs gets single tasks where there is a time limit.
        self._timeout = limits.timeout
        if self._live is not None and self._live.times_each:
            self._timeout = NEVER
        self._one_task_per_batch = self._timeout is not None and not session.reports_running_task
        turn = (limits.batch_size or 1) if limits.order_tasks else 0
        may_join = limits.batch_size is None and not turn
        self._backlog = Backlog(session.n_workers, may_join, turn)
        self._sizer = BatchSizer(
            1 if self._one_task_per_batch else turn or limits.batch_size,
            min(aim_seconds, _LIVE_AIM) if self._answers_each else aim_seconds,
            limits.max_tasks,
            session.n_workers,
            known_length(tasks),
            limits.pre_dispatch_nbytes or sys.maxsize,
            session.batch_size,
        )
        builds_held = session.runs_here or (session.holds_tasks and outcomes.folded is None)
        builder = HeldBuilder(definitions) if builds_held else BatchBuilder(definitions)
        self._source = TaskSource(
            outcomes.look_up(tasks), builder, self._sizer, self._clock, self._live
        )
        outcomes.record.is_held = builds_held
        self._tally = Tally(session, self._source, builder, limits)
        self._is_windowed = not (self._answers_each or outcomes.is_list)
        self._window = Window(limits, self._is_windowed)
        self._deepest_queue = 1 if self._one_task_per_batch else 2  # batches at one worker
        if self._is_windowed and limits.pre_dispatch and not self._one_task_per_batch:
            self._deepest_queue = max(2, -(-limits.pre_dispatch // session.n_workers))
        self._deadline = Deadline(limits.call_timeout, self._clock)
        self._steal_again = NEVER  # when to look whether tasks should be stolen
        # When to tell observers what workers are at.
        self._look_again = self._clock() + outcomes.look_seconds
        self._must_poll = False  # nobody can wake the session
        self._is_over = False

    def start(self) -> None:
        """Begin the call on the session; pull the first tasks and hand them over."""
        self._begin()
        until = self._clock() + _FIRST_SECONDS
        # The next task may be long in coming. But a thread begins at once, in turns with this one:
        # a few tasks that come as quickly are pulled first.
        least = 2 if self._session.runs_here else 1
        while self._may_pull() and not self._is_held_back():
            self._pull()
            if self._source.may_block and self._backlog and self._backlog[0].size >= least:
                self._submit_if_room()
            if self._clock() > until:
                break
        self._fill()
        if self._is_windowed:
            self._hand_over_all()

    def run(self) -> Any:
        """Return all results, in order; or what they were folded to."""
        while not self._ended():
            self._advance()
        if self.outcomes.stopped_early:
            self.abandon()
        return self.outcomes.finish()

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        outcomes = self.outcomes
        while True:
            values = outcomes.chunk()
            if values is not None:
                if self._is_windowed:
                    self._hand_over_all()
                self._definitions.settle_large()
                yield outcomes.shown(values)
                self._definitions.expect_changes()
                self._window.taken(len(values))
                if not outcomes.stopped_early:
                    self._fill()
            elif outcomes.failure is not None:
                raise outcomes.failure
            elif outcomes.stopped_early:
                if not self._is_over:
                    self.abandon()
                if not outcomes.pass_over():
                    return
            elif self._ended():
                return
            else:
                self._advance()

    def abandon(self) -> None:
        """End the call now, and stop what still runs."""
        self._is_over = True
        self._backlog.clear()
        self._session.cancel()
        error, failure = self._source.close(), self.outcomes.failure
        if error is not None and failure is not None:
            words = f"{type(error).__name__}: {error}"
            failure.add_note(f"the iterable of tasks raised as it was closed: {words}")

    def sum_up(self) -> None:
        """Put into the record what has been counted elsewhere."""
        self._tally.sum_up(self.outcomes.record)

    def _begin(self) -> None:
        """Tell the session what the tasks will need."""
        outcomes, session, definitions = self.outcomes, self._session, self._definitions
        terms = CallTerms(
            call=definitions.call,
            after_failure=outcomes.policy.after_failure,
            answers_each=self._answers_each,
            is_timed=self._timeout is not None,
            emit=outcomes.emit,
            records_each=outcomes.emit is not None and outcomes.looks.records_each,
            number=outcomes.call,
            lifespan=self._limits.max_tasks,
        )
        if self._live is not None and self._live.times_each:
            terms = terms._replace(timeout_of=self._live.timeout_of)
        if session.runs_here:
            make_fold = None if outcomes.folded is None else outcomes.folded.fold
            terms = terms._replace(
                make_fold=make_fold,
                context_items=outcomes.context_items,
                settings=self._settings,
            )
        else:
            if outcomes.folded is not None:
                folding, needed = outcomes.folded.define(definitions)
                definitions.needed.update(needed)
                terms = terms._replace(folding=folding)
            if outcomes.context_items:
                context, needed = pickle_context(outcomes.context_items, definitions)
                definitions.needed.update(needed)
                terms = terms._replace(context=context)
        session.begin(terms)
        if session.has_capacity(1) is None:
            raise broken(session, "has_capacity", "returned nothing; it must be True or False")
        interruption = self._limits.interruption
        if self._live is not None or interruption is not None:
            wake = session.waker()
            self._must_poll = wake is None
            if self._live is not None:
                self._live.wake_by(wake)
            if interruption is not None:
                interruption.wake_by(wake)

    def _may_pull(self) -> bool:
        outcomes = self.outcomes
        if self._source.exhausted or outcomes.stopped_early or outcomes.failure is not None:
            return False
        if self._is_interrupted():
            return False
        if self._window.is_full(self._backlog.n_waiting):
            return False
        return self._live is None or self._live_is_due(self._live)

    def _is_interrupted(self) -> bool:
        interruption = self._limits.interruption
        return interruption is not None and interruption.is_set

    def _live_is_due(self, live: TaskQueue) -> bool:
        """Whether to pull a task now: one that is pulled cannot be cancelled any more."""
        if live.is_empty():
            return live.is_over()
        return not self._backlog and self._session.has_capacity(self._max_queued())

    def _is_held_back(self) -> bool:
        """Whether there is a batch to submit, and too little memory or too much load for it."""
        gate = self._limits.gate
        return gate is not None and bool(self._backlog) and gate.hold(self._window.in_flight)

    def _ended(self) -> bool:
        if self.outcomes.stopped_early:
            return True
        return self._source.exhausted and not (self._window.in_flight or self._backlog.n_waiting)

    def _pull(self) -> None:
        size = self._sizer.to_pull()
        if self.outcomes.folded is not None:
            size = self.outcomes.folded.aligned(self._source.position, size)
        if self._backlog.turn:
            size = min(size, self._backlog.left_of_turn(self._source.position))
        if self._live is not None:
            size = min(size, self._live.count() // self._session.n_workers + 1)
            self._definitions.expect_changes()
        batch = self._pull_telling(size) if self.outcomes.emit else self._source.pull(size)
        self._definitions.check_arrays(self._source.exhausted)
        if self._live is not None:
            self._definitions.settle_large()
        if self._source.exhausted:
            self.outcomes.total = self._source.position
        if batch is not None:
            self._window.pulled(batch)
            self._backlog.append(batch)
        while self._source.resolved:
            self._resolve(self._source.resolved.popleft())

    def _pull_telling(self, most: int) -> Batch | None:
        """Pull a batch, and tell observers how long that took."""
        outcomes, first, began = self.outcomes, self._source.position, self._clock()
        batch = self._source.pull(most)
        ended, tasks = self._clock(), self._source.position - first
        if outcomes.emit is not None:
            outcomes.emit(TasksPulled(outcomes.call, first, tasks, ended - began, ended))
        return batch

    def _resolve(self, resolved: ResolvedTask) -> None:
        """Take in a task that needs no worker: its result is known, or it does not pickle."""
        position, task, error = resolved
        if error is None:
            assert type(task) is KnownResult
            self.outcomes.resolve(position, task.value)
        else:
            items = self.outcomes.items_here()
            self.outcomes.resolved += 1
            self._judge(Failure(position, error), replay_task(position, task, items))
        self._window.resolved()

    def _fill(self) -> None:
        """Submit and pull until there is no room or nothing more may be pulled."""
        outcomes = self.outcomes
        while outcomes.failure is None and not outcomes.stopped_early and not self._is_held_back():
            if self._backlog:
                depth = self._max_queued()
                while not self._is_held_back() and self._backlog and self._has_room(depth):
                    self._submit()
                self._session.start_workers()
            if self._live is not None and self._has_results():
                return
            if not self._may_pull():
                if not self._steal():
                    return
                continue
            self._pull()
            if self._window.in_flight:  # so that a worker which is done is known to be free
                self._take_news(0.0)

    def _has_results(self) -> bool:
        """Whether a consumer waits for results that are here, while there is more to pull."""
        delivery = self.outcomes.delivery
        return type(delivery) is NumberedDelivery and bool(delivery.waiting)

    def _steal(self) -> bool:
        """Steal tasks of a busy worker for an idle one; return whether there were any."""
        # What is not worth it now may be worth it soon, when a task that was thought to be quick
        # has not ended. So the session says when to look again: when the waiting tasks should be
        # done.
        self._steal_again = NEVER
        running = self.dispatched - self.outcomes.completed + self.outcomes.resolved
        if self._backlog.turn or self._backlog or running < 2 or not self._session.has_capacity(1):
            return False  # a single task waits behind no other
        task_seconds = self._sizer.task_seconds or 0.0
        stolen, self._steal_again = self._session.steal(task_seconds)
        self.dispatched -= sum(batch.size for batch in stolen)
        if self.outcomes.emit is not None:
            for batch in stolen:
                self.outcomes.emit(TasksStolen(self.outcomes.call, batch.start, batch.size))
        self._backlog += stolen
        return bool(stolen)

    def _submit_if_room(self) -> None:
        if self._has_room(1) and not self._is_held_back():
            self._submit()
            self._session.start_workers()

    def _has_room(self, queued: int) -> bool:
        """Whether a worker takes the next batch; in turn, a batch whose worker does becomes it."""
        session = self._session
        if not self._backlog.turn:
            return session.has_capacity(queued)
        return self._backlog.advance(lambda slot: session.slot_has_capacity(slot, queued))

    def _hand_over_all(self) -> None:
        """Submit all pulled batches: they run while the consumer rests."""
        if self.outcomes.stopped_early or self.outcomes.failure is not None:
            return
        while self._backlog and not self._is_held_back():
            if self._one_task_per_batch and not self._session.has_capacity(1):
                break
            self._submit()
        self._session.start_workers()

    def _max_queued(self) -> int:
        """Return how many batches a worker may have, including the one that it runs."""
        if not self._is_windowed and self._sizer.long_tasks:
            return 1
        return self._deepest_queue

    def _submit(self) -> None:
        batch = self._backlog.take(self._share())
        self._window.in_flight += 1
        self.dispatched += batch.size
        began = self._clock()
        try:
            if self._backlog.turn:
                self._session.submit_to(self._backlog.slot_of(batch), batch)
            else:
                self._session.submit(batch)
        except SessionFailed as failed:
            self._fail(failed.error)
        seconds = self._clock() - began
        self._sizer.handed_over(seconds + self._session.handover_seconds)
        self.outcomes.record.submit(began, seconds, batch.size, batch.nbytes)
        if self.outcomes.emit is not None:
            number, name = self.outcomes.call, batch.function_name()
            self.outcomes.emit(
                BatchSubmitted(number, batch.start, batch.size, batch.nbytes, name, seconds)
            )

    def _share(self) -> int:
        """Return how many tasks one batch may have; when all are pulled, every worker gets some."""
        if self._sizer.size == 1 or not self._source.exhausted:
            return self._sizer.size
        elsewhere = self.dispatched + self.outcomes.resolved + self._backlog.n_later
        return self._sizer.share(self._source.position - elsewhere)

    def _advance(self) -> None:
        """Wait for outcomes and take them in."""
        if self._is_interrupted():
            self._fail(CallInterrupted())
            return
        if self._deadline.is_over():
            self._fail(self._deadline.error(self.outcomes.completed))
            return
        until = self._next_look()
        self._take_news(None if until == NEVER else until - self._clock())
        if self._backlog.n_later:
            self._backlog.take_due(self._clock())
        self._fill()

    def _next_look(self) -> float:
        """Return the time to stop waiting for outcomes, by the clock."""
        backlog = self._backlog
        until = min(self._deadline.at, self._steal_again, self._look_again, backlog.next_due())
        if self._timeout is not None:
            if self._live is not None and self._live.times_each:
                self._timeout = self._live.least_timeout()
            again = self._session.enforce_timeout(self._timeout)
            if again is None:
                raise broken(self._session, "enforce_timeout", "returned nothing, not a time")
            until = min(until, again)
        if self._limits.gate is not None and self._is_held_back():
            until = min(until, self._limits.gate.again)
        if self._must_poll:
            until = min(until, self._clock() + _LOOK_SECONDS)
        if self._live is not None:
            is_idle = not self._window.ahead(backlog.n_waiting)
            until = min(until, self._live.rest_until(self._clock(), is_idle))
            self._source.exhausted = self._source.exhausted or self._live.has_rested
        return until

    def _look(self) -> None:
        """Tell observers what workers are at, and a dashboard that is there by now."""
        outcomes = self.outcomes
        if outcomes.find_listener is not None:
            outcomes.find_listener()
        if outcomes.emit is not None and outcomes.looks.seconds != NEVER:
            workers = tuple(self._session.look())
            outcomes.emit(WorkersSeen(outcomes.call, outcomes.completed, outcomes.total, workers))
        self._look_again = self._clock() + outcomes.look_seconds

    def _take_news(self, seconds: float | None) -> None:
        if self._look_again != NEVER and self._clock() >= self._look_again:
            self._look()
        emit, began = self.outcomes.emit, self._clock()
        try:
            news = self._session.wait(seconds)
        except SessionFailed as failed:
            self._fail(failed.error)
            return
        now = self._clock()
        self.outcomes.record.polling += now - began
        if emit is not None and seconds != 0.0:  # it did not just look
            emit(CallerWaited(self.outcomes.call, now - began, now))
        if news is None:
            raise broken(self._session, "wait", "returned nothing; it must return completions")
        self._record(news, now)

    def _record(self, news: Sequence[Completion], now: float) -> None:
        """Take in results, then judge failures in their order, then close the finished batches."""
        outcomes, record = self.outcomes, self.outcomes.record
        failed: list[tuple[Failure, Completion]] = []
        for completion in news:
            if completion.seconds:
                tasks, seconds = completion.tasks, completion.seconds
                self._sizer.record(tasks, seconds, completion.nbytes)
                answer = now, completion.worker, completion.first, tasks, seconds, completion.times
                record.take(answer, completion.batch)
            outcomes.take(completion)
            if outcomes.failure is not None and not self._is_over:
                self._fail(outcomes.failure)
            failed += [(failure, completion) for failure in completion.failures]
            if outcomes.emit is not None:
                outcomes.answered(completion)
        for failure, completion in sorted(failed, key=lambda entry: entry[0].position):
            batch = completion.batch
            replay = replay_from(
                batch, failure.position - batch.start, self._definitions, outcomes.items_here()
            )
            self._judge(failure, replay, batch)
            if outcomes.failure is not None:
                break
        for completion in news:
            if completion.finished:
                self.dispatched -= self._window.finished(completion.batch, completion.unrun)
                self._backlog.extendleft(reversed(completion.unrun))

    def _judge(self, failure: Failure, replay: Replay, batch: Batch | None = None) -> None:
        """Follow the policy about a failure; without a `batch` the task cannot be retried."""
        verdict = self.outcomes.judge(failure, replay, may_retry=batch is not None)
        if self.outcomes.failure is not None:
            self._fail(self.outcomes.failure)
        elif verdict.action is Action.RETRY:
            assert batch is not None
            due = self._clock() + verdict.seconds
            self._backlog.run_again(batch, failure.position - batch.start, due)

    def _fail(self, error: BaseException) -> None:
        """End the call; a generator first yields the results that were there before."""
        self.outcomes.failure = error
        self.abandon()
        if self.outcomes.is_list:
            raise error
