"""What the processes of workers have in common, however they are started."""

from __future__ import annotations

import time
from typing import Any, Protocol

#: What `Process.poll` returns of a process that has ended, nobody knows how.
NOT_KNOWN = 1 << 16


class Process(Protocol):
    """What the different ways of start have in common."""

    pid: int
    returncode: Any

    def poll(self) -> int | None:
        """Return the exit code (``-n`` for signal n), or None while it runs."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, or what does its job."""
        ...


def wait_for_exit(process: Process, seconds: float) -> bool:
    """Wait with nothing to wait on but time; return whether it has ended.

    There is no pidfd, or the parent of the process is a server of multiprocessing's, which tells us
    its exit code a moment after it has ended.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
