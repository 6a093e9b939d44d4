"""What a call costs within a ``with`` block, which keeps its workers for it."""

from __future__ import annotations

from benchmarks import doors
from benchmarks.bars import AtMostTimes
from benchmarks.contestants import FUTURES
from benchmarks.workload import Figure, Sample, register
from benchmarks.workloads.warm_call import WarmCall


@register
class WarmCallWithin(WarmCall):
    """The same warm call, of one ``Parallel``; the other libraries are asked as they were there."""

    name = "warm-call-within"
    place = 14
    title = "warm call of {tasks} tiny tasks within a with block"
    figures = (Figure("time", "ms", (AtMostTimes(0.35, FUTURES),)),)

    def ours(self) -> Sample:
        return self.within("parallel_core")

    def joblib(self) -> Sample:
        return self.within("joblib")

    def within(self, module: str) -> Sample:
        """Measure the calls of one ``Parallel``."""
        with doors.parallel_within(module, self.n_jobs) as call:
            return self.measured(lambda function, items: call(function, ((x,) for x in items)))
