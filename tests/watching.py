"""Waiting for events, looking at processes, and which backends the fast subset has."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel_core

HOME = Path(parallel_core.__file__).parents[1]
LIMIT = 50  # seconds after which something is given up; nothing takes nearly as long


def some(backends: list[str]) -> list[Any]:
    """Put the backends that start at once into the fast subset; the others are for all tests."""
    fast = ("processes", "threading", "sequential")
    return [
        pytest.param(backend, marks=pytest.mark.core) if backend in fast else backend
        for backend in backends
    ]


def engines(*names: str, fast: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run a test with each of these as its `engine`: backends, and executors of its own."""
    params = [pytest.param(name, marks=pytest.mark.core if name in fast else ()) for name in names]
    return pytest.mark.parametrize("engine", params, indirect=True)


#: All that these tests know of processes rests on it; without it they fail here.
Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def wait_until(true: Callable[[], Any], what: str) -> None:
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit, f"waited in vain until {what}"
        time.sleep(0.005)


def running(pid: int) -> bool:
    """Whether process `pid` is there and no zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def descendants(root: int | None = None) -> dict[int, str]:
    """Return the state and command line of all processes below `root`, by default this one."""
    found: dict[int, str] = {}
    unseen = children(os.getpid() if root is None else root)
    while unseen:
        pid = unseen.pop()
        try:
            stat = Path("/proc", str(pid), "stat").read_text()
            line = Path("/proc", str(pid), "cmdline").read_bytes()
        except OSError:
            continue
        state = stat.rsplit(")", 1)[1].split()[0]
        found[pid] = f"{state} {line.replace(bytes(1), b' ').decode(errors='replace')}"
        unseen += children(pid)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started, or that came to it; see proc_pid_task(5)."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:  # it has ended
        pass
    return found


def begun(path: Path) -> set[int]:
    """Return the tasks that have said that they run; see `contract_tasks.touch`."""
    return {int(name) for name in os.listdir(path) if name.isdigit()}


class Counted:
    """An iterable of tasks that knows how many were pulled."""

    def __init__(self, tasks: Iterator[Any]) -> None:
        self.tasks = tasks
        self.pulled = 0
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        try:
            for task in self.tasks:
                self.pulled += 1
                yield task
        finally:
            self.closed = True


def steady(read: Callable[[], int]) -> int:
    """Return what `read` says once it has not changed for a while."""
    last, since = read(), time.monotonic()
    while time.monotonic() - since < 0.25:
        time.sleep(0.01)
        if (now := read()) != last:
            last, since = now, time.monotonic()
    return last


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
