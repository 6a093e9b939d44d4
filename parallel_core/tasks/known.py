"""What stands in the stream of tasks for one whose result is known already."""

from __future__ import annotations

from typing import Any


class Known:
    """The result of a task that need not be run.

    Parameters
    ----------
    value : object
        That.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value
