"""The thread that runs calls until nothing is to be done.

It is no daemon, so a program that ends waits for it, and so for its tasks. It never refers to the
executor: one that is dropped is done when its tasks are.
"""

from __future__ import annotations

import contextvars
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from parallel_core.backends.base import Style
from parallel_core.backends.completion import Failure
from parallel_core.backends.registry import find_backend
from parallel_core.calls.call import Call
from parallel_core.calls.resources import CallResources
from parallel_core.calls.spec import CallSpec
from parallel_core.context.item import ContextItem
from parallel_core.context.seeds import leave_streams
from parallel_core.dispatch.ending import Interruption
from parallel_core.dispatch.policy import Action, Policy, TaskFailure, Verdict
from parallel_core.dispatch.task_queue import TaskQueue

_numbers = itertools.count()


class Settled(Protocol):
    """Whatever is told the outcome of a task; a `concurrent.futures.Future`, for one."""

    def set_running_or_notify_cancel(self) -> bool:
        """Note that the task is on its way to a worker; return whether it is wanted."""

    def set_result(self, result: Any, /) -> None:
        """Take in the result."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Take in what the task raised."""

    def cancel(self) -> bool:
        """Note that nobody will run the task."""


class Work(NamedTuple):
    """A task, the future of its outcome, and how many seconds it may run, if that is its own."""

    future: Settled
    task: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
    timeout: float = math.inf


