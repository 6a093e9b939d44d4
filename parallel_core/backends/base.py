"""The interface of a backend and its sessions."""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core import config
from parallel_core.backends.completion import Completion
from parallel_core.backends.cores import resolve_n_jobs
from parallel_core.backends.options import WorkerOptions, WorkerSetup
from parallel_core.observe.events import WorkerView
from parallel_core.serialization.batch import Batch
from parallel_core.workers.messages import AfterFailure

if TYPE_CHECKING:
    from parallel_core.config import Settings
    from parallel_core.context.item import ContextItem
    from parallel_core.observe.events import Emit
    from parallel_core.observe.reporting import WorkerControl
    from parallel_core.reduction.tree import Fold, Folding

#: Seconds; no poll can wait for ever, and waking up once a day does no harm.
LONGEST_WAIT = 86400.0
#: A time that never comes.
NEVER = float("inf")
#: Parameters of single workers that are ours; see `Backend.worker_features`.
OF_THREADS = frozenset(
    {
        "worker_init",
        "worker_exit",
        "use_worker_state",
        "pass_worker_id",
        "shared_objects",
        "cpu_ids",
        "order_tasks",
    }
)
OF_PROCESSES = OF_THREADS | {"worker_env"}
IN_PLACE = OF_THREADS - {"cpu_ids"}


class Style(enum.Enum):
    """The way in which a backend gets its tasks."""

    INLINE = "inline"  #: one after the other, in the thread that wants the results
    PUSH = "push"  #: in batches that are submitted to it


