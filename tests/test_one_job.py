"""Where the tasks of a call with one job run."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from parallel_core import Parallel, TaskTimeoutError, WorkerDiedError, delayed, parallel_config
from watching import LIMIT, some

PROTECTIONS: list[dict[str, Any]] = [
    {"timeout": 60},
    {"retries": 1},
    {"on_error": "return"},
    {"on_error": lambda failure: "skip"},
    {"max_worker_memory": "64G"},
]


def is_here(**options: Any) -> bool:
    return Parallel(**options)([delayed(os.getpid)()]) == [os.getpid()]


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.mark.core
@pytest.mark.parametrize("n_jobs", [1, None])
@pytest.mark.parametrize("options", PROTECTIONS, ids=lambda options: next(iter(options)))
def test_a_protection_takes_a_worker(n_jobs: int | None, options: dict[str, Any]) -> None:
    assert not is_here(n_jobs=n_jobs, **options)


def test_other_options_take_none(tmp_path: Path) -> None:
    assert is_here(n_jobs=1)
    assert is_here(n_jobs=1, call_timeout=60, seed=1, journal=tmp_path / "kept")
    assert is_here(n_jobs=1, timeout=None, retries=0, on_error="raise", max_worker_memory=None)


@pytest.mark.core
@pytest.mark.parametrize("backend", some(["processes", "multiprocessing", "loky"]))
def test_one_worker_on_one_core(backend: str, one_core: None) -> None:
    assert not is_here(n_jobs=-1, backend=backend), "processes are asked for by name"
    assert is_here(n_jobs=1, backend=backend), "one job is asked for"
    with parallel_config(backend=backend):
        assert is_here(n_jobs=-1), "the call names none"


def test_what_crashes_on_one_core_costs_its_task(one_core: None) -> None:
    got = Parallel(n_jobs=-1, on_error="return", timeout=LIMIT)(
        delayed(os._exit if x == 1 else abs)(x) for x in range(3)
    )
    assert [got[0], got[2]] == [0, 2] and isinstance(got[1], WorkerDiedError)


@pytest.mark.core
def test_the_time_of_a_task_is_limited_with_one_job() -> None:
    with pytest.raises(TaskTimeoutError):
        Parallel(n_jobs=1, timeout=0.2)([delayed(time.sleep)(600)])


def test_of_threads_only_a_time_limit_takes_one() -> None:
    here = threading.get_ident()
    for options in PROTECTIONS:
        parallel = Parallel(n_jobs=1, backend="threading", **options)
        assert (parallel([delayed(threading.get_ident)()]) == [here]) == ("timeout" not in options)


@pytest.mark.parametrize("options", PROTECTIONS, ids=lambda options: next(iter(options)))
def test_sequential_is_always_here(options: dict[str, Any]) -> None:
    assert is_here(n_jobs=1, backend="sequential", **options)
