"""How each contestant is asked where tasks go wrong: for a list, or for results as they come.

The doors of speed hand over results only; here a result that is missing has an error in its place
where a contestant tells so much. Pools are not closed: how the program ends is part of the trial.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import doors
from benchmarks.doors import Function


class Asker(ABC):
    """One contestant with its workers.

    Parameters
    ----------
    n_jobs : int
        Number of workers.
    **options
        What else it is asked for.

    Attributes
    ----------
    timeout : float or None
        The limit for a task, or the closest thing to it that there is.
    """

    def __init__(self, n_jobs: int, **options: Any) -> None:
        self.n_jobs = n_jobs
        self.options = options
        self.timeout: float | None = None

    @abstractmethod
    def as_list(
        self, function: Function, items: Iterable[Any], chunk_size: int | None = None
    ) -> list[Any]:
        """Return the results of all items, by chunks of so many or as is usual."""

    @abstractmethod
    def as_they_come(self, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        """Yield results in any order, and errors in their place where there are any."""

    @abstractmethod
    def in_order(self, function: Function, items: Iterable[Any], ahead: int | None) -> Any:
        """Return an iterator of results in order.

        Parameters
        ----------
        function : callable
            What is mapped.
        items : iterable
            Pulled as far as the contestant likes.
        ahead : int or None
            How far that may be, handed over one by one, if it can be told; None for what is usual.
        """


class ParallelAsker(Asker):
    """``Parallel`` of joblib or of parallel-core, made anew for each call as users do."""

    module: str

    def _call(self, function: Function, items: Iterable[Any], **options: Any) -> Any:
        library = importlib.import_module(self.module)
        options = {"timeout": self.timeout, **self.options, **options}
        delayed = library.delayed
        return library.Parallel(self.n_jobs, **options)(delayed(function)(item) for item in items)

    def as_list(
        self, function: Function, items: Iterable[Any], chunk_size: int | None = None
    ) -> list[Any]:
        results: list[Any] = self._call(function, items, batch_size=chunk_size or "auto")
        return results

    def as_they_come(self, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        yield from self._call(function, items, return_as="generator_unordered")

    def in_order(self, function: Function, items: Iterable[Any], ahead: int | None) -> Any:
        limits = {} if ahead is None else {"pre_dispatch": ahead, "batch_size": 1}
        return self._call(function, items, return_as="generator", **limits)


class OursAsker(ParallelAsker):
    """parallel-core."""

    module = "parallel_core"


class JoblibAsker(ParallelAsker):
    """joblib, with its default backend."""

    module = "joblib"


class MpireAsker(Asker):
    """A ``WorkerPool``, which is told how many items there are where it likes to know."""

    def __init__(self, n_jobs: int, **options: Any) -> None:
        super().__init__(n_jobs, **options)
        self._pool = doors.mpire_pool(n_jobs)

    def as_list(
        self, function: Function, items: Iterable[Any], chunk_size: int | None = None
    ) -> list[Any]:
        results: list[Any] = self._pool.map(
            function, list(items), chunk_size=chunk_size, task_timeout=self.timeout
        )
        return results

    def as_they_come(self, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        yield from self._pool.imap_unordered(function, list(items), task_timeout=self.timeout)

    def in_order(self, function: Function, items: Iterable[Any], ahead: int | None) -> Any:
        return self._pool.imap(function, items, max_tasks_active=ahead, chunk_size=1)


class FuturesAsker(Asker):
    """A ``ProcessPoolExecutor``; its limits of time are for waiting, not for tasks."""

    def __init__(self, n_jobs: int, **options: Any) -> None:
        super().__init__(n_jobs, **options)
        from concurrent.futures import ProcessPoolExecutor

        self._executor = ProcessPoolExecutor(n_jobs)

    def as_list(
        self, function: Function, items: Iterable[Any], chunk_size: int | None = None
    ) -> list[Any]:
        mapped = self._executor.map(
            function, items, timeout=self.timeout, chunksize=chunk_size or 1
        )
        return list(mapped)

    def as_they_come(self, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        from concurrent.futures import as_completed

        futures = [self._executor.submit(function, item) for item in items]
        for future in as_completed(futures, self.timeout):
            error = future.exception()
            yield future.result() if error is None else error

    def in_order(self, function: Function, items: Iterable[Any], ahead: int | None) -> Any:
        return self._executor.map(function, items)


class PoolAsker(Asker):
    """A ``multiprocessing.Pool``; here, too, only waiting has a limit."""

    def __init__(self, n_jobs: int, **options: Any) -> None:
        super().__init__(n_jobs, **options)
        import multiprocessing

        self._pool = multiprocessing.Pool(n_jobs)

    def as_list(
        self, function: Function, items: Iterable[Any], chunk_size: int | None = None
    ) -> list[Any]:
        return self._pool.map_async(function, items, chunk_size).get(self.timeout)

    def as_they_come(self, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        results = self._pool.imap_unordered(function, items)
        while True:
            try:
                yield results.next(self.timeout)
            except StopIteration:
                return

    def in_order(self, function: Function, items: Iterable[Any], ahead: int | None) -> Any:
        return self._pool.imap(function, items)


ASKERS: dict[str, type[Asker]] = {
    "ours": OursAsker,
    "joblib": JoblibAsker,
    "mpire": MpireAsker,
    "futures": FuturesAsker,
    "pool": PoolAsker,
}
"""By the keys of contestants."""
