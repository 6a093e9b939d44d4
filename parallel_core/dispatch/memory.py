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
        self._closed_since: float | None = None

    def is_closed(self) -> bool:
        """Whether to hold back; looks at most every 50 ms.

        Raises
        ------
        LowMemoryError
            When it has been closed for too long.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            free = free_memory()
            if free is None or free >= self._threshold:
                self._closed_since = None
            else:
                self._closed_since = self._closed_since or now
                if self._patience is not None and now - self._closed_since > self._patience:
                    raise LowMemoryError(
                        f"for more than {self._patience:g} s (memory_patience) there was less free "
                        f"memory than min_free_memory={format_nbytes(self._threshold)}: now "
                        f"{format_nbytes(free)}. Have something else end, or use fewer jobs"
                    )
        return self._closed_since is not None

    @property
    def again(self) -> float:
        """When to look again, `time.monotonic`."""
        return self._looked + _LOOK_SECONDS
