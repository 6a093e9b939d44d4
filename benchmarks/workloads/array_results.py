"""Arrays that come back."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import array_payloads, doors
from benchmarks.array_payloads import LARGE_NBYTES, MEDIUM_NBYTES, Array
from benchmarks.arrays import find_memory
from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import JOBLIB, LOOP
from benchmarks.many_tasks import MapWork
from benchmarks.workload import Figure, Sample, register


class ArrayResults(MapWork):
    """Base of both works: a number in, an array that is full of it out.

    The results are in a list when all are there, as ``Parallel`` and ``map`` hand them over.
    """

    def items(self, count: int) -> Iterable[int]:
        return range(count)

    def check(self, results: list[Array]) -> None:
        length = self.size // 8
        for number, array in enumerate(results):
            if array.shape != (length,) or not array.min() == array.max() == number:
                raise AssertionError("wrong results")

    def prepare(self) -> None:
        find_memory(self.n_tasks * self.size)

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", self.n_jobs))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", self.n_jobs))

    def futures(self) -> Sample:
        with doors.process_executor(self.n_jobs) as call:
            return self.measured_at_best(call)

    def loop(self) -> Sample:
        """Make all of them here, and keep them: that is what their memory costs by itself."""
        return self.measured(lambda function, items: [function(item) for item in items])

    def sample_of(self, seconds: float) -> Sample:
        return {"time": seconds, "gigabytes_a_second": self.n_tasks * self.size / seconds / 1e9}


@register
class LargeResults(ArrayResults):
    """Arrays that are worth a file each.

    MPIRE and ``multiprocessing.Pool`` send them through a pipe as ``concurrent.futures`` does, and
    take as long or longer.
    """

    name = "large-results"
    place = 140
    title = "{tasks} results of {size}"
    figures = (Figure("time", "s", (AtMostTimes(1.4, LOOP), TimesFaster(6, JOBLIB))),)
    tasks = 40
    quick_tasks = 4
    nbytes = quick_nbytes = LARGE_NBYTES
    function = staticmethod(array_payloads.large_result)
    pieces = (20,)  # a task at a time


@register
class MediumResults(ArrayResults):
    """Arrays that are too small for that."""

    name = "medium-results"
    place = 150
    title = "{tasks} results of {size}"
    figures = (Figure("time", "s", (AtMostTimes(2, LOOP),)),)
    tasks = 2_000
    quick_tasks = 200
    nbytes = quick_nbytes = MEDIUM_NBYTES
    function = staticmethod(array_payloads.medium_result)
    pieces = (32,)  # large enough for either pool; a pilot takes long here

    def mpire(self) -> Sample:
        """Have arrays come one by one, which MPIRE would else make one array of."""
        with doors.mpire_pool(self.n_jobs) as pool:
            return self.measured(
                lambda function, items: pool.map(
                    function, list(items), concatenate_numpy_output=False
                )
            )

    def pool(self) -> Sample:
        with doors.process_pool(self.n_jobs) as call:
            return self.measured_at_best(call)
