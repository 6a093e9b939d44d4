"""The loop for backends that take batches: pull, submit, wait, record, refill.

Two limits hold at any time. At most ``pre_dispatch`` batches are *ahead*: pulled, and not yet
finished (or, for a generator, not yet taken by its consumer). And at a worker there are one or
two: with short batches a second one bridges the handing over; long ones are kept here, for
whoever is free first.

A task that failed is judged by the call's `Policy`. What is to be run again, and what a worker has
left over, goes back to the front of the backlog, as batches of their own.

`LiveTasks` may have nothing now. They are asked only when there is something, and for no more than
some worker has room for; what arrives in the meantime wakes the session.
"""

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from parallel_core.backends.base import (
    NEVER,
    CallTerms,
    Completion,
    Failure,
    Session,
    SessionFailed,
    broken,
)
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import aspects_for, seal
from parallel_core.dispatch.aftermath import (
    ArrivedResults,
    Replay,
    replay_from,
    replay_task,
)
from parallel_core.dispatch.deadline import Deadline
from parallel_core.dispatch.delivery import Delivery, ListDelivery, NumberedDelivery, delivery_for
from parallel_core.dispatch.gaps import without_gaps
from parallel_core.dispatch.interruption import CallInterrupted
from parallel_core.dispatch.live import REST_SECONDS, LiveTasks
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.policy import Action
from parallel_core.dispatch.sizing import BatchSizer
from parallel_core.dispatch.source import Settled, TaskSource, known_length
from parallel_core.errors import add_note
from parallel_core.tasks.batch import Batch, Call
from parallel_core.tasks.definitions import Definition, Definitions
from parallel_core.tasks.encoding import BatchBuilder
from parallel_core.tasks.held import HeldBuilder
from parallel_core.tasks.known import Known

if TYPE_CHECKING:
    from parallel_core.tasks.folding import Folding

_LIVE_AIM = 0.001  # seconds: what is behind others in a batch cannot be cancelled any more
_LOOK_SECONDS = 0.01  # an engine that nobody can wake is asked so often
_FIRST_SECONDS = 0.001  # a generator this fast is asked for the whole first window at once


