"""The functions that workers run, and that go wrong at one of their tasks."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.payloads import compute_for

BAD = 17
"""The number of the task that goes wrong."""

FOLDER = "PARALLEL_CORE_BENCHMARKS_FOLDER"
"""The environment variable that names the folder where tasks leave word."""

FOR_EVER = 600.0
TASK_SECONDS = 0.01


def _place(name: str) -> Path:
    return Path(os.environ[FOLDER], name)


def harmless(number: int) -> int:
    """Take a moment, as all of these do, so that several tasks are on their way at any time."""
    time.sleep(TASK_SECONDS)
    return number


def killed_once(number: int) -> int:
    """Lose the worker to SIGKILL when the task is run for the first time."""
    if number == BAD:
        try:
            _place("killed").touch(exist_ok=False)
        except FileExistsError:
            return harmless(number)
        os.kill(os.getpid(), signal.SIGKILL)
    return harmless(number)


def draws(number: int) -> list[float]:
    """Draw numbers from the generator that all of a process share."""
    import numpy

    return [float(numpy.random.random()) for _ in range(harmless(number) % 3 + 1)]


def draws_and_is_killed_once(number: int) -> list[float]:
    """Draw them, and lose the worker at one of the tasks."""
    drawn = draws(number)
    killed_once(number)
    return drawn


def draws_rng(number: int) -> list[float]:
    """Draw numbers from the generator that each task has, as ours has it."""
    from parallel_core import rng

    return [float(rng().random()) for _ in range(harmless(number) % 3 + 1)]


def draws_rng_and_is_killed(number: int) -> list[float]:
    """Draw them, and lose the worker at one of the tasks."""
    drawn = draws_rng(number)
    killed_once(number)
    return drawn


def sticks(number: int) -> int:
    """Never come to an end, and say in which process."""
    if number == BAD:
        _place(f"stuck-{os.getpid()}").touch()
        time.sleep(FOR_EVER)
    return harmless(number)


class TwoArguments(Exception):
    """What many libraries have: an exception that cannot be made again from its message alone."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} at number {number}")
        self.what = what
        self.number = number


def raises_two_arguments(number: int) -> int:
    """Raise it."""
    if number == BAD:
        raise TwoArguments("nothing left", number)
    return harmless(number)


def takes_anything(item: Any) -> int:
    """Return a number, and 0 for what is none."""
    return item if isinstance(item, int) else 0


def returns_lock(number: int) -> Any:
    """Return what nobody can pickle."""
    return threading.Lock() if number == BAD else number


def raises_lock(number: int) -> int:
    """Raise what nobody can pickle."""
    if number == BAD:
        raise ValueError("nobody can pickle this", threading.Lock())
    return number


def busy_with(array: Any) -> float:
    """Compute on and on, once it was said that the array is there."""
    _place(f"busy-{os.getpid()}").touch()
    return compute_for(FOR_EVER + array[0])


def first_of(array: Any) -> float:
    """Look at an array."""
    return float(array[0])
