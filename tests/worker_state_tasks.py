"""Functions for workers with a state; imported by workers in no time."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from parallel_core import this_worker


def begin() -> None:
    """Note which process and thread this is, and count."""
    state = this_worker().state
    state["began"] = state.get("began", 0) + 1
    state["where"] = (os.getpid(), threading.get_ident())


def begin_with(state: dict[str, Any]) -> None:
    state["began"] = state.get("began", 0) + 1


def count(x: Any) -> tuple[int, int, bool]:
    """Return the worker, which of its tasks this is, and whether init was called here."""
    worker = this_worker()
    worker.state["n"] = worker.state.get("n", 0) + 1
    here = (os.getpid(), threading.get_ident())
    return worker.id, worker.state["n"], worker.state.get("where") == here


def count_with(state: dict[str, Any], x: Any, by: int = 1) -> tuple[int, int]:
    state["n"] = state.get("n", 0) + by
    return state["n"], state.get("began", 0)


def end() -> tuple[int, int, int]:
    worker = this_worker()
    return worker.id, worker.state.get("n", 0), worker.state.get("began", 0)


def end_with(state: dict[str, Any]) -> int:
    return state["n"]


def worker_of(x: Any) -> int:
    return this_worker().id


def wait_for_others(folder: Path, n: int) -> tuple[int, str | None, set[int]]:
    """Return what this worker is, when `n` workers are on such a task."""
    number = this_worker().id
    (folder / str(number)).touch()
    limit = time.monotonic() + 30
    while len(os.listdir(folder)) < n:
        assert time.monotonic() < limit
        time.sleep(0.002)
    return number, os.environ.get("SLOT"), os.sched_getaffinity(0)


def had_at_start(name: str) -> str | None:
    """Return a variable as it was before Python began: what C code sees."""
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    found = [entry.partition(b"=")[2] for entry in entries if entry.startswith(name.encode())]
    return found[0].decode() if found else None


def fail(*args: object) -> None:
    raise LookupError("as it was told to")


def die(*args: object) -> None:
    os._exit(7)


def die_at(x: int, deadly: int) -> tuple[int, int]:
    worker = this_worker()
    worker.state["n"] = worker.state.get("n", 0) + 1
    if x == deadly:
        os._exit(7)
    return worker.id, worker.state["n"]


#: Threads that hang go on when it is set; processes are killed.
released = threading.Event()


def hang(*args: object) -> None:
    released.wait(300)


def add_to(shared: Any, x: int) -> int:
    """Add to what all workers share: a lock, a number, an array and a queue."""
    lock, number, array, queue = shared
    with lock:
        number.value += x
        array[0] += 1
    queue.put(x)
    return x


def unpicklable() -> object:
    return threading.Lock()


def is_loaded(name: str, x: int) -> bool:
    return name in sys.modules