class PushDispatch:
    """One call on a session.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    session : Session
        The workers; given back by whoever leased them, not here.
    plan : CallPlan
        What was asked for.
    aim_seconds : float
        How long a batch should take on this backend.
    definitions : Definitions
        Those of the call.

    Attributes
    ----------
    dispatched, completed : int
        How many tasks were handed over, and how many results have come.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        session: Session,
        plan: CallPlan,
        aim_seconds: float,
        definitions: Definitions,
    ) -> None:
        self._session = session
        self._plan = plan
        self._blind = plan.timeout is not None and not session.names_running
        self._clock = session.clock
        self._may_block = type(tasks) not in (list, tuple)
        self._sizer = BatchSizer(
            1 if self._blind else plan.batch_size,
            min(aim_seconds, _LIVE_AIM) if isinstance(tasks, LiveTasks) else aim_seconds,
            plan.most_tasks,
            session.n_workers,
            known_length(tasks),
            plan.pre_dispatch_nbytes or sys.maxsize,
            session.batch_size,
        )
        self._live = tasks if isinstance(tasks, LiveTasks) else None
        self._is_deaf = False  # nobody can wake the session
        self._rests_since = NEVER
        # what the consumer has not taken is ahead, too
        self._is_windowed = self._live is None and plan.return_as is not ReturnAs.LIST
        if plan.journal is not None:
            tasks = plan.journal.look_up(tasks)
        held = session.holds_tasks and plan.reduction is None  # else folding is for encoded ones
        is_held = session.runs_here or held
        builder = HeldBuilder(definitions) if is_held else BatchBuilder(definitions)
        self._source = TaskSource(tasks, builder, self._sizer, self._clock)
        self._ahead_nbytes = 0  # of arguments
        self._again: list[tuple[float, int, Batch]] = []  # when to run a task again; a heap
        self._deadline = Deadline(plan.call_timeout, self._clock)
        self._has_gaps = False  # in what is delivered
        self._is_over = False
        self._hit = False  # a result was all that is wanted
        self._replay: Replay | None = None
        self._backlog: deque[Batch] = deque()
        self._in_flight = 0
        self._settled = 0  # tasks that went to no worker
        self._look_again = NEVER  # whether tasks should be taken back
        self._untaken: deque[int] = deque()  # sizes of finished batches not all taken yet
        self._taken = 0  # results that the consumer took, not counted against a batch yet
        self._failure: BaseException | None = None
        self.dispatched = 0
        self.completed = 0
        self._delivery: Delivery = delivery_for(plan.return_as, self._live is not None)
        self._deepest = 1 if self._blind else 2
        if self._is_windowed and plan.pre_dispatch and not self._blind:
            self._deepest = max(2, -(-plan.pre_dispatch // session.n_workers))
        self._definitions = definitions
        self._folded = None if plan.reduction is None else plan.reduction.begin()
        self._needed: dict[int, Definition] = {}  # by every batch
        self._aspects = aspects_for(plan.aspects, Place.CALLER)  # of what is run again here
        session.answers_each = self._live is not None
        if session.runs_here:
            self._begin_here()
        else:
            self._begin()
        if session.room(1) is None:
            raise broken(session, "room", "returned nothing; it must be True or False")
        self._interruption = plan.interruption
        if self._live is not None or self._interruption is not None:
            wake = session.waker()
            self._is_deaf = wake is None
            if self._live is not None:
                self._live.wake_by(wake)
            if self._interruption is not None:
                self._interruption.wake_by(wake)

    def _begin(self) -> None:
        """Tell the session what the tasks will need, all of it pickled."""
        folding: Folding | None = None
        if self._folded is not None:
            folding, self._needed = self._folded.define(self._definitions)
        context = b""
        if self._plan.aspects:
            context, needed = seal(self._plan.aspects, self._definitions)
            self._needed.update(needed)
        carries_on = self._plan.policy.carries_on
        self._session.begin(self._definitions.call, carries_on, folding, context=context)

    def _begin_here(self) -> None:
        """Tell it to threads of this process."""
        plan = self._plan
        make_fold = None if self._folded is None else self._folded.fold
        is_timed = plan.timeout is not None
        terms = CallTerms(plan.policy.carries_on, is_timed, plan.aspects, plan.settings, make_fold)
        self._session.begin_here(terms)

    def start(self) -> None:
        """Pull the first tasks and hand them over."""
        until = self._clock() + _FIRST_SECONDS
        # The next task may be long in coming. But a thread begins at once, in turns with this one:
        # a few tasks that come as quickly are pulled first.
        least = 2 if self._session.runs_here else 1
        while self._may_pull() and not self._is_held_back():
            self._pull()
            if self._may_block and self._backlog and self._backlog[0].size >= least:
                self._submit_if_room()
            if self._clock() > until:
                break
        self._fill()
        if self._is_windowed:
            self._hand_over_all()

    def run(self) -> Any:
        """Return all results, in order; or what they were folded to."""
        assert isinstance(self._delivery, ListDelivery)
        while not self._ended():
            self._advance()
        if self._hit:
            self.abandon()
        self._report()
        if self._folded is not None:
            return self._folded.finish(self._source.position)
        results = self._delivery.results
        return without_gaps(results) if self._has_gaps else results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        delivery = self._delivery
        assert not isinstance(delivery, ListDelivery)
        while True:
            values = delivery.take()
            if values is not None:
                if self._is_windowed:
                    self._hand_over_all()
                self._definitions.settle_large()
                yield without_gaps(values) if self._has_gaps else values
                self._definitions.expect_changes()
                self._note_taken(len(values))
                if not self._hit:
                    self._fill()
            elif self._failure is not None:
                raise self._failure
            elif self._hit:
                if not self._is_over:
                    self.abandon()
                delivery.pass_over()
                if not delivery.arrived():
                    return
            elif self._ended():
                self._report()
                return
            else:
                self._advance()

    def abandon(self) -> None:
        """End the call now; nothing of it goes on."""
        self._is_over = True
        self._backlog.clear()
        self._again.clear()
        self._session.cancel()
        error = self._source.close()
        if error is not None and self._failure is not None:
            words = f"{type(error).__name__}: {error}"
            add_note(self._failure, f"the iterable of tasks raised as it was closed: {words}")

    def aftermath(self) -> tuple[ArrivedResults, Replay | None]:
        """Return the results of a call that ended early, and how to replay what ended it."""
        return ArrivedResults(self._delivery.arrived()), self._replay

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self._source.position if self._source.exhausted else None

    @property
    def _ahead(self) -> int:
        return self._in_flight + len(self._backlog) + len(self._untaken) + len(self._again)

    def _may_pull(self) -> bool:
        if self._source.exhausted or self._hit or self._failure is not None:
            return False
        if self._is_interrupted():
            return False
        limit, most_nbytes = self._plan.pre_dispatch, self._plan.pre_dispatch_nbytes
        if most_nbytes is not None and self._ahead_nbytes >= most_nbytes:
            return False  # nothing is ahead of a task by itself, so any size gets its turn
        if self._live is not None and not self._live_is_due():
            return False
        return limit is None or self._ahead < limit

    def _is_interrupted(self) -> bool:
        return self._interruption is not None and self._interruption.is_set

    def _live_is_due(self) -> bool:
        """Whether there is a task to begin now: what is pulled cannot be cancelled any more."""
        assert self._live is not None
        if self._live.is_empty():
            return self._live.is_over()
        return not self._backlog and self._session.room(self._depth())

    def _has_results(self) -> bool:
        """Whether somebody waits for results that are here, while there is ever more to pull."""
        return type(self._delivery) is NumberedDelivery and bool(self._delivery.waiting)

    def _is_held_back(self) -> bool:
        """Whether there is something to hand over, and too little memory for it."""
        gate = self._plan.gate
        return gate is not None and bool(self._backlog) and gate.hold(self._in_flight)

    def _ended(self) -> bool:
        if self._hit:
            return True
        return self._source.exhausted and not (self._in_flight or self._backlog or self._again)

    def _pull(self) -> None:
        size = self._sizer.to_pull()
        if self._folded is not None:
            size = self._folded.aligned(self._source.position, size)
        if self._live is not None:
            size = min(size, self._live.count() // self._session.n_workers + 1)
            self._definitions.expect_changes()
        batch = self._source.pull(size)
        self._definitions.check_arrays(self._source.exhausted)
        if self._live is not None:
            self._definitions.settle_large()
        if batch is not None:
            if self._needed:
                batch.definitions.update(self._needed)
            self._ahead_nbytes += batch.nbytes
            self._backlog.append(batch)
        while self._source.settled:
            self._settle(self._source.settled.popleft())

    def _settle(self, settled: Settled) -> None:
        """Deliver what needs no worker: a result that is known, or a task that does not pickle."""
        position, task, error = settled
        self._settled += 1
        if error is None:
            assert type(task) is Known
            self._deliver(position, [task.value])
        else:
            call: Call = task
            self._judge(Failure(position, error), replay_task(position, call, self._aspects))
        if self._is_windowed:
            self._untaken.append(1)

    def _fill(self) -> None:
        """Hand over and pull until there is no room or nothing more may be pulled."""
        while self._failure is None and not self._hit and not self._is_held_back():
            if self._backlog:
                depth = self._depth()
                while self._backlog and self._session.room(depth):
                    self._submit()
                self._session.start_workers()
            if self._live is not None and self._has_results():
                return
            if not self._may_pull():
                if not self._take_back():
                    return
                continue
            self._pull()
            if self._in_flight:  # so that a worker which is done is known to be free
                self._take_news(0.0)

    def _take_back(self) -> bool:
        """Have a busy worker share what it has not started with an idle one; return if it does."""
        self._look_again = NEVER
        in_flight = self.dispatched - self.completed + self._settled
        if self._backlog or in_flight < 2 or not self._session.room(1):
            return False  # a single task waits behind no other
        task_seconds = self._sizer.task_seconds or 0.0
        taken, self._look_again = self._session.take_back(task_seconds)
        self.dispatched -= sum(batch.size for batch in taken)
        self._backlog += taken
        return bool(taken)

    def _submit_if_room(self) -> None:
        if self._session.room(1) and not self._is_held_back():
            self._submit()
            self._session.start_workers()

    def _hand_over_all(self) -> None:
        """Submit what was pulled: it goes on, whatever the consumer does meanwhile."""
        if self._hit or self._failure is not None or self._is_held_back():
            return
        while self._backlog and (not self._blind or self._session.room(1)):
            self._submit()
        self._session.start_workers()

    def _depth(self) -> int:
        if not self._is_windowed and self._sizer.long_tasks:
            return 1
        return self._deepest

    def _submit(self) -> None:
        share = self._share()
        batch = self._backlog.popleft()
        if self._plan.batch_size is None:
            while len(self._backlog) >= self._session.n_workers:  # each other worker is left one
                following = self._backlog[0]
                if batch.size + following.size > share or not batch.is_followed_by(following):
                    break
                batch.join(self._backlog.popleft())
        self._in_flight += 1
        self.dispatched += batch.size
        began = self._clock()
        try:
            self._session.submit(batch)
        except SessionFailed as failed:
            self._fail(failed.error)
        self._sizer.handed_over(self._clock() - began + self._session.handover_seconds)

    def _share(self) -> int:
        """Return how many tasks one batch may have; when all are pulled, every worker gets some."""
        if self._sizer.size == 1 or not self._source.exhausted:
            return self._sizer.size
        elsewhere = self.dispatched + self._settled + len(self._again)
        return self._sizer.share(self._source.position - elsewhere)

    def _advance(self) -> None:
        """Wait for news and act on it."""
        if self._is_interrupted():
            self._fail(CallInterrupted())
            return
        if self._deadline.is_over():
            self._fail(self._deadline.error(self.completed))
            return
        until = min(self._deadline.at, self._look_again)
        if self._plan.timeout is not None:
            again = self._session.enforce(self._plan.timeout)
            if again is None:
                raise broken(self._session, "enforce", "returned nothing; it must return a time")
            until = min(until, again)
        if self._again:
            until = min(until, self._again[0][0])
        if self._plan.gate is not None and self._is_held_back():
            until = min(until, self._plan.gate.again)
        if self._is_deaf:
            until = min(until, self._clock() + _LOOK_SECONDS)
        if self._live is not None:
            until = min(until, self._live_until(self._live))
        self._take_news(None if until == NEVER else until - self._clock())
        if self._again:
            self._requeue_due()
        self._fill()

    def _live_until(self, live: LiveTasks) -> float:
        """Return when to look after `live`; note when nothing is to be done any more."""
        if self._ahead or not live.is_empty():
            self._rests_since = NEVER
            return NEVER
        now = self._clock()
        self._rests_since = min(self._rests_since, now)
        over = self._rests_since + REST_SECONDS
        if live.is_over() or now >= over:
            self._source.exhausted = True
            return now
        return over

    def _requeue_due(self) -> None:
        now = self._clock()
        while self._again and self._again[0][0] <= now:
            self._backlog.appendleft(heapq.heappop(self._again)[2])

    def _take_news(self, seconds: float | None) -> None:
        try:
            news = self._session.wait(seconds)
        except SessionFailed as failed:
            self._fail(failed.error)
            return
        if news is None:
            raise broken(self._session, "wait", "returned nothing; it must return completions")
        failed_of: list[tuple[Failure, Completion]] = []
        for completion in news:
            self._record(completion)
            if completion.failures:
                failed_of += [(failure, completion) for failure in completion.failures]
            self._report()
        if failed_of:
            self._judge_all(failed_of)
            self._report()
        for completion in news:
            if completion.finished:
                self._close_books(completion)

    def _record(self, completion: Completion) -> None:
        """Deliver the results; those of tasks that failed are judged afterwards."""
        values = completion.values
        if completion.seconds:
            self._sizer.record(completion.tasks, completion.seconds, completion.nbytes)
        first = completion.first
        if self._folded is not None:
            self._record_folded(completion)
            return
        done = 0
        if completion.failures:
            for position in sorted(failure.position for failure in completion.failures):
                self._deliver(first + done, values[done : position - first])
                done = position - first + 1
            values = values[done:]
        self._deliver(first + done, values)
        if completion.broken is not None:
            self._fail(completion.broken)

    def _record_folded(self, completion: Completion) -> None:
        assert self._folded is not None
        if completion.broken is None and completion.folded:
            self.completed += completion.folded
            completion.broken = self._folded.put(
                completion.first, completion.folded, completion.values
            )
        if completion.broken is not None:
            self._fail(completion.broken)

    def _deliver(self, first: int, values: list[Any]) -> None:
        if not values:
            return
        self.completed += len(values)
        self._delivery.put(first, values)
        if self._plan.journal is not None:
            self._plan.journal.record(first, values)
        stop_when = self._plan.stop_when
        if stop_when is not None and not self._hit and any(map(stop_when, values)):
            self._hit = self._has_gaps = True

    def _judge_all(self, failures: list[tuple[Failure, Completion]]) -> None:
        for failure, completion in sorted(failures, key=lambda entry: entry[0].position):
            batch = completion.batch
            index = failure.position - batch.start
            replay = replay_from(batch, index, self._definitions, self._aspects)
            self._judge(failure, replay, batch)
            if self._failure is not None:
                return

    def _judge(self, failure: Failure, replay: Replay, batch: Batch | None = None) -> None:
        """Do with a failure what the policy says; without a `batch` it cannot be tried again."""
        position, error = failure
        verdict = self._plan.policy.judge(failure, batch is not None)
        if verdict.action is Action.RAISE:
            self._replay = replay
            self._fail(error)
        elif verdict.action is Action.RETRY:
            assert batch is not None
            index = position - batch.start
            again = batch.part(index, index + 1)
            batch.n_requeued += 1
            batch.nbytes_requeued += again.nbytes
            heapq.heappush(self._again, (self._clock() + verdict.seconds, position, again))
        else:
            self.completed += 1
            if self._folded is not None:
                broken = self._folded.put(position, 1, [self._folded.leaf(verdict.value, error)])
                if broken is not None:
                    self._fail(broken)
                return
            self._delivery.put(position, [verdict.value])
            self._has_gaps = True

    def _close_books(self, completion: Completion) -> None:
        """Count a batch as finished; what is left of it, and what is run again, is not."""
        batch, left = completion.batch, completion.left
        open_tasks = batch.n_requeued + sum(part.size for part in left)
        open_nbytes = batch.nbytes_requeued + sum(part.nbytes for part in left)
        self._in_flight -= 1
        self.dispatched -= open_tasks
        self._ahead_nbytes -= batch.nbytes - open_nbytes
        if batch.size > open_tasks and self._is_windowed:
            self._untaken.append(batch.size - open_tasks)
            self._note_taken(0)  # all that it had may have been taken before it was finished
        self._backlog.extendleft(reversed(left))

    def _note_taken(self, count: int) -> None:
        """Count results that the consumer took against the finished batches, oldest first."""
        self._taken += count
        while self._untaken and self._taken >= self._untaken[0]:
            self._taken -= self._untaken.popleft()

    def _report(self) -> None:
        if self._plan.progress is not None:
            self._plan.progress()

    def _fail(self, error: BaseException) -> None:
        """End the call; a generator first yields the results that were there before."""
        self._failure = error
        self.abandon()
        if self._plan.return_as is ReturnAs.LIST:
            raise error
