"""Engines that have a queue of their own, through `concurrent.futures`.

A batch becomes one future. What the engine's worker gets is a function of this module and bytes, so
nothing depends on how the engine pickles.
"""

from __future__ import annotations

import contextvars
import functools
import os
import pickle
import queue
import sys
import threading
import time
from abc import abstractmethod
from collections import OrderedDict
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

from parallel_core import config
from parallel_core.backends.answers import initializer_error, read_answer
from parallel_core.backends.base import (
    LONGEST_WAIT,
    Backend,
    BackendUnavailable,
    Completion,
    Failure,
    Session,
    SessionFailed,
    Style,
    WorkerOptions,
    all_failed,
)
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.initializer import pickle_initializer
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.definitions import ReceivedDefinitions
from parallel_core.tasks.failure import pack
from parallel_core.tasks.pickling import dumps
from parallel_core.workers.board import Board
from parallel_core.workers.execute import Execution
from parallel_core.workers.messages import UNUSABLE
from parallel_core.workers.setup import run_initializer
from parallel_core.workers.threads import ThreadLimit, follow, thread_limit

_CALLS = 8  # whose definitions an engine's worker keeps

_received: OrderedDict[tuple[str, int], ReceivedDefinitions] = OrderedDict()


#: What the initializer raised in this worker, if it did.
_initializer_errors: list[tuple[bytes, str]] = []
#: Globals that an initializer set in this worker.
_state: dict[str, Any] = {}
#: What this worker was told of threads.
_threads: ThreadLimit | None = None


def initialize(data: bytes) -> None:
    """Run the initializer of a call in an engine's worker; `run_batch` tells what it raises."""
    try:
        _state.update(run_initializer(data))
    except BaseException as error:
        _initializer_errors.append(pack(error, dumps))


def run_batch(data: bytes) -> bytes:
    """Run a batch wherever the engine put it; return its answers."""
    if _initializer_errors:
        return pickle.dumps([(UNUSABLE, *_initializer_errors[0])], 5)
    return contextvars.copy_context().run(_run_batch, data)


def _run_batch(data: bytes) -> bytes:
    call, level, threads, runs, sent, carry_on = pickle.loads(data)
    config.enter_task(level)
    if threads is not None:
        _follow(threads)
    where = (call, threading.get_ident())
    definitions = _received.get(where)
    if definitions is None:
        definitions = _received[where] = ReceivedDefinitions(call, _state)
        while len(_received) > _CALLS + threading.active_count():
            _received.popitem(last=False)[1].close()
    definitions.receive(sent, ())
    board, descriptor = Board.make()
    os.close(descriptor)
    answers: list[Any] = []
    references: Any = sys.modules.get("memmapping.references")
    if references is not None:  # one mapping of each array for all tasks of the batch
        references.keeper.begin()
    try:
        Execution(0, 0, definitions, board, answers.append).run(runs, carry_on)
    finally:
        board.close()
        _let_go()
    return pickle.dumps(answers, 5)


def _let_go() -> None:
    """Let go of memory maps; nobody tells this worker when a call ends."""
    references: Any = sys.modules.get("memmapping.references")
    if references is not None:
        references.keeper.drop()
    sharing: Any = sys.modules.get("memmapping.sharing")
    if sharing is not None:
        sharing.forget_stale()


