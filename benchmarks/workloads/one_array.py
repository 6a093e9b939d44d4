"""A large array that every task needs."""

from __future__ import annotations

from time import perf_counter

from benchmarks import doors
from benchmarks.array_payloads import Array
from benchmarks.arrays import (
    Total,
    check_total,
    right_total,
    summing,
    summing_inherited,
    warm_up,
    whole_numbers,
)
from benchmarks.bars import AtMost
from benchmarks.measure import median_seconds, seconds_of, seconds_to_write
from benchmarks.workload import Figure, Sample, Workload, register


@register
class OneArray(Workload):
    """Array and index are the arguments; one call, then the same again within ``with``.

    The floor is measured in the same process just before the first call. In the end one element is
    changed: that the next call sees it is a must for ours and a remark of the peers.
    """

    name = "one-array"
    place = 120
    title = "an array of {size} for {tasks} tasks"
    figures = (
        Figure("time", "s", label="first call"),
        Figure("beside_write", "", (AtMost(1.3),), "first call, × one write() of it"),
        Figure("multiprocessing", "s", label="first call, joblib's multiprocessing backend"),
        Figure("again", "s", (AtMost(0.2),), "again within one with block, unchanged"),
    )
    tasks = quick_tasks = 64
    nbytes = 1 << 30
    quick_nbytes = 64 << 20
    most_rounds = 3

    def ours(self) -> Sample:
        from memmapping.pages import PageWatch, Unwatchable

        sample = self.of_parallel("parallel_core")
        if not sample["sees_changes"]:
            raise AssertionError("a change was not seen")
        try:
            PageWatch().close()
        except Unwatchable:  # the bar is stated for machines that tell what was written
            sample["beside_write_untracked"] = sample.pop("beside_write")
        return sample

    def joblib(self) -> Sample:
        sample = self.of_parallel("joblib")
        call = doors.parallel_star("joblib", self.n_jobs, backend="multiprocessing")
        total = summing(call, self.n_tasks)
        array = whole_numbers(self.size)
        sample["multiprocessing"] = seconds_of(lambda: self.check(total, array))
        return sample

    def mpire(self) -> Sample:
        """Let workers inherit the array: they are born within the measured time."""
        array = whole_numbers(self.size)
        write = seconds_to_write(array)
        begin = perf_counter()
        with doors.mpire_sharing(self.n_jobs, array) as call:
            total = summing_inherited(call, self.n_tasks)
            self.check(total, array)
            first = perf_counter() - begin
            return {**beside(write, first), **self.next_calls(total, array)}

    def of_parallel(self, module: str) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        call = doors.parallel_star(module, self.n_jobs)
        warm_up(call, self.n_jobs)
        array = whole_numbers(self.size)
        write = seconds_to_write(array)
        total = summing(call, self.n_tasks)
        first = seconds_of(lambda: self.check(total, array))
        with doors.parallel_within(module, self.n_jobs) as call:
            total = summing(call, self.n_tasks)
            self.check(total, array)
            return {**beside(write, first), **self.next_calls(total, array)}

    def next_calls(self, total: Total, array: Array) -> Sample:
        """Measure calls for an array that tasks have seen, and one after a change in it."""
        again = median_seconds(lambda: self.check(total, array), at_least=3)
        array[len(array) // 3] += 1
        return {"again": again, "sees_changes": float(total(array) == right_total(self.size) + 1)}

    def check(self, total: Total, array: Array) -> None:
        """Have tasks sum the array, and raise if they get it wrong."""
        check_total(total, array, right_total(self.size))


def beside(write: float | None, seconds: float) -> Sample:
    """Return the first call, beside the floor where there is one."""
    if write is None:
        return {"time": seconds}
    return {"time": seconds, "beside_write": seconds / write, "write": write}
