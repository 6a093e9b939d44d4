"""Random numbers of tasks, and what they depend on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from benchmarks import doors
from benchmarks.askers import ASKERS
from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import draws, draws_and_is_killed_once, draws_rng, draws_rng_and_is_killed
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

SEED = 1
SETTINGS = ("2 workers", "4 workers", "single tasks", "threads", "a worker killed")

Draw = Callable[[int], list[float]]


def in_threads(key: str, n_jobs: int) -> Callable[[Draw, list[int]], list[Any]]:
    """Return what maps a function over items in threads of one contestant."""
    if key == "ours":
        return ASKERS[key](n_jobs, prefer="threads", seed=SEED).as_list
    if key == "joblib":
        return ASKERS[key](n_jobs, prefer="threads").as_list
    if key == "mpire":
        mapped: Callable[[Draw, list[int]], list[Any]] = doors.mpire_pool(
            n_jobs, start_method="threading"
        ).map
        return mapped
    if key == "pool":
        pool: Any = importlib.import_module("multiprocessing.pool").ThreadPool(n_jobs)
        return pool.map
    executor = importlib.import_module("concurrent.futures").ThreadPoolExecutor(n_jobs)
    return lambda function, items: list(executor.map(function, items))


class DrawNumbers(Trial):
    """Draw numbers in tasks with one worker and in five other ways, and tell what differs."""

    def run(self) -> None:
        is_ours = self.key == "ours"
        self.drawing: Draw = draws_rng if is_ours else draws
        self.fatal: Draw = draws_rng_and_is_killed if is_ours else draws_and_is_killed_once
        self.items = list(range(self.options["tasks"]))
        expected = self.drawn(1)
        for setting in SETTINGS:
            with self.telling_errors():
                if self.in_setting(setting) == expected:
                    self.tell({"kept": setting})
            self.tell({"setting": setting})

    def in_setting(self, setting: str) -> list[Any]:
        """Return what tasks have drawn there."""
        if setting == "threads":
            self.seed()
            return in_threads(self.key, 2)(self.drawing, self.items)
        if setting == "a worker killed":
            return self.drawn(2, function=self.fatal)
        if setting == "single tasks":
            return self.drawn(2, chunk_size=1)
        return self.drawn(int(setting[0]))

    def drawn(self, n_jobs: int, function: Draw | None = None, **how: Any) -> list[Any]:
        """Return what tasks have drawn in processes that are born now."""
        self.seed()
        options = {"seed": SEED, "retries": 1} if self.key == "ours" else {}
        return ASKERS[self.key](n_jobs, **options).as_list(
            function or self.drawing, self.items, **how
        )

    def seed(self) -> None:
        """Seed what there is for who has no other seed to give."""
        importlib.import_module("numpy").random.seed(SEED)


@register
class SameNumbers(Hardship):
    """The numbers of a call with one seed, beside those with one worker.

    Who has no seed of a call has its caller seed ``numpy.random``, before workers are born.
    """

    name = "same-numbers"
    place = 380
    title = "random numbers of {tasks} tasks, with one seed"
    tasks = quick_tasks = 40
    figures = (
        Figure(
            "differ",
            f"of {len(SETTINGS)}",
            (AtMost(0),),
            "other than with one worker: with 2, with 4, single tasks, threads, a worker killed",
        ),
    )
    trial = DrawNumbers

    def sample_of(self, key: str) -> Sample:
        with self.watch(key, tasks=self.n_tasks) as watch:
            told = watch.listen()
        kept = {line["kept"] for line in told if "kept" in line}
        differ = {f"differ with {setting}": float(setting not in kept) for setting in SETTINGS}
        return {"differ": sum(differ.values()), **differ, "hung": watch.hung}
