"""The interface that every engine stands behind."""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core import config
from parallel_core.backends.cores import resolve_n_jobs
from parallel_core.context.this_worker import Passed
from parallel_core.serialization.batch import Batch
from parallel_core.workers.messages import AfterFailure

if TYPE_CHECKING:
    from parallel_core.config import Settings
    from parallel_core.context.item import ContextItem
    from parallel_core.observe.events import Emit
    from parallel_core.reduction.tree import Fold, Folding

#: Seconds; nobody can poll for ever in one go, and looking again once a day does no harm.
LONGEST_WAIT = 86400.0
#: A time that does not come.
NEVER = float("inf")
#: What can be said of single workers that are ours; see `Backend.worker_features`.
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
    """How a backend gets its tasks."""

    INLINE = "inline"  #: one after the other, in the thread that wants the results
    PUSH = "push"  #: batches are submitted to it


class WorkerSetup(NamedTuple):
    """What is to be done for each worker by itself, before its first task and after its last one.

    Workers have numbers, their slots, from 0; one that takes the place of another has its slot.

    Attributes
    ----------
    init : callable or None
        Called in each worker before its first task; see `worker_init` of `Parallel`.
    exit : callable or None
        Called in each worker after its last task.
    passed : Passed
        Which arguments are put in front of those of both, and of each task.
    shared_objects : object
        What all workers get.
    cpu_ids : tuple of tuple of int, or None
        CPUs for each slot.
    env : tuple of tuple of (str, str), or None
        Variables for each slot, which its worker has from its start.
    init_timeout, exit_timeout : float or None
        Seconds that the functions may take.
    is_exclusive : bool
        Whether the workers are started for this session, and end with it.
    """

    init: Callable[..., object] | None = None
    exit: Callable[..., object] | None = None
    passed: Passed = Passed()
    shared_objects: Any = None
    cpu_ids: tuple[tuple[int, ...], ...] | None = None
    env: tuple[tuple[tuple[str, str], ...], ...] | None = None
    init_timeout: float | None = None
    exit_timeout: float | None = None
    is_exclusive: bool = False

    @property
    def needs_request(self) -> bool:
        """Whether a worker has to be told something before its first task."""
        return self.init is not None or self.shared_objects is not None

    @property
    def needs_worker(self) -> bool:
        """Whether the thread of the caller will not do."""
        return self.cpu_ids is not None or self.env is not None

    def asked_for(self) -> list[str]:
        """Return the parameters of `Parallel` that this comes from."""
        given = {
            "worker_init": self.init is not None,
            "worker_exit": self.exit is not None,
            "use_worker_state": self.passed.state,
            "cpu_ids": self.cpu_ids is not None,
            "worker_env": self.env is not None,
            "pass_worker_id": self.passed.id,
            "shared_objects": self.passed.shared or self.shared_objects is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def check_n_jobs(self, n_jobs: int) -> None:
        """Raise ValueError unless what is said of each worker is said of `n_jobs` of them."""
        for name, each in (("cpu_ids", self.cpu_ids), ("worker_env", self.env)):
            if each is not None and len(each) != n_jobs:
                raise ValueError(
                    f"{name} must have one entry for each worker: it has {len(each)}, and "
                    f"n_jobs={n_jobs}"
                )


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
    lifespan : int or None
        After how many tasks a worker is replaced.
    max_memory : int or None
        Over how many bytes, held between two tasks, it is replaced.
    preload : tuple of str
        Modules to import in each before its first task.
    setup : WorkerSetup or None
        What is to be done for each by itself.
    """

    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    idle_seconds: float | None = 300.0
    thread_limit: int | None = None
    lifespan: int | None = None
    max_memory: int | None = None
    preload: tuple[str, ...] = ()
    setup: WorkerSetup | None = None


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
    """News of a batch: outcomes that arrived, and whether that was all.

    Attributes
    ----------
    batch : Batch
        The batch.
    first : int
        Position in the call of the first of `values`.
    values : list
        Results, consecutive; None in the place of a task that failed. Or what they were folded to.
    seconds : float
        How long the worker was busy with them.
    finished : bool
        Whether nothing more will come for this batch.
    failures : list of Failure
        Those of the tasks among `values` that failed.
    unrun : list of Batch
        Parts of the batch that were not run here, or whose results are lost with their worker.
    folded : int or None
        How many results the `values` were folded from; None where nothing is folded.
    nbytes : int
        How large the results are that came back together; 0 where each is sent when it is large.
    fatal : BaseException or None
        What ends the call, when it was no task that failed but the folding of results, or what
        was to hold inside the tasks.
    worker : int or None
        Slot of the worker; None where the engine does not tell.
    notes : tuple of tuple of str and object
        What context items learned where the tasks ran: the name of the item, and that. It comes
        with the last completion of a batch.
    """

    __slots__ = (
        "batch",
        "failures",
        "fatal",
        "finished",
        "first",
        "folded",
        "nbytes",
        "notes",
        "seconds",
        "unrun",
        "values",
        "worker",
    )

    def __init__(
        self,
        batch: Batch,
        first: int,
        values: list[Any],
        seconds: float,
        finished: bool,
        failures: Sequence[Failure] = (),
        unrun: Sequence[Batch] = (),
    ) -> None:
        self.batch = batch
        self.first = first
        self.values = values
        self.seconds = seconds
        self.finished = finished
        self.failures = failures
        self.unrun = list(unrun)
        self.folded: int | None = None
        self.nbytes = 0
        self.fatal: BaseException | None = None
        self.worker: int | None = None
        self.notes: tuple[tuple[str, object], ...] = ()

    @property
    def tasks(self) -> int:
        """How many tasks this is about, from `first` on, those that failed included."""
        return len(self.values) if self.folded is None else self.folded + len(self.failures)


def all_failed(batch: Batch, error_of: Callable[[int], BaseException]) -> Completion:
    """Return the end of `batch` of which nothing comes back; `error_of` takes an index."""
    failures = [Failure(batch.start + index, error_of(index)) for index in range(batch.size)]
    return Completion(batch, batch.start, [None] * batch.size, 0.0, True, failures)


class SessionFailed(Exception):
    """The workers are of no use any more; the cause is what the caller should see.

    Parameters
    ----------
    error : BaseException
        That.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class CallTerms(NamedTuple):
    """What a session is told when a call begins.

    Attributes
    ----------
    call : str
        Names the definitions of the call.
    after_failure : AfterFailure
        What becomes of a batch after a task of it that failed.
    answers_each : bool
        Whether each task is to be answered before the next one of its batch begins.
    is_timed : bool
        Whether there is a time limit for each task.
    folding : Folding or None
        How results are to be folded where they are made.
    context : bytes
        What is to hold inside the tasks, as `context.batch_context.pickle_context` returned it.
    make_fold, context_items, settings
        The same for threads of this process, to which nothing is sent: a function that returns what
        folds the results of consecutive tasks from a position on; what is to hold inside the tasks;
        what of the configuration does.
    emit : callable or None
        Is told of events.
    number : int
        Number of the call, for events.
    lifespan : int or None
        After how many tasks a worker is replaced.
    timeout_of : callable or None
        Returns the seconds for the task at a position, where each has its own.
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
    number: int = 0
    lifespan: int | None = None
    timeout_of: Callable[[int], float] | None = None

    def limit_for(self, position: int, limit: float) -> float:
        """Return the seconds for the task at `position`; `limit` where all have the same."""
        return limit if self.timeout_of is None else self.timeout_of(position)


class WorkerView(NamedTuple):
    """What one worker is at, right now.

    Attributes
    ----------
    worker : int
        Its slot.
    pid : int
        Its process.
    queued : int
        How many batches it has, the one that it runs included.
    memory : int
        How many bytes it held when it looked last.
    phase : str
        ``"RUNNING"``, ``"UNPICKLING"``, ``"IDLE"`` and so on.
    position : int or None
        Position of the task that it is on.
    seconds : float
        For how long it has been on that.
    """

    worker: int
    pid: int
    queued: int = 0
    memory: int = 0
    phase: str = "IDLE"
    position: int | None = None
    seconds: float = 0.0


class Session(ABC):
    """Workers leased for one call, or for all calls of a ``with`` block.

    The dispatcher submits batches while the session `has_capacity`, waits, and records what comes
    back. At the end of a call everything that it submitted has been answered, or it cancels.
    """

    #: How many workers there are.
    n_workers: int
    #: Whether `enforce_timeout` knows which task runs; else single tasks are submitted.
    reports_running_task: bool = True
    #: What handing a batch over takes after `submit` has returned, in seconds.
    handover_seconds: float = 0.0
    #: Says how many tasks the next batch should have; None: what is measured decides.
    batch_size: Callable[[], int] | None = None
    #: Whether tasks come as they are, not encoded: its workers share the memory of the caller.
    holds_tasks: bool = False
    #: Whether they are threads of this process, to which nothing has to be sent.
    runs_here: bool = False
    #: Which time it is, in seconds; only a simulation has another one.
    clock: Callable[[], float] = staticmethod(time.monotonic)

    @abstractmethod
    def begin(self, terms: CallTerms) -> None:
        """Start a call."""

    def end(self) -> None:  # noqa: B027 - most engines have nothing to do
        """End a call: everything was answered, and nothing of it is needed any more."""

    def is_current(self) -> bool:
        """Whether the workers still fit the caller's process, for one more call."""
        return True

    @abstractmethod
    def has_capacity(self, queued: int) -> bool:
        """Whether some worker has fewer than `queued` batches."""

    def slot_has_capacity(self, slot: int, queued: int) -> bool:
        """Whether the worker of `slot` has fewer; for engines with `Backend.worker_features`."""
        raise broken(self, "slot_has_capacity", "is missing: its workers have no slots")

    @abstractmethod
    def submit(self, batch: Batch) -> None:
        """Hand over `batch`, to the worker with the fewest; never waits."""

    def submit_to(self, slot: int, batch: Batch) -> None:
        """Hand over `batch` to the worker of `slot`, from which nobody takes it."""
        raise broken(self, "submit_to", "is missing: its workers have no slots")

    def finish(self) -> list[Any]:
        """Call the exit function in each worker that has had tasks; everything was answered.

        Returns what it returned, in the order of slots; nothing where there is no such function.

        Raises
        ------
        WorkerExitError
            When it raised, or ended a worker.
        """
        return []

    def change_setup(self, setup: WorkerSetup) -> None:  # noqa: B027 - most have none
        """Use other init and exit functions from now on, for workers that live on and new ones.

        Workers that are set up stay so: the new init function is not called in them.
        """

    def request(self, slot: int, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """Call `function` in the worker of `slot`, between two tasks.

        Returns an object whose method `result` returns the value, or raises what was raised, once
        `wait` has seen its answer, which `is_answered` tells.
        """
        raise broken(self, "request", "is missing: its workers have no slots")

    def start_workers(self) -> None:  # noqa: B027 - most have them
        """Start workers for what was submitted, where that has been left undone."""

    def steal(self, task_seconds: float) -> tuple[list[Batch], float]:
        """Take back tasks that a busy worker has not started, for one that has nothing to do.

        What is returned was not run and never will be there. An engine with a queue of its own
        has nothing in front of one worker, and returns nothing.

        Parameters
        ----------
        task_seconds : float
            What a task takes, as far as is known; else 0.

        Returns
        -------
        batches : list of Batch
            Empty when it is not worth it, now.
        again : float
            When it may be, of the clock.
        """
        return [], NEVER

    @abstractmethod
    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for news, for at most `seconds`; return an empty list when there was none.

        Raises
        ------
        SessionFailed
            When no task can be run any more.
        """

    def look(self) -> list[WorkerView]:
        """Return what each worker is at; nothing where the engine does not tell."""
        return []

    def waker(self) -> Callable[[], None] | None:
        """Return what has `wait` return at once, now or next time; any thread may call it.

        None where an engine has nothing like it; then it is asked for news again and again.
        """
        return None

    @abstractmethod
    def enforce_timeout(self, limit: float) -> float:
        """Stop tasks that have run for over `limit` seconds; return when to look again.

        Each arrives as a completion that failed, with a `TaskTimeoutError`.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End everything in flight, now; what was submitted and not answered never will be."""

    @abstractmethod
    def close(self) -> None:
        """Give the workers back; what is still in flight is cancelled."""


def broken(engine: Backend | Session, method: str, what: str) -> Exception:
    """Return an error that says `what` is wrong with a method of `engine`."""
    from parallel_core.errors import BackendError

    whose = f"backend {engine.name!r}: " if isinstance(engine, Backend) else ""
    return BackendError(f"{whose}{type(engine).__name__}.{method} {what}")


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
    uses_threads : bool
        Whether tasks run in threads of this process, or in the one that made the call.
    runs_here : bool
        Whether its workers are threads that it starts in this process.
    opens_files : bool
        Whether its workers can open what this process has open: large arrays go to them in
        shared memory.
    tells_process_state : bool
        Whether its workers are ours alone, and told of the caller's folder and import path.
    passes_descriptors : bool
        Whether they can be sent descriptors that this process has open.
    aim_seconds : float
        How long a batch should take; the cheaper handing over is, the shorter.
    can_answer_each : bool
        Whether its sessions can have each task of a batch answered when it is done.
    inline_when_single : bool
        Whether ``n_jobs=1`` needs no worker: the tasks run in the caller's thread.
    default_n_jobs : int
        What ``n_jobs=None`` means here.
    worker_features : frozenset of str
        Which parameters about single workers it understands; see `WorkerSetup.asked_for`, and
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
        """How many parallel calls surround the code that asks."""
        return config.nesting_level()

    @property
    def given(self) -> Any:
        """What `get_active_backend` returns: the object that the user made, where there is one."""
        return self

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
        """Do what a call needs before its first task; for subclasses."""

    def nested(self, level: int) -> tuple[Backend | str, int | None] | None:
        """Return which backend calls within its tasks use, if it knows a better one than others.

        It is asked when a call begins, in the process of the caller. What cannot be pickled does
        not reach tasks in other processes. Where the user has said it (``nested`` of
        `parallel_config`), it is not asked.

        Parameters
        ----------
        level : int
            How many calls surround these: 1 in the tasks of the outermost one.

        Returns
        -------
        tuple of Backend or str and int or None, or None
            The backend, or its name, and the number of jobs of calls that give none. They are in
            force as if a `parallel_config` surrounded the task. By default None: threads at
            the first level, one task after the other below.
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
        Why.
    instead : Backend, optional
        What to use, without a warning; by default threads are used, with one.
    """

    def __init__(self, message: str = "", instead: Backend | None = None) -> None:
        super().__init__(message)
        self.instead = instead
