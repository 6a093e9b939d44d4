"""One value from the results of many tasks: folded in the workers, or added up in the parent."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from benchmarks import array_payloads, doors
from benchmarks.array_payloads import MEGABYTE, Array
from benchmarks.bars import TimesFaster
from benchmarks.contestants import FUTURES, JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.workload import Figure, Sample, Workload, register


class Folding(Workload):
    """Base of both works: results are added as they come, in whatever order suits a contestant.

    Without `reduce`, ``Parallel`` hands them over by a generator, so that nobody has to hold
    them all.
    """

    function: ClassVar[staticmethod[[Any], Any]]
    chunk_size: ClassVar[int]

    def check(self, total: Any) -> None:
        """Raise unless that is the sum of all tasks."""
        raise NotImplementedError

    def measured(self, total_of: Callable[[int], Any]) -> Sample:
        """Measure what returns the sum of so many results, warm."""
        for _ in range(2):
            total_of(max(2, self.n_tasks // 20))
        seconds = median_seconds(lambda: total_of(self.n_tasks), check=self.check)
        return self.sample_of(seconds)

    def sample_of(self, seconds: float) -> Sample:
        """Turn the duration of the whole call into figures."""
        return {"time": seconds}

    def added(self, stream: doors.Stream) -> Callable[[int], Any]:
        """Return what adds up a stream of results."""
        return lambda count: functools.reduce(operator.add, stream(count))

    def ours(self) -> Sample:
        folding = doors.parallel("parallel_core", self.n_jobs, reduce=operator.add)
        sample = self.measured(lambda count: folding(self.function, range(count)))
        stream = doors.parallel_generator("parallel_core", self.n_jobs, self.function)
        without = self.measured(self.added(stream))
        return {**sample, "without_reduce": without["time"]}

    def joblib(self) -> Sample:
        stream = doors.parallel_generator("joblib", self.n_jobs, self.function)
        return self.measured(self.added(stream))

    def mpire(self) -> Sample:
        with doors.mpire_pool(self.n_jobs) as pool:

            def stream(count: int) -> Iterable[Any]:
                return pool.imap_unordered(  # type: ignore[no-any-return]  # MPIRE has no types
                    self.function, range(count), iterable_len=count, chunk_size=self.chunk_size
                )

            return self.measured(self.added(stream))

    def futures(self) -> Sample:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(self.n_jobs) as executor:
            return self.measured(
                self.added(
                    lambda count: executor.map(
                        self.function, range(count), chunksize=self.chunk_size
                    )
                )
            )


@register
class SumOfNumbers(Folding):
    """Results that are small: what crosses is next to nothing either way."""

    name = "sum-of-numbers"
    place = 105
    title = "{tasks} small results added, a task"
    figures = (Figure("time", "µs", (TimesFaster(2, JOBLIB),)),)
    tasks = 1_000_000
    quick_tasks = 50_000
    function = staticmethod(abs)
    chunk_size = 10_000
    most_rounds = 2

    def check(self, total: Any) -> None:
        if total != self.n_tasks * (self.n_tasks - 1) // 2:
            raise AssertionError(f"wrong sum: {total}")

    def sample_of(self, seconds: float) -> Sample:
        return {"time": seconds / self.n_tasks * 1e6}


@register
class SumOfArrays(Folding):
    """Results that are large, as the gradients or histograms of many parts are."""

    name = "sum-of-arrays"
    place = 155
    title = "{tasks} results of {size} added"
    figures = (Figure("time", "s", (TimesFaster(3, JOBLIB), TimesFaster(3, FUTURES))),)
    tasks = 2_000
    quick_tasks = 200
    nbytes = quick_nbytes = MEGABYTE
    function = staticmethod(array_payloads.megabyte_result)
    chunk_size = 10
    most_rounds = 2

    def check(self, total: Array) -> None:
        expected = self.n_tasks * (self.n_tasks - 1) // 2
        if total.shape != (MEGABYTE // 8,) or not total.min() == total.max() == expected:
            raise AssertionError("wrong sum")
