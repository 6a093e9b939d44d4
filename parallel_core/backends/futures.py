"""Engines that have a queue of their own, through `concurrent.futures`.

A batch becomes one future. What the engine's worker gets is a function of this module and bytes, so
nothing depends on how the engine pickles.
"""

from __future__ import annotations

import contextvars
import errno
import os
import pickle
import queue
import signal
import sys
import threading
import time
from abc import abstractmethod
from collections import OrderedDict
from concurrent.futures import Executor, Future
from typing import Any
from weakref import ref

from memmapping.interrupts import HeldSignals
from memmapping.modules import loaded
from parallel_core import config
from parallel_core.backends.answers import initializer_error, read_answer
from parallel_core.backends.base import (
    LONGEST_WAIT,
    Backend,
    BackendUnavailable,
    Completion,
    Failure,
    Session,
    Style,
    WorkerOptions,
)
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.initializer import pickle_initializer
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.definitions import ReceivedDefinitions
from parallel_core.tasks.failure import pack
from parallel_core.tasks.pickling import dumps
from parallel_core.workers.board import Board
from parallel_core.workers.execute import Execution
from parallel_core.workers.lifeline import Lifeline, hold_on, own_lifeline
from parallel_core.workers.messages import UNUSABLE
from parallel_core.workers.setup import run_initializer
from parallel_core.workers.system import (
    block_interrupts,
    check_descriptors,
    ignore_interrupts,
    restore_interrupts,
)
from parallel_core.workers.threads import ThreadLimit, follow, thread_limit

_CALLS = 8  # whose definitions an engine's worker keeps

