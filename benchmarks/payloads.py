"""The functions that workers run; nothing here is imported but the clock and ``math``."""

from __future__ import annotations

import math
from time import perf_counter

sqrt = math.sqrt


def halve_each(values: list[float]) -> list[float]:
    """Return a new list of the halves of `values`."""
    return [value * 0.5 for value in values]


def compute_for(seconds: float) -> float:
    """Keep a core busy until `seconds` have passed, and return `seconds`.

    It is the wall clock that is watched, so that a task lasts as long as it is said to on any
    machine: what is measured is how well the workers are kept busy, not how fast the cores are.
    """
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    return seconds
