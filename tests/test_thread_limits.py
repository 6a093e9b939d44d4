"""How many threads numeric libraries use in workers: by default, by parameter, by variable."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info

import parallel_core
from parallel_core import Parallel, cpu_count, delayed, parallel_config
from parallel_core.backends import cores
from parallel_core.backends.cores import threads_per_worker
from parallel_core.workers.pool import worker_pool
from parallel_core.workers.threads import (
    THREAD_VARIABLES,
    general_limit,
    limited_environment,
    users_variables,
)
from watching import HOME, LIMIT, running, some, wait_until

pytestmark = pytest.mark.warm_workers

VARIABLES = tuple(os.fsdecode(name) for name in THREAD_VARIABLES)
MARK = "PARALLEL_CORE_WORKER_THREADS"
PROCESSES = ["processes", "multiprocessing", "loky"]
CONTEXTS = [*PROCESSES, "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "NUMEXPR_MAX_THREADS", "ENABLE_IPC", "LOKY_MAX_CPU_COUNT", MARK):
        monkeypatch.delenv(name, raising=False)


def by_value(function: Any) -> Any:
    function.__module__ = "__main__"  # so that workers need no test module for it
    return function


@by_value
def variables(*names: str) -> tuple[str | None, ...]:
    import os

    return tuple(os.environ.get(name) for name in names)


@by_value
def blas() -> dict[str, int]:
    """Import numpy, and return how many threads each of its libraries would use."""
    import os

    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return {os.path.basename(one["filepath"]): one["num_threads"] for one in threadpool_info()}


@by_value
def in_worker(task: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[int, Any]:
    import os
    import time

    time.sleep(0.002)  # so that the others get some, too
    return os.getpid(), task(*arguments)


def backend(name: str) -> Any:
    return name if name in PROCESSES else multiprocessing.get_context(name)


def ask(parallel: Parallel, task: Callable[..., Any], *arguments: Any) -> dict[int, Any]:
    """Return what `task` returns in each worker of `parallel`; all of them answer."""
    answers: dict[int, Any] = {}
    limit = time.monotonic() + LIMIT
    while len(answers) < parallel.n_jobs and time.monotonic() < limit:
        answers.update(
            parallel(delayed(in_worker)(task, arguments) for _ in range(4 * parallel.n_jobs))
        )
    return answers


def said(parallel: Parallel, task: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `task` returns in every worker of `parallel`: the same everywhere."""
    answers = list(ask(parallel, task, *arguments).values())
    assert all(answer == answers[0] for answer in answers)
    return answers[0]


def limits_of(parallel: Parallel) -> set[int]:
    """Return the numbers of threads of the BLAS libraries in the workers of `parallel`."""
    return {number for one in ask(parallel, blas).values() for number in one.values()}


def at_first(threads: int) -> int:
    """Return what OpenBLAS makes of its variable when it is loaded: it looks at the cores, too."""
    return min(threads, len(os.sched_getaffinity(0)))


def run_script(folder: Path, text: str, **environment: str) -> str:
    (folder / "script.py").write_text(textwrap.dedent(text))
    path = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


