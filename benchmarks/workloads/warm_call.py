"""What a call costs when the workers are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from benchmarks import doors, payloads
from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import FUTURES, JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.workload import Figure, Sample, Workload, register


@register
class WarmCall(Workload):
    """Two tiny tasks, again and again, each time a call from the beginning."""

    name = "warm-call"
    place = 10
    title = "warm call of {tasks} tiny tasks"
    figures = (Figure("time", "ms", (AtMostTimes(0.45, FUTURES), TimesFaster(50, JOBLIB))),)
    tasks = quick_tasks = 2
    function: ClassVar[staticmethod[[float], float]] = staticmethod(payloads.sqrt)

    def measured(self, call: doors.Map) -> Sample:
        """Return the median of some hundred calls, after some that do not count."""
        return {"time": self.seconds(call, self.function) * 1e3}

    def seconds(self, call: doors.Map, function: Callable[[float], float]) -> float:
        """Return the median duration of a call, its results checked."""
        expected = [function(item) for item in range(self.n_tasks)]

        def check(results: list[float]) -> None:
            if results != expected:
                raise AssertionError("wrong results")

        def run() -> list[float]:
            return call(function, range(self.n_tasks))

        median_seconds(run, check=check, at_most=50, within=0.5)
        return median_seconds(run, check=check, at_least=20, at_most=500)

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", self.n_jobs))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", self.n_jobs))

    def mpire(self) -> Sample:
        with doors.mpire(self.n_jobs) as call:
            return self.measured(call)

    def futures(self) -> Sample:
        with doors.process_executor(self.n_jobs) as call:
            return self.measured(doors.with_chunk_size(call, 1))

    def pool(self) -> Sample:
        with doors.process_pool(self.n_jobs) as call:
            return self.measured(doors.with_chunk_size(call, 1))
