"""An item that stands in the stream of tasks for one whose result is known already."""

from __future__ import annotations


class KnownResult:
    """The result of a task that need not run.

    Parameters
    ----------
    value : object
        What the task returned when it ran.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value
