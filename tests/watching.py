"""Waiting for events, looking at processes, and which backends the fast subset has."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
    root = os.getpid() if root is None else root
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
                line = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            fields = stat.rsplit(")", 1)[1].split()
            shown = line.replace(bytes(1), b" ").decode(errors="replace")
            parents[int(entry)] = int(fields[1])
            names[int(entry)] = f"{fields[0]} {shown}"
    found: dict[int, str] = {}
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != root:
            ancestor = parents[ancestor]
        if ancestor == root and pid != root:
            found[pid] = names[pid]
    return found
