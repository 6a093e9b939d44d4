"""What carrying the caller's context costs, and a stream of random numbers for each task."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from statistics import median

from benchmarks import doors, payloads
from benchmarks.bars import AtMost
from benchmarks.measure import seconds_of
from benchmarks.workload import Figure, Sample, Workload, register

SECONDS = 1e-5

_ROUNDS, _QUICK_ROUNDS = 9, 3


@contextmanager
def something_set_up() -> Iterator[None]:
    """Set up what a program may have: filters, levels and a variable."""
    loggers = [logging.getLogger(f"benchmarks.context.{number}") for number in range(50)]
    token = payloads.variable.set("something")
    with warnings.catch_warnings():
        for number, logger in enumerate(loggers):
            warnings.filterwarnings("ignore", message=f"number {number}")
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger in loggers:
                logger.setLevel(logging.NOTSET)
            payloads.variable.reset(token)


def load_generators() -> None:
    """Have the worker load what is seeded around each task, where it is loaded."""
    importlib.import_module("random")
    importlib.import_module("numpy.random")


@register
class Context(Workload):
    """The same call with and without, in turns."""

    name = "context"
    place = 85
    title = "{tasks} tasks of 10 µs"
    figures = (
        Figure("ratio", "", (AtMost(1.03),), "with context and seed / without"),
        Figure("seeding", "µs", (), "seeding random and numpy.random, a task"),
    )
    tasks = 100_000
    quick_tasks = 10_000

    def ours(self) -> Sample:
        plain = doors.parallel("parallel_core", self.n_jobs)
        seeded = doors.parallel("parallel_core", self.n_jobs, seed=1)
        without, within = self._in_turns(
            lambda: plain(payloads.compute_for, repeat(SECONDS, self.n_tasks)),
            lambda: self._within(seeded),
        )
        options = {"initializer": load_generators}
        plain = doors.parallel("parallel_core", self.n_jobs, **options)
        seeded = doors.parallel("parallel_core", self.n_jobs, seed=1, **options)
        unseeded, with_seeds = self._in_turns(
            lambda: plain(payloads.compute_for, repeat(SECONDS, self.n_tasks)),
            lambda: seeded(payloads.compute_for, repeat(SECONDS, self.n_tasks)),
        )
        seeding = (with_seeds - unseeded) * self.n_jobs / self.n_tasks * 1e6
        return {"ratio": within / without, "seeding": seeding}

    def _within(self, call: doors.Map) -> object:
        with something_set_up():
            return call(payloads.compute_for, repeat(SECONDS, self.n_tasks))

    def _in_turns(
        self, first: Callable[[], object], second: Callable[[], object]
    ) -> tuple[float, float]:
        """Return the median durations of two calls, made in turns."""
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(_QUICK_ROUNDS if self.quick else _ROUNDS):
            seconds[0].append(seconds_of(first))
            seconds[1].append(seconds_of(second))
        return median(seconds[0][1:]), median(seconds[1][1:])
