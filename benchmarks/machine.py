"""Facts about the machine that make figures comparable, and none that would name it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from benchmarks.contestants import CONTESTANTS


def facts() -> dict[str, object]:
    """Return cores, memory, kernel, Python and the versions of all contestants."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_gb": _memory_gb(),
        "load_average_before": _load_average(),
        "system": platform.system(),
        "kernel": _kernel(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {who.key: who.version() for who in CONTESTANTS.values()},
    }


def _kernel() -> str:
    """Return the number of the kernel's release, without what a vendor appended."""
    found = re.match(r"[\d.]+", platform.release())
    return found[0].rstrip(".") if found else platform.release()


def _usable_cores() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count()


def _processor() -> str:
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*: (.+)$", described, re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None
