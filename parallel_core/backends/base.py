"""The interface that every engine stands behind."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.backends.cores import resolve_n_jobs
from parallel_core.tasks.batch import Batch

#: Seconds; nobody can poll for ever in one go, and looking again once a day does no harm.
LONGEST_WAIT = 86400.0


class Style(enum.Enum):
    """How a backend gets its tasks."""

    INLINE = "inline"  #: one after the other, in the thread that wants the results
    PULL = "pull"  #: threads of this process take them from the iterable themselves
    PUSH = "push"  #: batches are submitted to it, encoded; this is what most engines want


class WorkerOptions(NamedTuple):
    """What workers should be like.

    Attributes
    ----------
    initializer : callable or None
        Called once in each worker, before its first task.
    initargs : tuple
        Its arguments.
    idle_seconds : float or None
        After how long an idle worker may end; None: never.
    thread_limit : int or None
        How many threads numeric libraries may use in each; None: their share of the cores.
    """

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    idle_seconds: float | None = 300.0
    thread_limit: int | None = None


class Failure(NamedTuple):
    """What went wrong with one task.

    Attributes
    ----------
    position : int
        Of the task in the call.
    error : BaseException
        To be raised in the caller.
    """

    position: int
    error: BaseException


class Completion:
    """News of a batch: results that arrived, and whether that was all.

    Attributes
    ----------
    batch : Batch
        The batch.
    first : int
        Position in the call of the first of `values`.
    values : list
        Results, consecutive.
    seconds : float
        How long the worker was busy with them.
    finished : bool
        Whether nothing more will come for this batch.
    failure : Failure or None
        Of the task after the last of `values`.
    """

    __slots__ = ("batch", "failure", "finished", "first", "seconds", "values")

    def __init__(
        self,
        batch: Batch,
        first: int,
        values: list[Any],
        seconds: float,
        finished: bool,
        failure: Failure | None = None,
    ) -> None:
        self.batch = batch
        self.first = first
        self.values = values
        self.seconds = seconds
        self.finished = finished
        self.failure = failure


class Session(ABC):
    """Workers leased for one call, or for all calls of a ``with`` block.

    The dispatcher submits batches while there is `room`, waits, and records what comes back. At
    the end of a call everything that it submitted has been answered, or it cancels.
    """

    #: How many workers there are.
    n_workers: int
    #: Whether `late` knows which task runs; else single tasks are submitted, one to a worker.
    names_running: bool = True

    @abstractmethod
    def begin(self, call: str) -> None:
        """Start a call; `call` names its definitions."""

    def end(self) -> None:  # noqa: B027 - most engines have nothing to do
        """End a call: everything was answered, and nothing of it is needed any more."""

    def is_current(self) -> bool:
        """Whether the workers still fit the caller's process, for one more call."""
        return True

    @abstractmethod
    def room(self, depth: int) -> bool:
        """Whether some worker has fewer than `depth` batches."""

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Hand over `batch`, to the worker with the fewest; never waits."""

    @abstractmethod
    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for news, for at most `seconds`; return an empty list when there was none."""

    @abstractmethod
    def late(self, limit: float) -> tuple[Failure | None, float]:
        """Return the first task that has run for over `limit` seconds, and when to look again."""

    @abstractmethod
    def cancel(self) -> None:
        """End everything in flight, now; what was submitted and not answered never will be."""

    @abstractmethod
    def close(self) -> None:
        """Give the workers back; what is still in flight is cancelled."""


class Backend:
    """An engine that runs tasks.

    Attributes
    ----------
    name : str
        Under which it is known.
    style : Style
        How it gets its tasks.
    supports_sharedmem : bool
        Whether tasks share the memory of the caller.
    opens_files : bool
        Whether its workers can open what this process has open: large arrays go to them in
        shared memory.
    aim_seconds : float
        How long a batch should take; the cheaper handing over is, the shorter.
    inline_when_single : bool
        Whether ``n_jobs=1`` needs no worker: the tasks run in the caller's thread.
    """

    name: str = ""
    style: Style = Style.PUSH
    supports_sharedmem: bool = False
    opens_files: bool = False
    aim_seconds: float = 0.5
    inline_when_single: bool = False

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return how many workers a request for `n_jobs` gets here."""
        return resolve_n_jobs(n_jobs)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Return workers for a call; only for the style `Style.PUSH`.

        Parameters
        ----------
        n_jobs : int
            How many, resolved, at least 1.
        level : int
            Nesting level of the tasks.
        options : WorkerOptions
            What they should be like.

        Raises
        ------
        BackendUnavailable
            When it has none to give on this system.
        """
        raise NotImplementedError(f"{type(self).__name__} has the style {self.style}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class BackendUnavailable(Exception):
    """The backend cannot work on this system; the message says why."""
