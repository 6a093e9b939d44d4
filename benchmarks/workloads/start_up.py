"""From nothing to the first result."""

from __future__ import annotations

import statistics
from textwrap import dedent

from benchmarks.bars import AtMost, AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.measure import run_interpreter
from benchmarks.workload import Figure, Sample, Workload, register

PROGRAM = """
from time import perf_counter
begin = perf_counter()
from math import sqrt
{body}
assert list(results) == [0.0, 1.0], results
print(elapsed)
"""

PARALLEL = """
from {module} import Parallel, delayed
results = Parallel(n_jobs={n_jobs})(delayed(sqrt)(x) for x in range(2))
elapsed = perf_counter() - begin
"""

WITH_POOL = """
from {module} import {pool}
with {pool}({n_jobs}) as pool:
    results = list(pool.map(sqrt, range(2)))
    elapsed = perf_counter() - begin
"""


@register
class StartUp(Workload):
    """A new interpreter imports the library, starts its workers and has the first results.

    The clock runs from the first line of the program; it is started as ``python -c``, so nothing
    of the benchmarks is imported in it. How long the whole process took is kept beside it.
    """

    name = "start-up"
    place = 60
    title = "import, start of workers, first result"
    figures = (Figure("time", "s", (AtMost(0.10), AtMostTimes(0.25, JOBLIB))),)
    tasks = quick_tasks = 2

    def measured(self, forkserver: str, module: str, pool: str = "") -> Sample:
        """Run the program a few times, the first of which only fills caches."""
        body = forkserver.format(module=module, pool=pool, n_jobs=self.n_jobs)
        program = PROGRAM.format(body=dedent(body))
        to_result, whole = [], []
        for _ in range(4):
            elapsed, printed = run_interpreter(program)
            whole.append(elapsed)
            to_result.append(float(printed))
        return {
            "time": statistics.median(to_result[1:]),
            "whole_process": statistics.median(whole[1:]),
        }

    def ours(self) -> Sample:
        return self.measured(PARALLEL, "parallel_core")

    def joblib(self) -> Sample:
        return self.measured(PARALLEL, "joblib")

    def mpire(self) -> Sample:
        return self.measured(WITH_POOL, "mpire", "WorkerPool")

    def futures(self) -> Sample:
        return self.measured(WITH_POOL, "concurrent.futures", "ProcessPoolExecutor")

    def pool(self) -> Sample:
        return self.measured(WITH_POOL, "multiprocessing", "Pool")
