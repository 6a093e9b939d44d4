"""Results as they come: how long it takes, and how much the parent keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

from benchmarks import doors, payloads
from benchmarks.bars import AtMost
from benchmarks.measure import best_chunk_size
from benchmarks.memory import MemoryGrowth
from benchmarks.workload import Figure, Sample, Workload, register

ChunkedStream = Callable[[int, int], Iterable[float]]
"""Given a number of tasks and a chunk size, hands over the results one by one."""


def consume(stream: doors.Stream, count: int) -> float:
    """Take `count` results one by one, check their sum, and return how long they took."""
    begin = perf_counter()
    total = sum(stream(count))
    seconds = perf_counter() - begin
    if total != sum(map(payloads.sqrt, range(count))):
        raise AssertionError("wrong results")
    return seconds


@register
class MillionResults(Workload):
    """A million square roots, each looked at once and let go."""

    name = "stream"
    place = 100
    title = "{tasks} results through a generator"
    figures = (
        Figure("time", "s", (AtMost(1.2),)),
        Figure("memory", "MB", (AtMost(20),), "growth of the parent"),
    )
    tasks = 1_000_000
    quick_tasks = 100_000
    chunk_sizes = (1_000, 10_000, 50_000)

    def measured(self, stream: doors.Stream, memory: MemoryGrowth | None = None) -> Sample:
        """Take the results of all tasks once, after some that do not count."""
        consume(stream, 1_000)
        memory = memory or MemoryGrowth()
        seconds = consume(stream, self.n_tasks)
        return {"time": seconds, "memory": memory.megabytes()}

    def measured_at_best(self, stream: ChunkedStream) -> Sample:
        """Do the same with the best chunk size, found on a tenth of the tasks.

        The memory that the pilot needs is less than what follows, and counts as growth.
        """
        consume(lambda count: stream(count, 100), 1_000)
        memory = MemoryGrowth()
        chunk = best_chunk_size(
            lambda size: consume(lambda count: stream(count, size), self.n_tasks // 10),
            self.chunk_sizes,
        )
        sample = self.measured(lambda count: stream(count, chunk), memory)
        return {**sample, "chunk_size": chunk}

    def ours(self) -> Sample:
        return self.measured(doors.parallel_generator("parallel_core", self.n_jobs, payloads.sqrt))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel_generator("joblib", self.n_jobs, payloads.sqrt))

    def mpire(self) -> Sample:
        with doors.mpire_pool(self.n_jobs) as pool:
            return self.measured(
                lambda count: pool.imap(payloads.sqrt, range(count), iterable_len=count)
            )

    def futures(self) -> Sample:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(self.n_jobs) as executor:
            return self.measured_at_best(
                lambda count, size: executor.map(payloads.sqrt, range(count), chunksize=size)
            )

    def pool(self) -> Sample:
        import multiprocessing

        with multiprocessing.Pool(self.n_jobs) as pool:
            return self.measured_at_best(
                lambda count, size: pool.imap(payloads.sqrt, range(count), chunksize=size)
            )
