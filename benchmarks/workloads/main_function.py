"""What a task and a warm call cost whose function cannot be imported by the workers.

This module is ``__main__`` in its fresh processes, so that `my_sqrt` really comes from there.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable

from benchmarks import child, doors, payloads
from benchmarks.bars import AtMost, AtMostTimes, TimesFaster
from benchmarks.contestants import FUTURES, JOBLIB
from benchmarks.many_tasks import ManyTasks
from benchmarks.measure import seconds_of
from benchmarks.workload import Figure, Sample, register
from benchmarks.workloads.warm_call import WarmCall


def my_sqrt(x: float) -> float:
    """Return the square root, as a function that a user wrote in a script."""
    return math.sqrt(x)


@register
class MainFunction(ManyTasks):
    """The same square roots, by a function from ``__main__`` and by ``math.sqrt`` in turn."""

    name = "main-function"
    place = 30
    title = "{tasks} × sqrt by a function from __main__, a task"
    figures = (
        Figure("time", "µs", (AtMostTimes(0.8, FUTURES), TimesFaster(6, JOBLIB))),
        Figure("beside_import", "", (AtMost(1.3),), "× math.sqrt in turn with it"),
    )
    tasks = 100_000
    quick_tasks = 20_000
    entry = "benchmarks.workloads.main_function"
    function = staticmethod(my_sqrt)

    def items(self, count: int) -> Iterable[int]:
        return range(count)

    def ours(self) -> Sample:
        call = doors.parallel("parallel_core", self.n_jobs)
        sample = self.measured(call)
        own_by_turns: list[float] = []
        imported_by_turns: list[float] = []
        for _ in range(5):
            own_by_turns.append(seconds_of(lambda: call(my_sqrt, range(self.n_tasks))))
            imported_by_turns.append(seconds_of(lambda: call(payloads.sqrt, range(self.n_tasks))))
        ratio = statistics.median(own_by_turns) / statistics.median(imported_by_turns)
        return {**sample, "beside_import": ratio}


@register
class WarmCallOfMain(WarmCall):
    """The same warm call, by a function from ``__main__`` and by ``math.sqrt`` in turn."""

    name = "warm-call-main"
    place = 12
    title = "warm call of {tasks} tiny tasks by a function from __main__"
    figures = (
        Figure("time", "ms"),
        Figure("beside_import", "", (AtMost(1.15),), "× math.sqrt in turn with it"),
    )
    entry = "benchmarks.workloads.main_function"
    function = staticmethod(my_sqrt)

    def ours(self) -> Sample:
        call = doors.parallel("parallel_core", self.n_jobs)
        own: list[float] = []
        imported: list[float] = []
        for _ in range(5):
            own.append(self.seconds(call, my_sqrt))
            imported.append(self.seconds(call, payloads.sqrt))
        ratio = statistics.median(own) / statistics.median(imported)
        return {"time": statistics.median(own) * 1e3, "beside_import": ratio}


if __name__ == "__main__":
    sys.exit(child.main(sys.argv[1:], MainFunction, WarmCallOfMain))
