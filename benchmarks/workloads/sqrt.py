"""What a task costs that does next to nothing."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import payloads
from benchmarks.bars import AtMost, AtMostTimes, TimesFaster
from benchmarks.contestants import FUTURES, JOBLIB
from benchmarks.many_tasks import ManyTasks
from benchmarks.workload import Figure, register


@register
class Sqrt(ManyTasks):
    """``math.sqrt`` of whole numbers."""

    name = "sqrt"
    place = 20
    title = "{tasks} × sqrt from a generator, a task"
    figures = (
        Figure("time", "µs", (AtMost(0.42), TimesFaster(6, JOBLIB), AtMostTimes(1, FUTURES))),
    )
    tasks = 100_000
    quick_tasks = 20_000
    function = staticmethod(payloads.sqrt)

    def items(self, count: int) -> Iterable[int]:
        return range(count)
