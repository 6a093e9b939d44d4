"""Tasks that wait for each other, and initializers that kill; imported by workers in no time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LIMIT = 50  # seconds


def _wait_until(true: Callable[[], Any], what: str) -> None:
    limit = time.monotonic() + _LIMIT
    while not true():
        assert time.monotonic() < limit, f"waited in vain until {what}"
        time.sleep(0.005)


def take_turns(folder: Path, kind: str, x: int) -> str:
    """Run a task of a `kind`: a long one ends after all others, a short one once that has begun."""
    (folder / f"{kind}-{x}").touch(exist_ok=False)
    if kind == "short":
        _wait_until(lambda: list(folder.glob("long-*")), "the long one had begun")
    elif kind == "long":
        _wait_until(lambda: len(os.listdir(folder)) == 4, "all had run")
    return kind


def die_from_the_third_on(folder: str) -> None:
    with Path(folder, "births").open("ab") as file:
        file.write(b".")
    if Path(folder, "births").stat().st_size > 2:
        os.kill(os.getpid(), signal.SIGKILL)


def die_once(folder: str, x: int) -> int:
    """Task 0 kills its worker, once; task 1 ends when that has been replaced in vain."""
    began = Path(folder, "began")
    if x == 0 and not began.exists():
        began.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if x == 1:
        _wait_until(lambda: Path(folder, "births").stat().st_size >= 6, "all attempts were made")
    return x
