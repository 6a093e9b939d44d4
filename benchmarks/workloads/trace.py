"""What it costs to write a trace."""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any

from benchmarks import payloads
from benchmarks.bars import AtMost
from benchmarks.costs import percent_more
from benchmarks.workload import Figure, Sample, Workload, register

_TASK_SECONDS = 1e-5


@register
class Trace(Workload):
    """Calls that write a trace and calls that do not, in turns: the median of their ratios."""

    name = "trace"
    place = 27
    title = "{tasks} tasks with a trace"
    figures = (
        Figure("busy", "%", (AtMost(5),), "of 10 µs, it costs"),
        Figure("compressed", "%", (), "of 10 µs, compressed, it costs"),
        Figure("sqrt", "%", (), "sqrt, it costs"),
    )
    tasks = 100_000
    quick_tasks = 20_000
    timeout = 300.0

    def ours(self) -> Sample:
        module = importlib.import_module("parallel_core")
        delayed = module.delayed
        busy = payloads.compute_for, [_TASK_SECONDS] * self.n_tasks
        works: dict[str, tuple[str, Any, list[Any]]] = {
            "busy": ("run.json", *busy),
            "compressed": ("run.json.gz", *busy),
            "sqrt": ("run.json", payloads.sqrt, list(range(self.n_tasks))),
        }
        sample: Sample = {}
        with tempfile.TemporaryDirectory() as folder:
            for figure, (name, function, items) in works.items():
                path = os.path.join(folder, name)

                def run(called: Any, given: list[Any], writes: bool, path: str = path) -> Any:
                    parallel = module.Parallel(self.n_jobs, trace=path if writes else None)
                    return parallel(delayed(called)(item) for item in given)

                sample[figure] = percent_more(run, function, items, 3 if self.quick else 9)
        return sample
