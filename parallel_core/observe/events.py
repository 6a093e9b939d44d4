"""What happens in a call, as events, and whoever wants to be told.

::

    Call ─────── CallStarted, CallEnded ─────────────────────────┐
    loop ─────── BatchSubmitted ─────────────────────────────────┤
    outcomes ─── BatchAnswered, ResultsResumed,                  ├──▶ emit ──▶ each observer
                 TaskFailed, TaskRetried ────────────────────────┤
    session ──── WorkerStarted, WorkerEnded ─────────────────────┘

Observers are told in the thread that waits for the results, right when it happens: an observer that
takes long holds the call up. Where nobody observes, `emit` is None, and no event is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Union

from parallel_core.errors import warn_caller


class CallStarted(NamedTuple):
    """A call begins.

    Attributes
    ----------
    call : int
        Number of the call, unique in this process. Every event has it.
    backend : str
        Name of the backend.
    n_jobs : int
        Number of workers.
    label : str
        The `Parallel` object in words.
    """

    call: int
    backend: str
    n_jobs: int
    label: str


class BatchSubmitted(NamedTuple):
    """Consecutive tasks were handed to a worker, or to an engine.

    Tasks that an idle worker steals from a busy one, or that run again, are submitted again.

    Attributes
    ----------
    call : int
        Number of the call.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks.
    nbytes : int
        About how many bytes of arguments; small numbers are not counted.
    """

    call: int
    first: int
    tasks: int
    nbytes: int


class BatchAnswered(NamedTuple):
    """Outcomes of consecutive tasks have arrived. A batch may be answered in several parts.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int or None
        Slot of the worker; None where the engine does not tell, and without workers.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks, those that failed included.
    seconds : float
        How long the worker was busy with them.
    completed : int
        How many tasks of the call have an outcome now.
    total : int or None
        How many tasks there are, if that is known.
    notes : tuple of tuple of str and object
        What was learned where the tasks ran: a name, and bytes, numbers, text, or containers of
        these. It comes with the last part of a batch.
    """

    call: int
    worker: int | None
    first: int
    tasks: int
    seconds: float
    completed: int
    total: int | None
    notes: tuple[tuple[str, object], ...] = ()


class ResultsResumed(NamedTuple):
    """The journal had the result of a task.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    completed : int
        How many tasks of the call have an outcome now.
    total : int or None
        How many tasks there are, if that is known.
    """

    call: int
    position: int
    completed: int
    total: int | None


class TaskFailed(NamedTuple):
    """A task has failed and will not be retried.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    error : BaseException
        What it raised, or what became of it.
    """

    call: int
    position: int
    error: BaseException


class TaskRetried(NamedTuple):
    """A task has failed and will run again.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    error : BaseException
        What it raised, or what became of it.
    seconds : float
        How long it waits before that.
    """

    call: int
    position: int
    error: BaseException
    seconds: float


class WorkerStarted(NamedTuple):
    """A worker is there for the call.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int
        Its slot, from 0; a worker that replaces another has the same slot.
    pid : int
        Its process.
    """

    call: int
    worker: int
    pid: int


class WorkerEnded(NamedTuple):
    """A worker of the call has ended, or was ended.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int
        Its slot.
    pid : int
        Its process.
    reason : str
        Why, in words.
    """

    call: int
    worker: int
    pid: int
    reason: str


class CallEnded(NamedTuple):
    """A call has ended.

    Attributes
    ----------
    call : int
        Number of the call.
    completed : int
        How many of its tasks have an outcome.
    total : int or None
        How many there were, if that became known.
    resumed : int
        How many results came from the journal.
    error : BaseException or None
        What ended it before its time.
    """

    call: int
    completed: int
    total: int | None
    resumed: int
    error: BaseException | None


Event = Union[  # noqa: UP007 - it is evaluated, and Python 3.10's `|` of these makes no alias
    CallStarted,
    BatchSubmitted,
    BatchAnswered,
    ResultsResumed,
    TaskFailed,
    TaskRetried,
    WorkerStarted,
    WorkerEnded,
    CallEnded,
]
Emit = Callable[[Event], None]


class Observer(Protocol):
    """Whoever wants to be told of the events of calls: any object with this method.

    Pass observers as ``Parallel(observers=[...])`` or ``parallel_config(observers=[...])``.

    Examples
    --------
    >>> from parallel_core import BatchAnswered, Parallel, delayed
    >>> class Counter:
    ...     def __init__(self):
    ...         self.tasks = 0
    ...
    ...     def notify(self, event):
    ...         if isinstance(event, BatchAnswered):
    ...             self.tasks += event.tasks
    >>> counter = Counter()
    >>> Parallel(n_jobs=2, observers=[counter])(delayed(abs)(x) for x in range(3))
    [0, 1, 2]
    >>> counter.tasks
    3
    """

    def notify(self, event: Event) -> None:
        """Take in what has happened.

        It is called in the thread that waits for the results. An exception that it raises is
        reported once, by a `RuntimeWarning`, and the observer is told nothing more in this call.

        Parameters
        ----------
        event : Event
            One of the event classes: `CallStarted`, `BatchSubmitted`, `BatchAnswered`,
            `ResultsResumed`, `TaskFailed`, `TaskRetried`, `WorkerStarted`, `WorkerEnded`,
            `CallEnded`. Later versions may add others.
        """


#: Each is called with the `Parallel` object when a call begins; what it returns, if anything,
#: observes that call.
observer_factories: list[Callable[[Any], Observer | None]] = []


def observers_of(owner: object) -> list[Observer]:
    """Return who observes the calls of `owner` without having been asked by it."""
    made = [factory(owner) for factory in tuple(observer_factories)]
    return [observer for observer in made if observer is not None]


def emit_to(observers: Iterable[Observer], hook: Emit | None = None) -> Emit | None:
    """Return what tells `hook` and all `observers` of an event; None where there are none.

    What `hook` raises is raised; what an observer raises is reported.
    """
    listening = list(observers)
    if not listening:
        return hook

    def emit(event: Event) -> None:
        if hook is not None:
            hook(event)
        for observer in tuple(listening):
            try:
                observer.notify(event)
            except Exception as error:
                listening.remove(observer)
                warn_caller(
                    f"the observer {observer!r} raised {type(error).__name__}: {error}; it is told "
                    "nothing more of this call, which goes on",
                    RuntimeWarning,
                )

    return emit


def check_observers(given: Sequence[Observer] | None) -> tuple[Observer, ...]:
    """Return `given` as a tuple; raise TypeError unless each has a method `notify`."""
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"observers must be a list of observers, not {given!r}")
    for observer in given:
        if isinstance(observer, type) or not callable(getattr(observer, "notify", None)):
            raise TypeError(
                f"an observer must be an object with a method notify(event), not {observer!r}"
            )
    return tuple(given)
