"""Whether the cost of a task, and the memory of the parent, depend on how many tasks there are."""

from __future__ import annotations

from benchmarks import doors
from benchmarks.bars import AtMost
from benchmarks.measure import median_seconds
from benchmarks.memory import MemoryGrowth
from benchmarks.payloads import sqrt
from benchmarks.workload import Figure, Sample, Workload, register

POWERS = (3, 4, 5, 6)
EXPONENTS = {3: "10³", 4: "10⁴", 5: "10⁵", 6: "10⁶"}


@register
class Scaling(Workload):
    """From a thousand square roots to a million: as a list, and through a generator.

    joblib goes along up to 10⁵. Memory comes first, while the heap is still small; both of its
    figures are growth since before the smaller call.
    """

    name = "scaling"
    place = 110
    title = "scaling"
    figures = (
        *(Figure(f"time_{n}", "µs", label=f"{EXPONENTS[n]} × sqrt, a task") for n in POWERS),
        Figure("small_beside_middle", "", (AtMost(1.5),), "a task of 10³ beside 10⁵"),
        Figure("large_beside_middle", "", (AtMost(1.2),), "a task of 10⁶ beside 10⁵"),
        Figure("memory_5", "MB", (), "growth of the parent, 10⁵ through a generator"),
        Figure("memory_6", "MB", (), "growth of the parent, 10⁶ through a generator"),
        Figure("memory_more", "MB", (AtMost(5),), "10⁶ grows further than 10⁵ by"),
    )
    tasks = quick_tasks = 1_000_000

    def ours(self) -> Sample:
        memory = self.memory(doors.parallel_generator("parallel_core", self.n_jobs, sqrt))
        times = self.times(doors.parallel("parallel_core", self.n_jobs), POWERS)
        return {
            **memory,
            **times,
            "small_beside_middle": times["time_3"] / times["time_5"],
            "large_beside_middle": times["time_6"] / times["time_5"],
        }

    def joblib(self) -> Sample:
        return self.times(doors.parallel("joblib", self.n_jobs), POWERS[:-1])

    def times(self, call: doors.Map, powers: tuple[int, ...]) -> Sample:
        """Return microseconds per task for so many powers of ten of tasks."""

        def seconds(count: int) -> float:
            return median_seconds(
                lambda: call(sqrt, range(count)), at_least=2, at_most=25, within=0.5
            )

        call(sqrt, range(1_000))
        return {f"time_{power}": seconds(10**power) / 10**power * 1e6 for power in powers}

    def memory(self, stream: doors.Stream) -> Sample:
        """Return how far the parent grows over calls of 10⁵ and of 10⁶ tasks."""

        def run(count: int) -> None:
            if sum(1 for _ in stream(count)) != count:
                raise AssertionError("wrong number of results")

        run(1_000)
        growth = MemoryGrowth()
        run(10**5)
        middle = growth.megabytes()
        run(10**6)
        large = growth.megabytes()
        return {"memory_5": middle, "memory_6": large, "memory_more": large - middle}
