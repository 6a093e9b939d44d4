"""Searches of scikit-learn: on joblib's workers, on ours under joblib, and without joblib."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import JOBLIB
from benchmarks.measure import median_seconds
from benchmarks.memory import proportional_bytes
from benchmarks.workload import Figure, Sample, Workload, register
from benchmarks.workloads.array_memory import MemoryOnlooker

_SECTION = "scikit-learn"
_FOLDS = 5


def installed() -> None:
    """Have our `Parallel` in joblib's place before scikit-learn is imported."""
    from parallel_core.compat.joblib import install

    install()


def registered() -> None:
    """Have joblib use our workers, until this process ends."""
    import joblib

    from parallel_core import register_joblib

    register_joblib()
    joblib.parallel_config(backend="parallel_core")


class QuickFits(Workload):
    """`GridSearchCV` with fits of half a millisecond, scikit-learn's own part included; warm."""

    section = _SECTION
    tasks = 200
    quick_tasks = 50

    def ours_after(self, prepare: Callable[[], None]) -> Sample:
        prepare()
        return self.joblib()

    def joblib(self) -> Sample:
        import numpy as np
        from sklearn.model_selection import GridSearchCV

        from benchmarks.estimators import Quick

        X = np.random.default_rng(0).normal(size=(100, 5))
        y = (X[:, 0] > 0).astype(int)
        shifts = np.linspace(-1, 1, self.n_tasks // _FOLDS)

        def search(n_jobs: int) -> Any:
            grid = {"shift": shifts}
            found = GridSearchCV(Quick(), grid, cv=_FOLDS, n_jobs=n_jobs, refit=False).fit(X, y)
            return found.cv_results_["mean_test_score"].tolist()

        expected = search(1)

        def check(scores: Any) -> None:
            if scores != expected:
                raise AssertionError("another result than with one job")

        def run() -> Any:
            return search(self.n_jobs)

        median_seconds(run, check=check, at_least=2, at_most=20, within=1.0)
        milliseconds = median_seconds(run, check=check, at_least=5, at_most=50, within=3.0) * 1e3
        alone = median_seconds(lambda: search(1), at_most=5) * 1e3
        return {"time": milliseconds, "with_one_job": alone}


@register
class InPlace(QuickFits):
    """Ours put in joblib's place."""

    name = "grid-search"
    place = 400
    title = "GridSearchCV, {tasks} fits of 0.5 ms, ours in joblib's place"
    figures = (Figure("time", "ms", (TimesFaster(2, JOBLIB),)),)

    def ours(self) -> Sample:
        return self.ours_after(installed)


@register
class UnderJoblib(QuickFits):
    """Ours as a backend of joblib's."""

    name = "grid-search-under"
    place = 410
    title = "GridSearchCV, {tasks} fits of 0.5 ms, ours under joblib"
    figures = (Figure("time", "ms", (AtMostTimes(1, JOBLIB),)),)

    def ours(self) -> Sample:
        return self.ours_after(registered)


class LargeArray(Workload):
    """`GridSearchCV` on an array: time of a search, and memory while all workers are in a fit.

    Each fit has its part of the array for itself, since scikit-learn copies it; what differs is how
    often the whole is there.
    """

    section = _SECTION
    tasks = 12
    quick_tasks = 6
    nbytes = 400 << 20
    quick_nbytes = 40 << 20
    most_rounds = 2
    timeout = 120.0
    figures = (
        Figure("time", "s", (AtMostTimes(1, JOBLIB),)),
        Figure("memory", "GB", (AtMostTimes(1, JOBLIB),), "memory of all processes (PSS)"),
    )

    def ours_after(self, prepare: Callable[[], None]) -> Sample:
        prepare()
        return self.joblib()

    def joblib(self) -> Sample:
        import numpy as np
        from sklearn.model_selection import GridSearchCV

        from benchmarks.estimators import Reading

        X = np.ones((self.size // 800, 100))
        y = np.arange(len(X)) % 2

        def search(folder: str = "") -> list[float]:
            grid = {"power": range(1, self.n_tasks // 3 + 1)}
            estimator = Reading(folder=folder)
            found = GridSearchCV(estimator, grid, cv=3, n_jobs=self.n_jobs, refit=False).fit(X, y)
            scores: list[float] = found.cv_results_["mean_test_score"].tolist()
            return scores

        def check(scores: list[float]) -> None:
            if scores != [1.0] * (self.n_tasks // 3):
                raise AssertionError("wrong scores")

        search()
        seconds = median_seconds(search, check=check, at_least=2, at_most=3)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            onlooker = stack.enter_context(MemoryOnlooker(folder, self.n_jobs))
            check(search(folder))
        if not onlooker.seen:
            raise AssertionError("never did all workers have a fit")
        memory, shared = max(onlooker.seen)
        after = proportional_bytes()
        return {
            "time": seconds,
            "memory": memory / 1e9,
            "in_shared_memory": shared / 1e9,
            "afterwards": after / 1e9,
        }


@register
class ArrayInPlace(LargeArray):
    """Ours put in joblib's place."""

    name = "grid-search-memory"
    place = 420
    title = "GridSearchCV on an array of {size}, ours in joblib's place"

    def ours(self) -> Sample:
        return self.ours_after(installed)


@register
class ArrayUnderJoblib(LargeArray):
    """Ours as a backend of joblib's."""

    name = "grid-search-memory-under"
    place = 430
    title = "GridSearchCV on an array of {size}, ours under joblib"

    def ours(self) -> Sample:
        return self.ours_after(registered)
