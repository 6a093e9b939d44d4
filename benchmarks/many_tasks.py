"""The shape that most works share: one function over many items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from benchmarks import doors
from benchmarks.measure import best_chunk_size, median_seconds
from benchmarks.workload import Sample, Workload


class MapWork(Workload):
    """Base of works that map `function` over `items`, contestants warm.

    Attributes
    ----------
    function : static method
        Computes one task.
    pieces : tuple of int
        Into how many chunks per worker the standard library may cut the items.
    """

    function: ClassVar[staticmethod[[Any], Any]]
    pieces: ClassVar[tuple[int, ...]] = (1, 4, 8, 32)

    def items(self, count: int) -> Iterable[Any]:
        """Return `count` items; the same for the same count."""
        raise NotImplementedError

    def stream(self, count: int) -> Iterator[Any]:
        """Return the items as every contestant gets them: from a generator."""
        return (item for item in self.items(count))

    def expected(self, count: int) -> list[Any]:
        """Return the right results of `count` items."""
        return [self.function(item) for item in self.items(count)]

    def check(self, results: list[Any]) -> None:
        """Raise unless these are the right results of so many items."""
        if results != self.expected(len(results)):
            raise AssertionError("wrong results")

    def prepare(self) -> None:
        """Do what is to be done right before what counts."""

    def sample_of(self, seconds: float) -> Sample:
        """Turn the duration of the whole call into figures."""
        return {"time": seconds / self.n_tasks * 1e6}

    def seconds(self, call: doors.Map) -> float:
        """Return the median duration of warm calls, their results checked."""

        def run(count: int) -> list[Any]:
            return call(self.function, self.stream(count))

        def check(results: list[Any]) -> None:
            self.check(results)
            if len(results) not in (self.n_tasks, few):
                raise AssertionError(f"{len(results)} results")

        few = max(2, self.n_tasks // 20)
        for _ in range(2):
            check(run(few))
        self.prepare()
        return median_seconds(lambda: run(self.n_tasks), check=check)

    def measured(self, call: doors.Map) -> Sample:
        """Measure a contestant that chooses its chunks itself, or needs none."""
        return self.sample_of(self.seconds(call))

    def measured_at_best(self, call: doors.ChunkedMap) -> Sample:
        """Measure a contestant with the chunk size that suits it best."""
        chunk = best_chunk_size(
            lambda size: call(self.function, self.stream(self.n_tasks), size),
            [max(1, self.n_tasks // (self.n_jobs * pieces)) for pieces in self.pieces],
        )
        return {**self.measured(doors.with_chunk_size(call, chunk)), "chunk_size": chunk}


class ManyTasks(MapWork):
    """Base of works for worker processes.

    ``Parallel`` of parallel-core and of joblib gets a generator of ``delayed``; MPIRE its ``map``;
    the standard library its ``map`` with whichever chunk size is best here.
    """

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", self.n_jobs))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", self.n_jobs))

    def mpire(self) -> Sample:
        with doors.mpire(self.n_jobs) as call:
            return self.measured(call)

    def futures(self) -> Sample:
        with doors.process_executor(self.n_jobs) as call:
            return self.measured_at_best(call)

    def pool(self) -> Sample:
        with doors.process_pool(self.n_jobs) as call:
            return self.measured_at_best(call)
