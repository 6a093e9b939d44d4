"""What it costs that a call does more than its tasks: calls with it and without, in turns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any


def percent_more(
    run: Callable[[Any, list[Any], bool], Any], function: Any, items: list[Any], turns: int
) -> float:
    """Return how much longer calls take with it, in percent: the median of the ratios of `turns`.

    `run` calls `function` with each of the `items`, with it or without, and returns the results.
    """
    run(function, items[:1000], True)
    ratios = []
    for turn in range(turns):
        seconds: dict[bool, float] = {}
        for has_it in (False, True) if turn % 2 else (True, False):
            began = perf_counter()
            found = run(function, items, has_it)
            seconds[has_it] = perf_counter() - began
            if len(found) != len(items):
                raise AssertionError(f"{len(found)} results")
        ratios.append(seconds[True] / seconds[False])
    return (median(ratios) - 1) * 100
