"""Calls one after another, each with a large array of its own."""

from __future__ import annotations

from time import perf_counter

from benchmarks import doors
from benchmarks.array_payloads import Array
from benchmarks.arrays import (
    Total,
    check_total,
    find_memory,
    right_total,
    summing,
    summing_inherited,
    warm_up,
    whole_numbers,
)
from benchmarks.bars import TimesFaster
from benchmarks.contestants import JOBLIB
from benchmarks.measure import seconds_to_write
from benchmarks.workload import Figure, Sample, Workload, register

PARTS = 8


@register
class NewArrays(Workload):
    """What counts is the calls, not the making of the arrays.

    An array is gone before the next one is made, which may then lie at the same place.
    """

    name = "new-arrays"
    place = 130
    title = "{tasks} calls, each with a new array of {size}"
    figures = (
        Figure("time", "s", (TimesFaster(3, JOBLIB),)),
        Figure("within", "s", (TimesFaster(3, JOBLIB),), "within one with block"),
    )
    tasks = 10
    quick_tasks = 3
    nbytes = 256 << 20
    quick_nbytes = 32 << 20
    most_rounds = 3

    def ours(self) -> Sample:
        return self.of_parallel("parallel_core")

    def joblib(self) -> Sample:
        return self.of_parallel("joblib")

    def mpire(self) -> Sample:
        """Let new workers inherit each array, since there is no other way past pickling it."""

        def total(array: Array) -> int:
            with doors.mpire_sharing(self.n_jobs, array) as call:
                return summing_inherited(call, PARTS)(array)

        return {"time": self.seconds(total)}

    def of_parallel(self, module: str) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        call = doors.parallel_star(module, self.n_jobs)
        warm_up(call, self.n_jobs)
        write = seconds_to_write(whole_numbers(self.size))
        sample = {"time": self.seconds(summing(call, PARTS))}
        if write is not None:
            sample["writes"] = write * self.n_tasks
        find_memory(self.n_tasks * self.size)  # joblib keeps a copy of each array
        with doors.parallel_within(module, self.n_jobs) as call:
            sample["within"] = self.seconds(summing(call, PARTS))
        return sample

    def seconds(self, total: Total) -> float:
        """Return how long all calls take together."""
        seconds = 0.0
        for first in range(1, self.n_tasks + 1):
            array = whole_numbers(self.size, first)
            right = right_total(self.size, first)
            begin = perf_counter()
            check_total(total, array, right)
            seconds += perf_counter() - begin
            del array
        return seconds
