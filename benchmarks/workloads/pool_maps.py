"""What a task and a map cost in a pool that keeps its workers."""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import Any

from benchmarks import payloads
from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import MPIRE
from benchmarks.measure import median_seconds, run_interpreter
from benchmarks.pools import Make, PoolWork
from benchmarks.workload import Figure, Sample, register


class Sqrt(PoolWork):
    """``math.sqrt`` of whole numbers, of which both know how many there are."""

    tasks = 100_000
    quick_tasks = 20_000

    def measured(self, make: Make, is_ours: bool) -> Sample:
        expected = list(map(payloads.sqrt, range(self.n_tasks)))

        def check(results: list[float]) -> None:
            if results != expected:
                raise AssertionError("wrong results")

        with make(keep_alive=True) as pool:
            pool.map(payloads.sqrt, range(100))
            seconds = median_seconds(lambda: self.map(pool, is_ours), check=check)
        return {"time": seconds / self.n_tasks * 1e6}

    def map(self, pool: Any, is_ours: bool) -> Any:
        """Run one map."""
        del is_ours
        return pool.map(payloads.sqrt, range(self.n_tasks))


@register
class SqrtFork(Sqrt):
    """By the start method ``"fork"``."""

    name = "pool-sqrt-fork"
    place = 500
    title = "{tasks} × sqrt, fork, a task"
    figures = (Figure("time", "µs", (TimesFaster(9, MPIRE),)),)
    start_method = "fork"


@register
class SqrtForkserver(Sqrt):
    """By the start method ``"forkserver"``."""

    name = "pool-sqrt-forkserver"
    place = 501
    title = "{tasks} × sqrt, forkserver, a task"
    figures = (Figure("time", "µs", (TimesFaster(9, MPIRE),)),)
    start_method = "forkserver"


@register
class SqrtSpawn(Sqrt):
    """By the start method ``"spawn"``."""

    name = "pool-sqrt-spawn"
    place = 502
    title = "{tasks} × sqrt, spawn, a task"
    figures = (Figure("time", "µs", (TimesFaster(9, MPIRE),)),)
    start_method = "spawn"


@register
class SqrtThreading(Sqrt):
    """By the start method ``"threading"``."""

    name = "pool-sqrt-threading"
    place = 503
    title = "{tasks} × sqrt, threading, a task"
    figures = (Figure("time", "µs", (TimesFaster(8, MPIRE),)),)
    start_method = "threading"


@register
class Generator(Sqrt):
    """From a generator; MPIRE is told how many there are, so that it need not use small chunks."""

    name = "pool-generator"
    place = 510
    title = "{tasks} × sqrt from a generator, a task"
    figures = (Figure("time", "µs", (TimesFaster(9, MPIRE),)),)

    def map(self, pool: Any, is_ours: bool) -> Any:
        known = {} if is_ours else {"iterable_len": self.n_tasks}
        return pool.map(payloads.sqrt, (item for item in range(self.n_tasks)), **known)


@register
class Million(Sqrt):
    """A million of them."""

    name = "pool-million"
    place = 511
    title = "{tasks} × sqrt, all"
    figures = (Figure("time", "s", (TimesFaster(40, MPIRE),)),)
    tasks = 1_000_000
    quick_tasks = 100_000
    most_rounds = 1
    timeout = 240.0

    def measured(self, make: Make, is_ours: bool) -> Sample:
        with make() as pool:
            begin = perf_counter()
            results = pool.map(payloads.sqrt, range(self.n_tasks))
            seconds = perf_counter() - begin
        if results[-1] != payloads.sqrt(self.n_tasks - 1):
            raise AssertionError("wrong results")
        return {"time": seconds}


@register
class SecondMap(PoolWork):
    """A map of two tiny tasks by workers that are there."""

    name = "pool-second-map"
    place = 512
    title = "second map of {tasks} tiny tasks, with keep_alive"
    figures = (Figure("time", "ms", (AtMostTimes(0.35, MPIRE),)),)
    tasks = quick_tasks = 2

    def measured(self, make: Make, is_ours: bool) -> Sample:
        with make(keep_alive=True) as pool:

            def run() -> Any:
                return pool.map(payloads.sqrt, range(2))

            median_seconds(run, at_most=50, within=0.5)
            seconds = median_seconds(run, at_least=20, at_most=500)
        return {"time": seconds * 1e3}


class FirstMap(PoolWork):
    """A new interpreter imports the library, starts a pool, and has the results of a map."""

    tasks = quick_tasks = 2
    rounds_within = 4

    def measured_from(self, module: str) -> Sample:
        program = PROGRAM.format(module=module, n_jobs=self.n_jobs, method=self.start_method)
        times = [float(run_interpreter(program)[1]) for _ in range(self.rounds_within)]
        return {"time": statistics.median(times[1:])}

    def ours(self) -> Sample:
        return self.measured_from("parallel_core")

    def mpire(self) -> Sample:
        return self.measured_from("mpire")


PROGRAM = """
from time import perf_counter
begin = perf_counter()
from math import sqrt
from {module} import WorkerPool
with WorkerPool({n_jobs}, start_method={method!r}) as pool:
    results = pool.map(sqrt, range(2))
    elapsed = perf_counter() - begin
assert results == [0.0, 1.0], results
print(elapsed)
"""


@register
class FirstMapFork(FirstMap):
    """By a fork."""

    name = "pool-first-map-fork"
    place = 513
    title = "import, pool, first map, fork"
    figures = (Figure("time", "s", (AtMostTimes(0.4, MPIRE),)),)


@register
class FirstMapSpawn(FirstMap):
    """By interpreters of their own."""

    name = "pool-first-map-spawn"
    place = 514
    title = "import, pool, first map, spawn"
    figures = (Figure("time", "s", (AtMostTimes(0.5, MPIRE),)),)
    start_method = "spawn"


@register
class LargeResults(PoolWork):
    """Results of 64 MiB each."""

    name = "pool-large-results"
    place = 515
    title = "{tasks} results of {size} each"
    figures = (Figure("time", "s", (TimesFaster(3, MPIRE),)),)
    tasks = 40
    quick_tasks = 10
    nbytes = 64 << 20
    quick_nbytes = 16 << 20
    most_rounds = 3
    timeout = 180.0

    def measured(self, make: Make, is_ours: bool) -> Sample:
        with make() as pool:
            begin = perf_counter()
            lengths = []
            for result in pool.imap(bytes, [(self.size,)] * self.n_tasks, chunk_size=1):
                lengths.append(len(result))
            seconds = perf_counter() - begin
        if lengths != [self.size] * self.n_tasks:
            raise AssertionError("wrong results")
        return {"time": seconds}


@register
class ApplyAsync(PoolWork):
    """Single calls of next to nothing, put in all at once."""

    name = "pool-apply-async"
    place = 516
    title = "{tasks} × apply_async of nothing, then all get, a call"
    figures = (Figure("time", "µs", (TimesFaster(5, MPIRE),)),)
    tasks = 2000
    quick_tasks = 500

    def measured(self, make: Make, is_ours: bool) -> Sample:
        expected = list(range(self.n_tasks))
        with make() as pool:

            def run() -> Any:
                pending = [pool.apply_async(abs, (x,)) for x in range(self.n_tasks)]
                return [result.get() for result in pending]

            if run() != expected:
                raise AssertionError("wrong results")
            seconds = median_seconds(run)
        return {"time": seconds / self.n_tasks * 1e6}
