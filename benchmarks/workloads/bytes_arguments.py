"""Arguments that are large for what they are, and no arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

from benchmarks import doors
from benchmarks.bars import AtMost
from benchmarks.memory import MemoryGrowth
from benchmarks.payloads import length_and_first
from benchmarks.workload import Figure, Sample, Workload, register

LENGTH = 100_000

Results = Iterable[tuple[int, int]]

Run = Callable[[int], Results]
"""Something that has so many tasks look at a piece of data each."""


@register
class BytesArguments(Workload):
    """Each task has its own bytes, made when it is yielded and needed by nobody else.

    All of them together are far more than a program should have in memory at a time. The chunks of
    the standard library are of a size that suits both of its pools.
    """

    name = "bytes-arguments"
    place = 160
    title = "{tasks} tasks, each with its own 100 kB of bytes"
    figures = (
        Figure("time", "s", (AtMost(1.3),)),
        Figure("memory", "MB", (AtMost(100),), "highest resident memory of the parent"),
    )
    tasks = 20_000
    quick_tasks = 2_000
    chunk_size = 8
    most_rounds = 3

    def ours(self) -> Sample:
        call = doors.parallel("parallel_core", self.n_jobs)
        return self.measured(lambda count: call(length_and_first, pieces_of_data(count)))

    def joblib(self) -> Sample:
        call = doors.parallel("joblib", self.n_jobs)
        return self.measured(lambda count: call(length_and_first, pieces_of_data(count)))

    def mpire(self) -> Sample:
        with doors.mpire_pool(self.n_jobs) as pool:
            return self.measured(
                lambda count: pool.imap(length_and_first, pieces_of_data(count), iterable_len=count)
            )

    def futures(self) -> Sample:
        with doors.process_executor(self.n_jobs) as call:
            return self.measured(
                lambda count: call(length_and_first, pieces_of_data(count), self.chunk_size)
            )

    def pool(self) -> Sample:
        import multiprocessing

        with multiprocessing.Pool(self.n_jobs) as pool:
            return self.measured(
                lambda count: pool.imap(length_and_first, pieces_of_data(count), self.chunk_size)
            )

    def measured(self, run: Run) -> Sample:
        """Run all tasks once, after some that do not count."""
        self.seconds(run, 100)
        memory = MemoryGrowth()
        seconds = self.seconds(run, self.n_tasks)
        return {"time": seconds, "memory": memory.highest()}

    @staticmethod
    def seconds(run: Run, count: int) -> float:
        """Return how long so many tasks take, their results checked."""
        begin = perf_counter()
        results = list(run(count))
        seconds = perf_counter() - begin
        if results != [(LENGTH, number % 256) for number in range(count)]:
            raise AssertionError("wrong results")
        return seconds


def pieces_of_data(count: int) -> Iterable[bytes]:
    """Yield so many pieces, each a new object."""
    return (bytes([number % 256]) * LENGTH for number in range(count))
