"""A program that was written for MPIRE, with its import changed."""

from __future__ import annotations

import importlib
import multiprocessing

import pytest

import parallel_core
import pool_tasks as tasks
from parallel_core.compat import mpire
from parallel_core.compat.mpire import WorkerPool, cpu_count
from parallel_core.compat.mpire.utils import chunk_tasks, make_single_arguments


def test_everything_is_at_its_place() -> None:
    assert WorkerPool is parallel_core.WorkerPool is mpire.WorkerPool
    assert cpu_count() == multiprocessing.cpu_count()
    assert chunk_tasks is parallel_core.chunk_tasks is mpire.utils.chunk_tasks
    assert make_single_arguments is parallel_core.make_single_arguments
    assert mpire.async_result.AsyncResult is parallel_core.AsyncResult
    for name in ("StopWorker", "InterruptWorker", "CannotPickleExceptionError"):
        assert issubclass(getattr(mpire.exception, name), BaseException)
    assert mpire.context.DEFAULT_START_METHOD in ("fork", "spawn")
    assert mpire.context.FORK_AVAILABLE is (mpire.context.DEFAULT_START_METHOD == "fork")
    for name in ("async_result", "context", "exception", "tqdm_utils", "utils"):
        assert importlib.import_module(f"parallel_core.compat.mpire.{name}") is getattr(mpire, name)


def test_the_default_style_can_be_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpire.tqdm_utils, "PROGRESS_BAR_DEFAULT_STYLE", "square")
    with WorkerPool(2, start_method="threading") as pool:
        with pytest.raises(ValueError, match="square"):
            pool.map(tasks.double, range(3), progress_bar=True)
        assert pool.map(tasks.double, range(3), progress_bar_style="dashboard") == [0, 2, 4]


def test_a_program() -> None:
    with WorkerPool(n_jobs=2, use_worker_state=True) as pool:
        counts = pool.map(tasks.count, range(100), worker_exit=tasks.total)
        assert len(counts) == 100
        assert sum(pool.get_exit_results()) == 100


def test_what_tasks_that_take_too_long_are_ended_by(tmp_path: object) -> None:
    path = f"{tmp_path}/ended"
    with WorkerPool(1) as pool:
        result = pool.apply_async(until_interrupted, (path,), task_timeout=0.2)
        with pytest.raises(TimeoutError):
            result.get()
        assert tasks.wait_for(path)


def until_interrupted(path: str) -> None:
    try:
        tasks.wait(60)
    except mpire.exception.InterruptWorker:
        open(path, "w").close()
        raise