class SessionFailed(Exception):
    """The workers of a session cannot run tasks any more.

    Parameters
    ----------
    error : BaseException
        Exception for the caller.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class CallTerms(NamedTuple):
    """Properties of a call that a session gets when the call begins.

    Attributes
    ----------
    call : str
        Name of the call, to which its definitions belong.
    after_failure : AfterFailure
        What a worker does with the rest of a batch after a failure.
    answers_each : bool
        Whether each task is answered before the next one of its batch begins.
    is_timed : bool
        Whether there is a time limit for each task.
    folding : Folding or None
        How results are folded in workers.
    context : bytes
        Context items of the tasks, from `context.batch_context.pickle_context`.
    make_fold, context_items, settings
        The same for threads of this process, to which nothing is sent: a function that returns the
        fold of consecutive tasks from a position on, context items, and configuration.
    emit : callable or None
        Function that is called with events.
    records_each : bool
        Whether threads note when tasks begin; processes always do.
    number : int
        Number of the call, for events.
    lifespan : int or None
        Number of tasks after which a worker is replaced.
    timeout_of : callable or None
        Function that returns the seconds for the task at a position, if tasks have limits of their
        own.
    """

    call: str = ""
    after_failure: AfterFailure = AfterFailure.STOP
    answers_each: bool = False
    is_timed: bool = False
    folding: Folding | None = None
    context: bytes = b""
    make_fold: Callable[[int], Fold] | None = None
    context_items: Sequence[ContextItem] = ()
    settings: Settings | None = None
    emit: Emit | None = None
    records_each: bool = False
    number: int = 0
    lifespan: int | None = None
    timeout_of: Callable[[int], float] | None = None

    def limit_for(self, position: int, limit: float) -> float:
        """Return the seconds for the task at `position`; `limit` where all have the same."""
        return limit if self.timeout_of is None else self.timeout_of(position)


class Session(ABC):
    """Workers leased for one call, or for all calls of a ``with`` block.

    The dispatcher submits batches while the session `has_capacity`, waits, and records outcomes. At
    the end of a call, every submitted batch has been answered, or the dispatcher calls `cancel`.
    """

    #: Number of workers.
    n_workers: int
    #: Whether `enforce_timeout` knows which task runs. If not, single tasks are submitted.
    reports_running_task: bool = True
    #: Seconds that the submission of a batch takes after `submit` has returned.
    handover_seconds: float = 0.0
    #: Function that returns the size of the next batch; None: it is adapted.
    batch_size: Callable[[], int] | None = None
    #: Whether tasks are not encoded, because the workers share the memory of the caller.
    holds_tasks: bool = False
    #: Whether the workers are threads of this process.
    runs_here: bool = False
    #: Seconds that `wait` has spent on reading what workers sent, in all.
    reading_seconds: float = 0.0
    #: When workers got ready that were started for this session, by slots; by `time.monotonic`.
    ready_at: Mapping[int, float] = MappingProxyType({})
    #: Slots of workers that have died, and the reasons.
    deaths: Sequence[tuple[int, str]] = ()
    #: Function that returns the time in seconds; only a simulation has another one.
    clock: Callable[[], float] = staticmethod(time.monotonic)

    @abstractmethod
    def begin(self, terms: CallTerms) -> None:
        """Begin a call."""

    def end(self) -> None:  # noqa: B027 - most engines have nothing to do
        """End a call whose batches were all answered."""

    def is_current(self) -> bool:
        """Whether the workers still match the caller's process, for another call."""
        return True

    @abstractmethod
    def has_capacity(self, queued: int) -> bool:
        """Whether some worker has fewer than `queued` batches."""

    def slot_has_capacity(self, slot: int, queued: int) -> bool:
        """Whether the worker of `slot` has fewer than `queued` batches.

        This method and the next three are for backends with `Backend.worker_features`.
        """
        raise broken(self, "slot_has_capacity", "is missing: its workers have no slots")

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Submit `batch` to the worker with the fewest batches, without waiting."""

    def submit_to(self, slot: int, batch: Batch) -> None:
        """Submit `batch` to the worker of `slot`; no other worker steals it."""
        raise broken(self, "submit_to", "is missing: its workers have no slots")

    def finish(self) -> list[Any]:
        """Call the exit function in each worker that has had tasks, when all batches are answered.

        Returns
        -------
        list
            Return values in the order of slots; empty if there is no exit function.

        Raises
        ------
        WorkerExitError
            If the function raised or ended a worker.
        """
        return []

    def change_setup(self, setup: WorkerSetup) -> None:  # noqa: B027 - most have none
        """Use other init and exit functions from now on.

        The new init function is not called in workers that are set up already.
        """

    def request(self, slot: int, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """Call `function` in the worker of `slot`, between two tasks.

        Returns
        -------
        object
            Its `is_answered` says whether `wait` has seen the answer. Then its method `result`
            returns the value of the function, or raises its exception.
        """
        raise broken(self, "request", "is missing: its workers have no slots")

    def start_workers(self) -> None:  # noqa: B027 - most have them
        """Start workers for submitted batches, if their start was postponed."""

    def steal(self, task_seconds: float) -> tuple[list[Batch], float]:
        """Take back tasks that a busy worker has not started, for an idle worker.

        The busy worker never runs the returned tasks. An engine with one queue for all workers
        returns nothing.

        Parameters
        ----------
        task_seconds : float
            Seconds that a task takes, as far as is known; else 0.

        Returns
        -------
        batches : list of Batch
            Tasks that were taken back; empty if it is not worth it now.
        again : float
            Time to call this again, by `clock`.
        """
        return [], NEVER

    @abstractmethod
    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for outcomes, for at most `seconds`, and return them; the list may be empty.

        Raises
        ------
        SessionFailed
            If the workers cannot run tasks any more.
        """

    def look(self) -> list[WorkerView]:
        """Return the present state of all workers; an empty list if the engine does not tell."""
        return []

    def control(self) -> WorkerControl | None:
        """Return what acts on single workers; None if the engine offers nothing."""
        return None

    def waker(self) -> Callable[[], None] | None:
        """Return a function that makes `wait` return at once, for any thread to call.

        If it is None, the engine is polled.
        """
        return None

    @abstractmethod
    def enforce_timeout(self, limit: float) -> float:
        """Stop tasks that have run for more than `limit` seconds; return the time to look again.

        Each such task arrives in a completion, as a failure with a `TaskTimeoutError`.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End all submitted batches now; they are not answered any more."""

    @abstractmethod
    def close(self) -> None:
        """Give the workers back; batches that were not answered are cancelled."""


