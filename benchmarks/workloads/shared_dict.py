"""A large object that is no array, for every task."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import doors
from benchmarks.bars import AtMost, AtMostTimes
from benchmarks.contestants import JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.payloads import look_up, look_up_pair
from benchmarks.workload import Figure, Sample, Workload, register, spaced

Words = dict[str, str]

LookUpAll = Callable[[Words, list[str]], list[str]]
"""Something that has a task look up each key."""

PLAIN_TASKS = 40


@register
class SharedDict(Workload):
    """A dict, in which each task looks up a key: handed over once, and passed plainly.

    Once is `memmapping.share` for ours, within the measured time, and workers that inherit the dict
    for MPIRE, born within the measured time. Plainly it is an argument of each task. Who cuts tasks
    into chunks pickles the dict once a chunk then, and all tasks of a chunk get the same one.
    """

    name = "shared-dict"
    place = 170
    title = "a dict of {words} strings"
    figures = (
        Figure("time", "s", (AtMost(0.35),), "shared by 400 tasks, handing over included"),
        Figure("plain", "ms", (AtMostTimes(1, JOBLIB),), f"passed to {PLAIN_TASKS} tasks, a task"),
    )
    tasks = quick_tasks = 400
    words = 200_000
    quick_words = 20_000
    most_rounds = 3

    @property
    def heading(self) -> str:
        """The title with the number of strings of this run."""
        return self.title.format(words=spaced(self.n_words))

    @property
    def n_words(self) -> int:
        """Number of strings of this run."""
        return self.quick_words if self.quick else self.words

    def ours(self) -> Sample:
        from memmapping import share

        call = doors.parallel_star("parallel_core", self.n_jobs)

        def once(words: Words, keys: list[str]) -> list[str]:
            with share(words) as shared:
                return call(look_up, ((shared, key) for key in keys))

        return {**self.plain(star(call)), "time": self.seconds(once, self.n_tasks)}

    def joblib(self) -> Sample:
        return self.plain(star(doors.parallel_star("joblib", self.n_jobs)))

    def mpire(self) -> Sample:
        def once(words: Words, keys: list[str]) -> list[str]:
            with doors.mpire_sharing(self.n_jobs, words) as call:
                return call(look_up, ((key,) for key in keys))

        return {"time": self.seconds(once, self.n_tasks)}

    def futures(self) -> Sample:
        with doors.process_executor(self.n_jobs) as call:
            return self.plain_in_chunks(call)

    def pool(self) -> Sample:
        with doors.process_pool(self.n_jobs) as call:
            return self.plain_in_chunks(call)

    def plain(self, look_up_all: LookUpAll) -> Sample:
        """Measure tasks that get the dict as an argument, after some that get a small one."""
        small = {str(number): str(number) for number in range(2 * self.n_jobs)}
        if look_up_all(small, list(small)) != list(small):
            raise AssertionError("wrong results")
        return {"plain": self.seconds(look_up_all, PLAIN_TASKS) / PLAIN_TASKS * 1e3}

    def plain_in_chunks(self, call: doors.ChunkedMap) -> Sample:
        """Do the same in as few chunks as there are workers, which pickles the least."""
        chunk = max(1, PLAIN_TASKS // self.n_jobs)
        sample = self.plain(
            lambda words, keys: call(look_up_pair, ((words, key) for key in keys), chunk)
        )
        return {**sample, "chunk_size": chunk}

    def seconds(self, look_up_all: LookUpAll, count: int) -> float:
        """Return how long it takes to look up so many keys, the results checked."""
        words = {f"key {number}": f"value {number}" for number in range(self.n_words)}
        keys = list(words)[:: len(words) // count]

        def check(results: list[str]) -> None:
            if results != [words[key] for key in keys]:
                raise AssertionError("wrong results")

        return median_seconds(lambda: look_up_all(words, keys), check=check, at_most=3)


def star(call: doors.StarMap) -> LookUpAll:
    """Return how tasks get the dict as an argument."""
    return lambda words, keys: call(look_up, ((words, key) for key in keys))
