"""`parallelize` beside sciris's, in the same words: each of its parallelizers, and the best one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks import payloads
from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import SCIRIS
from benchmarks.measure import median_seconds
from benchmarks.workload import Figure, Sample, Workload, register

PARALLELIZERS = ("robust", "fast", "multiprocessing", "thread", "serial")


class OneCall(Workload):
    """Quick calls by `parallelize`, one call after the other as programs make them."""

    section = "parallelism in one call, beside sciris"
    tasks = 10_000
    quick_tasks = 1000
    most_rounds = 3
    timeout = 240.0
    parallelizers: ClassVar[tuple[str, ...]] = PARALLELIZERS

    def measured(self, parallelize: Callable[..., Any], parallelizers: tuple[str, ...]) -> Sample:
        """Return the least time of the `parallelizers`; the times of all are remarks."""
        expected = list(map(payloads.sqrt, range(self.n_tasks)))

        def check(results: list[float]) -> None:
            if results != expected:
                raise AssertionError("wrong results")

        times = {}
        for name in parallelizers:

            def run(name: str = name) -> Any:
                return parallelize(
                    payloads.sqrt, range(self.n_tasks), ncpus=self.n_jobs, parallelizer=name
                )

            run()
            times[name] = median_seconds(run, check=check, at_most=10) * 1e3
        return {"time": min(times.values()), **times}

    def ours(self) -> Sample:
        import numpy.random  # noqa: F401 - as sciris does: jobs are seeded then

        found = importlib.import_module("parallel_core").parallelize
        return self.measured(found, self.of_ours())

    def of_ours(self) -> tuple[str, ...]:
        """Return the parallelizers of ours that are beside those of the original."""
        return self.parallelizers

    def sciris(self) -> Sample:
        return self.measured(importlib.import_module("sciris").parallelize, self.parallelizers)


@register
class Default(OneCall):
    """Ours as it is called without further words, beside the best of theirs."""

    name = "parallelize"
    place = 600
    title = "{tasks} quick calls by parallelize, the best parallelizer of sciris"
    figures = (Figure("time", "ms", (TimesFaster(10, SCIRIS),)),)

    def of_ours(self) -> tuple[str, ...]:
        return ("default",)


@register
class Robust(OneCall):
    """Processes."""

    name = "parallelize-robust"
    place = 601
    title = "{tasks} quick calls by parallelize, robust"
    figures = (Figure("time", "ms", (TimesFaster(10, SCIRIS),)),)
    parallelizers = ("robust",)


@register
class Fast(OneCall):
    """Processes, by theirs of `concurrent.futures`."""

    name = "parallelize-fast"
    place = 602
    title = "{tasks} quick calls by parallelize, fast"
    figures = (Figure("time", "ms", (TimesFaster(10, SCIRIS),)),)
    parallelizers = ("fast",)


@register
class Threads(OneCall):
    """Threads."""

    name = "parallelize-thread"
    place = 603
    title = "{tasks} quick calls by parallelize, thread"
    figures = (Figure("time", "ms", (TimesFaster(10, SCIRIS),)),)
    parallelizers = ("thread",)


@register
class Serial(OneCall):
    """A loop in the calling thread: what it takes is the seeding of two generators for each job."""

    name = "parallelize-serial"
    place = 604
    title = "{tasks} quick calls by parallelize, serial"
    figures = (Figure("time", "ms", (AtMostTimes(1, SCIRIS),)),)
    parallelizers = ("serial",)
