"""The outcomes of one call: every task has exactly one, and what follows from it is decided here.

::

    loop, inline ── results ───▶ Outcomes ──▶ Delivery ──▶ a list, or chunks for a generator
                 ── failures ──▶  │  │  │  or FoldedResults ──▶ one value
                 ◀── Verdict ─────┘  │  └──▶ journal
                                     └─────▶ events

Batches of workers and the plain loop both hand in what came of their tasks. So the journal,
``stop_when``, ``on_error``, retries, folding, placeholders, counters and the replay of a failed
task stand here once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from parallel_core.backends.completion import Completion, Failure
from parallel_core.context.batch_context import items_for
from parallel_core.context.item import ContextItem, Place
from parallel_core.dispatch.call_errors import PartialResults, Replay
from parallel_core.dispatch.delivery import ListDelivery, delivery_for
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.dispatch.policy import Action, Policy, Verdict
from parallel_core.dispatch.task_queue import TaskQueue
from parallel_core.insights.record import CallRecord
from parallel_core.observe.events import (
    BatchAnswered,
    Emit,
    ResultsResumed,
    TaskFailed,
    TaskRetried,
    TaskTimes,
)
from parallel_core.observe.listener import LOOK_SECONDS
from parallel_core.observe.observers import Looks
from parallel_core.tasks.description import function_name
from parallel_core.tasks.placeholders import drop_placeholders

if TYPE_CHECKING:
    from parallel_core.journal.store import Journal
    from parallel_core.reduction.results import Reduction


NO_LOOKS = Looks()


class Outcomes:
    """The outcomes of the tasks of one call; `is_live`: tasks are added while it runs."""

    def __init__(
        self,
        return_as: ReturnAs,
        policy: Policy,
        *,
        stop_when: Callable[[Any], object] | None = None,
        journal: Journal | None = None,
        reduction: Reduction | None = None,
        context_items: Sequence[ContextItem] = (),
        emit: Emit | None = None,
        looks: Looks = NO_LOOKS,
        record: CallRecord | None = None,
        call: int = 0,
        is_live: bool = False,
    ) -> None:
        self.return_as = return_as
        self.policy = policy
        self.context_items = context_items
        self.journal = journal
        self.stop_when = stop_when
        self.emit = emit
        self.looks = looks  #: how often observers want to know more
        #: What is counted in any case.
        self.record = CallRecord("", 1, "", 0.0) if record is None else record
        self.call = call  #: its number, for events
        #: Looks for a dashboard, and has it be told of the call from then on.
        self.find_listener: Callable[[], None] | None = None
        self.delivery = delivery_for(return_as, is_live)
        #: The results of a call that returns one value.
        self.folded = None if reduction is None else reduction.begin()
        self.completed = 0  #: tasks that have an outcome
        self.total: int | None = None  #: all tasks, once that is known
        self.resolved = 0  #: those of `completed` that needed no worker
        self.stopped_early = False  #: by `stop_when`
        self.failure: BaseException | None = None  #: what ends the call
        self._has_placeholders = False
        self._replay: Replay | None = None

    @property
    def is_list(self) -> bool:
        """Whether the caller gets all results at the end."""
        return self.return_as is ReturnAs.LIST

    @property
    def look_seconds(self) -> float:
        """How often somebody may want to know how far the call is."""
        seconds = self.looks.seconds
        return seconds if self.find_listener is None else min(seconds, LOOK_SECONDS)

    @property
    def is_plain(self) -> bool:
        """Whether single results are only kept."""
        is_watched = self.emit is not None and self.looks.tells_each
        return not is_watched and self.stop_when is None and self.journal is None

    @property
    def results(self) -> list[Any]:
        """The list that the caller gets; what is appended to it need not be handed in."""
        assert isinstance(self.delivery, ListDelivery)
        return self.delivery.results

    def items_here(self) -> Sequence[ContextItem]:
        """Return the context items of tasks that run in the caller's own thread."""
        return items_for(self.context_items, Place.CALLER)

    def look_up(self, tasks: Iterable[Any]) -> Iterable[Any]:
        """Return `tasks`, with those resolved whose results the journal has."""
        if self.journal is None:
            return tasks
        if isinstance(tasks, TaskQueue):  # there may be more after there were none
            return map(self.journal.finder(), tasks)
        return self.journal.look_up(tasks)

    def add(self, first: int, values: list[Any]) -> None:
        """Take in the results of consecutive tasks, from position `first` on."""
        if not values:
            return
        self.completed += len(values)
        self.delivery.put(first, values)
        if self.journal is not None:
            self.journal.record(first, values)
        if self.stop_when is not None and not self.stopped_early:
            self.stopped_early = self._has_placeholders = any(map(self.stop_when, values))

    def resolve(self, position: int, value: Any) -> None:
        """Take in a result that was known before its task could run."""
        self.resolved += 1
        self.add(position, [value])
        if self.emit is not None:
            self.emit(ResultsResumed(self.call, position, self.completed, self.total))

    def take(self, completion: Completion) -> None:
        """Take in the results of a completion; its failures are for `judge`."""
        first, values = completion.first, completion.values
        if self.folded is not None:
            if completion.fatal is None and completion.folded:
                self.fold(first, completion.folded, values)
        elif not completion.failures:
            self.add(first, values)
        else:
            done = 0
            for position in sorted(failure.position for failure in completion.failures):
                self.add(first + done, values[done : position - first])
                done = position - first + 1
            self.add(first + done, values[done:])
        if completion.fatal is not None:
            self.failure = completion.fatal

    def answered(self, completion: Completion) -> None:
        """Tell observers of a completion that was taken in and judged."""
        if self.emit is not None:
            self.emit(
                BatchAnswered(
                    self.call,
                    completion.worker,
                    completion.first,
                    completion.tasks,
                    completion.seconds,
                    self.completed,
                    self.total,
                    completion.notes,
                    completion.times,
                    completion.batch.function_name(),
                )
            )

    def answered_here(
        self,
        first: int,
        tasks: int,
        seconds: float,
        completed: int,
        notes: tuple[tuple[str, object], ...] = (),
        times: TaskTimes | None = None,
        function: object = None,
    ) -> None:
        """Tell observers of tasks that ran in the caller's own thread.

        `completed` tasks have an outcome, with those whose results are still being folded.
        """
        if self.emit is not None:
            if times is None:
                times = TaskTimes(os.getpid(), time.monotonic())
            name = "" if function is None else function_name(function)
            where = self.call, None, first, tasks, seconds, completed, self.total
            self.emit(BatchAnswered(*where, notes, times, name))

    def fold(self, first: int, count: int, values: list[Any]) -> None:
        """Take in the value that `count` results were folded to."""
        assert self.folded is not None
        self.completed += count
        fatal = self.folded.put(first, count, values)
        if fatal is not None:
            self.failure = fatal

    def judge(self, failure: Failure, replay: Replay, may_retry: bool = True) -> Verdict:
        """Decide about a task that failed, and deliver what takes the place of its result.

        With `Action.RAISE`, the error is `failure` of the call from here on; with `Action.RETRY`,
        the task is the caller's to run again.
        """
        position, error = failure
        verdict = self.policy.judge(failure, may_retry)
        if verdict.action is Action.RETRY:
            self.record.retried += 1
            if self.emit is not None:
                self.emit(TaskRetried(self.call, position, error, verdict.seconds))
            return verdict
        self.record.failed += 1
        if self.emit is not None:
            self.emit(TaskFailed(self.call, position, error))
        if verdict.action is Action.RAISE:
            self._replay = replay
            self.failure = error
        elif self.folded is not None:
            self.fold(position, 1, [self.folded.leaf(verdict.value, error)])
        else:
            self.completed += 1
            self._has_placeholders = True
            self.delivery.put(position, [verdict.value])
        return verdict

    def chunk(self) -> list[Any] | None:
        """Return results that the consumer may have now, with placeholders; None if there are none.

        See `shown`.
        """
        assert not isinstance(self.delivery, ListDelivery)
        return self.delivery.take()

    def pass_over(self) -> bool:
        """Continue with results that wait for others that never come; return if there are any."""
        assert not isinstance(self.delivery, ListDelivery)
        self.delivery.pass_over()
        return bool(self.delivery.arrived())

    def shown(self, values: list[Any]) -> list[Any]:
        """Return the results among `values`."""
        return drop_placeholders(values) if self._has_placeholders else values

    def finish(self) -> Any:
        """Return the value of the call: every task has its outcome, or the call stopped early."""
        if self.folded is not None:
            return self.folded.finish(self.completed)
        return self.shown(self.results)

    def partial(self) -> tuple[PartialResults, Replay | None]:
        """Return the results of a call that ended early, and the replay of the failed task."""
        if self.folded is not None:
            return PartialResults(), self._replay
        return PartialResults(self.delivery.arrived()), self._replay
