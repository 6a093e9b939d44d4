"""One thing that holds inside tasks, and its part in one batch of them."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any


class Place(enum.Enum):
    """Where tasks run, seen from the caller."""

    CALLER = "caller"  #: in its own thread, one by one: what is set up there holds anyway
    THREAD = "thread"  #: in another thread of its process
    WORKER = "worker"  #: in a process of our own pool, which nobody else uses
    FOREIGN_PROCESS = (
        "engine"  #: in a process of another engine, where things are put back after a batch
    )


#: Another process, whoever started it.
PROCESSES = (Place.WORKER, Place.FOREIGN_PROCESS)

Dumps = Callable[[object], bytes]


class Part:
    """What a context item does around the tasks of one batch, in one thread.

    The batch context calls `end` once, whatever has happened in between.
    """

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return what is to be called instead of `function`, from the task at `position` on.

        It is called once for each of the following tasks, in turn, so it can count for itself; a
        part that does nothing for single tasks returns `function`, which costs nothing.
        """
        return function

    def end(self) -> object:
        """Put back what was changed; no task of the batch follows.

        Returns what was learned of the tasks, if anything was: bytes, numbers, text, or containers
        of these. Observers find it in the `notes` of `BatchAnswered`.
        """
        return None


class Entered(Part):
    """A context manager that is entered now, and left at the end."""

    def __init__(self, manager: Any) -> None:
        manager.__enter__()
        self._manager = manager

    def end(self) -> None:
        """Leave it."""
        self._manager.__exit__(None, None, None)


class ContextItem(ABC):
    """Something that holds inside tasks: made in the caller for one call, and never changed."""

    name = ""  #: for errors
    places: tuple[Place, ...] = PROCESSES  #: where it has anything to do
    is_kept = False  #: whether further calls have this very object, as long as nothing changes

    def packed(self, dumps: Dumps) -> ContextItem | None:
        """Return what is to travel instead of this, if anything; `dumps` pickles what is in it."""
        del dumps
        return self

    @abstractmethod
    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Begin a batch in this thread; return what is to be done further, if anything.

        `position` returns the position in the call of the task that is running; `place` is one of
        `places`. Variables of `contextvars` that are set here hold in every task of the batch; each
        task gets a copy of this context.
        """
