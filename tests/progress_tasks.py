"""Functions that tests of progress send to workers; a module that is imported in no time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any


def pause(seconds: float, x: int) -> int:
    time.sleep(seconds)
    return x


def say(x: int) -> int:
    """Print and log a line, between pauses in which the bar is drawn."""
    import logging

    time.sleep(0.06)
    print(f"printed {x}")
    print(f"complained {x}", file=sys.stderr)
    logging.getLogger("tasks").warning("logged %s", x)
    time.sleep(0.06)
    return x


def slow_upper(line: str) -> str:
    time.sleep(0.02)
    return line.upper()


def call_within(style: Any, x: int) -> int:
    """Make a call of one's own, with a bar that nobody is to see."""
    from parallel_core import Parallel, delayed

    return sum(Parallel(2, "threading", progress=style)(delayed(pause)(0.2, x) for _ in range(2)))


def wait_for(folder: str, x: int) -> int:
    """Wait, in the last task, until the one who sees the bar has said so."""
    if x == 9:
        while not Path(folder, "seen").exists():
            time.sleep(0.002)
    return x
