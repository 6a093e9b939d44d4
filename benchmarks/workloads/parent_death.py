"""A program that is killed in the middle of a call."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import busy_with
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

MOMENT_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGKILL)


class GetBusy(Trial):
    """Have all workers compute on an array that is large enough to be shared."""

    def run(self) -> None:
        import numpy

        array = numpy.zeros(self.options["nbytes"] // 8)
        self.asker().as_list(busy_with, [array] * self.n_jobs, 1)


@register
class ParentDeath(Hardship):
    """SIGTERM or SIGKILL for the program alone while its workers compute; a look a second later.

    The worse of the two signals counts; what happened at which is in the JSON.
    """

    name = "parent-death"
    place = 330
    title = "SIGTERM or SIGKILL of the program"
    tasks = quick_tasks = 2
    nbytes = quick_nbytes = 8 << 20
    figures = (
        Figure("alive", "", (AtMost(0),), "processes alive after 1 s"),
        Figure("entries", "", (AtMost(0),), "entries left in /dev/shm"),
    )
    trial = GetBusy

    def sample_of(self, key: str) -> Sample:
        with ThreadPoolExecutor() as threads:
            seen = list(threads.map(lambda number: self.killed(key, number), SIGNALS))
        sample: Sample = {name: max(one[name] for one in seen) for name in seen[0]}
        for number, one in zip(SIGNALS, seen, strict=True):
            sample.update({f"{name} after {number.name}": one[name] for name in one})
        return sample

    def killed(self, key: str, number: signal.Signals) -> Sample:
        """Kill a program, and return what there is of it after a second."""
        with self.watch(key, nbytes=self.size) as watch:
            watch.wait_for("busy-*", self.n_jobs)
            watch.kill(number)
            time.sleep(MOMENT_SECONDS)
            return {"alive": len(watch.alive()), "entries": len(watch.entries())}
