"""Backends that others published for joblib run as they are: dask's, and ipyparallel's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import (
    Parallel,
    delayed,
    effective_n_jobs,
    get_active_backend,
    parallel_config,
    register_parallel_backend,
)
from parallel_core.errors import PerformanceWarning, WorkerDiedError

PUBLISHED = ("dask", "ipyparallel")
JOBLIBS_DASK = "dask of joblib"  # "dask" is a backend of ours


@pytest.fixture(scope="module", params=PUBLISHED)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Start an engine with two workers; yield its name, and what its factory takes."""
    if request.param == "dask":
        yield from dask_engine()
    else:
        yield from ipyparallel_engine(tmp_path_factory.mktemp("ipyparallel"))


def dask_engine() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    theirs = pytest.importorskip("joblib._dask")
    register_parallel_backend(JOBLIBS_DASK, theirs.DaskDistributedBackend)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster):
        yield JOBLIBS_DASK, {}


def ipyparallel_engine(folder: Path) -> Iterator[Any]:
    ipyparallel = pytest.importorskip("ipyparallel")
    pytest.importorskip("joblib")
    ipyparallel.register_joblib_backend()  # with joblib, and therefore with us
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)  # where the functions of this module are found
        cluster = ipyparallel.Cluster(
            n=2,
            ipython_dir=str(folder),
            log_level=logging.ERROR,
            # An engine counts when its second heartbeat has come.
            controller_args=["--HeartMonitor.period=300", "--usethreads"],
            delay=0,
        )
        client = cluster.start_and_connect_sync()
    try:
        client[:].use_cloudpickle()
        yield "ipyparallel", {"view": client.load_balanced_view()}
    finally:
        client.close()
        cluster.stop_cluster_sync()


@pytest.fixture
def parallel(engine: Any) -> Iterator[Parallel]:
    """Choose the engine from outside, as a user of a library does."""
    name, params = engine
    with parallel_config(backend=name, **params):
        yield Parallel()


class Odd(Exception):
    """Takes two arguments, so that it does not unpickle by itself."""

    def __init__(self, x: int, why: str) -> None:
        super().__init__(f"{x} is odd: {why}")
        self.x = x


def refuse_odd(x: int) -> int:
    if x % 2:
        raise Odd(x, "not even")
    return x


def test_results_in_order(parallel: Parallel) -> None:
    shift = 7
    assert parallel(delayed(lambda x: x + shift)(x) for x in range(500)) == [*range(7, 507)]
    assert parallel([]) == []
    arrays = parallel(delayed(np.multiply)(np.full(200_000, i), 2) for i in range(4))
    assert [(a.shape, a[0], a[-1]) for a in arrays] == [
        ((200_000,), 2 * i, 2 * i) for i in range(4)
    ]
    ordered = Parallel(return_as="generator")(delayed(pow)(x, 2) for x in range(30))
    assert list(ordered) == [x * x for x in range(30)]
    unordered = Parallel(return_as="generator_unordered")(delayed(pow)(x, 2) for x in range(30))
    assert sorted(unordered) == [x * x for x in range(30)]
    assert Parallel(reduce=max)(delayed(pow)(x, 2) for x in range(30)) == 29**2
    with Parallel() as twice:
        assert [twice([delayed(abs)(-i)]) for i in range(2)] == [[0], [1]]


def test_a_task_that_raises(parallel: Parallel) -> None:
    with pytest.raises(Odd, match=r"\d is odd: not even") as caught:
        parallel(delayed(refuse_odd)(x) for x in range(10**6))
    assert caught.value.x % 2
    assert "in refuse_odd" in str(caught.value.__cause__)
    assert f"task {caught.value.x} of the call" in caught.value.__notes__[0]
    kept = Parallel(on_error="skip")(delayed(refuse_odd)(x) for x in range(20))
    assert kept == [*range(0, 20, 2)]


def test_calls_within_tasks(parallel: Parallel, engine: Any) -> None:
    def outer(x: int) -> Any:
        return type(get_active_backend()[0]).__name__, Parallel(n_jobs=2)(
            delayed(pow)(x, y) for y in range(4)
        )

    got = parallel(delayed(outer)(x) for x in range(5))
    names = {JOBLIBS_DASK: "DaskDistributedBackend", "ipyparallel": "ThreadingBackend"}
    name = names[engine[0]]
    assert got == [(name, [x**y for y in range(4)]) for x in range(5)]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("engine", ["dask"], indirect=True)
def test_scattering_is_not_silently_left_out() -> None:
    with pytest.warns(PerformanceWarning, match=r"scatter has no effect.*joblib's own Parallel"):
        parallel_config(backend=JOBLIBS_DASK, scatter=[np.ones(3)]).unregister()


def test_what_the_engine_itself_raises(parallel: Parallel, engine: Any) -> None:
    class Unpicklable:
        def __reduce__(self) -> Any:
            return os.getenv, ("PATH", "a worker", "of somebody else")

    with pytest.raises(Exception, match="takes from 1 to 2 positional arguments"):
        parallel(delayed(id)(Unpicklable()) for _ in range(3))
    assert parallel(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
    if engine[0] == JOBLIBS_DASK:
        with parallel_config(backend=JOBLIBS_DASK, no_such_option=1):
            with pytest.raises(WorkerDiedError, match="no_such_option"):
                Parallel()(delayed(abs)(-i) for i in range(3))


def test_their_executors(engine: Any) -> None:
    name, params = engine
    if name == JOBLIBS_DASK:
        executor = pytest.importorskip("distributed").get_client().get_executor()
    else:
        executor = params["view"].executor
    with parallel_config(backend=executor):
        assert [effective_n_jobs(n_jobs) for n_jobs in (-1, -2, 5)] == [2, 1, 5]
        assert Parallel(n_jobs=-1)(delayed(pow)(x, 2) for x in range(30)) == [
            x * x for x in range(30)
        ]
