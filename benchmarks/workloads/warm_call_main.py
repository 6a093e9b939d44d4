"""What a warm call costs whose function cannot be imported by the workers.

This module is ``__main__`` in its fresh processes, so that `my_sqrt` really comes from there.
"""

from __future__ import annotations

import math
import statistics
import sys

from benchmarks import child, doors, payloads
from benchmarks.bars import AtMost
from benchmarks.workload import Figure, Sample, register
from benchmarks.workloads.warm_call import WarmCall


def my_sqrt(x: float) -> float:
    """Return the square root, as a function that a user wrote in a script."""
    return math.sqrt(x)


@register
class WarmCallOfMain(WarmCall):
    """The same warm call, by a function from ``__main__`` and by ``math.sqrt`` in turn."""

    name = "warm-call-main"
    place = 12
    title = "warm call of {tasks} tiny tasks by a function from __main__"
    figures = (
        Figure("time", "ms"),
        Figure(
            "beside_import", "", (AtMost(1.15),), "× math.sqrt in turn with it", in_picture=False
        ),
    )
    entry = "benchmarks.workloads.warm_call_main"
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
    sys.exit(child.main(sys.argv[1:], WarmCallOfMain))
