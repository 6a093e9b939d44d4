"""loky's reusable executor, as an engine like others."""

from __future__ import annotations

import errno
import os
import queue
import signal
import sys
from concurrent.futures import Executor, Future
from typing import Any
from weakref import WeakSet, ref

from memmapping.forks import in_child
from memmapping.interrupts import HeldSignals
from parallel_core import config
from parallel_core.backends.base import BackendUnavailable
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.executor_worker import begin_worker
from parallel_core.backends.futures import FuturesBackend, FuturesSession
from parallel_core.backends.options import WorkerOptions, pickle_initializer
from parallel_core.workers.lifeline import own_lifeline
from parallel_core.workers.system import block_interrupts, check_descriptors, restore_interrupts
from parallel_core.workers.threads import ThreadLimit, thread_limit

_TOO_MANY = (errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_FOR_LOKY = 8  # descriptors for a worker, more than it takes
_NO_COMMENTS = "ignore:resource_tracker:UserWarning"


class LokyBackend(FuturesBackend):
    """loky's reusable executor, for who asks for it by name.

    It is one for all calls of a thread; see `_LokyUse`.
    """

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
        opening = _loky.opening()
        session = super().open(n_jobs, level, options)
        _loky.note_session(session)
        del opening
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

    def renewed(self, executor: Executor, n_jobs: int, options: WorkerOptions) -> Executor:
        """Return the reusable executor anew, unless another call is at work on the old one."""
        if _loky.users(executor) > 1 and not _has_ended(executor):
            raise BackendUnavailable("another call uses the same executor")
        return self.executor(n_jobs, options)

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
                    _have_all_run(executor)
                    executor.shutdown(wait=True)

    def abort(self, executor: Executor, futures: list[Future[bytes]]) -> bool:
        """Kill its workers, unless another call has some; the next call gets new ones."""
        if _loky.users(executor) > 1:
            return super().abort(executor, futures)
        _kill(executor)
        return True


def _is_daemon() -> str | None:
    """Return why multiprocessing keeps this process from having children, if it does."""
    from multiprocessing import current_process

    if current_process().daemon:
        return "daemonic processes are not allowed to have children"
    return None


def _start_tracker() -> None:
    """Start the process that removes loky's semaphores, without its comments.

    It would say of every executor that was killed that it left some behind, and removes them.
    """
    from loky.backend import resource_tracker

    sys.warnoptions.append(_NO_COMMENTS)
    try:
        resource_tracker.ensure_running()
    except RuntimeError:  # a signal handler calls, amidst this very step
        pass
    finally:
        sys.warnoptions.remove(_NO_COMMENTS)


class _Opening:
    """Somebody about to use an executor."""

    __slots__ = ("__weakref__",)


class _LokyUse:
    """Which executors of loky's were used, one for each thread, and by which sessions.

    They are held weakly: loky ends one with its thread, and Ctrl-C may come before a session is
    closed. This is an object, and no attributes of the class: CPython before 3.13 crashes when
    several threads assign to an attribute of a class, and the old value does something as it ends.
    """

    def __init__(self) -> None:
        self._executors: set[ref[Executor]] = set()
        self._sessions: set[ref[FuturesSession]] = set()
        self._openings: WeakSet[_Opening] = WeakSet()
        self._ends_them = False

    def opening(self) -> _Opening:
        """Return something that keeps executors from being ended for as long as it lives."""
        opening = _Opening()
        self._openings.add(opening)
        return opening

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
        return len(self._openings) + sum(
            session is not None and not session.closed and session.executor is executor
            for session in sessions
        )

    def forget(self) -> None:
        """In a forked child: they are its parent's."""
        self._executors.clear()
        self._sessions.clear()
        self._openings.clear()
        self._ends_them = False


_loky = _LokyUse()
in_child(_loky.forget)


def _has_ended(executor: Any) -> bool:
    """Whether loky's executor takes nothing more from anybody."""
    return bool(executor._flags.broken or executor._flags.shutdown)  # there is no public way


def _kill(executor: Any) -> None:
    with HeldSignals():  # whose handlers would wait for this, if they call
        _replace_cancelled(executor)
        try:
            executor.shutdown(wait=True, kill_workers=True)  # a parameter that only loky's has
        except RuntimeError:  # a thread of its could not be started
            pass
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            if process.is_alive():  # of one that failed as it started them
                os.kill(process.pid, signal.SIGKILL)
                process.join()


def _have_all_run(executor: Any) -> None:
    """Continue workers that were stopped, or the executor would wait for their end for ever."""
    for pid in list(getattr(executor, "_processes", None) or {}):
        try:
            os.kill(pid, signal.SIGCONT)
        except OSError:  # it has ended
            continue


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
