"""Calls within the tasks of calls, four levels deep."""

from __future__ import annotations

import importlib
from contextlib import suppress
from time import sleep

from benchmarks.bars import AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.looking import Onlooker
from benchmarks.measure import median_seconds
from benchmarks.workload import Figure, Sample, Workload, register

LEVELS = 4
LOOKING_SECONDS = 0.01
RESTING_SECONDS = 0.003


def total(module: str, width: int, levels: int, first: int, seconds: float) -> int:
    """Return the sum of the leaves of a tree of calls: of the numbers from `first` on.

    Each leaf rests for some `seconds`.
    """
    if not levels:
        if seconds:
            sleep(seconds)
        return first
    library = importlib.import_module(module)
    step = width ** (levels - 1)
    tasks = (
        library.delayed(total)(module, width, levels - 1, first + step * number, seconds)
        for number in range(width)
    )
    return sum(library.Parallel(n_jobs=width)(tasks))


@register
class Nested(Workload):
    """As many jobs are asked for at each level as there are tasks.

    Processes and threads are counted in calls of their own, whose tasks rest so that all of them
    are there at once. Both libraries run the third level and the fourth sequentially.
    """

    name = "nested"
    place = 112
    title = "nested calls, 4 levels, {tasks} tasks and as many jobs at each"
    figures = (
        Figure("time", "ms", (AtMostTimes(1, JOBLIB),), "time"),
        Figure("threads", "", (AtMostTimes(1, JOBLIB),), "most threads of all processes"),
    )
    tasks = 8
    quick_tasks = 4
    most_rounds = 3

    def ours(self) -> Sample:
        return self.measured("parallel_core")

    def joblib(self) -> Sample:
        return self.measured("joblib")

    def measured(self, module: str) -> Sample:
        """Return the median of some calls, and what there was of threads in others."""
        leaves = self.n_tasks**LEVELS

        def run(seconds: float = 0.0) -> int:
            return total(module, self.n_tasks, LEVELS, 0, seconds)

        def check(result: int) -> None:
            if result != sum(range(leaves)):
                raise AssertionError("wrong sum")

        check(run())  # workers are born
        time = median_seconds(run, check=check, at_least=3, at_most=9, within=3)
        counter = ThreadCounter()
        with counter:
            for _ in range(3):
                check(run(RESTING_SECONDS))
        if not counter.looks:
            raise AssertionError("never looked")
        return {"time": time * 1e3, "threads": counter.most, "looks": counter.looks}


class ThreadCounter(Onlooker):
    """Looks how many threads this process and its descendants have, again and again.

    Attributes
    ----------
    most : int
        The highest number, without the one that looks.
    looks : int
        How often it looked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = self.looks = 0

    def _look_on(self) -> None:
        import psutil

        this = psutil.Process()
        while not self._ended.wait(LOOKING_SECONDS):
            count = this.num_threads() - 1
            for process in this.children(recursive=True):
                with suppress(psutil.Error):
                    count += process.num_threads()
            self.most = max(self.most, count)
            self.looks += 1
