"""Ending a call from another thread than the one that it runs in."""

from __future__ import annotations

from collections.abc import Callable


class CallInterrupted(BaseException):
    """Ends a call that nobody waits for any more; only who interrupts it gets to see this."""


class Interruption:
    """What another thread sets, and a dispatch looks at.

    Attributes
    ----------
    is_set : bool
        Whether the call is to end.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._wake: Callable[[], None] | None = None

    def wake_by(self, wake: Callable[[], None] | None) -> None:
        """Have `wake` called when it is set: it has the dispatch look."""
        self._wake = wake

    def set(self) -> None:
        """Have the call end as soon as the dispatch looks."""
        self.is_set = True
        wake = self._wake
        if wake is not None:
            wake()

    def check(self) -> None:
        """Raise `CallInterrupted` when it is set."""
        if self.is_set:
            raise CallInterrupted
