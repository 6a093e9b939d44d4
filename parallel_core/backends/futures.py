"""Engines that have a queue of their own, through `concurrent.futures`.

A batch becomes one future. The worker of the engine gets a function of `executor_worker` and bytes,
so nothing depends on how the engine pickles.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

from memmapping.interrupts import HeldSignals
from memmapping.modules import loaded
from parallel_core import config
from parallel_core.backends.answers import initializer_error, read_answer
from parallel_core.backends.base import (
    LONGEST_WAIT,
    Backend,
    BackendUnavailable,
    CallTerms,
    Session,
    SessionFailed,
    Style,
    broken,
)
from parallel_core.backends.completion import Completion, Failure, all_failed
from parallel_core.backends.executor_results import BatchResult, read_result, size_of_result
from parallel_core.backends.executor_size import executor_size, tell_size_is_unknown
from parallel_core.backends.executor_worker import (
    Order,
    run_batch,
    run_batch_within,
    surrounding_engines,
)
from parallel_core.backends.options import WorkerOptions
from parallel_core.output.batch_output import process_identity
from parallel_core.output.pieces import Piece, show
from parallel_core.output.records import caller_handles
from parallel_core.serialization.batch import Batch
from parallel_core.workers.lifeline import own_lifeline
from parallel_core.workers.messages import Answer, Message, Output, RunBatch, Unusable
from parallel_core.workers.threads import ThreadLimit

#: Numbers of submissions. Some engines (dask's executor) take equal bytes for a call whose result
#: they have, and so would never run a task again that is to be retried.
_numbers = itertools.count(1)


class FuturesSession(Session):
    """Batches as futures of one executor.

    Parameters
    ----------
    backend : FuturesBackend
        Whose executor it is; it knows how to end what runs.
    executor : concurrent.futures.Executor
        The engine.
    n_jobs : int
        How many batches it runs at a time.
    level : int
        Nesting level of the tasks.
    options : WorkerOptions
        What its workers should be like.
    """

    reports_running_task = False

    def __init__(
        self,
        backend: FuturesBackend,
        executor: Executor,
        n_jobs: int,
        level: int,
        options: WorkerOptions,
    ) -> None:
        self._backend = backend
        self.executor = executor
        self._level = level
        self._options = options
        self._threads: ThreadLimit | None = None
        self.n_workers = n_jobs
        self._terms = CallTerms()
        self._fatal: BaseException | None = None  # why no task can be run any more
        self._is_aborted = False  # the executor takes nothing more
        self._stuck: set[Future[Any]] = set()  # out of time, and not to be stopped
        self._in_flight: dict[Future[Any], tuple[Batch, float]] = {}
        self._done: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._news: list[Completion] = []
        self._brought = 0  # bytes of the results of the batch that is being read
        self._unshown: Exception | None = None  # why what tasks print cannot be shown
        self._is_deaf = False  # the caller knows that it cannot
        self.closed = False

    def begin(self, terms: CallTerms) -> None:
        """Start a call."""
        self._terms = terms
        self._news = []
        self._unshown, self._is_deaf = None, False
        if self._is_aborted:
            self._renew()
        self._threads = self._backend.thread_limit(self.n_workers, self._options)

    def has_capacity(self, queued: int) -> bool:
        """Whether fewer than `queued` batches for each worker are in flight."""
        return len(self._in_flight) + len(self._stuck) < queued * self.n_workers

    def submit(self, batch: Batch) -> None:
        """Submit `batch` as one future."""
        data = self._encode(batch)
        if not self._backend.opens_files:  # it may run the task here and now
            self._hand_over(batch, data)
            return
        with HeldSignals():  # an interrupt amidst it would break a pool of processes
            self._hand_over(batch, data)

    def _encode(self, batch: Batch) -> bytes:
        """Return what `run_batch` takes."""
        terms, is_pool = self._terms, self._backend.opens_files
        definitions = {token: definition.sent() for token, definition in batch.definitions.items()}
        order = Order(
            process_identity(),
            caller_handles(),
            is_pool,
            own_lifeline() if is_pool else None,
            config.worker_hooks,
            self._level,
            self._threads,
            RunBatch(
                next(_numbers),
                terms.call,
                0,
                batch.runs,
                definitions,
                (),
                terms.after_failure.value,
                False,
                None if terms.folding is None else terms.folding.token,
                batch.start,
                terms.context,
            ),
        )
        return order.dumps()

    def _hand_over(self, batch: Batch, data: bytes) -> None:
        try:
            future = self._submit(batch, data)
        except Exception as error:
            self._is_aborted = self._backend.abort(self.executor, [])
            raise SessionFailed(self._lost(batch, error)) from error
        if not hasattr(future, "add_done_callback"):
            what = f"returned {future!r}; it must return the future of the batch"
            raise SessionFailed(broken(self._backend, "submit", what))
        if batch.uses:  # until it is done for certain: what was cancelled may be running
            future.add_done_callback(_Release(list(batch.uses)))
        self._in_flight[future] = (batch, time.monotonic())
        future.add_done_callback(self._done.put)

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for a future to be done."""
        news, self._news = self._news, []
        if seconds is not None:
            seconds = max(0.0, min(seconds, LONGEST_WAIT))
        try:
            while not news and self._fatal is None and seconds != 0:
                future = self._done.get(timeout=seconds)
                if future is None:  # somebody wants a look at something else
                    seconds = 0
                else:
                    news += self._take(future)
            while True:
                future = self._done.get_nowait()
                if future is not None:
                    news += self._take(future)
        except queue.Empty:
            if self._unshown is not None and not self._is_deaf:
                self._is_deaf = True
                raise self._unshown from None
            if self._fatal is not None and not news:
                raise SessionFailed(self._fatal) from None
            return news

    def waker(self) -> Callable[[], None]:
        """Return what has `wait` return."""
        return functools.partial(self._done.put, None)

    def enforce_timeout(self, limit: float) -> float:
        """Give up futures that were submitted too long ago; each holds a single task."""
        now = time.monotonic()
        again = now + limit
        for future, (batch, since) in list(self._in_flight.items()):
            seconds = self._terms.limit_for(batch.start, limit)
            if now - since <= seconds:
                again = min(again, since + seconds)
                continue
            from parallel_core.errors import TaskTimeoutError

            late = TaskTimeoutError(
                f"{batch.describe(0)} has not come back within timeout={seconds:g} s"
            )
            failure = Failure(batch.start, late)
            self._news.append(Completion(batch, batch.start, [None], 0.0, True, [failure]))
            del self._in_flight[future]
            if not _cancel(future) and not future.done():
                self._stuck.add(future)
        if len(self._stuck) >= self.n_workers:
            self._replace_engine()
        return again

    def _replace_engine(self) -> None:
        """End the engine, all of whose workers are stuck, and take another one."""
        stuck, self._stuck = list(self._stuck), set()
        self._backend.abort(self.executor, stuck)
        try:
            self._renew()
        except BackendUnavailable as error:
            from parallel_core.errors import TaskTimeoutError

            self._stuck.update(stuck)
            self._fatal = TaskTimeoutError(
                f"all {self.n_workers} workers of {self._backend.name!r} are on tasks that ran out "
                f"of time, and cannot be stopped: {error}"
            )

    def cancel(self) -> None:
        """End what is in flight, as far as the engine can."""
        submitted = [*self._in_flight, *self._stuck]
        unfinished = [future for future in submitted if not future.done()]
        self._in_flight.clear()
        self._stuck.clear()
        self._news = []
        if unfinished:
            self._is_aborted = self._backend.abort(self.executor, unfinished)

    def close(self) -> None:
        """Let go of the executor."""
        try:
            if self._in_flight or self._stuck:
                self.cancel()
        finally:
            self.closed = True
            self._backend.release(self.executor)

    def _submit(self, batch: Batch, data: bytes) -> Future[Any]:
        """Submit to the engine; one that has lost a worker is replaced where that is possible."""
        try:
            return self._backend.submit(self.executor, data)
        except BrokenExecutor as error:
            try:
                self._renew()
            except BackendUnavailable:
                raise error from None
            return self._backend.submit(self.executor, data)

    def _renew(self) -> None:
        self.executor = self._backend.renewed(self.executor, self.n_workers, self._options)
        self._is_aborted = False

    def _take(self, future: Future[Any]) -> list[Completion]:
        entry = self._in_flight.pop(future, None)
        if entry is None:
            self._stuck.discard(future)
            return []  # of a call that was cancelled, or out of time
        batch, _ = entry
        error: BaseException | None = CancelledError() if future.cancelled() else future.exception()
        self._brought = 0
        if error is None:
            try:
                news = self._completions(batch, future.result())
            except Exception as broken:
                error = broken
        if error is not None:
            return [all_failed(batch, functools.partial(self._lost, batch, error))]
        for completion in news:
            completion.nbytes = self._brought * completion.tasks // batch.size
        return news

    def _completions(self, batch: Batch, out: Any) -> list[Completion]:
        """Return what the engine has brought back of `batch`."""
        return list(filter(None, map(functools.partial(self._read, batch), self._read_result(out))))

    def _read(self, batch: Batch, message: Message) -> Completion | None:
        if isinstance(message, Answer):
            return read_answer(batch, message)
        if isinstance(message, Output):
            self._show(message.pieces)
        elif isinstance(message, Unusable):
            self._fatal = initializer_error(message)
            self._in_flight.clear()
            self._backend.abort(self.executor, [])
        return None

    def _read_result(self, out: bytes | BatchResult) -> list[Message]:
        self._brought += size_of_result(out)
        return read_result(out)

    def _show(self, pieces: list[Piece]) -> None:
        """Show what tasks have printed; where that cannot be shown, this is said once."""
        try:
            show(pieces)
        except Exception as error:
            self._unshown = self._unshown or error

    def _lost(self, batch: Batch, error: BaseException, index: int = 0) -> BaseException:
        """Return what to raise for a task of `batch` when the engine failed with `error`."""
        if not isinstance(error, (BrokenExecutor, CancelledError)):
            return error
        from parallel_core.errors import WorkerDiedError

        what = batch.describe(index)
        died = WorkerDiedError(f"the engine {self._backend.name!r} lost {what}: {error}")
        died.position = batch.start + index
        died.__cause__ = error
        return died