class Raised:
    """Stands in the place of a result for what a task has raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class FutureTasks(TaskQueue):
    """The queue of an executor, and the futures of what was taken from it.

    A future is running from when its task is taken: then it is on its way to a worker.
    """

    def __init__(self, times_each: bool = False) -> None:
        super().__init__()
        self.times_each = times_each  #: whether each task has a time limit of its own
        self._timeouts: dict[int, float] = {}
        self._running: dict[int, Settled] = {}
        self._position = 0

    def begin(self) -> None:
        """Start a call, which counts its tasks from 0."""
        super().begin()
        self._position = 0
        self._timeouts.clear()

    def accept(self, item: Work) -> Any:
        """Return the task, unless its future was cancelled."""
        try:
            if not item.future.set_running_or_notify_cancel():
                return None
        except Exception:
            return None  # somebody has given it a result by hand
        self._running[self._position] = item.future
        if item.timeout < math.inf:
            self._timeouts[self._position] = item.timeout
        self._position += 1
        return item.task

    def settle(self, chunks: list[tuple[int, list[Any]]]) -> None:
        """Give each future its outcome; what is in `chunks` is taken out of them."""
        chunks.reverse()
        while chunks:
            position, values = chunks.pop()
            values.reverse()
            while values:
                self._settle(position, values.pop())
                position += 1

    def timeout_of(self, position: int) -> float:
        """Return the seconds that a task may run which has no outcome yet."""
        return self._timeouts.get(position, math.inf)

    def least_timeout(self) -> float:
        """Return the smallest of these, of all tasks that are under way."""
        return min(self._timeouts.values(), default=math.inf)

    def _settle(self, position: int, value: Any) -> None:
        future = self._running.pop(position)
        self._timeouts.pop(position, None)
        try:
            if type(value) is Raised:
                future.set_exception(value.error)
            else:
                future.set_result(value)
        except InvalidStateError:
            pass  # somebody has given it one by hand

    def fail_all(self, error: BaseException) -> None:
        """Have every future fail with `error`, those in the queue too."""
        while self._running:
            self._running.popitem()[1].set_exception(error)
        for work in self._drain():
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(error)

    def cancel_all(self) -> None:
        """Cancel every future in the queue."""
        for work in self._drain():
            work.future.cancel()
            work.future.set_running_or_notify_cancel()

    def _drain(self) -> list[Work]:
        found = []
        while (item := self.take_item()) is not None:
            found.append(item)
        return found


class FuturePolicy(Policy):
    """Whatever a task raises is the outcome of its future; no task ends the call."""

    def judge(self, failure: Failure, may_retry: bool = True) -> Verdict:
        """Return what to do: try again, or deliver the exception."""
        if isinstance(failure.error, Exception):
            return super().judge(failure, may_retry)
        return Verdict(Action.DELIVER, Raised(failure.error))


def _as_outcome(failure: TaskFailure) -> Any:
    return failure.replace(Raised(failure.error))


class LiveCalls:
    """Makes one call after the other from `FutureTasks`, never in the thread that makes them.

    `lend` returns a block in which one of the calls has the resources that it runs on.
    """

    def __init__(
        self,
        spec: CallSpec,
        batch_size_is_given: bool,
        label: str,
        lend: Callable[[], AbstractContextManager[CallResources]] | None = None,
        context_items: Sequence[ContextItem] = (),
    ) -> None:
        if spec.backend.style is Style.INLINE:  # deep within tasks, or asked for by name
            spec = spec._replace(backend=find_backend("threading"), n_jobs=1)
        if not batch_size_is_given and not spec.backend.can_answer_each:
            spec = spec._replace(bounds=spec.bounds._replace(batch_size=1))
        self._failures = spec.failures._replace(on_error=_as_outcome)
        self._spec = spec
        self._label = label
        self._lend = lend
        self._items = context_items
        self._interruption = Interruption()

    def interrupt(self) -> None:
        """Have the call end that runs, from another thread, and any that would follow."""
        self._interruption.set()

    @property
    def captures(self) -> bool:
        """Whether each task returns what it has printed, too."""
        return self._spec.results.output == "capture"

    @property
    def n_workers(self) -> int:
        """How many workers there are."""
        return self._spec.effective_n_jobs()

    def run(self, tasks: FutureTasks) -> None:
        """Run all `tasks` that there are, and settle their futures."""
        if self._lend is None:
            self._run(tasks, CallResources(self._spec))
        else:
            with self._lend() as resources:
                self._run(tasks, resources)

    def _run(self, tasks: FutureTasks, resources: CallResources) -> None:
        call = Call(
            tasks,
            self._spec,
            resources,
            label=self._label,
            policy=FuturePolicy(*self._failures),
            interruption=self._interruption,
            may_run_here=False,
            observers=self._spec.observers,
            context_items=self._items,
        )
        is_complete = False
        try:
            call.start()
            for [chunks] in call.chunks():
                tasks.settle(chunks)
            is_complete = True
        except BaseException as error:
            call.attach_to(error)
            raise
        finally:
            call.close(is_complete)


class Manager:
    """Runs what is in the queue, in a thread, while there is something in it."""

    def __init__(self, calls: LiveCalls, name: str, times_each: bool = False) -> None:
        self._calls = calls
        self._name = f"parallel-core-{name}-{next(_numbers)}"
        self._context = contextvars.copy_context()
        self._context.run(leave_streams)  # where a call begins, and counts, is a matter of chance
        self.tasks = FutureTasks(times_each)
        self._lock = threading.Lock()
        self._is_shut_down = False
        self._thread: threading.Thread | None = None

    def submit(self, work: Work) -> None:
        """Take in `work`, unless `shutdown` was called or the program is ending (RuntimeError)."""
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError(
                    "cannot schedule new futures after shutdown of the executor: its with block "
                    "has ended, or shutdown() was called. get_executor() makes another one"
                )
            if not threading.main_thread().is_alive():
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self.tasks.put(work)
            if self._thread is None:
                self._start(work)

    def _start(self, work: Work) -> None:
        thread = threading.Thread(
            target=self._context.copy().run, args=(self._serve,), name=self._name, daemon=False
        )
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            self._thread = None
            work.future.cancel()  # so nobody will run it
            raise

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        """Take in nothing more; `wait` until everything is done."""
        with self._lock:
            self._is_shut_down = True
            thread = self._thread
        if cancel_futures:
            self.tasks.cancel_all()
        self.tasks.close()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def abort(self) -> None:
        """Take in nothing more, and end the call that runs."""
        with self._lock:
            self._is_shut_down = True
        self._calls.interrupt()
        self.shutdown(wait=True, cancel_futures=True)

    def disown(self) -> None:
        """In a forked child: nothing that is under way is ours."""
        self._is_shut_down = True

    def _serve(self) -> None:
        """Make one call after the other until there is nothing to be done."""
        tasks = self.tasks
        while True:
            tasks.begin()
            try:
                self._calls.run(tasks)
            except BaseException as error:
                tasks.wake_by(None)
                tasks.fail_all(error)
                del error
            tasks.wake_by(None)
            with self._lock:
                if tasks.is_empty():
                    self._thread = None
                    return