def _follow(threads: ThreadLimit) -> None:
    global _threads
    if threads != _threads:
        follow(threads, _threads)
        _threads = threads


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

    names_running = False

    def __init__(
        self,
        backend: FuturesBackend,
        executor: Executor,
        n_jobs: int,
        level: int,
        options: WorkerOptions,
    ) -> None:
        self._backend = backend
        self._executor = executor
        self._level = level
        self._options = options
        self._threads: ThreadLimit | None = None
        self.n_workers = n_jobs
        self._call = ""
        self._carry_on = False
        self._fatal: BaseException | None = None  # why no task can be run any more
        self._is_aborted = False  # the executor takes nothing more
        self._stuck: set[Future[bytes]] = set()  # out of time, and not to be stopped
        self._in_flight: dict[Future[bytes], tuple[Batch, float]] = {}
        self._done: queue.SimpleQueue[Future[bytes]] = queue.SimpleQueue()
        self._news: list[Completion] = []

    def begin(self, call: str, carry_on: bool) -> None:
        """Start a call."""
        self._call = call
        self._carry_on = carry_on
        self._news = []
        if self._is_aborted:
            self._renew()
        self._threads = self._backend.thread_limit(self.n_workers, self._options)

    def room(self, depth: int) -> bool:
        """Whether fewer than `depth` batches for each worker are in flight."""
        return len(self._in_flight) + len(self._stuck) < depth * self.n_workers

    def submit(self, batch: Batch) -> None:
        """Submit `batch` as one future."""
        definitions = {
            token: (definition.data, definition.volatile)
            for token, definition in batch.definitions.items()
        }
        task = (self._call, self._level, self._threads, batch.runs, definitions, self._carry_on)
        try:
            future = self._submit(pickle.dumps(task, 5))
        except Exception as error:
            raise SessionFailed(self._lost(batch, error)) from error
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
                news += self._take(self._done.get(timeout=seconds))
            while True:
                news += self._take(self._done.get_nowait())
        except queue.Empty:
            if self._fatal is not None and not news:
                raise SessionFailed(self._fatal) from None
            return news

    def enforce(self, limit: float) -> float:
        """Give up futures that were submitted too long ago; each holds a single task."""
        now = time.monotonic()
        again = now + limit
        for future, (batch, since) in list(self._in_flight.items()):
            if now - since <= limit:
                again = min(again, since + limit)
                continue
            from parallel_core.errors import TaskTimeoutError

            late = TaskTimeoutError(
                f"{batch.describe(0)} has not come back within timeout={limit:g} s"
            )
            failure = Failure(batch.start, late)
            self._news.append(Completion(batch, batch.start, [None], 0.0, True, [failure]))
            del self._in_flight[future]
            if not future.cancel() and not future.done():
                self._stuck.add(future)
        if len(self._stuck) >= self.n_workers:
            self._replace_engine()
        return again

    def _replace_engine(self) -> None:
        """End the engine, all of whose workers are stuck, and take another one."""
        stuck, self._stuck = list(self._stuck), set()
        self._backend.abort(self._executor, stuck)
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
            self._is_aborted = self._backend.abort(self._executor, unfinished)

    def close(self) -> None:
        """Let go of the executor."""
        try:
            if self._in_flight or self._stuck:
                self.cancel()
        finally:
            self._backend.release(self._executor)

    def _submit(self, data: bytes) -> Future[bytes]:
        """Submit to the engine; one that has lost a worker is replaced where that is possible."""
        try:
            return self._executor.submit(run_batch, data)
        except BrokenExecutor as error:
            try:
                self._renew()
            except BackendUnavailable:
                raise error from None
            return self._executor.submit(run_batch, data)

    def _renew(self) -> None:
        self._executor = self._backend.renewed(self._executor, self.n_workers, self._options)
        self._is_aborted = False

    def _take(self, future: Future[bytes]) -> list[Completion]:
        entry = self._in_flight.pop(future, None)
        if entry is None:
            self._stuck.discard(future)
            return []  # of a call that was cancelled, or out of time
        batch, _ = entry
        error: BaseException | None = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            try:
                answers = pickle.loads(future.result())
            except Exception as broken:
                error = broken
        if error is not None:
            return [all_failed(batch, functools.partial(self._lost, batch, error))]
        if answers[0][0] == UNUSABLE:
            self._fatal = initializer_error(*answers[0][1:])
            self._in_flight.clear()
            self._backend.abort(self._executor, [])
            return []
        return [read_answer(batch, answer) for answer in answers]

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

    def __call__(self, future: Future[bytes]) -> None:
        self._uses.clear()


class FuturesBackend(Backend):
    """Base of the backends that drive a `concurrent.futures` executor."""

    style = Style.PUSH

    @abstractmethod
    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the executor for a call.

        Raises
        ------
        BackendUnavailable
            When there is none to be had.
        """

    def thread_limit(self, n_jobs: int, options: WorkerOptions) -> ThreadLimit | None:
        """Return the limit of threads for its workers; None where they are not ours to limit."""
        return None

    def abort(self, executor: Executor, futures: list[Future[bytes]]) -> bool:
        """End `futures`, if the engine can do that; by default what runs is left to run out.

        Returns whether that was the end of the executor as well.
        """
        for future in futures:
            future.cancel()
        return False

    def release(self, executor: Executor) -> None:
        """Let go of the executor after a call; by default it stays for the next one."""

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return what to use instead of `executor`, which is broken or has no free worker left.

        Raises
        ------
        BackendUnavailable
            When there is none; so by default.
        """
        raise BackendUnavailable("the executor is the caller's own")

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Return a session over `executor`."""
        return FuturesSession(self, self.executor(n_jobs, options), n_jobs, level, options)


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
        self._executor = executor

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return `n_jobs`, or the size of the executor for a negative number."""
        size = getattr(self._executor, "_max_workers", None)
        if n_jobs < 0 and isinstance(size, int):
            return max(1, size + 1 + n_jobs)
        return super().effective_n_jobs(n_jobs)

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the user's executor."""
        if options.initializer is not None:
            raise TypeError(
                "initializer cannot be given with an executor of your own: pass it to the executor"
            )
        return self._executor