def broken(engine: Backend | Session, method: str, what: str) -> Exception:
    """Return an error that says `what` is wrong with a method of `engine`."""
    from parallel_core.errors import BackendError

    whose = f"backend {engine.name!r}: " if isinstance(engine, Backend) else ""
    return BackendError(f"{whose}{type(engine).__name__}.{method} {what}")


class Backend:
    """A way to run tasks.

    Attributes
    ----------
    name : str
        Name of the backend.
    style : Style
        Way in which it gets its tasks.
    supports_sharedmem : bool
        Whether tasks share the memory of the caller.
    uses_threads : bool
        Whether tasks run in threads of this process, including the calling thread.
    runs_here : bool
        Whether its workers are threads that it starts in this process.
    opens_files : bool
        Whether its workers can open files that this process has open. If so, they get large arrays
        in shared memory.
    tells_process_state : bool
        Whether its workers belong to this library, and learn the caller's folder and import path.
    passes_descriptors : bool
        Whether open descriptors of this process can be sent to its workers.
    aim_seconds : float
        Seconds that a batch should take at least; the cheaper a submission, the less.
    can_answer_each : bool
        Whether its sessions can answer each task of a batch when it is done.
    inline_when_single : bool
        Whether ``n_jobs=1`` runs tasks in the calling thread, without a worker.
    default_n_jobs : int
        Number of jobs for ``n_jobs=None``.
    worker_features : frozenset of str
        Parameters of single workers that it supports; see `WorkerSetup.asked_for`, and
        ``"order_tasks"``.
    """

    name: str = ""
    style: Style = Style.PUSH
    supports_sharedmem: bool = False
    uses_threads: bool = False
    runs_here: bool = False
    opens_files: bool = False
    tells_process_state: bool = False
    passes_descriptors: bool = False
    aim_seconds: float = 0.5
    can_answer_each: bool = False
    inline_when_single: bool = False
    default_n_jobs: int = 1
    worker_features: frozenset[str] = frozenset()

    @property
    def nesting_level(self) -> int:
        """Number of parallel calls around the calling code."""
        return config.nesting_level()

    @property
    def given(self) -> Any:
        """Object that `get_active_backend` returns: the one that the user gave, if any."""
        return self

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of workers for a request for `n_jobs`."""
        return resolve_n_jobs(n_jobs)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Return workers for a call; only for the style `Style.PUSH`.

        Parameters
        ----------
        n_jobs : int
            Number of workers, at least 1.
        level : int
            Nesting level of the tasks.
        options : WorkerOptions
            Requested properties of the workers.

        Returns
        -------
        Session
            Session for the call.

        Raises
        ------
        BackendUnavailable
            If it has no workers on this system.
        """
        raise broken(self, "open", "is missing: it returns the Session of a call")

    def check_features(self, wanted: Sequence[str]) -> None:
        """Raise ValueError unless it understands all of the parameters `wanted`."""
        missing = [name for name in wanted if name not in self.worker_features]
        if missing:
            raise ValueError(
                f"backend={self.name!r} has no {' and no '.join(missing)}: use "
                "backend='processes' or, where that will do, 'threading'"
            )

    def start_call(self) -> None:
        """Prepare for the first task of a call; for subclasses."""

    def nested(self, level: int) -> tuple[Backend | str, int | None] | None:
        """Return the backend for calls within its tasks; None for the default choice.

        It is called when a call begins, in the process of the caller, unless the user has chosen
        (``nested`` of `parallel_config`). A backend that does not pickle does not reach tasks in
        other processes.

        Parameters
        ----------
        level : int
            Number of calls around those calls: 1 in the tasks of the outermost call.

        Returns
        -------
        tuple of Backend or str and int or None, or None
            Backend, or its name, and the number of jobs of calls that give none. They apply as if a
            `parallel_config` surrounded the task. None means threads at the first level, and a
            plain loop below.
        """
        del level
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class BackendUnavailable(Exception):
    """The backend cannot work on this system; the message says why.

    Parameters
    ----------
    message : str
        Reason.
    instead : Backend, optional
        Backend to use, without a warning. By default threads are used, with a warning.
    """

    def __init__(self, message: str = "", instead: Backend | None = None) -> None:
        super().__init__(message)
        self.instead = instead
