"""What pools run in tests; imports nothing that workers would have to import, too."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any


def double(x: int) -> int:
    return 2 * x


def multiply(x: int, y: int) -> int:
    return x * y


def multiply_dict(numbers: dict[str, int]) -> int:
    return numbers["x"] * numbers["y"]


def given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def fail_at_three(x: int) -> int:
    if x == 3:
        raise ValueError("three", x)
    return x


class TwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


def fail_with_two(x: int) -> None:
    raise TwoArguments("a", "b")


def leave(x: int) -> None:
    sys.exit(7)


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_for(path: str) -> bool:
    """Wait for the file `path`."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return True


def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


def pid(x: int = 0) -> int:
    return os.getpid()


def shape(array: Any) -> tuple[int, ...]:
    found: tuple[int, ...] = array.shape
    return found


def add_five(array: Any) -> Any:
    return array + 5


def unpicklable(x: int) -> Any:
    return (y for y in range(x))


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def fail_unpicklable(x: int) -> None:
    raise Unpicklable("mine")


def echo(text: str) -> str:
    print(text)
    return text
