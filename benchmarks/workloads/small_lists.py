"""What a task costs whose argument and result have to be pickled."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import doors, payloads
from benchmarks.bars import AtMostTimes
from benchmarks.contestants import FUTURES
from benchmarks.many_tasks import ManyTasks
from benchmarks.workload import Figure, Sample, register


@register
class SmallLists(ManyTasks):
    """A new list of three floats in, another out."""

    name = "small-lists"
    place = 40
    title = "{tasks} tasks, a list of 3 floats in and out, a task"
    figures = (Figure("time", "µs", (AtMostTimes(1.3, FUTURES),)),)
    tasks = 100_000
    quick_tasks = 20_000
    function = staticmethod(payloads.halve_each)

    def items(self, count: int) -> Iterable[list[float]]:
        return ([number, number + 0.25, number + 0.5] for number in map(float, range(count)))

    def mpire(self) -> Sample:
        """Hand every list over in a tuple, since MPIRE unpacks what it is given."""
        with doors.mpire(self.n_jobs) as call:
            return self.measured(
                lambda function, items: call(function, ((item,) for item in items))
            )