_TOO_MANY = (errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_FOR_LOKY = 8  # descriptors for a worker, more than it takes
_NO_COMMENTS = "ignore:resource_tracker:UserWarning"

_received: OrderedDict[tuple[str, int], ReceivedDefinitions] = OrderedDict()


#: What the initializer raised in this worker, if it did.
_initializer_errors: list[tuple[bytes, str]] = []
#: Globals that an initializer set in this worker.
_state: dict[str, Any] = {}
#: What this worker was told of threads.
_threads: ThreadLimit | None = None


def begin_worker(lifeline: Lifeline | None, data: bytes | None) -> None:
    """Do in a new worker of loky's what workers of our own do first; `data` is the initializer.

    `run_batch` tells what that raises.
    """
    hold_on(lifeline)
    ignore_interrupts()
    if data is None:
        return
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
    lifeline, call, level, threads, runs, sent = pickle.loads(data)
    hold_on(lifeline)
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
    references = loaded("memmapping.references")
    if references is not None:  # one mapping of each array for all tasks of the batch
        references.keeper.begin()
    try:
        Execution(0, 0, definitions, board, answers.append).run(runs)
    finally:
        board.close()
        _let_go()
    return pickle.dumps(answers, 5)


def _let_go() -> None:
    """Let go of memory maps; nobody tells this worker when a call ends."""
    references = loaded("memmapping.references")
    if references is not None:
        references.keeper.drop()
    sharing = loaded("memmapping.sharing")
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
        self.executor = executor
        self._level = level
        self._options = options
        self._threads: ThreadLimit | None = None
        self.n_workers = n_jobs
        self._call = ""
        self._in_flight: dict[Future[bytes], tuple[Batch, float]] = {}
        self._done: queue.SimpleQueue[Future[bytes]] = queue.SimpleQueue()
        self._news: list[Completion] = []
        self.closed = False

    def begin(self, call: str) -> None:
        """Start a call."""
        self._call = call
        self._news = []
        self._threads = self._backend.thread_limit(self.n_workers, self._options)

    def room(self, depth: int) -> bool:
        """Whether fewer than `depth` batches for each worker are in flight."""
        return len(self._in_flight) < depth * self.n_workers

    def submit(self, batch: Batch) -> None:
        """Submit `batch` as one future."""
        definitions = {
            token: (definition.data, definition.volatile)
            for token, definition in batch.definitions.items()
        }
        lifeline = own_lifeline() if self._backend.opens_files else None
        told = (lifeline, self._call, self._level, self._threads, batch.runs, definitions)
        data = pickle.dumps(told, 5)
        if not self._backend.opens_files:  # it may run the task here and now
            self._submit(batch, data)
            return
        with HeldSignals():  # an interrupt amidst it would break a pool of processes
            self._submit(batch, data)

    def _submit(self, batch: Batch, data: bytes) -> None:
        try:
            future = self._backend.submit(self.executor, data)
        except Exception as error:
            self._backend.abort(self.executor, [])
            self._news.append(self._broken(batch, error))
            return
        if batch.uses:  # until it is done for certain: what was cancelled may be running
            future.add_done_callback(_Release(batch.uses))
        self._in_flight[future] = (batch, time.monotonic())
        future.add_done_callback(self._done.put)

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for a future to be done."""
        news, self._news = self._news, []
        if seconds is not None:
            seconds = max(0.0, min(seconds, LONGEST_WAIT))
        try:
            while not news and seconds != 0:
                news += self._take(self._done.get(timeout=seconds))
            while True:
                news += self._take(self._done.get_nowait())
        except queue.Empty:
            return news

    def late(self, limit: float) -> tuple[Failure | None, float]:
        """Look for a future that was submitted too long ago; it holds a single task."""
        now = time.monotonic()
        again = now + limit
        for batch, since in self._in_flight.values():
            if now - since > limit:
                from parallel_core.errors import TaskTimeoutError

                message = f"{batch.describe(0)} has not come back within timeout={limit:g} s"
                return Failure(batch.start, TaskTimeoutError(message)), now
            again = min(again, since + limit)
        return None, again

    def cancel(self) -> None:
        """End what is in flight, as far as the engine can."""
        unfinished = [future for future in self._in_flight if not future.done()]
        self._in_flight.clear()
        self._news = []
        if unfinished:
            self._backend.abort(self.executor, unfinished)

    def close(self) -> None:
        """Let go of the executor."""
        try:
            if self._in_flight:
                self.cancel()
        finally:
            self.closed = True

    def _take(self, future: Future[bytes]) -> list[Completion]:
        entry = self._in_flight.pop(future, None)
        if entry is None:
            return []  # of a call that was cancelled
        batch, _ = entry
        try:
            answers = pickle.loads(future.result())
        except BaseException as error:
            return [self._broken(batch, error)]
        if answers[0][0] == UNUSABLE:
            self._backend.abort(self.executor, [])
            failure = Failure(-1, initializer_error(*answers[0][1:]))
            return [Completion(batch, batch.start, [], 0.0, True, failure)]
        return [read_answer(batch, answer) for answer in answers]

    def _broken(self, batch: Batch, error: BaseException) -> Completion:
        from concurrent.futures import BrokenExecutor, CancelledError

        if isinstance(error, (BrokenExecutor, CancelledError)):
            from parallel_core.errors import WorkerDiedError

            message = f"the engine {self._backend.name!r} lost {batch.describe(0)}: {error}"
            died = WorkerDiedError(message)
            died.__cause__ = error
            error = died
        return Completion(batch, batch.start, [], 0.0, True, Failure(batch.start, error))


class _Release:
    """Lets go of the segments of a batch when its future is done."""

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

    def submit(self, executor: Executor, data: bytes) -> Future[bytes]:
        """Hand a batch to the engine."""
        return executor.submit(run_batch, data)

    def abort(self, executor: Executor, futures: list[Future[bytes]]) -> None:
        """End `futures`, if the engine can do that; by default what runs is left to run out."""
        for future in futures:
            future.cancel()

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> FuturesSession:
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
    """loky's reusable executor, for who asks for it by name."""

    name = "loky"
    opens_files = True
    aim_seconds = 0.2
    inline_when_single = True

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the reusable executor, resized for this call."""
        forbidden = config.processes_forbidden() or _is_daemon()
        if forbidden is not None:
            raise BackendUnavailable(forbidden)
        try:
            from loky import get_reusable_executor

            _start_tracker()
            initializer = None if options.initializer is None else pickle_initializer(options)
            found: Executor = get_reusable_executor(
                max_workers=n_jobs,
                timeout=options.idle_seconds,
                initializer=begin_worker,
                initargs=(own_lifeline(), initializer),
            )
            missing = n_jobs - len(getattr(found, "_processes", None) or ())
            if missing > 0:  # what it opens for them, and keeps
                check_descriptors(_FOR_LOKY * (1 + missing))
                os.getcwd()  # it cannot do without
        except (ImportError, OSError, NotImplementedError, RuntimeError) as error:
            raise BackendUnavailable(f"{type(error).__name__}: {error}") from error
        _loky.note_executor(found)
        return found

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> FuturesSession:
        """Return a session over the executor, which stays for the next one."""
        session = super().open(n_jobs, level, options)
        _loky.note_session(session)
        return session

    def thread_limit(self, n_jobs: int, options: WorkerOptions) -> ThreadLimit | None:
        """Return the limit; told with each batch, since loky's `env` means new processes."""
        return thread_limit(threads_per_worker(n_jobs, options.thread_limit))

    def submit(self, executor: Executor, data: bytes) -> Future[bytes]:
        """Hand a batch to loky; workers that it starts are deaf to Ctrl-C from the beginning."""
        from multiprocessing import resource_tracker

        mask = None
        try:
            resource_tracker.ensure_running()  # with the first worker, it would lift the mask
            mask = block_interrupts()
            return super().submit(executor, data)
        except OSError as error:
            hint = " (see ulimit -u and -n)" if error.errno in _TOO_MANY else ""
            words = f"loky cannot start its workers: {error.strerror}{hint}"
            raise OSError(error.errno, words) from error
        finally:
            restore_interrupts(mask)

    @staticmethod
    def shutdown() -> None:
        """End the reusable executors that were used and that nobody uses now."""
        for executor in _loky.known_executors():
            if _loky.users(executor):
                continue
            if getattr(executor, "_pending_work_items", True):  # a task that was given up runs on
                _kill(executor)
            else:  # in peace, so that its workers end the executors that their tasks have made
                with HeldSignals():
                    executor.shutdown(wait=True)

    def abort(self, executor: Executor, futures: list[Future[bytes]]) -> None:
        """Kill its workers, unless another call has some; the next call gets new ones."""
        if _loky.users(executor) > 1:
            super().abort(executor, futures)
        else:
            _kill(executor)


def _is_process_pool(executor: Executor) -> bool:
    """Whether the workers of `executor` are processes on this machine, with the same user."""
    for name in ("concurrent.futures.process", "loky.process_executor"):
        module = loaded(name)
        if module is not None and isinstance(executor, module.ProcessPoolExecutor):
            return True
    return False


def _is_daemon() -> str | None:
    """Return why multiprocessing keeps this process from having children, if it does."""
    from multiprocessing import current_process

    return (
        "daemonic processes are not allowed to have children" if current_process().daemon else None
    )


def _start_tracker() -> None:
    """Start the process that removes loky's semaphores, without its comments.

    It would say of every executor that was killed that it left some behind, and removes them.
    """
    from loky.backend import resource_tracker

    sys.warnoptions.append(_NO_COMMENTS)
    try:
        resource_tracker.ensure_running()
    except RuntimeError:  # as above
        pass
    finally:
        sys.warnoptions.remove(_NO_COMMENTS)


class _LokyUse:
    """Which executors of loky's were used, one for each thread, and by which sessions.

    They are held weakly: loky ends one with its thread, and Ctrl-C may come before a session is
    closed. This is an object, and no attributes of the class: CPython before 3.13 crashes when
    several threads assign to an attribute of a class, and the old value does something as it ends.
    """

    def __init__(self) -> None:
        self._executors: set[ref[Executor]] = set()
        self._sessions: set[ref[FuturesSession]] = set()
        self._ends_them = False

    def note_executor(self, executor: Executor) -> None:
        self._executors.add(ref(executor, self._executors.discard))
        if not self._ends_them:
            # Children of multiprocessing end without atexit handlers, on which loky relies.
            from multiprocessing.util import Finalize

            self._ends_them = True
            Finalize(None, LokyBackend.shutdown, exitpriority=100)

    def note_session(self, session: FuturesSession) -> None:
        self._sessions.add(ref(session, self._sessions.discard))

    def known_executors(self) -> list[Executor]:
        executors = [executor() for executor in self._executors.copy()]
        return [executor for executor in executors if executor is not None]

    def users(self, executor: Executor) -> int:
        """Return how many sessions are open over `executor`."""
        sessions = [session() for session in self._sessions.copy()]
        return sum(
            session is not None and not session.closed and session.executor is executor
            for session in sessions
        )

    def forget(self) -> None:
        """In a forked child: they are its parent's."""
        self._executors.clear()
        self._sessions.clear()
        self._ends_them = False


_loky = _LokyUse()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loky.forget)


def _kill(executor: Any) -> None:
    with HeldSignals():  # whose handlers would wait for this, if they call
        try:
            executor.shutdown(wait=True, kill_workers=True)  # a parameter that only loky's has
        except RuntimeError:  # a thread of its could not be started
            pass
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            if process.is_alive():  # of one that failed as it started them
                os.kill(process.pid, signal.SIGKILL)
                process.join()
