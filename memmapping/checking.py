"""How much a call compares of the arrays whose pages the kernel does not watch."""

from __future__ import annotations

import time
from collections.abc import Callable

from memmapping.mirrors import Look

#: What `check_arrays` may be.
MODES = ("auto", "always", "never")

_SHARE = 0.05  # of a call's time, for looks at what it has compared once already
_COSTLY = 0.1  # of a call's time: comparing that takes more is worth a word
_ADVICE = {
    "always": "check_arrays='auto' compares less, 'never' nothing;",
    "auto": "check_arrays='never' compares nothing;",
}
_WORTH_A_WORD = 0.5  # seconds; nobody wonders about less


class Checking:
    """Says at each use of an array how much of it is to be compared; for one call after another.

    ``"always"`` compares all that a task is given. ``"auto"`` does so once a call, and once more at
    its end; in between, it compares parts, for a twentieth of the time, and does not look at arrays
    that nobody may write to. ``"never"`` compares nothing. `warn` is told once a call when
    comparing takes much of its time.
    """

    def __init__(self, mode: str, warn: Callable[[str], object]) -> None:
        self.mode = mode
        self._warn = warn
        self._began: float | None = None
        self._spent = 0.0
        self._has_warned = False

    def end_call(self) -> None:
        """Begin anew with the next use."""
        self._began = None

    @property
    def is_partial(self) -> bool:
        """Whether a call compares all of an array once only."""
        return self.mode == "auto"

    def look(self, is_exact: bool, is_trusted: bool, is_checked: bool) -> Look:
        """Return how to look at an array.

        It `is_exact` where others may write to it, so that changes are to be expected; it
        `is_trusted` where nobody may; it `is_checked` when this call has compared it.
        """
        now = time.perf_counter()
        if self._began is None:
            self._began = now
            self._spent = 0.0
            self._has_warned = False
        if self.mode == "never":
            return Look(0.0)
        if self.mode == "always" or is_exact:
            return Look()
        if is_trusted:
            return Look(0.0)
        return Look(_SHARE * (now - self._began) - self._spent if is_checked else None)

    def note(self, seconds: float) -> None:
        """Take note of how long comparing took."""
        self._spent += seconds
        if self._has_warned or self._spent < _WORTH_A_WORD or self._began is None:
            return
        elapsed = time.perf_counter() - self._began
        if self._spent > _COSTLY * elapsed:
            self._has_warned = True
            self._warn(
                f"{self._spent:.1f} of {elapsed:.1f} seconds went into comparing large arrays with "
                "their copies, since the kernel does not tell which of their memory was written. "
                f"{_ADVICE[self.mode]} memmapping.share(array) and arrays of memmapping.empty are "
                "not compared either. See 'What is guaranteed about changes' in the documentation"
            )