class LokyBackend(FuturesBackend):
    """loky's reusable executor, for who asks for it by name.

    It is one for all calls. Who wants it counts as a user first; it is only ever ended with the
    lock held and no other user, so nobody is given one that is about to end.
    """

    _used: Executor | None = None
    _users = 0
    _lock = threading.Lock()

    name = "loky"
    opens_files = True
    aim_seconds = 0.2
    inline_when_single = True

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the reusable executor, resized for this call."""
        forbidden = config.processes_forbidden()
        if forbidden is not None:
            raise BackendUnavailable(forbidden)
        LokyBackend._users += 1
        try:
            with LokyBackend._lock:
                return self._find(n_jobs, options)
        except BaseException as error:
            LokyBackend._users -= 1
            if isinstance(error, (ImportError, OSError, NotImplementedError)):
                raise BackendUnavailable(f"{type(error).__name__}: {error}") from error
            raise

    @staticmethod
    def _find(n_jobs: int, options: WorkerOptions) -> Executor:
        from loky import get_reusable_executor

        found: Executor = get_reusable_executor(
            max_workers=n_jobs,
            timeout=options.idle_seconds,
            initializer=None if options.initializer is None else initialize,
            initargs=() if options.initializer is None else (pickle_initializer(options),),
        )
        if LokyBackend._used is None:
            # Children of multiprocessing end without atexit handlers, on which loky relies.
            from multiprocessing.util import Finalize

            Finalize(None, LokyBackend.shutdown, exitpriority=100)
        LokyBackend._used = found
        return found

    def thread_limit(self, n_jobs: int, options: WorkerOptions) -> ThreadLimit | None:
        """Return the limit; told with each batch, since loky's `env` means new processes."""
        return thread_limit(threads_per_worker(n_jobs, options.thread_limit))

    def release(self, executor: Executor) -> None:
        """Leave the executor to the next call."""
        LokyBackend._users -= 1

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the reusable executor anew, unless another call is at work on the old one."""
        if LokyBackend._users > 1 and not _has_ended(executor):
            raise BackendUnavailable("another call uses the same executor")
        fresh = self.executor(n_jobs, options)
        self.release(executor)
        return fresh

    @classmethod
    def shutdown(cls) -> None:
        """End the reusable executor, if it was used and nobody uses it now."""
        if cls._users:
            return
        with cls._lock:
            if cls._used is not None and not cls._users:
                executor, cls._used = cls._used, None
                _kill(executor)

    def abort(self, executor: Executor, futures: list[Future[bytes]]) -> bool:
        """Kill its workers, unless another call has some; the next call gets new ones."""
        with LokyBackend._lock:
            if LokyBackend._users <= 1:
                _kill(executor)
                return True
        return super().abort(executor, futures)


def _is_process_pool(executor: Executor) -> bool:
    """Whether the workers of `executor` are processes on this machine, with the same user."""
    for name in ("concurrent.futures.process", "loky.process_executor"):
        module: Any = sys.modules.get(name)
        if module is not None and isinstance(executor, module.ProcessPoolExecutor):
            return True
    return False


def _forget_loky() -> None:
    """In a forked child: the executor is its parent's."""
    LokyBackend._used, LokyBackend._users = None, 0
    LokyBackend._lock = threading.Lock()  # the thread that had it is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loky)


def _has_ended(executor: Any) -> bool:
    """Whether loky's executor takes nothing more from anybody."""
    return bool(executor._flags.broken or executor._flags.shutdown)  # there is no public way


def _kill(executor: Any) -> None:
    _replace_cancelled(executor)
    executor.shutdown(wait=True, kill_workers=True)  # a parameter that only loky's executor has


def _replace_cancelled(executor: Any) -> None:
    """Give tasks that are queued, and cancelled, a future that can still be told of the end.

    loky's manager thread tells all of them, and fails at one that is cancelled: it logs that as
    critical, with a traceback in which the executor lives on wherever the log is kept.
    """
    try:
        while True:
            executor._work_ids.get_nowait()  # so that none of them is begun after all
    except queue.Empty:
        pass
    for item in list(executor._pending_work_items.values()):
        if item.future.cancelled():
            item.future = Future()
