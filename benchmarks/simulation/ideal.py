"""What to compare with: list scheduling in the order of the tasks, with nothing else to do."""

from __future__ import annotations

from array import array
from itertools import islice

from benchmarks.ideal import ideal_seconds


def ideal_makespan(starts: array[float], n_workers: int) -> float:
    """Return when the last task ends if each in turn goes to who is free first."""
    return ideal_seconds(map(float.__sub__, islice(starts, 1, None), starts), n_workers)
