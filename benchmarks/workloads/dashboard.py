"""What it costs to be watched by a dashboard."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from statistics import median
from time import perf_counter, sleep
from typing import Any

from benchmarks import payloads
from benchmarks.bars import AtMost
from benchmarks.workload import Figure, Sample, Workload, register

_TASK_SECONDS = 1e-5
_VARIABLE = "PARALLEL_CORE_DASHBOARD"


@register
class Dashboard(Workload):
    """Calls that a dashboard watches, and that none does, in turns: the median of their ratios."""

    name = "dashboard"
    place = 26
    title = "{tasks} tasks with a dashboard"
    figures = (
        Figure("busy", "%", (AtMost(3),), "of 10 µs, it costs", False),
        Figure("sqrt", "%", (), "sqrt, it costs", False),
        Figure("nobody", "µs", (), "a look that finds none", False),
    )
    tasks = 100_000
    quick_tasks = 20_000
    timeout = 300.0

    def ours(self) -> Sample:
        module = importlib.import_module("parallel_core")
        listener = importlib.import_module("parallel_core.observe.listener")
        delayed = module.delayed
        works = {
            "busy": (payloads.compute_for, [_TASK_SECONDS] * self.n_tasks),
            "sqrt": (payloads.sqrt, list(range(self.n_tasks))),
        }
        sample: Sample = {}
        with _own_name():
            began = perf_counter()
            for _ in range(1000):
                listener.look_again()
                listener.has_listener()
            sample["nobody"] = (perf_counter() - began) * 1e3
            details = module.start_dashboard(range(8400, 8500))
            try:
                for name, (function, items) in works.items():
                    sample[name] = self._cost(module, delayed, listener, function, items)
            finally:
                module.shutdown_dashboard()
        assert details["url"]
        return sample

    def _cost(
        self, module: Any, delayed: Any, listener: Any, function: Any, items: list[Any]
    ) -> float:
        ratios = []
        name = os.environ[_VARIABLE]
        for turn in range(-1, 3 if self.quick else 9):
            seconds: dict[bool, float] = {}
            for is_watched in (False, True) if turn % 2 else (True, False):
                os.environ[_VARIABLE] = name if is_watched else "off"
                listener.look_again()
                sleep(0.3)  # the server takes in what was before
                began = perf_counter()
                found = module.Parallel(self.n_jobs)(delayed(function)(item) for item in items)
                seconds[is_watched] = perf_counter() - began
                if len(found) != self.n_tasks:
                    raise AssertionError(f"{len(found)} results")
            if turn >= 0:
                ratios.append(seconds[True] / seconds[False])
        os.environ[_VARIABLE] = name
        return (median(ratios) - 1) * 100


@contextlib.contextmanager
def _own_name() -> Iterator[None]:
    """Have nobody else's dashboard be found."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = f"benchmark-{os.getpid()}"
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
