"""How many threads numeric libraries use in tasks that threads run, and that it is undone."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from parallel_core import Parallel, cpu_count, delayed, parallel_config
from parallel_core.workers import thread_pools
from parallel_core.workers.threads import THREAD_VARIABLES
from watching import LIMIT

pytest.importorskip("numpy")
with contextlib.suppress(ImportError):  # it brings a library of OpenMP
    import sklearn.cluster  # noqa: F401
BEFORE = 6


@pytest.fixture(autouse=True)
def six_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the libraries use six threads each, whatever this machine has."""
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(os.fsdecode(name), raising=False)
    Parallel(n_jobs=2, prefer="threads")([delayed(abs)(-1)])  # it has looked at what is loaded
    if not thread_pools._libraries.shared:
        pytest.skip("this numpy has no library of which threads are to be limited")
    with threadpool_limits(BEFORE):
        yield
        assert numbers() == {BEFORE}


def numbers() -> set[int]:
    return {library.get_num_threads() for library, _ in thread_pools._libraries.shared}


def own_numbers() -> set[int]:
    return {library.get_num_threads() for library, *_ in thread_pools._libraries.own}


@pytest.mark.core
@pytest.mark.parametrize("n_jobs", [2, 3])
def test_the_default_is_a_share_of_the_cores(n_jobs: int) -> None:
    got = Parallel(n_jobs, prefer="threads")(delayed(numbers)() for _ in range(4))
    assert got == [{max(1, cpu_count() // n_jobs)}] * 4
    assert numbers() == {BEFORE}


def test_the_parameter_only_lowers() -> None:
    for limit, expected in ((4, 4), (99, BEFORE)):
        with parallel_config("threading", n_jobs=2, inner_max_num_threads=limit):
            assert Parallel()([delayed(numbers)()]) == [{expected}]


def test_openmp_is_limited_in_each_thread() -> None:
    if not thread_pools._libraries.own:
        pytest.skip("no library of OpenMP is installed with scikit-learn")
    with threadpool_limits(BEFORE), parallel_config("threading", n_jobs=3, inner_max_num_threads=4):
        barrier = threading.Barrier(3, timeout=LIMIT)

        def task() -> set[int]:
            barrier.wait()
            return own_numbers()

        assert Parallel()(delayed(task)() for _ in range(3)) == [{4}] * 3
        with threadpool_limits(2):  # what the caller has is no less for the tasks
            assert Parallel()(delayed(task)() for _ in range(3)) == [{2}] * 3
        assert own_numbers() == {BEFORE}


def test_what_the_user_has_set_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(BEFORE))
    blas = {lib for lib, name in thread_pools._libraries.shared if name == b"OPENBLAS_NUM_THREADS"}
    if not blas:
        pytest.skip("this numpy does not use OpenBLAS")
    assert Parallel(2, prefer="threads")([delayed(numbers)()]) == [{BEFORE}]


@pytest.mark.parametrize("how", ["raises", "interrupted", "closed", "dropped", "stopped"])
def test_it_is_undone_however_a_call_ends(how: str) -> None:
    hold = threading.Event()

    def task(i: int) -> int:
        assert numbers() == {max(1, cpu_count() // 2)}
        if i == 3 and how == "raises":
            raise KeyError(i)
        if i == 3 and how == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            hold.wait(LIMIT)  # the call is not over before the signal has come
        return i

    tasks = (delayed(task)(i) for i in range(9))
    if how == "stopped":
        Parallel(2, prefer="threads", stop_when=bool)(tasks)
    elif how in ("closed", "dropped"):
        generator: Any = Parallel(2, prefer="threads", return_as="generator")(tasks)
        assert next(generator) == 0
        assert numbers() != {BEFORE}  # it goes on
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            if how == "closed":
                generator.close()
            del generator
            gc.collect()
    else:
        with pytest.raises(KeyError if how == "raises" else KeyboardInterrupt):
            Parallel(2, prefer="threads")(tasks)
    hold.set()
    assert numbers() == {BEFORE}


@pytest.mark.parametrize("first", [2, 4])
def test_calls_that_overlap(first: int) -> None:
    """The lowest limit holds while there is one; the last call puts the numbers back."""
    limits = (first, 6 - first)
    calls = {}
    for limit in limits:
        with parallel_config("threading", n_jobs=2, inner_max_num_threads=limit):
            tasks = (delayed(numbers)() for _ in range(50))
            calls[limit] = Parallel(return_as="generator", pre_dispatch=2, batch_size=1)(tasks)
            next(calls[limit])
    assert numbers() == {2}
    calls[first].close()
    assert numbers() == {6 - first}
    with threadpool_limits(3):  # what somebody sets in between is theirs
        assert numbers() == {3}
    calls[6 - first].close()
    assert numbers() == {BEFORE}


def test_nested_calls_share_what_their_task_has() -> None:
    def outer() -> list[set[int]]:
        return [numbers(), *Parallel(2)(delayed(numbers)() for _ in range(2))]

    with parallel_config("threading", n_jobs=2, inner_max_num_threads=4):
        first, second = Parallel()(delayed(outer)() for _ in range(2))
    share = max(1, min(4, cpu_count() // 2) // 2)
    assert first[0] | second[0] <= {share, 4}  # the other one's nested call may have begun
    assert first[1:] == second[1:] == [{share}] * 2


def test_nested_threads_share_what_their_worker_process_has() -> None:
    def outer(top: bool) -> list[set[int]]:
        import numpy  # noqa: F401
        from threadpoolctl import threadpool_info

        found = {library["num_threads"] for library in threadpool_info()}
        if not top:
            return [found]
        inner = Parallel(2)(delayed(outer)(False) for _ in range(2))
        after = {library["num_threads"] for library in threadpool_info()}
        return [found, *[numbers for (numbers,) in inner], after]

    outer.__module__ = "__main__"
    with parallel_config("processes", n_jobs=2, inner_max_num_threads=4):
        Parallel()(delayed(outer)(False) for _ in range(8))  # numpy is loaded by now
        with parallel_config(inner_max_num_threads=2):  # and told another number
            got = Parallel()(delayed(outer)(True) for _ in range(4))
    for found in got:
        assert found in ([{2}, {1}, {1}, {2}], [{min(2, cpu_count())}, {1}, {1}, {2}])
