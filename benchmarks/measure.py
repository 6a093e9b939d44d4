"""What a fresh process measures with."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TypeVar

MEGABYTE = 1e6
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


class MemoryGrowth:
    """How far the resident memory of this process rises above where it was at creation.

    Linux tells the highest resident size ever (``VmHWM``) and lets a process reset it; where there
    is no ``/proc``, the highest size so far is the start, which can hide some growth.
    """

    def __init__(self) -> None:
        self._before = self._resident_after_reset()

    def megabytes(self) -> float:
        """Return the growth up to the highest point since creation, in MB."""
        return max(0.0, (_peak_bytes() - self._before) / MEGABYTE)

    @staticmethod
    def _resident_after_reset() -> int:
        gc.collect()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        return _peak_bytes()


def _peak_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, "no VmHWM in /proc/self/status"
    return int(found[1]) * 1024


def run_interpreter(source: str) -> tuple[float, str]:
    """Run `source` in a bare new interpreter.

    Parameters
    ----------
    source : str
        Program text, run as ``python -c``.

    Returns
    -------
    tuple of float and str
        Seconds from before the birth until the process has ended and was waited for, and what it
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
