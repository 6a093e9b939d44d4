"""What the tests of the contract run in workers; nothing here takes long to import."""

from __future__ import annotations

import operator
import os
import signal
import time
from pathlib import Path
from typing import Any

from parallel_core import Parallel, delayed

LONG = 300  # seconds that a task sleeps which is not to be waited for

_level: tuple[int, str] = (0, "unset")


def set_level(level: int, extra: str = "none") -> None:
    global _level
    _level = (level, extra)


def get_level() -> tuple[int, str]:
    return _level


def touch(path: str, n: int) -> int:
    """Say that task `n` runs, and who runs it."""
    temporary = Path(path, f".{n}")
    temporary.write_text(str(os.getpid()))
    temporary.rename(Path(path, str(n)))
    return n


def touch_and_wait(path: str, n: int, name: str) -> int:
    """Say that task `n` runs, and wait for the file `name`."""
    touch(path, n)
    limit = time.monotonic() + 100
    while not os.path.exists(os.path.join(path, name)):
        if time.monotonic() > limit:
            raise RuntimeError(f"task {n} waited in vain for {name}")
        time.sleep(0.003)
    return n


def touch_and_sleep(path: str, n: int) -> int:
    touch(path, n)
    time.sleep(LONG)
    return n


def stick(x: int, bad: tuple[int, ...], path: str) -> int:
    """Return `x`; those that are `bad` wait for the file `path`, or to be ended."""
    limit = time.monotonic() + LONG
    while x in bad and not os.path.exists(path) and time.monotonic() < limit:
        time.sleep(0.005)
    return x


def nap(x: int) -> int:
    time.sleep(0.02)
    return x


def nested(x: int, count: int) -> list[int]:
    """Call within a task."""
    return Parallel(2)(delayed(operator.mul)(x, y) for y in range(count))


def filled(x: int) -> Any:
    import numpy as np

    return np.full(200_000, float(x))


def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


class Refusing:
    """Pickles, unpickles, or neither."""

    def __init__(self, leg: str) -> None:
        self.leg = leg

    def __reduce__(self) -> Any:
        if self.leg == "out":
            raise RuntimeError("this goes nowhere")
        return refuse, (self.leg, os.getpid())


def refuse(leg: str, pid: int) -> Refusing:
    if os.getpid() != pid:
        raise RuntimeError("this arrives nowhere")
    return Refusing(leg)


def kind_of(value: Any) -> str:
    return type(value).__name__


def refusing_result(x: int, bad: tuple[int, ...], leg: str) -> Any:
    return Refusing(leg) if x in bad else x


def counted(folder: str, name: object) -> int:
    """Note one more run of a task, and return how many there have been."""
    path = Path(folder, str(name))
    with path.open("ab") as file:
        file.write(b".")
    return path.stat().st_size


def fails_before(folder: str, x: int, times: int, how: str) -> tuple[int, int]:
    runs = counted(folder, x)
    if runs <= times:
        if how == "raise":
            raise ConnectionError(f"try {runs}")
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))
    return x, runs
