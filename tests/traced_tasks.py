"""Functions that tests of traces send to workers; a module that is imported in no time."""

from __future__ import annotations

import time


def pause(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x


def trace_within(path: str, x: int) -> int:
    """Make a call of one's own, with a trace of its own."""
    from parallel_core import Parallel, delayed

    return sum(Parallel(2, "threading", trace=path)(delayed(abs)(-x) for _ in range(3)))


def call_within(x: int) -> int:
    """Make a call of one's own."""
    from parallel_core import Parallel, delayed

    return sum(Parallel(2, "threading")(delayed(abs)(-x) for _ in range(3)))