# --- the default ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2, 3, 4, 7, 64, 1000])
def test_workers_and_threads_do_not_exceed_the_cores(n_jobs: int) -> None:
    threads = threads_per_worker(n_jobs, None)
    assert threads == max(1, cpu_count() // n_jobs)
    assert threads_per_worker(n_jobs, 3) == 3


@pytest.mark.parametrize("name", some(CONTEXTS))
def test_the_default(name: str) -> None:
    parallel = Parallel(2, backend=backend(name))
    expected = max(1, cpu_count() // 2)
    assert said(parallel, variables, *VARIABLES) == (str(expected),) * len(VARIABLES)
    assert limits_of(parallel) == {expected}


@pytest.mark.core
def test_libraries_start_no_more_threads_than_that() -> None:
    def multiply() -> int:
        import os

        import numpy as np

        square = np.ones((600, 600))
        assert (square @ square)[0, 0] == 600
        return len(os.listdir("/proc/self/task"))

    assert said(Parallel(2, inner_max_num_threads=1), multiply) == 1
    assert said(Parallel(2, inner_max_num_threads=3), multiply) == 3
    parallel_core.shutdown_workers()
    assert said(Parallel(2, inner_max_num_threads=2), multiply) == at_first(2)


def test_tasks_here_are_not_limited() -> None:
    before = [one["num_threads"] for one in threadpool_info()]
    assert Parallel(1, inner_max_num_threads=1)([delayed(variables)(*VARIABLES)]) == [
        (None,) * len(VARIABLES)
    ]
    assert [one["num_threads"] for one in threadpool_info()] == before


def test_the_cores_are_counted_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    import loky

    assert cpu_count() <= loky.cpu_count()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert cpu_count() == 1
    assert threads_per_worker(1, None) == 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "")
    assert cpu_count() >= 1
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "many")
    with pytest.raises(ValueError, match="LOKY_MAX_CPU_COUNT must be a number, not 'many'"):
        cpu_count()


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": ""}, None),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.cfs_quota_us": "400000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_cgroup(tmp_path: Path, files: dict[str, str], quota: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cores._quota_in(str(tmp_path)) == quota


def test_counting_cores_for_a_call_does_not_import_loky(tmp_path: Path) -> None:
    text = """
        import sys
        from parallel_core import Parallel, cpu_count, delayed
        cpu_count()
        Parallel(2)([delayed(abs)(1)])
        print("loky" in sys.modules, "threadpoolctl" in sys.modules)
    """
    assert run_script(tmp_path, text) == "False False\n"


# --- the parameter --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", some(CONTEXTS))
def test_the_parameter(name: str) -> None:
    parallel = Parallel(2, backend=backend(name), inner_max_num_threads=3)
    assert said(parallel, variables, *VARIABLES) == ("3",) * len(VARIABLES)
    assert limits_of(parallel) <= {3, at_first(3)}  # loaded before the fork, or there
    with parallel_config(backend=backend(name), n_jobs=2, inner_max_num_threads=2):
        assert said(Parallel(), variables, *VARIABLES) == ("2",) * len(VARIABLES)
        assert limits_of(Parallel()) == {2}


@pytest.mark.fresh_workers
@pytest.mark.parametrize("name", some(["processes", "multiprocessing"]))
def test_warm_workers_take_on_another_limit(name: str) -> None:
    one, two = (Parallel(2, backend=name, inner_max_num_threads=n) for n in (1, 2))
    workers = set(ask(one, blas))
    for _ in range(3):
        assert limits_of(two) == {2}
        assert limits_of(one) == {1}
    assert set(ask(two, blas)) | set(ask(one, blas)) == workers
    assert set(worker_pool().idle_pids()) == workers


def test_loky_keeps_its_workers_under_another_limit() -> None:
    one, two = (Parallel(2, backend="loky", inner_max_num_threads=n) for n in (1, 2))
    workers = set(ask(one, blas))
    for _ in range(3):
        assert limits_of(two) == {2}
        assert limits_of(one) == {1}
    assert set(ask(two, blas)) | set(ask(one, blas)) == workers


def test_calls_of_different_sizes_in_turns_keep_their_workers() -> None:
    two, three = Parallel(2), Parallel(3)
    workers = set(ask(three, os.getpid))
    for _ in range(3):
        assert set(ask(two, os.getpid)) <= workers
        assert set(ask(three, os.getpid)) == workers


@pytest.mark.fresh_workers
def test_a_scan_leaves_no_more_workers_than_its_largest_call() -> None:
    born: set[int] = set()
    for n_jobs in [*range(1, 9), *range(8, 0, -1)]:
        parallel = Parallel(n_jobs, inner_max_num_threads=9 - n_jobs)
        if n_jobs > 1:
            assert said(parallel, variables, "OMP_NUM_THREADS") == (str(9 - n_jobs),)
            born |= set(worker_pool().idle_pids())
    assert len(born) == 8


