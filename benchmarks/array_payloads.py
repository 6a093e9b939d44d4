"""The functions on arrays that workers run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy

Array = numpy.ndarray[Any, Any]

LARGE_NBYTES = 64 << 20
MEDIUM_NBYTES = 128 << 10
MEGABYTE = 1 << 20


def get_ready(number: int) -> int:
    """Keep a worker for a moment, so that each gets one of these and has imported all it needs."""
    time.sleep(0.05)
    return number


def sum_part(array: Array, part: int, parts: int) -> int:
    """Return the sum of one of so many parts of an array of whole numbers."""
    length = len(array) // parts
    return int(array[part * length : (part + 1) * length].sum())


def large_result(number: int) -> Array:
    """Return a large array that is full of `number`."""
    return numpy.full(LARGE_NBYTES // 8, float(number))


def medium_result(number: int) -> Array:
    """Return an array that is too small for a file, and too large to be copied for nothing."""
    return numpy.full(MEDIUM_NBYTES // 8, float(number))


def megabyte_result(number: int) -> Array:
    """Return an array of a megabyte that is full of `number`."""
    return numpy.full(MEGABYTE // 8, float(number))


def hold(array: Array, number: int, folder: str) -> int:
    """Read all of an array, say so in `folder`, and keep it until the answer is there."""
    total = int(array.sum())
    held, seen = Path(folder, f"held-{number}"), Path(folder, f"seen-{number}")
    held.touch()
    while not seen.exists():
        time.sleep(0.005)
    return total


def rank(table: Array, out: Array, row: int) -> None:
    """Put the ranks of the numbers in one row where they belong."""
    out[row] = table[row].argsort().argsort()


def add_first(array: Array, number: int) -> int:
    """Return the sum of a number and the first one of an array."""
    return number + int(array[0])
