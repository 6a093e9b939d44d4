"""What the processes of workers have in common, however they are started."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
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


class LastingProcess(ABC):
    """One worker in a process that lives on when the worker ends, as a rank of MPI does.

    `poll` tells the end of the worker, and `kill` lets go of it: the process is not ours to kill.

    Attributes
    ----------
    pid : int
        Number of the process.
    returncode : int or None
        As for any process.
    pidfd : int
        Descriptor that is readable when the worker has ended.
    worker_id : int
        Number of the worker that `this_worker` tells, whatever its slot is.
    exit_words : str
        How the worker ended, to follow "a worker process"; empty where the exit code tells it.
    """

    pid: int
    returncode: int | None = None
    pidfd: int
    worker_id: int
    exit_words: str = ""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit code, or None while the worker is there."""

    @abstractmethod
    def kill(self) -> None:
        """Let go of the worker; what it does is to end as soon as it can."""

    @abstractmethod
    def fence(self) -> bool:
        """Do what `barrier.for_all` does, for the worker alone; return whether that was done."""

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal to the process, if the worker is still there."""


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
