"""What calls leave behind while the program goes on."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.measure import SHARED_MEMORY
from benchmarks.mishaps import first_of
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

MOMENT_SECONDS = 0.5
LONG_ENOUGH_SECONDS = {"entries": 1.0, "descriptors": 12.0}
TASKS_OF_A_CALL = 4


class CallOften(Trial):
    """Call again and again, each time with a new array that is large enough to be shared."""

    def run(self) -> None:
        asker = self.asker()

        def call(number: int) -> None:
            import numpy

            array = numpy.full(self.options["nbytes"] // 8, float(number))
            if asker.as_list(first_of, [array] * TASKS_OF_A_CALL) != [number] * TASKS_OF_A_CALL:
                raise AssertionError("wrong results")
            self.tell({"call": number})

        for number in range(3):
            call(number)
        time.sleep(MOMENT_SECONDS)
        before = what_there_is()
        for number in range(self.options["calls"]):
            call(number)
        self.tell({"growth": self.growth_since(before)})

    def growth_since(self, before: dict[str, int]) -> dict[str, int]:
        """Return how much more there is, as soon as there is no more, or after long enough.

        Cleaning up need not be done within the call. Ours keeps a few files without a name for the
        next arrays, each for some ten seconds, one or two or three as it happens.
        """
        gc.collect()
        begin = time.monotonic()
        while True:
            growth = {name: max(0, count - before[name]) for name, count in what_there_is().items()}
            passed = time.monotonic() - begin
            if not any(growth[name] and passed < LONG_ENOUGH_SECONDS[name] for name in growth):
                return growth
            time.sleep(MOMENT_SECONDS)
            self.tell({"growth until now": growth})


def what_there_is() -> dict[str, int]:
    """Return how many entries and descriptors this process has."""
    return {"entries": _entries(), "descriptors": len(os.listdir("/proc/self/fd"))}


def _entries() -> int:
    """Return how many files and folders in ``/dev/shm`` bear the number of this process."""
    found = 0
    for path in Path(SHARED_MEMORY).glob(f"*[-_]{os.getpid()}[-_]*"):
        found += 1 + sum(1 for _ in path.rglob("*"))
    return found


@register
class HundredCalls(Hardship):
    """How many entries of ``/dev/shm`` and descriptors there are more after a hundred calls."""

    name = "hundred-calls"
    place = 340
    title = "{tasks} calls with a new array of {size} each"
    tasks = 100
    quick_tasks = 20
    nbytes = quick_nbytes = 2 << 20
    figures = (
        Figure("entries", "", (AtMost(0),), "growth of entries in /dev/shm"),
        Figure("descriptors", "", (AtMost(0),), "growth of descriptors"),
    )
    trial = CallOften

    def sample_of(self, key: str) -> Sample:
        with self.watch(key, calls=self.n_tasks, nbytes=self.size) as watch:
            (growth,) = (line["growth"] for line in watch.listen() if "growth" in line)
        return {name: float(count) for name, count in growth.items()}
