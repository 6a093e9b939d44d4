"""What ends a call before its tasks are done: its time limit, and another thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from parallel_core.backends.base import NEVER


class Deadline:
    """The moment at which a call has to be over."""

    __slots__ = ("_clock", "_seconds", "at")

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        #: That moment, by the clock.
        self.at = NEVER if seconds is None else clock() + seconds

    def is_over(self) -> bool:
        """Whether the moment has passed."""
        return self.at != NEVER and self._clock() >= self.at

    def error(self, completed: int) -> BaseException:
        """Return the error of a call that is not over by then."""
        from parallel_core.errors import CallTimeoutError

        return CallTimeoutError(
            f"the call has run for more than call_timeout={self._seconds:g} s; {completed} of its "
            "tasks are done, and the results that nobody has taken are in this error's attribute "
            "results"
        )


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
