"""A bell that any thread may ring, and that is heard by who polls descriptors."""

from __future__ import annotations

import os
import threading


class Bell:
    """A pipe with at most one byte in it, or about so.

    Ringing, which makes `descriptor` readable, costs a system call only if nobody has rung since it
    was heard.
    """

    __slots__ = ("_has_rung", "_lock", "_other_end", "descriptor")

    def __init__(self) -> None:
        self.descriptor, self._other_end = os.pipe()
        for end in (self.descriptor, self._other_end):
            os.set_blocking(end, False)
        self._has_rung = False
        self._lock = threading.RLock()  # else what is written may go to a file opened since

    def ring(self) -> None:
        """Have `descriptor` turn readable."""
        if self._has_rung:
            return
        with self._lock:
            self._has_rung = True
            if self._other_end >= 0:
                try:
                    os.write(self._other_end, b"!")
                except OSError:
                    pass  # full of such: it is readable

    def clear(self) -> None:
        """Note that it has rung; the cause is to be looked for after this."""
        try:
            os.read(self.descriptor, 64)
        except OSError:
            pass  # somebody was in between
        self._has_rung = False

    def close(self) -> None:
        """Close both ends; nobody will hear it any more."""
        with self._lock:
            ends = self.descriptor, self._other_end
            self.descriptor = self._other_end = -1
            for end in ends:
                os.close(end)
