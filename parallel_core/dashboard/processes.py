"""Memory and CPU time of processes, from ``/proc``: see proc_pid_stat(5)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_USER_TIME, _SYSTEM_TIME, _PAGES = 11, 12, 21  # fields after the name of the program


class Usage(NamedTuple):
    """What a process uses."""

    memory: int  #: resident, in bytes
    cpu: float  #: cores, since the last look


class Processes:
    """Looks at processes again and again."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float]] = {}  # time and CPU time, by process

    def look(self, pids: Iterable[int]) -> dict[int, Usage]:
        """Return what each of `pids` uses; those that have ended are left out."""
        found: dict[int, Usage] = {}
        before, self._before = self._before, {}
        for pid in set(pids):
            figures = _figures(pid)
            if figures is None:
                continue
            at, (spent, memory) = monotonic(), figures
            self._before[pid] = at, spent
            since, spent_before = before.get(pid, (at, spent))
            cores = (spent - spent_before) / (at - since) if at > since else 0.0
            found[pid] = Usage(memory, max(cores, 0.0))
        return found


def _figures(pid: int) -> tuple[float, int] | None:
    """Return the CPU seconds that a process has spent, and its memory in bytes."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended, or there is no /proc
        return None
    spent = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return spent / _TICKS, int(fields[_PAGES]) * _PAGE