class _Release:
    """Lets go of the segments of a batch when its future is done.

    The batch has a list of its own: what it had may have to be run again.
    """

    __slots__ = ("_uses",)

    def __init__(self, uses: list[Any]) -> None:
        self._uses = uses

    def __call__(self, future: Future[Any]) -> None:
        self._uses.clear()


class FuturesBackend(Backend):
    """Base class for backends that use a `concurrent.futures` executor."""

    style = Style.PUSH

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the executor for a call.

        Raises
        ------
        BackendUnavailable
            If there is none.
        """
        raise broken(self, "executor", "is missing: it returns the executor of a call")

    def thread_limit(self, n_jobs: int, options: WorkerOptions) -> ThreadLimit | None:
        """Return the limit of threads for its workers; None where they are not ours to limit."""
        return None

    def submit(self, executor: Executor, data: bytes) -> Future[Any]:
        """Submit a batch to the executor."""
        return executor.submit(run_batch, data)

    def abort(self, executor: Executor, futures: list[Future[Any]]) -> bool:
        """End `futures` if the engine can; by default, running batches are left to finish.

        Returns whether this ended the executor as well.
        """
        for future in futures:
            _cancel(future)
        return False

    def release(self, executor: Executor) -> None:
        """Release the executor after a call; by default it is kept for the next one."""

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return a replacement of `executor`, which is broken or has no free worker left.

        Raises
        ------
        BackendUnavailable
            If there is none, as by default.
        """
        raise BackendUnavailable("the executor is the caller's own")

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> FuturesSession:
        """Return a session over `executor`."""
        executor = self.executor(n_jobs, options)
        if executor is None:
            raise broken(self, "executor", "returned nothing; it must return the executor")
        return FuturesSession(self, executor, n_jobs, level, options)


