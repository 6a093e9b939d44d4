"""One task after the other, in the thread that wants the results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from parallel_core.dispatch.plan import CallPlan
from parallel_core.dispatch.source import close_generator
from parallel_core.errors import add_note
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.failure import exited
from parallel_core.tasks.handles import to_call


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
        self._tasks = tasks
        self._progress = plan.progress
        self._results: list[Any] = []
        self._passed = 0
        self._ended = False

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

    def run(self) -> list[Any]:
        """Return all results."""
        results, progress = self._results, self._progress
        append = results.append
        modules = sys.modules
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
                append(function(*args, **kwargs))
            except BaseException as error:
                raise_named(error, len(results), item)
            if progress is not None:
                progress()
        self._end()
        return results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield the result of each task, when it is asked for, as a chunk of one."""
        for item in self._tasks:
            function, args, kwargs = check_task(item, self._passed)
            try:
                args, kwargs = to_call(args, kwargs)
                value = function(*args, **kwargs)
            except BaseException as error:
                raise_named(error, self._passed, item)
            self._passed += 1
            if self._progress is not None:
                self._progress()
            yield [value]
            del value
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._progress is not None:
            self._progress()


def raise_named(error: BaseException, position: int, item: Any) -> None:
    """Raise what `named` returns, the original traceback kept."""
    renamed = named(error, position, item)
    if renamed is error:
        raise error
    raise renamed from error


def named(error: BaseException, position: int, item: Any) -> BaseException:
    """Return what to raise for a task that raised `error`: itself, with a note naming the task."""
    if not isinstance(error, (Exception, SystemExit)):
        return error
    function, args, kwargs = check_task(item, position)
    note = describe_task(position, describe_call(function, args, kwargs))
    if isinstance(error, SystemExit):
        return exited(error, note)
    add_note(error, note)
    return error
