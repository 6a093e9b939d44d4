"""Holding back while there is too little free memory."""

from __future__ import annotations

import time

from memmapping.folders import cgroup_room
from memmapping.sizes import format_nbytes
from parallel_core.errors import LowMemoryError

_LOOK_SECONDS = 0.05


def free_memory() -> int | None:
    """Return the bytes that could be had without swapping, for this process; None if unknown.

    That is what the system calls available (see ``/proc/meminfo`` in `proc(5)`), or less where a
    memory cgroup leaves less.
    """
    try:
        with open("/proc/meminfo", "rb") as file:
            lines = file.read().splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith(b"MemAvailable:"))
    except (OSError, ValueError):
        return None
    room = cgroup_room()
    free = int(available) * 1024
    return free if room is None else min(free, room)


class MemoryGate:
    """Open while enough memory is free.

    What is at work may free memory as it ends, so patience is needed, and may end, only while
    nothing is: see `hold`.

    Parameters
    ----------
    threshold : int
        Bytes that should be free before more work is handed over.
    patience : float or None
        Seconds for which there may be less at a time; None: no matter how long.
    """

    def __init__(self, threshold: int, patience: float | None) -> None:
        self._threshold = threshold
        self._patience = patience
        self._looked = 0.0
        self._lacks = False
        self._waits_since: float | None = None  # closed, with nothing at work

    def hold(self, at_work: int) -> bool:
        """Whether to hold back, with so many tasks or batches at work; looks at most every 50 ms.

        Raises
        ------
        LowMemoryError
            When it has been closed for too long, with nothing at work.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return self._lacks
        self._looked = now
        free = free_memory()
        self._lacks = free is not None and free < self._threshold
        if not self._lacks or at_work:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif self._patience is not None and now - self._waits_since > self._patience:
            raise LowMemoryError(
                f"for more than {self._patience:g} s (low_memory_timeout) there was less free "
                f"memory than min_free_memory={format_nbytes(self._threshold)}, with no task at "
                f"work: now {format_nbytes(free or 0)}. Have something else end, or use fewer jobs"
            )
        return self._lacks

    @property
    def again(self) -> float:
        """When to look again, `time.monotonic`."""
        return self._looked + _LOOK_SECONDS
