"""The functions that workers run; nothing here is imported but the clock and ``math``."""

from __future__ import annotations

import math
from contextvars import ContextVar
from time import perf_counter, sleep

sqrt = math.sqrt
variable: ContextVar[str] = ContextVar("variable")


def halve_each(values: list[float]) -> list[float]:
    """Return a new list of the halves of `values`."""
    return [value * 0.5 for value in values]


def length_and_first(data: bytes) -> tuple[int, int]:
    """Return what shows that `data` arrived whole enough."""
    return len(data), data[0]


def look_up(words: dict[str, str], key: str) -> str:
    """Return one of the many strings of `words`."""
    return words[key]


def look_up_pair(pair: tuple[dict[str, str], str]) -> str:
    """Do the same for who hands over one argument."""
    words, key = pair
    return words[key]


def sleep_for(seconds: float) -> float:
    """Sleep, and return `seconds`."""
    sleep(seconds)
    return seconds


def compute_for(seconds: float) -> float:
    """Keep a core busy until `seconds` have passed, and return `seconds`.

    It is the wall clock that is watched, so that a task lasts as long as it is said to on any
    machine: what is measured is how well the workers are kept busy, not how fast the cores are.
    """
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass
    return seconds
