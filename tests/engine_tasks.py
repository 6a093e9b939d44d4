"""Functions that tests send to workers of engines; imported by them in no time."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from parallel_core import Parallel, delayed, parallel_config, shutdown_workers


class Odd(Exception):
    """Takes two arguments, so that it does not unpickle by itself."""

    def __init__(self, x: int, why: str) -> None:
        super().__init__(f"{x} is odd: {why}")
        self.x = x


def refuse_odd(x: int) -> int:
    if x % 2:
        raise Odd(x, "not even")
    return x


def say(x: int) -> int:
    print(f"task {x}")
    print(f"trouble {x}", file=sys.stderr)
    logging.getLogger("engine").warning("logged %d", x)
    warnings.warn(f"warned {x}", UserWarning, stacklevel=1)
    return x


def say_much(x: int) -> int:
    for line in range(200):
        print(f"task {x} line {line} " + "." * 200)
    return x


def process_of(x: Any) -> tuple[int, int]:
    time.sleep(0.01)
    return os.getppid(), os.getpid()


def end_process(x: int, at: int) -> int:
    if x == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def end_engine_once(x: int, marker: str) -> int:
    """Kill the process of the engine that this worker belongs to; only one task does, once."""
    if x == 3:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return x


def end_engine(x: int) -> int:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
    return x


def wait_for(path: str) -> bool:
    deadline = time.monotonic() + 30
    while not Path(path).exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def touch(path: str) -> bool:
    Path(path).touch()
    return True


def hold_lock(x: int) -> int:
    """Keep the interpreter's lock for a very long time, in C code."""
    return len(str(7**10**9)) if x == 2 else x


def total(array: Any) -> float:
    return float(array.sum())


def memory_file_of(array: Any) -> tuple[float, bool, str]:
    """Return a total, whether the array is mapped, and where."""
    kind = type(array).__name__
    return float(array.sum()), kind == "memmap", str(os.getppid())


def make_array(n: int, value: float) -> Any:
    import numpy as np

    return np.full(n, value)


def nested_threads(x: int) -> list[int]:
    return Parallel(n_jobs=2)(delayed(pow)(x, y) for y in range(3))


def nested_engine(x: int, backend: str) -> list[int]:
    with parallel_config(backend=backend, n_jobs=1):
        return Parallel()(delayed(pow)(x, y) for y in range(3))


def nested_in_dask(x: int) -> list[int]:
    """Run in a task of dask's own, which has a slot; keep no workers there."""
    try:
        return Parallel(n_jobs=2, backend="dask")(delayed(pow)(x, y) for y in range(3))
    finally:
        shutdown_workers()


def nested_in_ray(x: int) -> list[int]:
    """Run in a task of ray's own, which has a processor; keep no workers there."""
    try:
        return Parallel(n_jobs=2, backend="ray")(delayed(pow)(x, y) for y in range(3))
    finally:
        shutdown_workers()


def environment(name: str) -> str | None:
    return os.environ.get(name)
