"""An item that stands in the stream of tasks for one whose result is known already."""

from __future__ import annotations


class KnownResult:
    """The result of a task that need not run."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value  #: what the task returned when it ran
