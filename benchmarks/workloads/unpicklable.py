"""What cannot be pickled, on each of its ways."""

from __future__ import annotations

import threading
from time import perf_counter
from typing import Any

from benchmarks import mishaps
from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship, numbers_in, seconds_told
from benchmarks.mishaps import BAD, harmless
from benchmarks.trial import Trial
from benchmarks.watch import PATIENCE_SECONDS
from benchmarks.workload import Figure, Sample, register

FUNCTIONS = {
    "argument": mishaps.takes_anything,
    "result": mishaps.returns_lock,
    "exception": mishaps.raises_lock,
}
IN_A_BATCH = 20


class Unpicklable(Trial):
    """Have one such thing among many tasks: handed over as usual, and in the middle of a batch."""

    def run(self) -> None:
        asker = self.asker()
        numbers = range(self.options["tasks"])
        asker.as_list(harmless, numbers)
        for chunk_size in (None, IN_A_BATCH):
            items: list[Any] = list(numbers)
            if self.options["what"] == "argument":
                items[BAD] = threading.Lock()
            begin = perf_counter()
            with self.telling_errors():
                asker.as_list(FUNCTIONS[self.options["what"]], items, chunk_size)
            self.tell({"seconds": perf_counter() - begin})


@register
class NotPickled(Hardship):
    """A lock is an argument, a result, or within an exception, at one of many tasks.

    The worse of two calls counts. Each error should say which task it was.
    """

    name = "unpicklable"
    place = 320
    title = "what does not pickle, at one of {tasks} tasks"
    tasks = quick_tasks = 40
    figures = (
        *(
            Figure(what, "s", (AtMost(0.2),), f"{what}, error after", PATIENCE_SECONDS)
            for what in FUNCTIONS
        ),
        Figure("unnamed", "of 6", (AtMost(0),), "errors that do not name the task"),
    )
    trial = Unpicklable

    def sample_of(self, key: str) -> Sample:
        sample: Sample = {"hung": 0, "named": 0}
        for what in FUNCTIONS:
            with self.watch(key, what=what, tasks=self.n_tasks) as watch:
                told = watch.listen()
            sample[what] = seconds_told(watch)
            sample["hung"] += watch.hung
            sample["named"] += sum(BAD in numbers_in(line.get("error", "")) for line in told)
        return {**sample, "unnamed": 2 * len(FUNCTIONS) - sample.pop("named")}
