"""What it costs to show how far a call is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks import payloads
from benchmarks.bars import AtMost
from benchmarks.costs import percent_more
from benchmarks.workload import Figure, Sample, Workload, register

_TASK_SECONDS = 1e-5


@register
class ProgressBar(Workload):
    """Calls with a bar and without, in turns: the median of their ratios."""

    name = "progress"
    place = 25
    title = "{tasks} tasks with a progress bar"
    figures = (
        Figure("busy", "%", (AtMost(2),), "of 10 µs, it costs"),
        Figure("sqrt", "%", (AtMost(5),), "sqrt, it costs"),
    )
    tasks = 100_000
    quick_tasks = 20_000
    timeout = 300.0

    def _costs(self, run: Callable[[Any, list[Any], bool], Any]) -> Sample:
        works = {
            "busy": (payloads.compute_for, [_TASK_SECONDS] * self.n_tasks),
            "sqrt": (payloads.sqrt, list(range(self.n_tasks))),
        }
        sample: Sample = {}
        for name, (function, items) in works.items():
            sample[name] = percent_more(run, function, items, 3 if self.quick else 9)
        return sample

    def ours(self) -> Sample:
        module = importlib.import_module("parallel_core")
        delayed = module.delayed
        with open("/dev/null", "w") as nowhere:
            shown = {"style": "tqdm", "disable": False, "file": nowhere, "ncols": 100}

            def run(function: Any, items: list[Any], shows: bool) -> Any:
                parallel = module.Parallel(self.n_jobs, progress=shown if shows else False)
                return parallel(delayed(function)(item) for item in items)

            return self._costs(run)

    def mpire(self) -> Sample:
        pool_class = importlib.import_module("mpire").WorkerPool
        with open("/dev/null", "w") as nowhere:
            options = {"file": nowhere, "ncols": 100}
            with pool_class(self.n_jobs, keep_alive=True) as pool:

                def run(function: Any, items: list[Any], shows: bool) -> Any:
                    return pool.map(
                        function, items, progress_bar=shows, progress_bar_options=options
                    )

                return self._costs(run)
