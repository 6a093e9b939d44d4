"""The resources of calls: a session, shared arrays, a journal."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import Backend, Session, broken
from parallel_core.backends.local_worker import LocalWorker
from parallel_core.backends.options import WorkerOptions, WorkerSetup
from parallel_core.errors import PerformanceWarning, warn_caller
from parallel_core.serialization.capture import stored_globals

if TYPE_CHECKING:
    from memmapping.reducer import ArrayReducer
    from parallel_core.calls.spec import Arrays, CallSpec
    from parallel_core.context.seeds import Seeded
    from parallel_core.journal.store import Journal
    from parallel_core.trace.file import TraceFile
    from parallel_core.trace.observer import TraceObserver


class CallResources:
    """A session, shared arrays and a journal, each opened when it is first needed.

    They are for one call, or for all calls of a ``with`` block.
    """

    def __init__(self, spec: CallSpec) -> None:
        self._options = spec.workers
        self._given_journal = spec.journal
        self._session: Session | None = None
        self._worker_here: LocalWorker | None = None
        self._earlier_results: list[Any] = []  # of sessions before this one
        #: Return values of exit functions, from the end of the last call or ``with`` block.
        self.exit_results: list[Any] = []
        self._arrays: ArrayReducer | None = None
        self._journal: Journal | None = None
        self._given_trace = spec.trace
        self._trace: TraceFile | None = None
        self.is_kept = False
        self.n_resumed_tasks = 0

    def open(self, backend: Backend, n_jobs: int) -> Session:
        """Return a session of `backend` for a call; a new one if none works."""
        if self._session is not None and not self._session.is_current():
            self._earlier_results += self._session.finish()
            self._release()
        if self._session is None:
            session = backend.open(n_jobs, config.nesting_level() + 1, self._options)
            if not isinstance(session, Session):
                raise broken(backend, "open", f"returned {session!r}; it must be a Session")
            self._session = session
        return self._session

    def worker_here(self) -> LocalWorker:
        """Return the caller's own thread as a worker, prepared for tasks."""
        if self._worker_here is None:
            self._worker_here = LocalWorker(0, self._options.setup)
        copy_context().run(self._worker_here.enter)
        return self._worker_here

    def open_journal(self, seeded: Seeded | None) -> Journal | None:
        """Return the journal, if there is one; in a ``with`` block the same for all its calls."""
        given = self._given_journal
        if self._journal is None and given is not None:
            from parallel_core.journal.store import Journal

            own = globals_set_by(self._options)
            seed = None if seeded is None else tuple(seeded.seed)
            self._journal = (
                given if isinstance(given, Journal) else Journal.open(given, seed=seed, own=own)
            )
            self.n_resumed_tasks = self._journal.taken_over
        return self._journal

    def trace(self) -> TraceObserver | None:
        """Return what writes the trace of a call, if that is wanted; all calls have one file."""
        if self._given_trace is None:
            return None
        from parallel_core.trace.file import TraceFile
        from parallel_core.trace.observer import TraceObserver

        if self._trace is None:
            given = self._given_trace
            self._trace = given if isinstance(given, TraceFile) else TraceFile(given)
        return TraceObserver(self._trace)

    def array_reducer(self, given: Arrays) -> ArrayReducer:
        """Return the reducer of large arrays, the same for all calls of a session."""
        if self._arrays is None:
            from memmapping.reducer import ArrayReducer

            self._arrays = ArrayReducer(
                given.max_nbytes,
                given.mmap_mode,
                given.temp_folder,
                _warn_of_no_room,
                given.check_arrays,
                _warn_of_cost,
            )
        return self._arrays

    def end_call(self, is_complete: bool) -> int:
        """End a call, keep or release its resources; return how many results were resumed."""
        resumed = 0
        try:
            if self._journal is not None:
                self._journal.end_call()
                resumed = self._journal.taken_over - self.n_resumed_tasks
                self.n_resumed_tasks = self._journal.taken_over
        finally:
            if not self.is_kept:
                self._close_journal()
            if not self.is_kept or not is_complete:
                try:
                    if is_complete:
                        self._finish()
                finally:
                    self._release()
            else:
                if self._arrays is not None:
                    self._arrays.end_call()
                if self._session is not None:
                    self._session.end()
        return resumed

    def close(self, calls_exit: bool = False) -> None:
        """Release everything; workers may call their exit functions first."""
        self.is_kept = False
        self._close_journal()
        try:
            if calls_exit:
                self._finish()
        finally:
            self._release()

    def change_setup(self, setup: WorkerSetup) -> None:
        """Use other init and exit functions from now on; workers that are set up stay so."""
        self._options = self._options._replace(setup=setup)
        if self._session is not None:
            self._session.change_setup(setup)

    def _finish(self) -> None:
        """Have exit functions called, and keep their return values."""
        results, self._earlier_results = self._earlier_results, []
        if self._session is not None:
            results += self._session.finish()
        if self._worker_here is not None:
            results += copy_context().run(self._worker_here.end)
        self.exit_results = results

    def _close_journal(self) -> None:
        """Close the journal, unless it was given open."""
        journal, self._journal = self._journal, None
        if journal is not None and journal is not self._given_journal:
            journal.close()

    def _release(self) -> None:
        """Give back the session and close the arrays; the next call opens others."""
        self._worker_here = None
        if self._arrays is not None:
            arrays, self._arrays = self._arrays, None
            arrays.close()
        if self._session is not None:
            session, self._session = self._session, None
            session.close()


def globals_set_by(options: WorkerOptions) -> frozenset[str]:
    """Return the globals that the functions set that prepare workers."""
    init = None if options.setup is None else options.setup.init
    return stored_globals(options.initializer) | stored_globals(init)


def _warn_of_no_room(message: str) -> None:
    warn_caller(message, RuntimeWarning)


def _warn_of_cost(message: str) -> None:
    warn_caller(message, PerformanceWarning)
