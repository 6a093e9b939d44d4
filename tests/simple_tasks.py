"""Functions and classes that tests send to workers; imported by them in no time."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core import Parallel, delayed

PATIENCE = 10.0


def wait_until(condition: Callable[[], bool]) -> bool:
    """Wait for `condition`, generously."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def square(x: Any) -> Any:
    return x * x


def invert(x: int) -> float:
    """Fail for 0."""
    return 1 / x


def slow_square(x: Any) -> Any:
    time.sleep(0.003)
    return x * x


def nothing() -> None:
    return None


def collect(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def defaults(a: int, b: int = 10, *rest: int, c: int = 100, **more: int) -> list[Any]:
    return [a, b, rest, c, sorted(more.items())]


def pid_and(x: Any) -> tuple[int, Any]:
    return os.getpid(), x


def slow_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def started_and_ended(x: Any) -> tuple[float, float]:
    began = time.monotonic()
    return began, time.monotonic()


def wait_for_file(path: str) -> str:
    """Wait until `path` exists, for it to be seen that somebody else goes on meanwhile."""
    if not wait_until(lambda: os.path.exists(path)):
        raise AssertionError(f"{path} has not come")
    return path


def echo_bytes(data: bytes, number: int) -> bytes:
    assert data == bytes([number % 251]) * len(data)
    return bytes([(number + 1) % 251]) * len(data)


def echo_list(items: list[int]) -> list[int]:
    items.append(-1)
    return items


def describe(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


def nested_sum(n: int, backend: str | None) -> int:
    return sum(Parallel(n_jobs=2, backend=backend)(delayed(square)(i) for i in range(n)))


class Point(NamedTuple):
    x: float
    y: float


class Counting:
    """Has methods of every kind."""

    base = 7

    def __init__(self, start: int) -> None:
        self.start = start

    def plus(self, x: int) -> int:
        return self.start + x

    def grow(self) -> int:
        self.start += 1
        return self.start

    def __call__(self, x: int, *, times: int = 1) -> int:
        return (self.start + x) * times

    @classmethod
    def of_class(cls, x: int) -> int:
        return cls.base + x

    @staticmethod
    def of_none(x: int) -> int:
        return -x


@delayed
def decorated(x: int) -> int:
    return 3 * x


@functools.lru_cache(maxsize=10)
def cached(x: int) -> int:
    return x + 1


def copied(value: Any) -> Any:
    return value


class Result:
    """Can be referred to weakly."""


kept: list[Any] = []


def pid_of(x: int) -> int:
    return os.getpid()


def grow(x: int, nbytes: int) -> int:
    kept.append(b"\1" * nbytes)
    time.sleep(0.002)
    return os.getpid()


def slept(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x
