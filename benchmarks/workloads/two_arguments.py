"""An exception that does not survive pickling as most do."""

from __future__ import annotations

import traceback

from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import BAD, TwoArguments, harmless, raises_two_arguments
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

EXPECTED = ("class", "arguments", "place", "next call")


class RaiseTwoArguments(Trial):
    """Have a task raise it, look at what arrives, and have another call."""

    def run(self) -> None:
        asker = self.asker()
        numbers = list(range(self.options["tasks"]))
        asker.as_list(harmless, numbers)
        try:
            asker.as_list(raises_two_arguments, numbers)
        except Exception as error:
            self.look_at(error)
        with self.telling_errors():
            if asker.as_list(harmless, numbers) == numbers:
                self.tell({"kept": "next call"})

    def look_at(self, error: Exception) -> None:
        """Tell what the error still has."""
        if type(error) is TwoArguments:
            self.tell({"kept": "class"})
        if getattr(error, "what", "") == "nothing left" and getattr(error, "number", -1) == BAD:
            self.tell({"kept": "arguments"})
        if "in raises_two_arguments" in "".join(traceback.format_exception(error)):
            self.tell({"kept": "place"})


@register
class TwoArgumentsException(Hardship):
    """An exception whose class wants two arguments, and passes one on to ``Exception``.

    Unpickling calls the class with the one that ``Exception`` has kept, and fails.
    """

    name = "two-arguments"
    place = 310
    title = "an exception whose class takes two arguments"
    tasks = quick_tasks = 40
    figures = (
        Figure(
            "lost", "of 4", (AtMost(0),), "lost of class, attributes, traceback, next call", False
        ),
    )
    trial = RaiseTwoArguments

    def sample_of(self, key: str) -> Sample:
        with self.watch(key, tasks=self.n_tasks) as watch:
            told = watch.listen()
        kept = {line["kept"] for line in told if "kept" in line}
        lost = {f"lost {what}": float(what not in kept) for what in EXPECTED}
        return {"lost": sum(lost.values()), **lost, "hung": watch.hung}
