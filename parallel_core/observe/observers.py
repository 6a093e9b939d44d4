"""Observers: who is told of the events of a call, and how.

They are told at once, in the thread that waits for the results: a slow observer delays the call.
Without observers, `emit` is None, and no event is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from parallel_core.errors import CallCancelledError, warn_caller
from parallel_core.observe.events import Emit, Event


class Observer(Protocol):
    """Object that is told of the events of calls: any object with this method.

    Pass observers as ``Parallel(observers=[...])`` or ``parallel_config(observers=[...])``.

    An observer may also have an attribute `look_seconds`: it is then told `WorkersSeen` about that
    often while the call waits, and does without a `BatchAnswered` for each single task of one job.
    If it needs the `Span` of each longer task in threads, too, it has an attribute `records_each`,
    which is True.

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
        Only a `CallCancelledError` ends the call, if the event is a `BatchAnswered` or a
        `WorkersSeen`.

        Parameters
        ----------
        event : Event
            One of the event classes: `CallStarted`, `TasksPulled`, `BatchSubmitted`,
            `TasksStolen`, `BatchAnswered`, `ResultsResumed`, `TaskFailed`, `TaskRetried`,
            `WorkerStarted`, `WorkerEnded`, `WorkersSeen`, `CallerWaited`, `CallEnded`. Later
            versions may add others.
        """


#: Each is called with the `Parallel` object when a call begins; what it returns, if anything,
#: observes that call.
observer_factories: list[Callable[[Any], Observer | None]] = []


def observers_of(owner: object) -> list[Observer]:
    """Return the observers of the calls of `owner` that others have registered."""
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
            except CallCancelledError:
                raise
            except Exception as error:
                listening.remove(observer)
                warn_caller(
                    f"the observer {observer!r} raised {type(error).__name__}: {error}; it is told "
                    "nothing more of this call, which goes on",
                    RuntimeWarning,
                )

    return emit


class Looks(NamedTuple):
    """How often observers want to know how far a call is."""

    seconds: float = float("inf")  #: between two `WorkersSeen`
    tells_each: bool = True  #: whether they are told of each task of one job
    records_each: bool = True  #: whether threads note when each task begins

    @staticmethod
    def wanted(observers: Iterable[Observer], hook: Emit | None) -> Looks:
        """Return what `observers` ask for by their attributes; a `hook` wants each task."""
        observers = tuple(observers)
        asked = [getattr(observer, "look_seconds", None) for observer in observers]
        seconds = [float(each) for each in asked if each is not None]
        tells_each = hook is not None or None in asked
        records_each = any(getattr(observer, "records_each", False) for observer in observers)
        return Looks(min(seconds, default=float("inf")), tells_each, tells_each or records_each)


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
