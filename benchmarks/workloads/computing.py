"""How well workers are kept busy with tasks that really compute."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import payloads
from benchmarks.bars import AtMost
from benchmarks.many_tasks import ManyTasks
from benchmarks.workload import Figure, Sample, register

TASK_SECONDS = 0.001


@register
class Computing(ManyTasks):
    """Tasks of a millisecond; ideal is all of them, shared by workers that never wait."""

    name = "computing"
    place = 50
    title = "{tasks} tasks of 1 ms of computing, × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.03),)),)
    tasks = 2_000
    quick_tasks = 400
    pieces = (50,)
    function = staticmethod(payloads.compute_for)

    def items(self, count: int) -> Iterable[float]:
        return (TASK_SECONDS for _ in range(count))

    def expected(self, count: int) -> list[float]:
        return [TASK_SECONDS] * count

    def sample_of(self, seconds: float) -> Sample:
        return {"beside_ideal": seconds / (self.n_tasks * TASK_SECONDS / self.n_jobs)}
