"""From nothing until each of many workers has given a result."""

from __future__ import annotations

import json
import statistics
from textwrap import dedent

from benchmarks.bars import AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.measure import run_interpreter
from benchmarks.workload import Figure, Sample, Workload, register

PROGRAM = """
from time import perf_counter
begin = perf_counter()
from itertools import repeat
from {module} import Parallel, delayed

def task():
    import os, time
    {imported}
    time.sleep(0.01)
    return os.getpid()

seen = set()
results = Parallel({workers}, return_as="generator_unordered", batch_size=1{options})(
    repeat(delayed(task)())
)
for pid in results:
    seen.add(pid)
    if len(seen) == {workers}:
        break
elapsed = perf_counter() - begin
memory = None
if {weighs}:
    import re
    from pathlib import Path
    texts = [Path("/proc", str(pid), "smaps_rollup").read_text() for pid in seen]
    memory = sum(int(re.search("^Pss: +([0-9]+) kB", text, re.M)[1]) for text in texts) / 1e3
results.close()
print([elapsed, memory].__repr__().replace("None", "0"))
"""

WITH_TEMPLATE = ', preload=["numpy"]'


class _ManyWorkers(Workload):
    """New interpreters, each until so many different workers have answered.

    Tasks rest for 10 ms each, so that none waits for a worker which has one already. How long that
    takes counts from the first line of the program; nothing of the benchmarks is imported there.
    """

    starts = 3

    def started(self, module: str, options: str = "", imported: str = "") -> tuple[float, float]:
        """Return the seconds, and the memory of the workers in MB if it is a figure."""
        program = PROGRAM.format(
            module=module,
            workers=self.n_tasks,
            options=options,
            imported=imported,
            weighs=module == "parallel_core",
        )
        rows = [json.loads(run_interpreter(dedent(program))[1]) for _ in range(self.starts + 1)]
        seconds, memory = zip(*rows[1:], strict=True)  # the first only fills caches
        return statistics.median(seconds), statistics.median(memory)


@register
class ManyWorkers(_ManyWorkers):
    """Sixteen workers: as they are, and forked from a fork server that has numpy.

    joblib has no fork servers; its figure, with numpy in each worker, is the same in both rows.
    """

    name = "many-workers"
    place = 62
    title = "import, start of {tasks} workers, a first result of each"
    figures = (
        Figure("time", "s", (AtMostTimes(0.35, JOBLIB),)),
        Figure("forkserver", "s", (AtMostTimes(0.1, JOBLIB),), 'ours with preload=["numpy"]'),
    )
    tasks = quick_tasks = 16
    most_rounds = 3

    def ours(self) -> Sample:
        return {
            "time": self.started("parallel_core")[0],
            "forkserver": self.started("parallel_core", WITH_TEMPLATE)[0],
        }

    def joblib(self) -> Sample:
        seconds, _ = self.started("joblib")
        return {"time": seconds, "forkserver": seconds}


@register
class SixtyFourWorkers(_ManyWorkers):
    """Far more workers than cores, whose tasks use numpy: it is imported 64 times, or once."""

    name = "sixty-four-workers"
    place = 64
    title = "the same, {tasks} workers with numpy"
    figures = (
        Figure("time", "s"),
        Figure("forkserver", "s", label='with preload=["numpy"]'),
        Figure("memory", "MB", label="memory of the workers (PSS)"),
        Figure("template_memory", "MB", label='the same, with preload=["numpy"]'),
    )
    tasks = 64
    quick_tasks = 32
    most_rounds = 2
    starts = 1

    def ours(self) -> Sample:
        seconds, memory = self.started("parallel_core", imported="import numpy")
        forkserver, template_memory = self.started("parallel_core", WITH_TEMPLATE, "import numpy")
        return {
            "time": seconds,
            "forkserver": forkserver,
            "memory": memory,
            "template_memory": template_memory,
        }
