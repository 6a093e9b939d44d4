"""What the tests of `parallelize` run; imports nothing that workers would have to import, too."""

from __future__ import annotations

import random
import sys
import threading
import time
from typing import Any


def square(x: int) -> int:
    return x * x


def nothing() -> str:
    return "done"


def given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def invert(x: float) -> float:
    print(f"inverting {x}")
    print("to stderr", file=sys.stderr)
    return 1 / x


def draw() -> float:
    import numpy as np

    return float(np.random.random())


def draw_both(x: int) -> tuple[int, float, float]:
    import numpy as np

    return x, float(np.random.random()), random.random()


def change(values: list[int], globaldict: Any = None) -> list[int]:
    values.append(1)
    if globaldict is not None:
        globaldict[tuple(values)] = sum(values)
    return values


def remember(x: int, globaldict: Any) -> int:
    globaldict[x] = x * x
    return x


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_at_seven(x: int) -> int:
    if x == 7:
        time.sleep(50)
    return x


def thread_name() -> str:
    return threading.current_thread().name


class Mapper:
    """A map function of a user's own."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def __call__(self, function: Any, tasks: list[Any]) -> Any:
        self.tasks = tasks
        return map(function, tasks)


class HasResults(Exception):
    results = "of its own"


def invert_with_results(x: float) -> float:
    try:
        return 1 / x
    except ZeroDivisionError as error:
        raise HasResults(str(error)) from None
