"""Ending a call from a thread other than its own."""

from __future__ import annotations

from collections.abc import Callable


class CallInterrupted(BaseException):
    """Ends a call that nobody waits for any more; only the interrupting thread sees it."""


class Interruption:
    """A flag that another thread sets, and the loop of a call checks."""

    def __init__(self) -> None:
        #: Whether the call is to end.
        self.is_set = False
        self._wake: Callable[[], None] | None = None

    def wake_by(self, wake: Callable[[], None] | None) -> None:
        """Have `wake` called when the flag is set: it has the loop check."""
        self._wake = wake

    def set(self) -> None:
        """Have the call end at the loop's next check."""
        self.is_set = True
        wake = self._wake
        if wake is not None:
            wake()

    def check(self) -> None:
        """Raise `CallInterrupted` if the flag is set."""
        if self.is_set:
            raise CallInterrupted
