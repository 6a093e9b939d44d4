"""What a task costs when nothing has to be sent: in the calling thread, and on threads."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import doors, payloads
from benchmarks.bars import TimesFaster
from benchmarks.contestants import JOBLIB
from benchmarks.many_tasks import MapWork
from benchmarks.workload import Figure, Sample, register


class Roots(MapWork):
    """Square roots."""

    tasks = 100_000
    quick_tasks = 20_000
    function = staticmethod(payloads.sqrt)

    def items(self, count: int) -> Iterable[int]:
        return range(count)


@register
class Sequential(Roots):
    """``n_jobs=1`` beside a plain loop over the same calls."""

    name = "sequential"
    place = 80
    title = "sequential, {tasks} × sqrt, a task"
    figures = (Figure("time", "µs", (TimesFaster(3.5, JOBLIB),)),)

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", 1))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", 1))

    def loop(self) -> Sample:
        return self.measured(lambda function, items: [function(item) for item in items])


@register
class Threads(Roots):
    """``prefer="threads"`` beside the thread pools of the others."""

    name = "threads"
    place = 90
    title = "threads, {tasks} × sqrt, a task"
    figures = (Figure("time", "µs", (TimesFaster(50, JOBLIB),)),)

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", self.n_jobs, prefer="threads"))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", self.n_jobs, prefer="threads"))

    def mpire(self) -> Sample:
        with doors.mpire(self.n_jobs, start_method="threading") as call:
            return self.measured(call)

    def futures(self) -> Sample:
        with doors.thread_executor(self.n_jobs) as call:
            return self.measured(call)

    def pool(self) -> Sample:
        with doors.thread_pool(self.n_jobs) as call:
            return self.measured_at_best(call)
