"""What `map`, `imap` and `as_completed` run in tests; imports little, since workers do it, too."""

from __future__ import annotations

import os
import time
from pathlib import Path

from parallel_core import mapping

PATIENCE = 20.0


def double(x: int) -> int:
    return 2 * x


def invert(x: int) -> float:
    return 1 / x


def pid_of(x: int) -> int:
    return os.getpid()


def slow_first(x: int) -> int:
    """Let the first item take longer than the others."""
    if x == 0:
        time.sleep(0.2)
    return x


def rank_beside(folder: str, count: int, x: int) -> tuple[int, bool]:
    """Return rank and mastery of this worker, when `count` tasks run at the same time."""
    Path(folder, str(x)).touch()
    deadline = time.monotonic() + PATIENCE
    while len(os.listdir(folder)) < count:
        if time.monotonic() > deadline:
            raise AssertionError("the other tasks have not begun")
        time.sleep(0.002)
    return mapping.get_rank(), mapping.is_master_process()


def doubles(count: int) -> list[int]:
    """Map within a task."""
    return mapping.map(double, range(count), max_workers=2)
