"""Functions that tests of the dashboard send to workers; a module that is imported in no time."""

from __future__ import annotations

import time
from pathlib import Path

_LIMIT = 50  # seconds


def wait_for(path: str, x: int) -> int:
    """Wait until `path` exists."""
    limit = time.monotonic() + _LIMIT
    while not Path(path).exists():
        assert time.monotonic() < limit, f"waited in vain for {path}"
        time.sleep(0.005)
    return x


def wait_as_last(path: str, x: int, last: int) -> int:
    """Take a moment; the task `last` waits until `path` exists."""
    time.sleep(0.01)
    return wait_for(path, x) if x == last else x


def pause(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x


def fail_at(number: int, x: int) -> int:
    if x == number:
        raise ValueError(f"task {x} is <b>bad</b>")
    return x


def sleep_soundly(x: int) -> int:
    """Sleep for longer than any test runs."""
    time.sleep(1000)
    return x
