"""One task after the other, in the thread that wants the results."""

from __future__ import annotations

import sys
import time
from _contextvars import copy_context
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from parallel_core.backends.base import Failure
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import ContextFailed, aspects_for, call_within
from parallel_core.dispatch.aftermath import ArrivedResults, Replay, replay_task
from parallel_core.dispatch.deadline import Deadline
from parallel_core.dispatch.gaps import Gap, without_gaps
from parallel_core.dispatch.plan import CallPlan
from parallel_core.dispatch.policy import Action, Verdict
from parallel_core.dispatch.source import close_generator
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.failure import named
from parallel_core.tasks.handles import to_call
from parallel_core.tasks.known import Known

if TYPE_CHECKING:
    from parallel_core.dispatch.reduction import FoldedResults


class InlineDispatch:
    """One call, without any worker.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
    plan : CallPlan
        What was asked for.
    """

    def __init__(self, tasks: Iterable[Any], plan: CallPlan) -> None:
        self._tasks = tasks if plan.journal is None else plan.journal.look_up(tasks)
        self._plan = plan
        self._aspects = aspects_for(plan.aspects, Place.CALLER)
        self._progress = plan.progress
        self._deadline = Deadline(plan.call_timeout)
        self._results: Any = []  # or what folds them
        self._has_gaps = False
        self._folded = None if plan.reduction is None else plan.reduction.begin()
        self._passed = 0
        self._ended = False
        self._replay: Replay | None = None

    @property
    def completed(self) -> int:
        """How many tasks are done."""
        return self._passed + len(self._results)

    @property
    def dispatched(self) -> int:
        """How many tasks were begun: none is begun before the one before it is done."""
        return self.completed

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self.completed if self._ended else None

    def start(self) -> None:
        """Do nothing: a task runs when its result is wanted."""

    def abandon(self) -> None:
        """Let the caller's generator clean up; nothing else goes on."""
        close_generator(self._tasks)

    def aftermath(self) -> tuple[ArrivedResults, Replay | None]:
        """Return the results of a call that ended early, and how to replay what ended it."""
        arrived = [(0, self._results)] if self._folded is None else []
        return ArrivedResults(arrived), self._replay

    def run(self) -> Any:
        """Return all results; or what they were folded to."""
        if self._folded is not None:
            return self._run_folding(self._folded)
        results = self._results
        self._run_into(results)
        return without_gaps(results) if self._has_gaps else results

    def _run_into(self, results: Any) -> None:
        """Append the outcomes to `results`."""
        plan = self._plan
        in_between = plan.stop_when or plan.journal or plan.gate or plan.call_timeout
        if not (in_between or plan.interruption or self._aspects):
            self._run_plainly(results)
            return
        self._has_gaps = True
        for value in self._outcomes():
            results.append(value)
            self._report()

    def chunks(self) -> Iterator[list[Any]]:
        """Yield the result of each task, when it is asked for, as a chunk of one."""
        for value in self._outcomes():
            self._passed += 1
            self._report()
            if type(value) is not Gap:
                yield [value]
            del value

    def _run_plainly(self, results: Any) -> None:
        """Do so where nothing is to be done between two tasks."""
        progress = self._progress
        append = results.append
        modules = sys.modules
        base = copy_context()  # a copy for each task would take longer than a look
        context = base.copy()
        run = context.run
        for item in self._tasks:
            if type(item) is tuple and len(item) == 3:
                function, args, kwargs = item
                if type(args) is not tuple or type(kwargs) is not dict or not callable(function):
                    function, args, kwargs = check_task(item, len(results))
            else:
                function, args, kwargs = check_task(item, len(results))
            try:
                if "memmapping.sharing" in modules:
                    args, kwargs = to_call(args, kwargs)
                append(run(function, *args, **kwargs) if kwargs else run(function, *args))
            except BaseException as error:
                append(self._after(error, len(results), item))
                self._has_gaps = True
            try:
                is_changed = context != base
            except Exception:  # values that cannot be compared are others
                is_changed = True
            if is_changed:
                context = base.copy()
                run = context.run
            if progress is not None:
                progress()
        self._end()

    def _run_folding(self, folded: FoldedResults) -> Any:
        """Return what the results are folded to, as they come."""
        fold = self._results = folded.fold(0)
        try:
            self._run_into(fold)
            self._passed, self._results = len(fold), []
            cause = folded.put(0, self._passed, fold.take())
        except Exception as error:
            cause = folded.cause(error)
            if cause is None:
                raise
        if cause is not None:
            raise cause
        return folded.finish(self._passed)

    def _outcomes(self) -> Iterator[Any]:
        """Yield the outcome of each task, in turn, up to one that is all that is wanted."""
        stop_when, journal = self._plan.stop_when, self._plan.journal
        for position, item in enumerate(self._tasks):
            is_result = True
            if type(item) is Known:
                value = item.value
            else:
                self._pause()
                value, is_result = self._outcome(position, item)
                if is_result and journal is not None:
                    journal.record(position, [value])
            is_last = stop_when is not None and is_result and stop_when(value)
            yield value
            del value
            if is_last:
                self.abandon()
                return
        self._end()

    def _pause(self) -> None:
        """Wait until there is memory for the next task; raise when the time of the call is over."""
        if self._plan.interruption is not None:
            self._plan.interruption.check()
        if self._deadline.is_over():
            raise self._deadline.error(self.completed)
        gate = self._plan.gate
        while gate is not None and gate.hold(0):
            self._sleep(max(0.0, gate.again - time.monotonic()))

    def _sleep(self, seconds: float) -> None:
        until = min(time.monotonic() + seconds, self._deadline.at)
        time.sleep(max(0.0, until - time.monotonic()))
        if self._deadline.is_over():
            raise self._deadline.error(self.completed)

    def _outcome(self, position: int, item: Any) -> tuple[Any, bool]:
        """Run a task; return what stands in its place, and whether that is its result."""
        while True:
            function, args, kwargs = check_task(item, position)
            try:
                args, kwargs = to_call(args, kwargs)
                run = copy_context().run
                if not self._aspects:
                    return run(function, *args, **kwargs), True
                return run(call_within, self._aspects, position, function, args, kwargs), True
            except ContextFailed as failed:
                raise failed.error from failed.error.__cause__
            except BaseException as error:
                verdict = self._judge(error, position, item)
            if verdict.action is Action.DELIVER:
                return verdict.value, False
            self._sleep(verdict.seconds)

    def _after(self, error: BaseException, position: int, item: Any) -> Any:
        """Return what stands in the place of a task that has just raised `error`."""
        if self._folded is not None:
            self._folded.pass_on(error)
        verdict = self._judge(error, position, item)
        if verdict.action is Action.DELIVER:
            return verdict.value
        self._sleep(verdict.seconds)
        return self._outcome(position, item)[0]

    def _judge(self, error: BaseException, position: int, item: Any) -> Verdict:
        """Return what to do about `error`; raise it if that is to be done."""
        renamed = _named(error, position, item)
        verdict = self._plan.policy.judge(Failure(position, renamed))
        if verdict.action is Action.DELIVER and self._folded is not None:
            return verdict._replace(value=self._folded.leaf(verdict.value, renamed))
        if verdict.action is not Action.RAISE:
            return verdict
        self._replay = replay_task(position, check_task(item, position), self._aspects)
        if renamed is error:
            raise error
        raise renamed from error

    def _report(self) -> None:
        if self._progress is not None:
            self._progress()

    def _end(self) -> None:
        self._ended = True
        self._report()


def _named(error: BaseException, position: int, item: Any) -> BaseException:
    """Return what to raise for a task that raised `error`: itself, with a note naming the task."""
    task = check_task(item, position)
    return named(error, describe_task(position, describe_call(*task)))
