"""What a `Parallel` object holds from call to call in a ``with`` block, and else for one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import Backend, Session, WorkerOptions, broken
from parallel_core.errors import PerformanceWarning, warn_caller
from parallel_core.tasks.definitions import stored_globals

if TYPE_CHECKING:
    from memmapping.reducer import ArrayReducer
    from parallel_core.context.seeds import Seeded
    from parallel_core.journal.store import Journal
    from parallel_core.observe.messages import Messages


class Holdings:
    """The session, the shared arrays and the journal, each opened when it is first needed.

    Parameters
    ----------
    options : WorkerOptions
        What workers are asked to be.
    journal : path or Journal, optional
        The journal that was asked for.

    Attributes
    ----------
    n_resumed_tasks : int
        How many results came from the journal.
    """

    def __init__(self, options: WorkerOptions, journal: Any) -> None:
        self._options = options
        self._given_journal = journal
        self._session: Session | None = None
        self._backend: Backend | None = None  # of that
        self._arrays: ArrayReducer | None = None
        self._journal: Journal | None = None
        self.n_resumed_tasks = 0

    def open(self, backend: Backend, n_jobs: int) -> Session:
        """Return a session of `backend` for a call; a new one where there is none that works."""
        if backend is not self._backend or not (self._session and self._session.is_current()):
            self.release()
        if self._session is None:
            session = backend.open(n_jobs, config.nesting_level() + 1, self._options)
            if not isinstance(session, Session):
                raise broken(backend, "open", f"returned {session!r}; it must be a Session")
            self._session, self._backend = session, backend
        return self._session

    def open_journal(self, seeded: Seeded | None) -> Journal:
        """Return the journal; within a ``with`` block one for all its calls."""
        if self._journal is None:
            from parallel_core.journal.store import Journal

            given = self._given_journal
            own = stored_globals(self._options.initializer)
            seed = None if seeded is None else tuple(seeded.seed)
            self._journal = (
                given if isinstance(given, Journal) else Journal.open(given, seed=seed, own=own)
            )
            self.n_resumed_tasks = self._journal.taken_over
        return self._journal

    def end_journal(self, messages: Messages | None) -> None:
        """Have the journal end the call, and say how many results were taken from it."""
        journal = self._journal
        if journal is None:
            return
        journal.end_call()
        if messages is not None and journal.taken_over > self.n_resumed_tasks:
            taken_over = journal.taken_over - self.n_resumed_tasks
            messages.say(f"Took over {taken_over} results from {self._given_journal}.")
        self.n_resumed_tasks = journal.taken_over

    def close_journal(self) -> None:
        """Close the journal, unless it is somebody else's."""
        journal, self._journal = self._journal, None
        if journal is not None and journal is not self._given_journal:
            journal.close()

    def array_reducer(
        self, max_nbytes: Any, mmap_mode: Any, temp_folder: Any, check: str
    ) -> ArrayReducer:
        """Return what makes references of large arrays, the same for all calls of a session."""
        if self._arrays is None:
            from memmapping.reducer import ArrayReducer

            self._arrays = ArrayReducer(
                max_nbytes, mmap_mode, temp_folder, _warn_of_no_room, check, _warn_of_cost
            )
        return self._arrays

    def end_call(self) -> None:
        """Keep arrays and session for the next call."""
        if self._arrays is not None:
            self._arrays.end_call()
        if self._session is not None:
            self._session.end()

    def release(self) -> None:
        """Give back the session and close the arrays; the next call opens others."""
        if self._arrays is not None:
            arrays, self._arrays = self._arrays, None
            arrays.close()
        if self._session is not None:
            session, self._session = self._session, None
            session.close()


def _warn_of_no_room(message: str) -> None:
    warn_caller(message, RuntimeWarning)


def _warn_of_cost(message: str) -> None:
    warn_caller(message, PerformanceWarning)
