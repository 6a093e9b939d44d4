"""A script's large globals: what a task costs that reads one.

This module is ``__main__`` in its fresh processes, so that the functions are those of a script.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable

from benchmarks import child, doors
from benchmarks.bars import AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.workload import Figure, Sample, Workload, register

Function = Callable[[int], int]


class Table:
    """Holds a dict, as objects of scripts do."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def look_up(self, key: int) -> int:
        """Return one of its numbers."""
        return self.numbers[key]


entries: dict[int, int] = {}
items: list[int] = []
table = Table()


def read_dict(key: int) -> int:
    """Return one entry of the dict."""
    return entries[key]


def read_list(key: int) -> int:
    """Return one item of the list."""
    return items[key]


def read_object(key: int) -> int:
    """Return one entry of the dict that the object holds."""
    return table.numbers[key]


FUNCTIONS: dict[str, Function] = {
    "dict": read_dict,
    "list": read_list,
    "object": read_object,
    "method": table.look_up,
}


@register
class ScriptGlobals(Workload):
    """Tasks that each read one entry of something large that their function captures."""

    name = "script-globals"
    place = 175
    title = "a global dict of 300 000 numbers, a list of 10⁶, an object with such a dict, a task"
    figures = tuple(
        Figure(name, "ms", (AtMostTimes(0.05, JOBLIB),), words)
        for name, words in (
            ("dict", "the dict"),
            ("list", "the list"),
            ("object", "the object"),
            ("method", "a method of the object"),
        )
    )
    entry = "benchmarks.workloads.script_globals"
    tasks = 200
    quick_tasks = 50
    most_rounds = 2

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", self.n_jobs))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", self.n_jobs))

    def pool(self) -> Sample:
        """Measure a pool that is forked when the globals are there, and inherits them."""

        def call(function: Function, keys: object) -> list[int]:
            with multiprocessing.get_context("fork").Pool(self.n_jobs) as pool:
                return pool.map(function, list(keys), 1)  # type: ignore[call-overload, no-any-return]

        return self.measured(call)

    def measured(self, call: doors.Map) -> Sample:
        """Measure a call for each of the functions, after one that starts workers."""
        call(abs, range(2 * self.n_jobs))
        entries.update((key, 2 * key) for key in range(300_000))
        items.extend(range(10**6))
        table.numbers = dict(entries)
        return {
            name: median_seconds(lambda f=function: call(f, range(self.n_tasks)), at_most=1)
            / self.n_tasks
            * 1e3
            for name, function in FUNCTIONS.items()
        }


if __name__ == "__main__":
    sys.exit(child.main(sys.argv[1:], ScriptGlobals))
