"""What a call costs when the workers are there already."""

from __future__ import annotations

from benchmarks import doors
from benchmarks.bars import AtMost, TimesFaster
from benchmarks.contestants import JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.payloads import sqrt
from benchmarks.workload import Figure, Sample, Workload, register


@register
class WarmCall(Workload):
    """Two tiny tasks, again and again, each time a call from the beginning."""

    name = "warm-call"
    place = 10
    title = "warm call of {tasks} tiny tasks"
    figures = (Figure("time", "ms", (AtMost(0.12), TimesFaster(90, JOBLIB))),)
    tasks = quick_tasks = 2

    def measured(self, call: doors.Map) -> Sample:
        """Return the median of some hundred calls, after some that do not count."""
        expected = [sqrt(item) for item in range(self.n_tasks)]

        def check(results: list[float]) -> None:
            if results != expected:
                raise AssertionError("wrong results")

        def run() -> list[float]:
            return call(sqrt, range(self.n_tasks))

        median_seconds(run, check=check, at_most=50, within=0.5)
        return {"time": median_seconds(run, check=check, at_least=20, at_most=500) * 1e3}

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
