"""What progress bars and insights cost, what does not pickle, and MPIRE's own three examples."""

from __future__ import annotations

import contextlib
import io
import threading
from time import perf_counter
from typing import Any

from benchmarks import payloads
from benchmarks.bars import AtMost, TimesFaster
from benchmarks.contestants import MPIRE, OURS, Contestant
from benchmarks.measure import median_seconds
from benchmarks.pools import Make, PoolWork
from benchmarks.workload import Figure, Sample, register

_TASK_SECONDS = 1e-5


@register
class Watched(PoolWork):
    """Tasks of 10 µs, with nothing, with a progress bar and with insights, in turns."""

    name = "pool-watched"
    place = 520
    title = "{tasks} tasks of 10 µs"
    figures = (
        Figure("bar", "%", (AtMost(2),), "a progress bar costs", False),
        Figure("insights", "%", (AtMost(2),), "insights cost", False),
    )
    tasks = 100_000
    quick_tasks = 20_000
    timeout = 180.0

    def measured(self, make: Make, is_ours: bool) -> Sample:
        items = [_TASK_SECONDS] * self.n_tasks
        best = dict.fromkeys(("plain", "bar", "insights"), float("inf"))
        with make(keep_alive=True) as plain, make(keep_alive=True, enable_insights=True) as watched:
            for pool in (plain, watched):
                pool.map(payloads.compute_for, items[:1000])
            for _ in range(8):
                for name in best:
                    pool = watched if name == "insights" else plain
                    begin = perf_counter()
                    with contextlib.redirect_stderr(io.StringIO()):
                        pool.map(payloads.compute_for, items, progress_bar=name == "bar")
                    best[name] = min(best[name], perf_counter() - begin)
        return {
            "bar": (best["bar"] / best["plain"] - 1) * 100,
            "insights": (best["insights"] / best["plain"] - 1) * 100,
        }


@register
class Unpicklable(PoolWork):
    """A lock as an argument, as a result and within an exception; MPIRE's pools hang."""

    name = "pool-unpicklable"
    place = 521
    title = "what does not pickle, at one of {tasks} tasks"
    figures = (Figure("time", "s", (AtMost(0.3),), "error after", False),)
    tasks = quick_tasks = 40

    def measured(self, make: Make, is_ours: bool) -> Sample:
        worst = 0.0
        for function, bad in (
            (payloads.take_anything, threading.Lock()),
            (payloads.return_lock_for, -1),
            (payloads.raise_lock_for, -1),
        ):
            items: list[Any] = list(range(self.n_tasks))
            items[self.n_tasks // 2] = bad
            with make() as pool:
                begin = perf_counter()
                try:
                    pool.map(function, items)
                except Exception:
                    worst = max(worst, perf_counter() - begin)
                else:
                    raise AssertionError("no error")
        return {"time": worst}

    @classmethod
    def contestants(cls) -> tuple[Contestant, ...]:
        return (OURS,)


@register
class Numerical(PoolWork):
    """A large array that all tasks share, and a scalar for each: numerical computation."""

    name = "pool-numerical"
    place = 530
    title = "{tasks} tasks on a shared array"
    figures = (Figure("time", "s", (TimesFaster(1, MPIRE),)),)
    tasks = 200
    quick_tasks = 40

    def measured(self, make: Make, is_ours: bool) -> Sample:
        import numpy as np

        array = np.random.default_rng(0).random((500, 500))
        expected = [payloads.scaled_sum(array, x) for x in range(self.n_tasks)]

        def run() -> Any:
            with make(shared_objects=array) as pool:
                return pool.map(payloads.scaled_sum, range(self.n_tasks))

        def check(results: Any) -> None:
            if list(results) != expected:
                raise AssertionError("wrong results")

        return {"time": median_seconds(run, check=check)}


@register
class Stateful(PoolWork):
    """Workers that count what they have seen, in a state of their own: stateful computation."""

    name = "pool-stateful"
    place = 531
    title = "{tasks} tasks that keep a state, and its sum"
    figures = (Figure("time", "s", (TimesFaster(1, MPIRE),)),)
    tasks = 10_000
    quick_tasks = 2_000

    def measured(self, make: Make, is_ours: bool) -> Sample:
        def run() -> int:
            with make(use_worker_state=True) as pool:
                pool.map(
                    payloads.add_to_state,
                    range(self.n_tasks),
                    worker_init=payloads.empty_state,
                    worker_exit=payloads.sum_of_state,
                )
                return sum(pool.get_exit_results())

        def check(total: int) -> None:
            if total != sum(range(self.n_tasks)):
                raise AssertionError("wrong sum")

        return {"time": median_seconds(run, check=check)}


@register
class Expensive(PoolWork):
    """Workers that take their time to begin, and are kept for several maps."""

    name = "pool-expensive-init"
    place = 532
    title = "5 maps of {tasks} tasks after an init of 0.1 s"
    figures = (Figure("time", "s", (TimesFaster(1, MPIRE),)),)
    tasks = 1000
    quick_tasks = 200

    def measured(self, make: Make, is_ours: bool) -> Sample:
        def run() -> Any:
            with make(use_worker_state=True, keep_alive=True) as pool:
                for _ in range(5):
                    results = pool.map(
                        payloads.ask_model, range(self.n_tasks), worker_init=payloads.load_model
                    )
            return results

        def check(results: Any) -> None:
            if results != [x + 1 for x in range(self.n_tasks)]:
                raise AssertionError("wrong results")

        return {"time": median_seconds(run, check=check)}