@pytest.mark.fresh_workers
@pytest.mark.core
def test_replaced_workers_have_the_limit_too() -> None:
    with Parallel(2, inner_max_num_threads=3) as parallel:
        before = set(ask(parallel, blas))
        one = min(before)
        os.kill(one, signal.SIGKILL)
        wait_until(lambda: not running(one), "it is dead")
        after = ask(parallel, blas)
        assert set(after) != before
        assert all(set(one.values()) == {at_first(3)} for one in after.values())


def test_the_limit_holds_before_the_initializer_imports_anything(tmp_path: Path) -> None:
    text = """
        from parallel_core import Parallel, delayed

        def begin():
            import numpy, os
            global threads
            threads = len(os.listdir("/proc/self/task")), os.environ["OMP_NUM_THREADS"]

        def look(_):
            return threads

        for n in (1, 3):
            parallel = Parallel(2, initializer=begin, inner_max_num_threads=n)
            print(*set(parallel(delayed(look)(i) for i in range(4))))
            from parallel_core import shutdown_workers
            shutdown_workers()
    """
    assert run_script(tmp_path, text) == f"(1, '1')\n({at_first(3)}, '3')\n"


def test_an_executor_of_the_users_is_left_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as executor:
        with parallel_config(backend=executor, n_jobs=2, inner_max_num_threads=1):
            assert set(Parallel()([delayed(variables)(*VARIABLES)] * 4)) == {
                (None,) * len(VARIABLES)
            }


# --- what is loaded already -----------------------------------------------------------------------


def test_forked_workers_limit_what_their_parent_had_loaded() -> None:
    here = blas()
    fork = multiprocessing.get_context("fork")
    assert limits_of(Parallel(2, backend=fork, inner_max_num_threads=1)) == {1}
    parallel_core.shutdown_workers()
    assert limits_of(Parallel(2, backend=fork, inner_max_num_threads=5)) == {5}
    assert blas() == here


