"""Tasks with large results, in a module that a worker imports quickly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 1 << 20  # items of 8 bytes: results that are read where they are


def filled(n: int) -> Any:
    return np.full(SIZE, float(n))


def various(n: int) -> Any:
    base = np.arange(SIZE * 2, dtype=">f8" if n % 2 else "<i4").reshape(2, -1) + n
    return {
        "c": base,
        "f": np.asfortranarray(base),
        "part": base[:, ::2],
        "text": b"x" * SIZE * 3,
        "none": base[:0],
    }


def reused(n: int) -> Any:
    """Return an array that every later task in this worker writes to."""
    held = globals().setdefault("_held", np.empty(SIZE))
    held[:] = n
    return held


def marked(n: int, folder: str) -> Any:
    Path(folder, str(n)).touch()
    return np.full(SIZE, float(n))


def fatal(n: int) -> Any:
    if n == 2:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full(SIZE, float(n))
