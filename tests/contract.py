"""The engines that the tests of ``test_contract*.py`` run against, and what each of them can do.

::

    BACKENDS ──▶ every(AWAY) ──▶ a test, once for each engine that can do that
        │
        └─ start ──▶ the fixture `backend`: what to pass as ``backend=``, once a module

A backend joins with one entry in `BACKENDS`, and a context manager if something has to be started
first. What it can do is said in words below; what a `Backend` says of itself (`supports_sharedmem`,
`worker_features`) is read from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context
from typing import Any, NamedTuple

import pytest
from ray_clusters import ray_cluster
from simple_tasks import slow_pid

from parallel_core import FuturesBackend, WorkerOptions, shutdown_workers
from parallel_core.backends.base import Backend
from parallel_core.backends.registry import find_backend

#: It runs several tasks at the same time.
PARALLEL = "several tasks at the same time"
#: It runs tasks in processes other than that of the caller.
AWAY = "tasks in other processes"
#: It ends a running task if the call ends, or if the task takes too long.
STOPS = "ends running tasks"
#: It runs no further task of a batch when the call has ended.
DROPS = "drops the rest of a batch"
#: It calls an initializer in each worker.
INITIALIZES = "initializers"
#: It goes on without a worker that has died.
SURVIVES = "goes on when workers die"
#: Its workers may be on other hosts, which have folders and paths of their own.
ELSEWHERE = "other hosts"

OWN = frozenset({PARALLEL, AWAY, STOPS, DROPS, INITIALIZES, SURVIVES})


class Engine(NamedTuple):
    """One kind of workers."""

    start: Callable[[], AbstractContextManager[Any]]
    can: frozenset[str]
    is_core: bool = False  #: whether the fast subset has it


def as_is(backend: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Start nothing, for what starts workers when it needs them."""
    return lambda: contextlib.nullcontext(backend)


def by_method(name: str) -> Callable[[], AbstractContextManager[Any]]:
    """Use worker processes of ours, started by a method of `multiprocessing`."""
    return lambda: contextlib.nullcontext(get_context(name))


@contextlib.contextmanager
def thread_executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def process_executor() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        while len({*executor.map(slow_pid, [0.01] * 8)}) < 2:
            time.sleep(0.01)
        yield executor


@contextlib.contextmanager
def dask_executor() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster) as client:
        yield client.get_executor()


@contextlib.contextmanager
def dask_cluster() -> Iterator[Backend]:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield find_backend("dask", {"client": client})
        shutdown_workers()


@contextlib.contextmanager
def ray_backend() -> Iterator[Backend]:
    with ray_cluster():
        yield find_backend("ray")


class Custom(FuturesBackend):
    """A backend of one's own, as the guide has it."""

    name = "custom"

    def executor(self, n_jobs: int, options: WorkerOptions) -> Executor:
        return ThreadPoolExecutor(
            n_jobs, initializer=options.initializer, initargs=options.initargs
        )

    def release(self, executor: Executor) -> None:
        executor.shutdown(wait=False)


class JoblibStyle:
    """A backend by joblib's conventions, without a base class."""

    supports_retrieve_callback = True

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 2 if n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **backend_args: Any) -> int:
        self.pool = ThreadPoolExecutor(self.effective_n_jobs(n_jobs))
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Any = None) -> Any:
        assert self.pool is not None
        future = self.pool.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Any) -> Any:
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        assert self.pool is not None
        self.pool.shutdown(wait=False, cancel_futures=True)
        if ensure_ready:
            self.pool = ThreadPoolExecutor(2)

    def terminate(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False)


# What else runs tasks joins here. MPI has tests of its own: its ranks are those of one program.
BACKENDS: dict[str, Engine] = {
    "sequential": Engine(as_is("sequential"), frozenset({DROPS, INITIALIZES}), is_core=True),
    "threading": Engine(
        as_is("threading"), frozenset({PARALLEL, DROPS, INITIALIZES}), is_core=True
    ),
    "processes": Engine(as_is("processes"), OWN, is_core=True),
    "fork": Engine(by_method("fork"), OWN),
    "spawn": Engine(by_method("spawn"), OWN),
    "forkserver": Engine(by_method("forkserver"), OWN),
    "loky": Engine(as_is("loky"), OWN),
    "thread executor": Engine(thread_executor, frozenset({PARALLEL})),
    "process executor": Engine(process_executor, frozenset({PARALLEL, AWAY})),
    "dask executor": Engine(dask_executor, frozenset({PARALLEL})),
    "dask": Engine(dask_cluster, OWN | {ELSEWHERE}),
    "ray": Engine(ray_backend, OWN | {ELSEWHERE}),
    "custom": Engine(as_is(Custom()), frozenset({PARALLEL, INITIALIZES})),
    "joblib's conventions": Engine(as_is(JoblibStyle()), frozenset({PARALLEL})),
}


def every(*needs: str, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run a test on each engine that can do all that it `needs`, `but` for those by name."""
    chosen = [
        pytest.param(name, marks=pytest.mark.core if engine.is_core else ())
        for name, engine in BACKENDS.items()
        if engine.can.issuperset(needs) and name not in but
    ]
    return pytest.mark.parametrize("backend", chosen, indirect=True)


def of(backend: Any) -> Backend:
    """Return the `Backend` behind what was passed as ``backend=``."""
    return find_backend(backend)


def names_of(*needs: str) -> list[str]:
    """Return the names of the engines that can do all that is needed."""
    return [name for name, engine in BACKENDS.items() if engine.can.issuperset(needs)]
