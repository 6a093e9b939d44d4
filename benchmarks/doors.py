"""How each contestant is asked to map a function: idiomatic, and the fastest way that it has."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Function = Callable[..., Any]

Stream = Callable[[int], Iterable[Any]]
"""Something that is given a number of tasks and hands over their results one by one."""

Map = Callable[[Function, Iterable[Any]], list[Any]]
"""Something that maps a function over items and returns the results as a list."""

ChunkedMap = Callable[[Function, Iterable[Any], int], list[Any]]
"""The same, told a chunk size as well."""

StarMap = Callable[[Function, Iterable[tuple[Any, ...]]], list[Any]]
"""A map whose items are the arguments of a task, all of them."""


def with_chunk_size(chunked: ChunkedMap, chunk_size: int) -> Map:
    """Return `chunked` with its chunk size settled."""

    def call(function: Function, items: Iterable[Any]) -> list[Any]:
        return chunked(function, items, chunk_size)

    return call


def parallel(module: str, n_jobs: int, **options: Any) -> Map:
    """Return ``Parallel`` of joblib or of parallel-core, made anew for each call as users do."""
    library = importlib.import_module(module)
    make, delayed = library.Parallel, library.delayed

    def call(function: Function, items: Iterable[Any]) -> list[Any]:
        results: list[Any] = make(n_jobs=n_jobs, **options)(
            delayed(function)(item) for item in items
        )
        return results

    return call


def parallel_star(module: str, n_jobs: int, **options: Any) -> StarMap:
    """Return ``Parallel``, made anew for each call, for tasks with several arguments."""
    library = importlib.import_module(module)
    make, delayed = library.Parallel, library.delayed

    def call(function: Function, items: Iterable[tuple[Any, ...]]) -> list[Any]:
        results: list[Any] = make(n_jobs=n_jobs, **options)(
            delayed(function)(*item) for item in items
        )
        return results

    return call


@contextmanager
def parallel_within(module: str, n_jobs: int, **options: Any) -> Iterator[StarMap]:
    """Yield the calls of one ``Parallel`` within its ``with`` block."""
    library = importlib.import_module(module)
    delayed = library.delayed
    with library.Parallel(n_jobs=n_jobs, **options) as parallel:

        def call(function: Function, items: Iterable[tuple[Any, ...]]) -> list[Any]:
            results: list[Any] = parallel(delayed(function)(*item) for item in items)
            return results

        yield call


def parallel_generator(module: str, n_jobs: int, function: Function) -> Stream:
    """Return ``Parallel(return_as="generator")`` of joblib or of parallel-core, over a range."""
    library = importlib.import_module(module)
    make, delayed = library.Parallel, library.delayed

    def stream(count: int) -> Iterable[Any]:
        results: Iterable[Any] = make(n_jobs=n_jobs, return_as="generator")(
            delayed(function)(item) for item in range(count)
        )
        return results

    return stream


def mpire_pool(n_jobs: int, **options: Any) -> Any:
    """Return a ``WorkerPool`` that keeps its workers between calls."""
    return importlib.import_module("mpire").WorkerPool(n_jobs=n_jobs, keep_alive=True, **options)


@contextmanager
def mpire(n_jobs: int, **options: Any) -> Iterator[Map]:
    """Yield the ``map`` of a warm ``WorkerPool``, which chooses its chunk sizes itself.

    For that it has to know how many items there are: it gets a list.
    """
    with mpire_pool(n_jobs, **options) as pool:

        def call(function: Function, items: Iterable[Any]) -> list[Any]:
            results: list[Any] = pool.map(function, list(items))
            return results

        yield call


@contextmanager
def mpire_sharing(n_jobs: int, shared: Any) -> Iterator[StarMap]:
    """Yield the ``map`` of a ``WorkerPool`` whose workers inherit `shared`, by fork.

    Tasks get it as their first argument. The workers are born at the first map, since a fork
    inherits what was there before. MPIRE is told how many items there are, to choose good chunks.
    """
    with mpire_pool(n_jobs, shared_objects=shared, start_method="fork") as pool:

        def call(function: Function, items: Iterable[tuple[Any, ...]]) -> list[Any]:
            results: list[Any] = pool.map(function, list(items))
            return results

        yield call


@contextmanager
def process_executor(n_jobs: int) -> Iterator[ChunkedMap]:
    """Yield the ``map`` of a ``ProcessPoolExecutor``."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(n_jobs) as executor:
        yield lambda function, items, chunk_size: list(
            executor.map(function, items, chunksize=chunk_size)
        )


@contextmanager
def thread_executor(n_jobs: int) -> Iterator[Map]:
    """Yield the ``map`` of a ``ThreadPoolExecutor``, which knows no chunks."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(n_jobs) as executor:
        yield lambda function, items: list(executor.map(function, items))


@contextmanager
def process_pool(n_jobs: int) -> Iterator[ChunkedMap]:
    """Yield the ``map`` of a ``multiprocessing.Pool``."""
    import multiprocessing

    with multiprocessing.Pool(n_jobs) as pool:
        yield pool.map


@contextmanager
def thread_pool(n_jobs: int) -> Iterator[ChunkedMap]:
    """Yield the ``map`` of a ``multiprocessing.pool.ThreadPool``."""
    from multiprocessing.pool import ThreadPool

    with ThreadPool(n_jobs) as pool:
        yield pool.map
