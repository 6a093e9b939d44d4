"""How much memory is taken: by the parent alone, and by all processes together."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import sys
from pathlib import Path

MEGABYTE = 1e6


class MemoryGrowth:
    """How far the resident memory of this process rises above where it was at creation.

    Linux tells the highest resident size ever (``VmHWM``) and lets a process reset it; where there
    is no ``/proc``, the highest size so far is the start, which can hide some growth.
    """

    def __init__(self) -> None:
        self._before = self._resident_after_reset()

    def megabytes(self) -> float:
        """Return the growth up to the highest point since creation, in MB."""
        return max(0.0, (_peak_bytes() - self._before) / MEGABYTE)

    def highest(self) -> float:
        """Return that highest point itself, in MB: all that is resident, the interpreter too."""
        return _peak_bytes() / MEGABYTE

    @staticmethod
    def _resident_after_reset() -> int:
        gc.collect()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return _peak_bytes()


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, "no VmHWM in /proc/self/status"
    return int(found[1]) * 1024


def proportional_bytes() -> int:
    """Return the memory of this process and of all its descendants, no page counted twice.

    It is the sum of what Linux calls PSS: a page that three processes have mapped counts a third in
    each of them. What lies in a file in memory and is mapped by nobody does not count, so all that
    is to be seen must have been read by somebody.
    """
    import psutil

    this = psutil.Process()
    total = 0
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
            total += int(found[1]) * 1024 if found is not None else 0
    return total


def shared_memory_bytes() -> int:
    """Return how much there is in ``/dev/shm``, whoever put it there."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return (room.f_blocks - room.f_bfree) * room.f_frsize
