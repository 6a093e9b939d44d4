"""What the system tells of workers: how many threads they have besides their own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel_core.insights.record import CallRecord

_MOST_LOOKED_AT = 4  # workers: the others are alike
_LATEST = 64  # answers whose workers are looked at
_TIMES_AT = 11  # fields between the name of a thread and its times, see proc_pid_stat(5)


def look_at_workers(record: CallRecord) -> None:
    """Note how many threads numeric libraries have in workers on this machine, and their share."""
    if record.runs_here or not record.is_local:
        return
    latest = record.answers[-_LATEST:]
    pids = {times.pid for *_, times in latest if times is not None}
    found = [_threads_of(pid) for pid in sorted(pids)[:_MOST_LOOKED_AT]]
    record.library_threads = max(found, default=(0, 0.0))


def _threads_of(pid: int) -> tuple[int, float]:
    """Return how many threads a process has besides its first, and their share of its time."""
    ticks: dict[int, int] = {}
    folder = f"/proc/{pid}/task"
    try:
        for name in os.listdir(folder):
            with open(f"{folder}/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
            ticks[int(name)] = int(fields[_TIMES_AT]) + int(fields[_TIMES_AT + 1])
    except (OSError, ValueError, IndexError):  # it has ended, or the system has no such files
        return 0, 0.0
    total = sum(ticks.values())
    others = total - ticks.get(pid, 0)
    return len(ticks) - 1, others / total if total else 0.0
