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


def count(state: dict[str, int], x: int = 0) -> int:
    state["n"] = state.get("n", 0) + 1
    return state["n"]


def begin_at_ten(state: dict[str, int]) -> None:
    state["n"] = 10


def begin_at_hundred(state: dict[str, int]) -> None:
    state["n"] = 100


def note_order(state: dict[str, Any], x: int) -> list[int]:
    """Return what its worker has had so far; the first half of 40 tasks takes longer."""
    time.sleep(0.02 if x < 20 else 0)
    state.setdefault("order", []).append(x)
    return list(state["order"])


def wait_a_moment() -> bytes:
    time.sleep(0.2)
    return bytes(100_000)


def total(state: dict[str, int]) -> int:
    return state["n"]


def minus_total(state: dict[str, int]) -> int:
    return -state["n"]


def number(worker_id: int, x: int = 0) -> int:
    return worker_id


def fail_to_begin() -> None:
    raise KeyError("no beginning")


def fail_to_end() -> None:
    raise KeyError("no end")


def die_instead(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_slow() -> None:
    time.sleep(60)


def seven() -> int:
    return 7


def add_squares(worker_id: int, results: Any, x: int) -> None:
    results[worker_id] += x * x


def square_and_add(shared: Any, index: int, x: int) -> int:
    squares, sums = shared
    squares[index] = x * x
    sums[index] = x + x
    return x % 2


def increment(shared: Any, x: int) -> None:
    lock, value, event, queue = shared
    with lock:
        value.value += 1
    event.set()
    queue.put(x)


def affinity(x: int) -> set[int]:
    return os.sched_getaffinity(0)


def environ(x: int) -> str | None:
    return os.environ.get("POOL_TEST_SLOT")
