"""A child process that is asked, when it has ended, how much memory it had used."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import Any

_KIB = 1024  # the unit of ru_maxrss on Linux; see getrusage(2)


class Interpreter(subprocess.Popen[bytes]):
    """A process as `subprocess` starts it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The most that it ever held, in bytes; 0 while it runs, and where nobody knows.
        self.peak_memory = 0
        super().__init__(*args, **kwargs)
        # Until its program was loaded it was a copy of this process, whose peak counts as its own.
        self._inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except OSError:  # somebody else has waited for all children: `subprocess` copes
                return super().poll()
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                if usage.ru_maxrss > self._inherited:
                    self.peak_memory = usage.ru_maxrss * _KIB
        return self.returncode
