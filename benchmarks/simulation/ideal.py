"""What to compare with: list scheduling in the order of the tasks, with nothing else to do."""

from __future__ import annotations

import heapq
from array import array
from itertools import islice


def ideal_makespan(starts: array[float], n_workers: int) -> float:
    """Return when the last task ends if each in turn goes to who is free first."""
    durations = map(float.__sub__, islice(starts, 1, None), starts)
    free = list(islice(durations, n_workers))
    if not free:
        return 0.0
    heapq.heapify(free)
    replace = heapq.heapreplace
    for seconds in durations:
        replace(free, free[0] + seconds)
    return max(free)
