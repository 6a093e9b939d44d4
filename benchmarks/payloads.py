"""The functions that workers run; nothing here is imported but the clock and ``math``."""

from __future__ import annotations

import math
from contextvars import ContextVar
from time import perf_counter, sleep
from typing import Any

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


def take_anything(item: object) -> int:
    """Return a number, whatever is handed over."""
    return 0 if item is None else 1


def return_lock_for(x: int) -> object:
    """Return what cannot be pickled, for a number below 0."""
    from threading import Lock

    return Lock() if x < 0 else x


def raise_lock_for(x: int) -> int:
    """Raise what cannot be pickled, for a number below 0."""
    from threading import Lock

    if x < 0:
        raise ValueError(Lock())
    return x


def scaled_sum(array: Any, x: int) -> float:
    """Return a number that takes a look at all of `array`."""
    return float((array * x).sum())


def empty_state(state: dict[str, int]) -> None:
    """Begin a worker's state."""
    state["sum"] = 0


def add_to_state(state: dict[str, int], x: int) -> int:
    """Count in a worker's state."""
    state["sum"] += x
    return x


def sum_of_state(state: dict[str, int]) -> int:
    """Return what a worker has counted."""
    return state["sum"]


def load_model(state: dict[str, int]) -> None:
    """Take a while to begin."""
    sleep(0.1)
    state["model"] = 1


def ask_model(state: dict[str, int], x: int) -> int:
    """Use what took a while to load."""
    return x + state["model"]