class ExecutorBackend(FuturesBackend):
    """Any executor that the user made and will shut down.

    Parameters
    ----------
    executor : concurrent.futures.Executor
        The engine.
    """

    def __init__(self, executor: Executor) -> None:
        self.name = type(executor).__name__
        self.opens_files = _is_process_pool(executor)
        # Its import fails when the program is ending, so it is not for us to import it.
        threads = loaded("concurrent.futures.thread")
        self.uses_threads = threads is not None and isinstance(executor, threads.ThreadPoolExecutor)
        self._executor = executor

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return `n_jobs`, or the size of the executor for a negative number."""
        if n_jobs > 0:
            return n_jobs
        size = executor_size(self._executor)
        if size is not None:
            return max(1, size + 1 + n_jobs)
        taken = super().effective_n_jobs(n_jobs)
        tell_size_is_unknown(self._executor, n_jobs, taken)
        return taken

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the user's executor."""
        if options.initializer is not None:
            raise TypeError(
                "initializer cannot be given with an executor of your own: pass it to the executor"
            )
        if self._identity() in surrounding_engines.get():
            raise BackendUnavailable("a task of its own would wait for it")
        if _is_forked_copy(self._executor):
            raise BackendUnavailable("its threads are in the process that this one is forked from")
        return self._executor

    def submit(self, executor: Executor, data: bytes) -> Future[Any]:
        """Hand a batch to the executor, which may run it in this process."""
        if self.opens_files:
            return super().submit(executor, data)
        engines = (*surrounding_engines.get(), self._identity())
        return executor.submit(run_batch_within, engines, data)

    def _identity(self) -> tuple[int, int]:
        return os.getpid(), id(self._executor)


def _cancel(future: Future[Any]) -> bool:
    """Cancel `future` if its engine can do that; parsl's say NotImplementedError."""
    try:
        return future.cancel()
    except Exception:  # what ended the call matters more
        return False


def _is_forked_copy(executor: Executor) -> bool:
    """Whether `executor` is at work in the parent of this process, and would never be here."""
    for name in ("_broken", "_shutdown", "_shutdown_thread"):
        if getattr(executor, name, False):
            return False  # and says so itself
    threads = getattr(executor, "_threads", None)
    if not isinstance(threads, Collection):  # somebody else's use of that name
        threads = ()
    manager = getattr(executor, "_executor_manager_thread", None)
    found = [thread for thread in (*threads, manager) if isinstance(thread, threading.Thread)]
    return bool(found) and not any(thread.is_alive() for thread in found)


def _is_process_pool(executor: Executor) -> bool:
    """Whether the workers of `executor` are processes on this machine, with the same user."""
    for name in ("concurrent.futures.process", "loky.process_executor"):
        module = loaded(name)
        if module is not None and isinstance(executor, module.ProcessPoolExecutor):
            return True
    return False
