"""Holding tasks back while too little memory is free."""

from __future__ import annotations

import time

from memmapping.folders import cgroup_room
from memmapping.sizes import format_nbytes
from parallel_core.errors import LowMemoryError

_LOOK_SECONDS = 0.05


def free_memory() -> int | None:
    """Return the bytes that this process can get without swapping; None if unknown."""
    # What the system calls available (see /proc/meminfo in proc(5)), or less if a memory cgroup
    # leaves less.
    try:
        with open("/proc/meminfo", "rb") as file:
            lines = file.read().splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith(b"MemAvailable:"))
    except (OSError, ValueError):
        return None
    room = cgroup_room()
    free = int(available) * 1024
    return free if room is None else min(free, room)


# Tasks that are running may free memory when they end. So the time for which the gate may be closed
# counts only while no task runs.
class MemoryGate:
    """Open while enough memory is free."""

    def __init__(self, threshold: int, patience: float | None) -> None:
        self._threshold = threshold  # bytes
        self._patience = patience  # seconds; None: for ever
        self._looked = 0.0
        self._lacks = False
        self._waits_since: float | None = None  # closed, and no task runs
        self.seconds = 0.0  #: for which it was closed

    def hold(self, at_work: int) -> bool:
        """Whether to hold back; raise `LowMemoryError` after too long with nothing `at_work`."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return self._lacks
        if self._lacks:
            self.seconds += now - self._looked
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
        """The time to look again, by `time.monotonic`."""
        return self._looked + _LOOK_SECONDS
