"""A batch at a class by joblib's conventions: what `submit` is given, and what becomes of it."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from time import monotonic
from typing import Any

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.executor_results import BatchResult
from parallel_core.backends.executor_worker import run_batch
from parallel_core.context.batch_context import (
    BatchContext,
    ContextFailed,
    PickledContext,
    ReceivedBatchContext,
)
from parallel_core.context.item import Place
from parallel_core.observe.events import TaskTimes
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.failure import named
from parallel_core.workers.messages import AfterFailure


class BatchCall:
    """Call it without arguments where it is to run, and bring back the list it returns.

    It looks like a batch of joblib's. `run` has the name of the user's function; called with
    `whole` it runs all `size` tasks. `split` returns the arguments of smaller runs.
    """

    def __init__(
        self,
        run: EncodedRun | HeldRun,
        whole: tuple[Any, ...],
        size: int,
        split: Callable[[], list[tuple[Any, ...]]] | None = None,
    ) -> None:
        self.__name__, self.__qualname__ = run.__name__, run.__qualname__
        self._run = run
        self._whole = whole
        self._size = size
        self._split = split

    def __call__(self) -> list[Any]:
        """Run the tasks."""
        return [self._run(*self._whole)]

    def __len__(self) -> int:
        return self._size

    @property
    def items(self) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
        """Its tasks as ``(function, args, kwargs)``, for engines that want them one by one.

        Where there are many, each is some tasks that follow each other. A list of what they return
        will do in place of the list that the batch returns.
        """
        parts = [self._whole] if self._split is None or self._size == 1 else self._split()
        return [(self._run, part, {}) for part in parts]

    def __reduce__(self) -> Any:
        return BatchCall, (self._run, self._whole, self._size)

    def __repr__(self) -> str:
        return f"<batch of {self._size} × {self.__qualname__}>"


class EncodedRun:
    """Runs encoded tasks.

    `nested` is a pickle of the backend for calls within them, and of their number of jobs. It is
    unpickled in the thread that runs the tasks: dask's finds its client only there.
    """

    def __init__(self, name: str, nested: bytes | None) -> None:
        self.__name__, self.__qualname__ = _short(name), name
        self.nested = nested

    def __call__(self, data: bytes) -> bytes | BatchResult:
        """Run the tasks in `data`; return their answers."""
        return run_batch(data, self.nested)

    def __reduce__(self) -> Any:
        return EncodedRun, (self.__qualname__, self.nested)

    def __repr__(self) -> str:
        return f"<run of {self.__qualname__}>"


class HeldRun:
    """Runs tasks that are the caller's own objects, in workers that share the caller's memory."""

    def __init__(
        self,
        name: str,
        batch: Batch,
        level: int,
        after_failure: AfterFailure,
        nested: tuple[Backend | str, int | None] | None,
        context: bytes,
    ) -> None:
        self.__name__, self.__qualname__ = _short(name), name
        self._batch = batch
        self._level = level
        self._after_failure = after_failure
        self._nested = nested
        self._context = context

    def __call__(self, first: int, end: int) -> Completion:
        """Run the tasks from index `first` up to `end`."""
        return contextvars.copy_context().run(self._run, first, end)

    def _run(self, first: int, end: int) -> Completion:
        config.enter_task(self._level)
        if self._nested is not None:
            config.push_settings({"backend": self._nested[0], "n_jobs": self._nested[1]}, {})
        start = self._batch.start + first
        done = Completion(self._batch, start, [], 0.0, end == self._batch.size)
        failures: list[Failure] = []
        done.failures = failures
        if not self._context:
            self._run_within(BatchContext((), Place.THREAD), done, failures, first, end)
            return done
        batch_context = ReceivedBatchContext(PickledContext(self._context, Place.FOREIGN_PROCESS))
        try:
            batch_context.begin(lambda: start + len(done.values))
            try:
                self._run_within(batch_context, done, failures, first, end)
            finally:
                done.notes = batch_context.end()
        except ContextFailed as failed:
            done.values, done.failures, done.fatal = [], [], failed.error
        return done

    def _run_within(
        self,
        batch_context: BatchContext,
        done: Completion,
        failures: list[Failure],
        first: int,
        end: int,
    ) -> None:
        began = monotonic()
        for index in range(first, end):
            position = self._batch.start + index
            function, args, kwargs = self._batch.call(index)
            try:
                called = batch_context.bind(function, position)
                done.values.append(contextvars.copy_context().run(called, *args, **kwargs))
            except BaseException as error:
                done.values.append(None)
                failures.append(Failure(position, named(error, self._batch.describe(index))))
                if self._after_failure is AfterFailure.STOP:
                    break
        ended = monotonic()
        done.seconds = ended - began
        done.times = TaskTimes(os.getpid(), ended)


def _short(name: str) -> str:
    """Return the last part of `name`, which dask's displays have room for."""
    return name.rpartition(".")[2] or name


class Job:
    """The callback that a `submit` was given, and the job that it returned.

    Its `future` is of what the batch returned, or of itself: then whoever wants the result asks by
    `retrieve`, in the thread where it is wanted.
    """

    def __init__(self, backend: Any, by_callback: bool) -> None:
        self._backend = backend
        self._by_callback = by_callback
        self._is_done = False
        self._job: Any = None
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # nobody can call it back

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Take in that it is done; the backend calls this, in any thread."""
        if self._by_callback:
            self._settle(lambda: self._backend.retrieve_result_callback(*args, **kwargs))
            return
        self._is_done = True  # each of the two says so first, and then looks for the other
        if self._job is not None:
            self._settle(lambda: self)

    def register(self, job: Any) -> None:
        """Take in what `submit` returned."""
        self._job = job
        can_tell = hasattr(job, "add_done_callback")
        if self._by_callback:
            if can_tell:  # of a failure, of which the callback may hear nothing
                job.add_done_callback(self._note_failure)
        elif self._is_done:
            self._settle(lambda: self)
        elif can_tell:
            job.add_done_callback(self)
        elif not self._can_be_asked:  # the callback may never come
            wait = threading.Thread(target=self._settle, args=(self.retrieve,), daemon=True)
            wait.name = "parallel-core waits for a job"
            wait.start()

    def retrieve(self) -> Any:
        """Return what the batch returned, or raise."""
        retrieve = getattr(self._backend, "retrieve_result", None)
        if retrieve is not None:
            return retrieve(self._job)
        return self._job.get() if hasattr(self._job, "get") else self._job.result()

    @property
    def needs_looking(self) -> bool:
        """Whether nothing but looking tells for certain that it is done."""
        if self._by_callback or self.future.done():
            return False
        return not hasattr(self._job, "add_done_callback") and self._can_be_asked

    @property
    def _can_be_asked(self) -> bool:
        return hasattr(self._job, "ready") or hasattr(self._job, "done")

    def look(self) -> None:
        """See whether it is done."""
        ask = getattr(self._job, "ready", None) or self._job.done
        if ask():
            self()

    def _note_failure(self, job: Any) -> None:
        try:
            error = job.exception()
        except BaseException as cancelled:
            error = cancelled
        if error is not None:
            self._settle(lambda: _raise(error))

    def _settle(self, produce: Callable[[], Any]) -> None:
        """Resolve the future by what `produce` returns or raises, unless that has been done."""
        try:
            try:
                out = produce()
            except BaseException as error:
                self.future.set_exception(error)
            else:
                self.future.set_result(out)
        except InvalidStateError:
            pass  # it was told twice


def _raise(error: BaseException) -> Any:
    raise error
