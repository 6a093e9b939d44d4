"""What the works on arrays share: an array, tasks that sum it, and what is the right sum."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from benchmarks import doors
from benchmarks.array_payloads import Array, get_ready, sum_part

ITEM_NBYTES = 8

Total = Callable[[Array], int]
"""Something that has tasks sum an array, a part each."""


def find_memory(nbytes: int) -> None:
    """Take so much memory and give it back, so that who needs it next finds it.

    A virtual machine gives free memory back to its host after a while. Having it again costs a
    second for a GB, many times what is measured here, and whoever comes first pays it.
    """
    numpy.ones(nbytes, numpy.uint8)


def whole_numbers(nbytes: int, first: int = 0) -> Array:
    """Return a new array of the whole numbers from `first` on.

    Sums of whole numbers are the same in whatever order they are made.
    """
    return numpy.arange(first, first + nbytes // ITEM_NBYTES, dtype=numpy.int64)


def right_total(nbytes: int, first: int = 0) -> int:
    """Return the sum of `whole_numbers`."""
    length = nbytes // ITEM_NBYTES
    return length * first + length * (length - 1) // 2


def summing(call: doors.StarMap, parts: int) -> Total:
    """Return how tasks sum an array that is an argument of each."""

    def total(array: Array) -> int:
        return sum(call(sum_part, ((array, part, parts) for part in range(parts))))

    return total


def summing_inherited(call: doors.StarMap, parts: int) -> Total:
    """Return how tasks sum the array that their workers were born with, whichever is passed."""

    def total(array: Array) -> int:
        return sum(call(sum_part, ((part, parts) for part in range(parts))))

    return total


def check_total(total: Total, array: Array, right: int) -> None:
    """Have tasks sum an array, and raise if they get it wrong."""
    found = total(array)
    if found != right:
        raise AssertionError(f"the sum is {found}, and should be {right}")


def warm_up(call: doors.StarMap, n_jobs: int) -> None:
    """Start all workers, and have each import what tasks on arrays need."""
    numbers = list(range(2 * n_jobs))
    if call(get_ready, ((number,) for number in numbers)) != numbers:
        raise AssertionError("wrong results")
