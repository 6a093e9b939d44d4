"""Holding tasks back while the processors are busy, or memory is used up.

`psutil` measures; it comes with the extra ``scripting``.
"""

from __future__ import annotations

import math
import time
from typing import Any

#: Seconds over which the load of the processors is measured.
WINDOW_SECONDS = 0.1


def cpu_load(interval: float = WINDOW_SECONDS) -> float:
    """Return the load of all processors, from 0 to 1, measured for `interval` seconds from now.

    Examples
    --------
    >>> from parallel_core.scripting import cpu_load
    >>> 0 <= cpu_load(0.01) <= 1
    True
    """
    meter = CpuMeter()
    time.sleep(interval)
    return meter.read()


def memory_load() -> float:
    """Return the part of the memory that is in use, from 0 to 1.

    Examples
    --------
    >>> from parallel_core.scripting import memory_load
    >>> 0 < memory_load() < 1
    True
    """
    return float(_psutil().virtual_memory().percent) / 100


class CpuMeter:
    """Measures the load of all processors between one reading and the next."""

    def __init__(self) -> None:
        self._times = _psutil().cpu_times
        self._busy, self._total = self._now()
        self._load = 0.0

    def read(self) -> float:
        """Return the load since the last reading."""
        busy, total = self._now()
        passed = total - self._total
        if passed > 0:  # the system counts in hundredths of a second
            self._load = min(1.0, max(0.0, (busy - self._busy) / passed))
            self._busy, self._total = busy, total
        return self._load

    def _now(self) -> tuple[float, float]:
        """Return the busy seconds and all seconds of all processors since the system started."""
        times = self._times()._asdict()
        guests = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # they are in user and nice
        total = sum(times.values()) - guests
        return total - times["idle"] - times.get("iowait", 0.0), total


# What a task adds to the load shows only when it has run for a while. So between two looks the gate
# limits how many batches are at work: those of the last look, and one for each processor's worth of
# load that was missing to the limit. Quick tasks pass without waiting for looks.
class LoadGate:
    """Open while the load of the processors and the use of memory are below their limits."""

    def __init__(
        self,
        max_cpu: float | None,
        max_memory: float | None,
        interval: float = WINDOW_SECONDS,
        patience: float | None = None,
    ) -> None:
        self._max_cpu = max_cpu
        self._max_memory = max_memory
        self._interval = interval  # seconds between two looks
        self._patience = patience  # seconds after which a task starts whatever the load is
        self._meter = CpuMeter()
        self._n_cpus = _psutil().cpu_count() or 1
        self._max_at_work = 0
        self._closed_since = time.monotonic()
        self.again = self._closed_since  #: the time to look again, by `time.monotonic`
        if max_cpu is not None:
            self.again += min(interval, WINDOW_SECONDS)  # there is no load to see before

    def hold(self, at_work: int) -> bool:
        """Whether to hold back, with so many batches `at_work`."""
        now = time.monotonic()
        if now >= self.again:
            self.again = now + self._interval
            free = self._free()
            if free:
                self._closed_since = now
            elif self._patience is not None and now - self._closed_since > self._patience:
                self._closed_since, free = now, 1
            self._max_at_work = at_work + free if free else 0
        return at_work >= self._max_at_work

    def _free(self) -> int:
        """Return how many more batches may be at work."""
        free = self._n_cpus
        if self._max_cpu is not None:
            missing = self._max_cpu - self._meter.read()
            free = max(1, math.floor(missing * self._n_cpus)) if missing >= 0 else 0
        if self._max_memory is not None and memory_load() > self._max_memory:
            return 0
        return free


def _psutil() -> Any:
    """Return the module `psutil`; raise ImportError, which names the extra, if it is missing."""
    try:
        import psutil
    except ImportError as error:
        raise ImportError(
            "limits of the load need psutil: pip install 'parallel-core[scripting]'"
        ) from error
    return psutil
