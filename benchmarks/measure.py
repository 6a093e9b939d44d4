"""What a fresh process measures with."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

SHARED_MEMORY = "/dev/shm"
WRITTEN_AT_ONCE = 128 << 20
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"

#: Modules may be compiled once, as an installer does it, and not at every start.
COMPILING = {name: value for name, value in os.environ.items() if name != NO_BYTECODE}

_R = TypeVar("_R")


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = perf_counter()
    call()
    return perf_counter() - begin


def median_seconds(
    call: Callable[[], _R],
    *,
    check: Callable[[_R], None] | None = None,
    at_least: int = 1,
    at_most: int = 5,
    within: float = 0.6,
) -> float:
    """Return the median duration of repeated calls.

    Parameters
    ----------
    call : callable
        What is measured. The garbage collector stays on, as it is for users.
    check : callable, optional
        Looks at each result outside of the measured time, and raises if it is wrong.
    at_least, at_most : int
        Bounds of the number of calls.
    within : float
        After so many seconds no further call is made.
    """
    gc.collect()
    durations: list[float] = []
    start = perf_counter()
    while len(durations) < at_most:
        begin = perf_counter()
        result = call()
        durations.append(perf_counter() - begin)
        if check is not None:
            check(result)
        del result
        if len(durations) >= at_least and perf_counter() - start > within:
            break
    return statistics.median(durations)


def best_chunk_size(call: Callable[[int], object], candidates: Sequence[int]) -> int:
    """Return the chunk size with which `call` is fastest; each is tried twice.

    This is a pilot: what is reported is measured afterwards, so that nobody profits from the luck
    of having been tried more often.
    """
    if len(candidates) == 1:
        return candidates[0]
    return min(
        candidates,
        key=lambda size: min(seconds_of(lambda: call(size)) for _ in range(2)),
    )


def seconds_to_write(array: Any) -> float | None:
    """Return how long ``write()`` takes to bring an array into shared memory, the better of two.

    That is the least that a copy for other processes costs. The first write may be the slower one,
    since it has to find the memory; what is measured next finds it there, too. None where there is
    no ``/dev/shm``.
    """
    try:
        return min(_seconds_of_write(memoryview(array).cast("B")) for _ in range(2))
    except OSError:
        return None


def _seconds_of_write(content: memoryview) -> float:
    descriptor = os.open(SHARED_MEMORY, os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        begin = perf_counter()
        for start in range(0, content.nbytes, WRITTEN_AT_ONCE):
            os.pwrite(descriptor, content[start : start + WRITTEN_AT_ONCE], start)
        return perf_counter() - begin
    finally:
        os.close(descriptor)


def run_interpreter(source: str) -> tuple[float, str]:
    """Run `source` in a bare new interpreter.

    Parameters
    ----------
    source : str
        Program text, run as ``python -c``.

    Returns
    -------
    tuple of float and str
        Seconds from before the start until the process has ended and was waited for, and what it
        printed.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        begin = perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=COMPILING,
        )
        _, status, _ = os.wait4(process.pid, 0)
        elapsed = perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        printed, complaint = stdout.read().decode(), stderr.read().decode().strip()
    if process.returncode != 0:
        last_line = complaint.rpartition("\n")[2]
        raise RuntimeError(f"its interpreter ended with {process.returncode}: {last_line}")
    return elapsed, printed
