"""What it costs to know that an array is what it was."""

from __future__ import annotations

from unittest import mock

from benchmarks import doors
from benchmarks.array_payloads import Array
from benchmarks.arrays import check_total, right_total, summing, warm_up, whole_numbers
from benchmarks.measure import median_seconds, seconds_of
from benchmarks.workload import Figure, Sample, Workload, register


@register
class Freshness(Workload):
    """Looks at an array that did not change, and what its caller pays for being watched.

    For ours only: joblib does not look. Ours looks whenever a task with the array is yielded. Where
    the kernel does not tell what was written, all of it is compared with the copy; that is measured
    by telling ours that it is so here.
    """

    name = "freshness"
    place = 190
    title = "freshness of an array of {size}"
    figures = (
        Figure("tracked", "ms", label="one look, pages tracked"),
        Figure("compared", "ms", label="one look, bits compared"),
        Figure("call_compared", "s", label="first call of 64 tasks, bits compared"),
        Figure("rewrite_watched", "s", label="the caller fills it anew, watched"),
        Figure("rewrite_unwatched", "s", label="the caller fills it anew, not watched"),
    )
    tasks = quick_tasks = 64
    nbytes = 1 << 30
    quick_nbytes = 64 << 20
    most_rounds = 2

    def ours(self) -> Sample:
        from memmapping.pages import PageWatch, Unwatchable

        array = whole_numbers(self.size)
        sample = {"call_compared": self.call_compared(array)}
        sample["compared"], sample["rewrite_unwatched"] = self.looks(array, watches=False)
        try:
            PageWatch().close()
        except Unwatchable:
            return sample
        sample["tracked"], sample["rewrite_watched"] = self.looks(array, watches=True)
        return sample

    @staticmethod
    def looks(array: Array, *, watches: bool) -> tuple[float, float]:
        """Return milliseconds for a look, and seconds for writing all of the array afterwards."""
        from memmapping.reducer import ArrayReducer

        reducer = ArrayReducer()
        reducer._watches = watches
        for _ in range(2):  # the first copies, and the second may begin to watch
            reducer.reduce(array)
        look = median_seconds(lambda: reducer.reduce(array), at_least=3)
        rewrite = seconds_of(lambda: array.fill(1))
        reducer.close()
        return look * 1e3, rewrite

    def call_compared(self, array: Array) -> float:
        """Return how long a call takes where pages are not tracked."""
        from memmapping.pages import Unwatchable

        call = doors.parallel_star("parallel_core", self.n_jobs)
        warm_up(call, self.n_jobs)
        total = summing(call, self.n_tasks)
        with mock.patch("memmapping.pages.PageWatch", side_effect=Unwatchable):
            return seconds_of(lambda: check_total(total, array, right_total(self.size)))
