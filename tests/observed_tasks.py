"""Functions that tests of observers send to workers; a module that is imported in no time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def invert(x: int) -> float:
    """Fail for 0."""
    return 1 / x


def die_once(folder: str, x: int) -> int:
    """Have the worker of task 2 killed, at its first attempt."""
    if x == 2:
        try:
            Path(folder, "died").touch(exist_ok=False)
        except FileExistsError:
            return x
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def wait_for(path: str, x: int) -> int:
    """Say that the task runs, and wait until it may end."""
    Path(f"{path}.{x}").touch()
    while not Path(path).exists():
        time.sleep(0.001)
    return x
