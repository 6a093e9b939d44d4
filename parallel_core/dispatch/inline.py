"""The plain loop: one task after the other, in the thread that wants the results."""

from __future__ import annotations

import sys
import time
from _contextvars import Context, copy_context
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from parallel_core.backends.completion import Failure
from parallel_core.context.batch_context import BatchContext, ContextFailed, call_within
from parallel_core.context.item import Place
from parallel_core.context.this_worker import ThisWorker, enter_worker
from parallel_core.dispatch.call_errors import replay_task
from parallel_core.dispatch.ending import CallInterrupted, Deadline
from parallel_core.dispatch.limits import Limits
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.policy import Action
from parallel_core.dispatch.source import close_generator, is_at_hand
from parallel_core.observe.events import TaskTimes
from parallel_core.reduction.tree import FoldFailed
from parallel_core.serialization.failure import named
from parallel_core.serialization.handles import to_call
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.placeholders import KnownResult
from parallel_core.workers.recorder import MARK_SECONDS, Recorder


class InlineLoop:
    """One call, without any worker."""

    def __init__(
        self, tasks: Iterable[Any], outcomes: Outcomes, limits: Limits, worker: ThisWorker
    ) -> None:
        self._worker = worker  # which tasks are told of as theirs
        self.outcomes = outcomes
        self._tasks = outcomes.look_up(tasks)
        self._limits = limits
        self._items = outcomes.items_here()
        self._position = 0  # of the task that runs within them
        # Where no code of the caller's runs between two tasks, the items may hold for all of them.
        self._is_one_batch = not self._items or is_at_hand(self._tasks)
        self._deadline = Deadline(limits.call_timeout)
        self._fold = None if outcomes.folded is None else outcomes.folded.fold(0)
        self._told: Generator[Any, None, None] | None = None  # the tasks, where observers are told
        self._folded_to = 0  # the results before this position were handed in

    @property
    def dispatched(self) -> int:
        """The number of tasks that were begun: each is done before the next begins."""
        return self.outcomes.completed

    def start(self) -> None:
        """Do nothing: a task runs when its result is wanted."""

    def sum_up(self) -> None:
        """Do nothing: there are no workers, and nothing is counted for each task."""

    def abandon(self) -> None:
        """Let the caller's generator clean up; nothing else is running."""
        if self._told is not None:
            self._told.close()
        close_generator(self._tasks)

    def run(self) -> Any:
        """Return all results, or the value that they were folded to."""
        outcomes, limits = self.outcomes, self._limits
        try:
            if limits.gate or limits.call_timeout or not (self._is_one_batch and outcomes.is_plain):
                for _ in self._each():
                    pass
            elif self._items:
                self._run_within()
            else:
                self._run_plainly(copy_context())
            self._put_folded()
        except FoldFailed as failed:
            raise failed.noted() from failed.error.__cause__
        if outcomes.failure is not None:
            raise outcomes.failure
        return outcomes.finish()

    def chunks(self) -> Iterator[list[Any]]:
        """Yield the result of each task, when it is asked for, as a chunk of one."""
        outcomes = self.outcomes
        for _ in self._each():
            values = outcomes.shown(outcomes.chunk() or [])
            if values:
                yield values
            del values

    def _run_within(self) -> None:
        """Do `_run_plainly` with the items around all tasks, as a worker does with a batch."""
        base, items = copy_context(), BatchContext(self._items, Place.CALLER)
        notes: tuple[tuple[str, object], ...] = ()
        try:
            base.run(items.begin, lambda: self._position)
            try:
                self._run_plainly(base, items)
            finally:
                notes = base.run(items.end)
        except ContextFailed as failed:
            raise failed.error from failed.error.__cause__
        if notes:
            done = self.outcomes.completed
            self.outcomes.answered_here(done, 0, 0.0, done, notes)

    def _run_plainly(self, base: Context, items: BatchContext | None = None) -> None:
        """Run the tasks where nothing is to be done between two of them."""
        outcomes, fold, interruption = self.outcomes, self._fold, self._limits.interruption
        append = outcomes.results.append if fold is None else fold.append
        modules = sys.modules
        base.run(enter_worker, self._worker)
        context = base.copy()  # a copy for each task would take longer than a look
        run = context.run
        checked: object = None  # a function that can be called
        called: Any = None  # what is called instead of it
        position = 0
        self._told = None if outcomes.emit is None else self._telling(self._tasks)
        for item in self._tasks if self._told is None else self._told:
            try:
                function, args, kwargs = item
            except (TypeError, ValueError):
                function, args, kwargs = check_task(item, position)
            if function is not checked or type(args) is not tuple or type(kwargs) is not dict:
                function, args, kwargs = check_task(item, position)
                if function is not checked:
                    called = function if items is None else items.bind(function, position)
                checked = function
            if items is not None:
                self._position = position
            if interruption is not None and interruption.is_set:
                outcomes.completed = outcomes.completed if fold is not None else position
                raise CallInterrupted
            try:
                if "memmapping.sharing" in modules:
                    args, kwargs = to_call(args, kwargs)
                append(run(called, *args, **kwargs) if kwargs else run(called, *args))
            except BaseException as error:
                if fold is None:  # what is folded is counted when it is handed in
                    outcomes.completed = position
                seconds = self._failed(error, position, item)
                if seconds is not None:
                    self._sleep(seconds)
                    self._run_task(position, item)
            position += 1
            try:
                is_changed = context != base
            except Exception:  # values that cannot be compared are others
                is_changed = True
            if is_changed:
                context = base.copy()
                run = context.run
        if fold is None:
            outcomes.completed = position
        outcomes.total = position

    def _telling(self, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield `tasks`, and tell observers every now and then how many are done."""
        outcomes, pause, clock = self.outcomes, self.outcomes.looks.seconds, time.monotonic
        recorder = Recorder()
        began = task_began = due = clock()
        recorder.begin(began, 0)
        told = done = 0
        function: object = None  # of the first task that was not told

        def tell(now: float) -> None:
            times = TaskTimes(*recorder.take(now, 0, 0))
            outcomes.answered_here(told, done - told, now - began, done, (), times, function)

        try:
            for item in tasks:
                now = clock()
                if now > due:
                    if now - task_began >= MARK_SECONDS:
                        recorder.add(done - told - 1, task_began)
                    if done > told and now > began + pause:
                        tell(now)
                        told, began, function = done, now, None
                    else:
                        recorder.add(done - told, now)
                    due = now + MARK_SECONDS
                if function is None:
                    function = item[0] if type(item) is tuple and item else None
                task_began = now
                yield item
                done += 1
            outcomes.total = done
        finally:  # also where a task ends the call
            if done > told:
                now = clock()
                if now - task_began >= MARK_SECONDS:
                    recorder.add(done - told - 1, task_began)
                tell(now)

    def _each(self) -> Iterator[None]:
        """Run the tasks in turn, and pause after each."""
        outcomes = self.outcomes
        position = -1
        for position, item in enumerate(self._tasks):
            if type(item) is KnownResult:
                outcomes.resolve(position, item.value)
            else:
                self._wait_for_leave()
                self._run_task(position, item)
            yield
            if outcomes.stopped_early:
                self.abandon()
                return
        outcomes.total = position + 1

    def _wait_for_leave(self) -> None:
        """Wait until the next task may start; raise when the time of the call is over."""
        if self._limits.interruption is not None:
            self._limits.interruption.check()
        if self._deadline.is_over():
            raise self._deadline.error(self.outcomes.completed)
        gate = self._limits.gate
        while gate is not None and gate.hold(0):
            self._sleep(max(0.0, gate.again - time.monotonic()))

    def _sleep(self, seconds: float) -> None:
        until = min(time.monotonic() + seconds, self._deadline.at)
        time.sleep(max(0.0, until - time.monotonic()))
        if self._deadline.is_over():
            raise self._deadline.error(self.outcomes.completed)

    def _run_task(self, position: int, item: Any) -> None:
        """Run a task, as often as it is to be tried, and hand in its outcome."""
        outcomes, items = self.outcomes, self._items
        began = time.monotonic()
        notes: list[tuple[str, object]] = []
        seconds: float | None = 0.0
        while seconds is not None:
            if seconds:
                self._sleep(seconds)
            function, args, kwargs = check_task(item, position)
            try:
                args, kwargs = to_call(args, kwargs)
                run = copy_context().run
                run(enter_worker, self._worker)
                if items:
                    value = run(call_within, items, position, function, args, kwargs, notes)
                else:
                    value = run(function, *args, **kwargs)
            except ContextFailed as failed:
                raise failed.error from failed.error.__cause__
            except BaseException as error:
                seconds = self._failed(error, position, item)
                continue
            if self._fold is None:
                outcomes.add(position, [value])
            else:
                self._fold.append(value)
            break
        if outcomes.emit is not None:
            completed = outcomes.completed + (0 if self._fold is None else len(self._fold))
            seconds = time.monotonic() - began
            outcomes.answered_here(position, 1, seconds, completed, tuple(notes), None, function)

    def _failed(self, error: BaseException, position: int, item: Any) -> float | None:
        """Do with a task that raised `error` what the policy says.

        Returns after how many seconds it is to run again; None when it has its outcome. Raises what
        ends the call.
        """
        if isinstance(error, FoldFailed):
            raise error  # no task has raised it
        task = check_task(item, position)
        renamed = named(error, describe_task(position, describe_call(*task)))
        replay = replay_task(position, task, self._items)
        self._put_folded()
        verdict = self.outcomes.judge(Failure(position, renamed), replay)
        if verdict.action is Action.RETRY:
            return verdict.seconds
        if verdict.action is not Action.RAISE:
            if self._fold is not None:
                self._fold.restart(position + 1)
                self._folded_to = position + 1
            return None
        if renamed is error:
            raise error
        raise renamed from error

    def _put_folded(self) -> None:
        """Hand in what the results since the last time were folded to."""
        if self._fold is not None and len(self._fold):
            count = len(self._fold)
            self.outcomes.fold(self._folded_to, count, self._fold.take())
            self._folded_to += count
