"""Functions that tests of recording send to workers; a module that is imported in no time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def wait(seconds: float) -> float:
    """Take so long."""
    time.sleep(seconds)
    return seconds


def same(value: Any) -> Any:
    """Return the argument."""
    return value


def fail_after(seconds: float, x: int) -> int:
    """Take so long, then fail for 3."""
    time.sleep(seconds)
    if x == 3:
        raise ValueError(x)
    return x


def make_slow(seconds: float) -> SlowToLoad:
    """Take so long to make what was pickled."""
    time.sleep(seconds)
    return SlowToLoad(seconds)


class SlowToLoad:
    """An object that takes its time to unpickle."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __reduce__(self) -> Any:
        return make_slow, (self.seconds,)


class SlowToPickle:
    """An object that takes its time to pickle."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __reduce__(self) -> Any:
        time.sleep(self.seconds)
        return SlowToPickle, (self.seconds,)


def be_slow_to_pickle(seconds: float) -> SlowToPickle:
    """Return what takes so long to pickle."""
    return SlowToPickle(seconds)


def take_slow(value: SlowToLoad, x: int) -> int:
    """Return the second argument."""
    return x


def spin(seconds: float) -> float:
    """Compute so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return seconds


def count(n: int) -> int:
    """Count, which only one thread at a time can do."""
    total = 0
    for number in range(n):
        total += number
    return total


def numbers(n: int) -> list[int]:
    """Return many numbers."""
    return list(range(1000, 1000 + n))


def length(values: Any, x: int = 0) -> int:
    """Return a small number about much."""
    return len(values)


def multiply(n: int, times: int) -> float:
    """Have a numeric library compute."""
    import numpy

    matrix = numpy.ones((n, n))
    for _ in range(times):
        matrix = matrix @ matrix
        matrix /= matrix.max()
    return float(matrix[0, 0])


def fail_once(folder: str, x: int) -> int:
    """Fail at the first attempt."""
    try:
        Path(folder, str(x)).touch(exist_ok=False)
    except FileExistsError:
        return x
    raise OSError("not yet")
