"""What the works share in which something goes wrong: what is lost is counted, and hanging is lost.

Each contestant goes through a trial in a program of its own, within the fresh process that every
work has, since a program may have to be given up or killed. These are counts and short times, the
same in every round, and some contestants take all the patience there is: one round is enough.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from benchmarks.askers import ASKERS
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.trial import Trial
from benchmarks.watch import PATIENCE_SECONDS, Watch
from benchmarks.workload import Sample, Workload

Told = list[dict[str, Any]]


class Hardship(Workload):
    """Base of these works.

    Attributes
    ----------
    trial : type
        What the program of a contestant goes through.
    """

    trial: ClassVar[type[Trial]]
    section = "when things go wrong"
    most_rounds = 1

    @classmethod
    def contestants(cls) -> tuple[Contestant, ...]:
        return tuple(CONTESTANTS[key] for key in CONTESTANTS if key in ASKERS)

    def measure(self, contestant: Contestant) -> Sample:
        module = contestant.module
        if module is not None and importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return self.sample_of(contestant.key)

    def sample_of(self, key: str) -> Sample:
        """Have a contestant go through the trial, and return what it lost."""
        raise NotImplementedError

    def watch(self, key: str, **options: Any) -> Watch:
        """Return the program of a contestant, under watch."""
        return Watch(self.trial, key, self.n_jobs, **options)

    def watched(self, key: str, variants: Iterable[dict[str, Any]]) -> list[Watch]:
        """Go through several variants of a trial side by side, and return what was seen."""

        def go_through(options: dict[str, Any]) -> Watch:
            with self.watch(key, **options) as watch:
                watch.listen()
                self.look_behind(watch)
            return watch

        with ThreadPoolExecutor() as threads:
            return list(threads.map(go_through, variants))

    def look_behind(self, watch: Watch) -> None:
        """Look at what there is behind a trial, before it is tidied up."""

    def lost(self, told: Told) -> set[int]:
        """Return which tasks have no result."""
        return set(range(self.n_tasks)) - {line["result"] for line in told if "result" in line}

    def unnamed(self, told: Told) -> int:
        """Return how many results are lost without an error that names their task."""
        named = {number for line in told if "error" in line for number in numbers_in(line["error"])}
        return len(self.lost(told) - named)


def numbers_in(words: str) -> Iterator[int]:
    """Return which numbers an error speaks of, in whatever words; those of lines do not count."""
    return map(int, re.findall(r"(?<!line )\b(\d+)\b", words))


def seconds_told(watch: Watch) -> float:
    """Return the longest time that was told, or all the patience there is if there was no end."""
    told = [float(line["seconds"]) for line in watch.told if "seconds" in line]
    return PATIENCE_SECONDS if watch.hung or not told else max(told)
