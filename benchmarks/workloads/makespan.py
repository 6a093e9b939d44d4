"""How well workers are kept busy with tasks of which nobody knows how long they take."""

from __future__ import annotations

import random
from collections.abc import Iterator
from time import perf_counter, sleep

from benchmarks import doors, payloads
from benchmarks.bars import AtMost
from benchmarks.conditions import Conditions
from benchmarks.ideal import cost_of_a_sleep, ideal_seconds
from benchmarks.many_tasks import ManyTasks
from benchmarks.workload import Figure, Sample, register


class Makespan(ManyTasks):
    """Base of these works: sleeps, unless they say that they compute.

    The standard library gets single tasks, which no chunk size beats here. Ideal are workers that
    take the tasks in order with no overhead; what a sleep costs beyond what it says counts as
    theirs too, measured in the same process.
    """

    section = "how long it takes beside perfect workers"
    function = staticmethod(payloads.sleep_for)
    most_rounds = 3
    every = 0.0

    def items(self, count: int) -> list[float]:
        raise NotImplementedError

    def expected(self, count: int) -> list[float]:
        return self.items(count)

    def sample_of(self, seconds: float) -> Sample:
        sleeps = self.function is payloads.sleep_for
        added = cost_of_a_sleep(self.items(self.n_tasks)) if sleeps else 0.0
        ideal = ideal_seconds(
            self.items(self.n_tasks),
            self.n_jobs,
            added=added,
            every=self.every + added if self.every else 0.0,
        )
        return {"beside_ideal": seconds / ideal, "seconds": seconds, "sleep_costs": added}

    def seconds(self, call: doors.Map) -> float:
        """Return how long all tasks take, at once, on workers that have had some like them."""
        call(self.function, [1e-4] * 100)
        begin = perf_counter()
        results = call(self.function, self.stream(self.n_tasks))
        seconds = perf_counter() - begin
        if results != self.items(self.n_tasks):
            raise AssertionError("wrong results")
        return seconds

    def measured_at_best(self, call: doors.ChunkedMap) -> Sample:
        return self.measured(doors.with_chunk_size(call, 1))


@register
class HeavyTail(Makespan):
    """Durations from a bounded Pareto distribution: most short, a few very long."""

    name = "heavy-tail"
    place = 210
    title = "{tasks} sleeps, bounded Pareto (0.5 ms to 0.4 s), × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.01),)),)
    tasks = 3_000
    quick_tasks = 300
    alpha = 0.9
    shortest, longest = 5e-4, 0.4

    def items(self, count: int) -> list[float]:
        draw = random.Random(count).random
        rest = (self.shortest / self.longest) ** self.alpha
        return [self.shortest / (1 - draw() * (1 - rest)) ** (1 / self.alpha) for _ in range(count)]


@register
class SlowLast(Makespan):
    """What automatic batches are worst at: they have grown, and then tasks are slow."""

    name = "slow-last"
    place = 220
    title = "{tasks} × 0.1 ms, then 8 × 250 ms, × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.02),)),)
    tasks = 5_000
    quick_tasks = 500

    def items(self, count: int) -> list[float]:
        return [1e-4] * count + [0.25] * 8


@register
class SlowFirst(SlowLast):
    """The reverse."""

    name = "slow-first"
    place = 230
    title = "8 × 250 ms, then {tasks} × 0.1 ms, × ideal"

    def items(self, count: int) -> list[float]:
        return [0.25] * 8 + [1e-4] * count


@register
class Straggler(Makespan):
    """One task that is 40 000 times as long as the others, amidst them."""

    name = "straggler"
    place = 240
    title = "one 2 s task in the middle of {tasks} × 50 µs of computing, × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.03),)),)
    tasks = 20_000
    quick_tasks = 2_000
    function = staticmethod(payloads.compute_for)

    def items(self, count: int) -> list[float]:
        return [5e-5] * (count // 2) + [2.0] + [5e-5] * (count // 2)


@register
class SlowSource(Makespan):
    """Tasks that do not come as fast as they are done."""

    name = "slow-source"
    place = 250
    title = "a generator yields a task of 30 ms every 20 ms, {tasks} tasks, × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.02),)),)
    tasks = 100
    quick_tasks = 20
    every = 0.02

    def items(self, count: int) -> list[float]:
        return [0.03] * count

    def stream(self, count: int) -> Iterator[float]:
        for item in self.items(count):
            sleep(self.every)
            yield item


@register
class ManySleepers(Makespan):
    """Far more workers than cores: the dispatcher has less time for each."""

    name = "many-sleepers"
    place = 260
    title = "16 workers, {tasks} × 1 ms, × ideal"
    figures = (Figure("beside_ideal", "", (AtMost(1.05),)),)
    tasks = 20_000
    quick_tasks = 2_000

    def __init__(self, conditions: Conditions) -> None:
        super().__init__(conditions)
        self.n_jobs = 16

    def items(self, count: int) -> list[float]:
        return [1e-3] * count
