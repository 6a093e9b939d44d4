"""An array for many tasks where nobody tells what was written, and calls that hold one array."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import starmap
from threading import Thread

import numpy

from benchmarks import doors
from benchmarks.array_payloads import Array, add_first, rank, sum_part
from benchmarks.arrays import check_total, right_total, summing, warm_up, whole_numbers
from benchmarks.bars import AtMost, AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.measure import median_seconds, seconds_of
from benchmarks.refusing import refuse_userfaultfd
from benchmarks.workload import Figure, Sample, Workload, register


@register
class ManyTasks(Workload):
    """As it is here, then with a filter that refuses to have pages watched, as in a container.

    The filter cannot be taken off again, so it comes second. In a container it would be there from
    the start, so the second call has an array that none has seen.
    """

    name = "one-array-refused"
    place = 121
    title = "an array of {size} for {tasks} tasks"
    figures = (
        Figure("time", "s", (AtMostTimes(1, JOBLIB),)),
        Figure("refused", "s", (AtMostTimes(1, JOBLIB),), "where userfaultfd is refused"),
    )
    tasks = quick_tasks = 200
    nbytes = 512 << 20
    quick_nbytes = 64 << 20
    most_rounds = 2

    def ours(self) -> Sample:
        return self.of_parallel("parallel_core")

    def joblib(self) -> Sample:
        return self.of_parallel("joblib")

    def of_parallel(self, module: str) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        call = doors.parallel_star(module, self.n_jobs)
        warm_up(call, self.n_jobs)
        total = summing(call, self.n_tasks)
        array = whole_numbers(self.size // (8 * self.n_tasks) * 8 * self.n_tasks)
        right = right_total(array.nbytes)
        sample = {"time": seconds_of(lambda: check_total(total, array, right))}
        refuse_userfaultfd()
        another = array.copy()
        sample["refused"] = seconds_of(lambda: check_total(total, another, right))
        return sample


@register
class Ranks(Workload):
    """The example of the README: tasks fill an array that is as large as their argument."""

    name = "ranks"
    place = 122
    title = "ranks within {tasks} rows of {size} in all"
    figures = (
        Figure("time", "s", (AtMostTimes(1, JOBLIB),)),
        Figure("refused", "s", (AtMostTimes(1, JOBLIB),), "where userfaultfd is refused"),
    )
    tasks = quick_tasks = 256
    nbytes = 256 << 20
    quick_nbytes = 32 << 20
    most_rounds = 2

    def ours(self) -> Sample:
        import memmapping

        table = self.table()
        return self.of_parallel("parallel_core", table, memmapping.empty_like(table))

    def joblib(self) -> Sample:
        table = self.table()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            name = os.path.join(folder, "out")
            out: Array = numpy.memmap(name, table.dtype, "w+", shape=table.shape)
            return self.of_parallel("joblib", table, out)

    def loop(self) -> Sample:
        table = self.table()
        return {"time": self.seconds(lambda f, xs: list(starmap(f, xs)), table, table.copy())}

    def table(self) -> Array:
        """Return the argument of all tasks."""
        return numpy.random.default_rng(0).random((self.n_tasks, self.size // 8 // self.n_tasks))

    def of_parallel(self, module: str, table: Array, out: Array) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        call = doors.parallel_star(module, self.n_jobs)
        warm_up(call, self.n_jobs)
        sample = {"time": self.seconds(call, table, out)}
        refuse_userfaultfd()
        sample["refused"] = self.seconds(call, table.copy(), out)
        return sample

    def seconds(self, call: doors.StarMap, table: Array, out: Array) -> float:
        """Return how long it takes to fill `out`."""
        found = seconds_of(lambda: call(rank, ((table, out, row) for row in range(len(table)))))
        if out[-1].sum() != right_total(out[-1].nbytes):
            raise AssertionError("the ranks of the last row are wrong")
        return found


@register
class Threads(Workload):
    """Each thread makes the same call; peers of ours are joblib's threads on joblib's workers."""

    name = "threads-of-calls"
    place = 123
    title = "threads that each run {tasks} tasks on one array of {size}"
    figures = tuple(
        Figure(f"of_{count}", "s", label=f"{count} at a time") for count in (1, 2, 4, 8)
    )
    tasks = quick_tasks = 200
    nbytes = 24 << 20
    quick_nbytes = 8 << 20
    most_rounds = 2

    def ours(self) -> Sample:
        return self.of_parallel("parallel_core")

    def joblib(self) -> Sample:
        return self.of_parallel("joblib")

    def of_parallel(self, module: str) -> Sample:
        """Measure ``Parallel`` of joblib or of parallel-core."""
        array = whole_numbers(self.size // (8 * self.n_tasks) * 8 * self.n_tasks)
        total = summing(doors.parallel_star(module, self.n_jobs), self.n_tasks)
        right = right_total(array.nbytes)

        def calls(count: int) -> None:
            threads = [Thread(target=check_total, args=(total, array, right)) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        calls(8)  # so that there are as many workers as will be wanted
        return {f"of_{count}": seconds_of(lambda: calls(count)) for count in (8, 4, 2, 1)}  # noqa: B023


@register
class Pipeline(Workload):
    """A call consumes what another one's generator yields, and both need one array."""

    name = "pipeline"
    place = 124
    title = "two calls of {tasks} tasks on {size}, the second fed by the first"
    figures = (
        Figure("time", "s"),
        Figure("beside_lists", "", (AtMost(1.2),), "× the two one after the other"),
    )
    tasks = quick_tasks = 200
    nbytes = 200_000_000
    quick_nbytes = 20_000_000
    most_rounds = 2

    def ours(self) -> Sample:
        from parallel_core import Parallel, delayed

        array = whole_numbers(self.size)

        def run(return_as: str) -> list[int]:
            parts = ((array, part, self.n_tasks) for part in range(self.n_tasks))
            sums = Parallel(self.n_jobs, return_as=return_as)(delayed(sum_part)(*p) for p in parts)
            return Parallel(self.n_jobs)(delayed(add_first)(array, found) for found in sums)

        runs: dict[str, Callable[[], list[int]]] = {
            way: lambda way=way: run(way)  # type: ignore[misc]  # bound
            for way in ("generator", "list")
        }
        if runs["generator"]() != runs["list"]():  # and workers for both are there
            raise AssertionError("the two differ")
        time, lists = (median_seconds(call, at_least=3) for call in runs.values())
        return {"time": time, "beside_lists": time / lists}