@pytest.mark.fresh_workers
def test_forked_workers_leave_alone_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    here = blas()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setenv("BLIS_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    parallel = Parallel(2, backend=multiprocessing.get_context("fork"), inner_max_num_threads=1)
    assert said(parallel, blas) == here
    assert said(parallel, variables, "OPENBLAS_NUM_THREADS") == ("7",)


def test_a_library_that_a_later_task_loads_follows_the_environment() -> None:
    with Parallel(2, inner_max_num_threads=2) as parallel:
        assert said(parallel, variables, "OMP_NUM_THREADS") == ("2",)
        assert limits_of(parallel) == {at_first(2)}

    @by_value
    def with_scipy() -> dict[str, int]:
        import scipy.linalg  # noqa: F401

        return blas()

    if importlib.util.find_spec("scipy") is not None:
        libraries = said(Parallel(2, inner_max_num_threads=3), with_scipy)
        assert set(libraries.values()) <= {3, at_first(3)}


# --- what the user has set ------------------------------------------------------------------------


@pytest.mark.parametrize("name", some(PROCESSES))
def test_a_variable_that_the_user_has_set_wins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = max(1, cpu_count() // 2)
    names = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"
    plain, limited = Parallel(2, backend=name), Parallel(2, backend=name, inner_max_num_threads=3)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    assert said(plain, variables, *names) == (str(expected), "5", str(expected))
    assert said(limited, variables, *names) == ("3", "5", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "")  # as good as unset
    assert said(limited, variables, *names) == ("3", "3", "3")
    monkeypatch.delenv("MKL_NUM_THREADS")
    assert said(plain, variables, *names) == (str(expected),) * 3


@pytest.mark.parametrize("name", some(PROCESSES))
def test_a_change_of_the_users_variables_is_followed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Parallel(2, backend=name, inner_max_num_threads=1) as parallel:
        if set(blas()) - {file for file in blas() if "openblas" in file}:
            pytest.skip("numpy has another BLAS here")
        assert limits_of(parallel) == {1}
        workers = set(ask(parallel, blas))
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
        assert limits_of(parallel) == {4}
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        assert limits_of(parallel) == {2}
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
        assert limits_of(parallel) == {1}
        assert set(ask(parallel, blas)) == workers


def test_the_default_is_not_more_than_the_users_general_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores_here = cpu_count()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_per_worker(1, None) == 1
    assert threads_per_worker(1, 4) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1,2")
    assert threads_per_worker(1, None) == 1
    for value in ("", "many", "0", "-2", "1000"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert threads_per_worker(1, None) == cores_here


def test_the_variable_of_tbb(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(Parallel(2), variables, "ENABLE_IPC") == ("1",)
    monkeypatch.setenv("ENABLE_IPC", "0")
    assert said(Parallel(2), variables, "ENABLE_IPC") == ("0",)


# --- calls within calls ---------------------------------------------------------------------------


@by_value
def nested(names: tuple[str, ...], **parameters: Any) -> Any:
    """Return the variables in the workers of a call made here."""
    from parallel_core import Parallel, delayed

    def look() -> tuple[str | None, ...]:
        import os

        return tuple(os.environ.get(name) for name in names)

    found = set(Parallel(2, **parameters)([delayed(look)()] * 8))
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("name", some(PROCESSES))
def test_nested_workers_share_what_their_caller_has(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"
    outer = Parallel(2, backend="processes", inner_max_num_threads=2)

    def default() -> Any:
        return nested(names, backend=name)

    def less() -> Any:
        return nested(names, backend=name, inner_max_num_threads=1)

    def more() -> Any:
        return nested(names, backend=name, inner_max_num_threads=9)

    assert outer([delayed(default)()]) == [("1", "1")]
    assert outer([delayed(less)()]) == [("1", "1")]
    assert outer([delayed(more)()]) == [("2", "2")]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what we would set ourselves
    assert outer([delayed(default)()]) == [("2", "1")]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert outer([delayed(default)()]) == [("5", "1")]
    assert outer([delayed(more)()]) == [("5", "2")]


def test_what_a_task_sets_is_the_users_word_for_a_nested_call() -> None:
    def task() -> Any:
        import os

        os.environ["OMP_NUM_THREADS"] = "7"
        try:
            return nested(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), backend="processes")
        finally:
            os.environ["OMP_NUM_THREADS"] = "2"

    assert Parallel(2, inner_max_num_threads=2)([delayed(task)()]) == [("7", "1")]


def test_a_program_that_a_task_starts_stays_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(
        textwrap.dedent("""
        import os
        from parallel_core import Parallel, delayed
        print(set(Parallel(2, inner_max_num_threads=9)([delayed(os.getenv)("OMP_NUM_THREADS")])))
        print(set(Parallel(2)([delayed(os.getenv)("OMP_NUM_THREADS")])))
        """)
    )
    text = """
        import subprocess, sys
        from parallel_core import Parallel, delayed

        def start():
            return subprocess.check_output([sys.executable, "inner.py"], text=True)

        print(Parallel(2, inner_max_num_threads=2)([delayed(start)()])[0], end="")
    """
    assert run_script(tmp_path, text) == "{'2'}\n{'1'}\n"


@pytest.mark.core
def test_whose_variables_they_are() -> None:
    assert users_variables({}) == set()
    caller = {b"MKL_NUM_THREADS": b"3", b"BLIS_NUM_THREADS": b"", b"HOME": b"/"}
    assert users_variables(caller) == {b"MKL_NUM_THREADS"}
    worker = limited_environment(caller, 3)
    assert worker[b"MKL_NUM_THREADS"] == worker[b"BLIS_NUM_THREADS"] == b"3"
    assert worker[b"HOME"] == b"/"
    assert users_variables(worker) == {b"MKL_NUM_THREADS"}
    assert general_limit(worker) is None
    inner = limited_environment(worker, 1)
    assert (inner[b"MKL_NUM_THREADS"], inner[b"OMP_NUM_THREADS"]) == (b"3", b"1")
    assert users_variables(inner) == {b"MKL_NUM_THREADS"}
    assert limited_environment({**inner, b"OMP_NUM_THREADS": b"6"}, 2)[b"OMP_NUM_THREADS"] == b"6"
    broken = {MARK.encode(): b"", b"OMP_NUM_THREADS": b"2"}
    assert users_variables(broken) == {b"OMP_NUM_THREADS"}


# --- libraries that may not be installed ----------------------------------------------------------

numexpr_too = pytest.mark.skipif(
    importlib.util.find_spec("numexpr") is None, reason="numexpr is not installed"
)
numba_too = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed"
)


def test_numexpr_is_not_asked_for_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS"
    assert said(Parallel(2, inner_max_num_threads=99), variables, *names) == ("64", "99")
    monkeypatch.setenv("NUMEXPR_MAX_THREADS", "2")
    assert said(Parallel(2, inner_max_num_threads=3), variables, *names) == ("2", "3")
    monkeypatch.setenv("NUMEXPR_NUM_THREADS", "5")
    assert said(Parallel(2, inner_max_num_threads=3), variables, *names) == ("5", "3")


@numexpr_too
@pytest.mark.parametrize("name", PROCESSES)
def test_numexpr(name: str) -> None:
    def threads() -> int:
        import numexpr

        number: int = numexpr.get_num_threads()
        return number

    for limit in (1, 3, 2, 99):
        parallel = Parallel(2, backend=name, inner_max_num_threads=limit)
        assert said(parallel, threads) == min(limit, 64)


NUMBA = """
    import multiprocessing, os, sys
    {first}
    from parallel_core import Parallel, delayed

    def look():
        import numba, time

        @numba.njit(parallel=True)
        def total(n):
            result = 0
            for i in numba.prange(n):
                result += i
            return result

        assert total(10) == 45
        time.sleep(0.01)
        return numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS

    for n in {limits}:
        parallel = Parallel(2, backend={backend}, inner_max_num_threads=n)
        print(n, *set(parallel([delayed(look)()] * 4)))
"""


@numba_too
def test_numba_of_tasks_follows_down(tmp_path: Path) -> None:
    text = NUMBA.format(first="", limits=(3, 1, 2, 5), backend="'processes'")
    assert run_script(tmp_path, text) == "3 (3, 3)\n1 (1, 3)\n2 (2, 3)\n5 (3, 3)\n"


@numba_too
def test_numba_of_the_caller_follows_in_new_workers(tmp_path: Path) -> None:
    text = NUMBA.format(first="import numba", limits=(3, 1, 5, 3), backend="'processes'")
    assert run_script(tmp_path, text) == "3 (3, 3)\n1 (1, 1)\n5 (5, 5)\n3 (3, 3)\n"


@numba_too
def test_numba_of_forked_workers_follows_down(tmp_path: Path) -> None:
    fork = "multiprocessing.get_context('fork')"
    text = NUMBA.format(first="import numba", limits=(3, 1, 9), backend=fork)
    out = run_script(tmp_path, text, NUMBA_NUM_THREADS="4")
    assert out == "3 (4, 4)\n1 (4, 4)\n9 (4, 4)\n"  # it is the user's
    first = (
        "os.environ['NUMBA_NUM_THREADS'] = '4'; import numba; del os.environ['NUMBA_NUM_THREADS']"
    )
    text = NUMBA.format(first=first, limits=(3, 1, 9), backend=fork)
    assert run_script(tmp_path, text) == "3 (3, 4)\n1 (1, 4)\n9 (4, 4)\n"
