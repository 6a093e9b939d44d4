"""Tasks and iterables that raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parallel_core import Parallel, delayed


def fail_at(n: int, bad: int) -> int:
    if n == bad:
        raise LookupError(f"task {n}")
    return n


def tasks(bad: int = 2, number: int = 4) -> Any:
    return (delayed(fail_at)(n, bad) for n in range(number))


def raising() -> Iterator[Any]:
    yield delayed(fail_at)(0, 2)
    raise LookupError("the iterable")


def nested(n: int) -> Any:
    return Parallel(n_jobs=1)(tasks(n))


def fold(one: Any, other: Any) -> Any:
    raise LookupError("the fold")
