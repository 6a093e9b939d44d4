"""What a task costs when there is nothing to hand over."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import doors, payloads
from benchmarks.bars import TimesFaster
from benchmarks.contestants import JOBLIB
from benchmarks.many_tasks import MapWork
from benchmarks.workload import Figure, Sample, register


@register
class Sequential(MapWork):
    """``n_jobs=1`` beside a plain loop over the same calls."""

    name = "sequential"
    place = 80
    title = "sequential, {tasks} × sqrt, a task"
    figures = (Figure("time", "µs", (TimesFaster(3.5, JOBLIB),)),)
    tasks = 100_000
    quick_tasks = 20_000
    function = staticmethod(payloads.sqrt)

    def items(self, count: int) -> Iterable[int]:
        return range(count)

    def ours(self) -> Sample:
        return self.measured(doors.parallel("parallel_core", 1))

    def joblib(self) -> Sample:
        return self.measured(doors.parallel("joblib", 1))

    def loop(self) -> Sample:
        return self.measured(lambda function, items: [function(item) for item in items])
