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
    PROCESS = "process"  #: in another process


class Part:
    """What an aspect does around the tasks of one batch, in one thread.

    The envelope calls `end` once, whatever has happened in between.
    """

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return what is to be called instead of `function`, from the task at `position` on.

        It is called once for each of the following tasks, in turn, so it can count for itself; a
        part that does nothing for single tasks returns `function`, which costs nothing.
        """
        return function

    def end(self) -> None:
        """Put back what was changed; no task of the batch follows."""


class Aspect(ABC):
    """Something that holds inside tasks: made in the caller for one call, picklable, never changed.

    Attributes
    ----------
    name : str
        For errors.
    places : tuple of Place
        Where it has anything to do.
    """

    name = ""
    places: tuple[Place, ...] = (Place.PROCESS,)

    @abstractmethod
    def begin(self, position: Callable[[], int]) -> Part | None:
        """Begin a batch in this thread; return what is to be done further, if anything.

        Variables of `contextvars` that are set here hold in every task of the batch; each task
        gets a copy of this context.

        Parameters
        ----------
        position : callable
            Returns the position in the call of the task that is running.
        """
