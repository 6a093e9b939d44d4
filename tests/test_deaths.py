"""A worker that dies costs the task it was on, and nothing else."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import deadly_tasks
import numpy as np
import pytest
from deadly_tasks import Deadly, deadly_result, die, dies_at, kind

from parallel_core import Parallel, delayed, shutdown_workers
from parallel_core.errors import RemoteTraceback, TaskTimeoutError, WorkerDiedError
from watching import wait_until

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]
RETURNS = ["list", "generator", "generator_unordered"]


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("batch_size", ["auto", 1, 40])
@pytest.mark.parametrize("backend", OWN)
def test_one_death_costs_one_task(backend: str, batch_size: Any, return_as: str) -> None:
    parallel = Parallel(2, backend, return_as, batch_size=batch_size, on_error="return")
    got = list(parallel(delayed(dies_at)(x, (17,)) for x in range(40)))
    (error,) = [value for value in got if isinstance(value, Exception)]
    assert isinstance(error, WorkerDiedError) and isinstance(error, BrokenProcessPool)
    assert "task 17 of the call" in str(error) and "dies_at(17, (17,))" in str(error)
    assert (error.position, error.exitcode) == (17, -signal.SIGKILL)
    if return_as != "generator_unordered":
        assert got[17] is error
    assert sorted(value for value in got if value is not error) == [*range(17), *range(18, 40)]


@pytest.mark.parametrize("batch_size", ["auto", 1, 40])
@pytest.mark.parametrize("backend", OWN)
def test_every_task_may_kill_its_worker(backend: str, batch_size: Any) -> None:
    bad = tuple(range(0, 12, 2))
    parallel = Parallel(2, backend, batch_size=batch_size, on_error="return")
    got = parallel(delayed(dies_at)(x, bad) for x in range(12))
    for x in range(12):
        if x in bad:
            assert isinstance(got[x], WorkerDiedError) and got[x].position == x
        else:
            assert got[x] == x


@pytest.mark.parametrize("backend", OWN)
def test_who_waits_behind_tasks_that_kill_is_not_to_blame(backend: str) -> None:
    bad = tuple(range(8))
    options: dict[str, Any] = {"batch_size": 1, "pre_dispatch": 40, "on_error": "skip"}
    parallel = Parallel(2, backend, "generator", **options)
    assert list(parallel(delayed(dies_at)(x, bad) for x in range(20))) == list(range(8, 20))


@pytest.mark.parametrize("backend", OWN)
def test_the_call_ends_with_the_death_unless_told_otherwise(backend: str) -> None:
    with pytest.raises(WorkerDiedError, match="task 3 of the call") as caught:
        Parallel(2, backend, batch_size=1)(delayed(dies_at)(x, (3,)) for x in range(4))
    assert caught.value.position == 3


@pytest.mark.parametrize(
    ("how", "words", "exitcode"),
    [
        ("kill", "was killed by SIGKILL, often the kernel's out-of-memory killer", -9),
        ("fault", "was killed by SIGSEGV", -11),
        ("abort", "was killed by SIGABRT", -6),
        ("exit", "ended with exit code 7", 7),
    ],
)
@pytest.mark.parametrize("backend", OWN)
def test_how_it_died_is_told(
    backend: str, how: str, words: str, exitcode: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # where some systems put a core
    got = Parallel(2, backend, on_error="return")(delayed(dies_at)(x, (2,), how) for x in range(4))
    error = got[2]
    assert words in str(error) and error.exitcode == exitcode
    assert error.memory > 5_000_000
    assert " MiB of memory)" in str(error)
    if how in ("fault", "abort"):
        assert "most recent call first" in error.stack
        assert f'"{deadly_tasks.__file__}", line' in error.stack and " in die" in error.stack
        assert isinstance(error.__cause__, RemoteTraceback)
        assert error.stack in str(error.__cause__)
    else:
        assert error.stack == ""


def test_the_memory_that_a_task_took_is_told() -> None:
    """More than this process ever had, whose peak a child takes over from its parent."""
    held = np.ones(1)
    got = Parallel(2, on_error="return")(delayed(dies_at)(x, (1,), "memory") for x in range(3))
    del held
    own = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
    if own < 150_000_000:
        assert got[1].memory > 160_000_000
    else:
        assert got[1].memory > 5_000_000


@pytest.mark.parametrize("leg", ["unpickling", "pickling"])
@pytest.mark.parametrize("batch_size", [1, 20])
def test_the_task_at_fault_on_every_leg(leg: str, batch_size: int) -> None:
    parallel = Parallel(2, batch_size=batch_size, on_error="return")
    if leg == "unpickling":
        got = parallel(
            delayed(kind)(Deadly(os.getpid(), leg) if x in (4, 11) else x) for x in range(20)
        )
        expected: list[Any] = ["int"] * 20
    else:
        got = parallel(delayed(deadly_result)(x, (4, 11), os.getpid()) for x in range(20))
        expected = list(range(20))
    for x in range(20):
        if x in (4, 11):
            assert isinstance(got[x], WorkerDiedError) and f"task {x} of the call" in str(got[x])
        else:
            assert got[x] == expected[x]


def test_a_function_that_kills_whoever_unpickles_it_costs_its_tasks() -> None:
    class DeadlyFunction(Deadly):
        def __call__(self, x: int) -> int:
            return x

    function = DeadlyFunction(os.getpid(), "unpickling")
    got = Parallel(2, on_error="return")(
        delayed(function if x in (2, 5) else abs)(x) for x in range(8)
    )
    assert [x for x in range(8) if isinstance(got[x], WorkerDiedError)] == [2, 5]


def test_finished_tasks_of_the_batch_run_again_only_if_not_sent(tmp_path: Path) -> None:
    """What has left a worker counts; that happens every 20 ms."""

    def work(x: int) -> int:
        with Path(tmp_path, str(x)).open("ab") as file:
            file.write(b".")
        if x == 30:
            die("kill")
        time.sleep(0.005)
        return x

    got = Parallel(2, batch_size=60, on_error="return")(delayed(work)(x) for x in range(60))
    runs = [Path(tmp_path, str(x)).stat().st_size for x in range(60)]
    assert isinstance(got[30], WorkerDiedError) and got[:30] + got[31:] == [
        *range(30),
        *range(31, 60),
    ]
    assert max(runs) <= 2 and runs[30] == 1
    assert sum(run == 2 for run in runs) <= 15, runs
    assert all(run == 1 for run in runs[31:])


def test_results_that_had_arrived_are_not_computed_again(tmp_path: Path) -> None:
    def work(x: int) -> int:
        with Path(tmp_path, str(x)).open("ab") as file:
            file.write(b".")
        if x == 39:
            time.sleep(0.2)  # so that all before have left
            die("kill")
        return x

    got = Parallel(2, batch_size=1, on_error="skip")(delayed(work)(x) for x in range(40))
    assert got == list(range(39))
    assert {Path(tmp_path, str(x)).stat().st_size for x in range(40)} == {1}


@pytest.mark.parametrize("backend", OWN)
def test_large_results_before_a_death(backend: str) -> None:
    def work(x: int) -> Any:
        if x == 5:
            die("kill")
        return np.full(500_000, x)

    got = Parallel(2, backend, batch_size=4, on_error="return")(delayed(work)(x) for x in range(12))
    for x in range(12):
        if x == 5:
            assert isinstance(got[x], WorkerDiedError)
        else:
            assert got[x].shape == (500_000,) and (got[x] == x).all()


def test_arrays_of_tasks_that_run_elsewhere() -> None:
    arrays = [np.full(200_000, x) for x in range(10)]

    def work(x: int, array: Any) -> int:
        if x == 3:
            die("kill")
        return int(array.sum())

    got = Parallel(2, batch_size=10, on_error="return")(
        delayed(work)(x, array) for x, array in enumerate(arrays)
    )
    assert isinstance(got[3], WorkerDiedError)
    assert got[:3] + got[4:] == [200_000 * x for x in range(10) if x != 3]


def test_a_death_while_the_consumer_is_away() -> None:
    results = Parallel(2, return_as="generator", on_error="return", batch_size=1)(
        delayed(dies_at)(x, (1,)) for x in range(6)
    )
    got = [next(results)]
    time.sleep(0.3)
    got += results
    assert isinstance(got[1], WorkerDiedError)
    assert [got[0], *got[2:]] == [0, 2, 3, 4, 5]


def test_both_workers_killed_from_outside_in_mid_call(tmp_path: Path) -> None:
    """With one retry nothing is lost, whatever they were on."""

    def work(x: int) -> tuple[int, int]:
        Path(tmp_path, f"pid-{os.getpid()}").touch()
        time.sleep(0.02)
        return x, os.getpid()

    def tasks() -> Iterator[Any]:
        for x in range(60):
            if x == 30:
                wait_until(lambda: len(list(tmp_path.iterdir())) >= 2, "two workers have begun")
                for path in tmp_path.iterdir():
                    os.kill(int(path.name.partition("-")[2]), signal.SIGKILL)
            yield delayed(work)(x)

    got = Parallel(2, retries=1, retry_backoff=0.001)(tasks())
    assert [x for x, _ in got] == list(range(60))
    assert len({pid for _, pid in got}) >= 3


def test_a_loky_worker_that_dies_costs_what_was_in_flight() -> None:
    """loky ends all its workers with one; with a retry each, nothing is lost."""
    parallel = Parallel(2, "loky", batch_size=2, on_error="return")
    got = parallel(delayed(dies_at)(x, (5,)) for x in range(30))
    lost = [x for x in range(30) if isinstance(got[x], WorkerDiedError)]
    assert 5 in lost and len(lost) <= 8
    assert all(got[x] == x for x in range(30) if x not in lost)
    assert all(got[x].position == x for x in lost)


def test_an_executor_that_is_broken_ends_the_call(tmp_path: Path) -> None:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        with pytest.raises(WorkerDiedError, match="ProcessPoolExecutor") as caught:
            Parallel(2, executor, batch_size=1, on_error="return")(
                delayed(dies_at)(x, (5,)) for x in range(300)
            )
        results = caught.value.results  # type: ignore[attr-defined]  # born with the call's end
        assert all(value == x for x, value in results.items() if isinstance(value, int))


def test_an_idle_worker_that_ends_is_nobodys_failure() -> None:
    def pid(x: int) -> int:
        time.sleep(0.01)
        return os.getpid()

    with Parallel(2, batch_size=1) as parallel:
        for _ in range(5):
            for victim in set(parallel(delayed(pid)(x) for x in range(6))):
                os.kill(victim, signal.SIGKILL)


def test_a_worker_that_dies_between_two_calls_of_a_generator() -> None:
    for _ in range(5):
        with Parallel(2, return_as="generator", batch_size=1, retries=9) as parallel:
            results = parallel(delayed(os.getpid)() for _ in range(20))
            for _ in range(2):
                with contextlib.suppress(ProcessLookupError):  # both may be of one worker
                    os.kill(next(results), signal.SIGKILL)
            assert len(list(results)) == 18


@pytest.mark.parametrize("kind_of_error", [WorkerDiedError, TaskTimeoutError])
def test_errors_travel(kind_of_error: type[Exception]) -> None:
    error = kind_of_error("why")
    if isinstance(error, WorkerDiedError):
        error.position, error.exitcode, error.memory, error.stack = 3, -9, 1000, "stack"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind_of_error and str(copy) == "why"
    assert vars(copy) == vars(error)


def test_a_nested_call_whose_worker_dies_is_a_failure_of_its_task() -> None:
    def nested(x: int) -> list[int]:
        bad = (1,) if x == 2 else ()
        return Parallel(2, "processes")(delayed(dies_at)(y, bad) for y in range(3))

    got = Parallel(2, on_error="return")(delayed(nested)(x) for x in range(4))
    assert isinstance(got[2], WorkerDiedError) and got[2].exitcode == -9
    assert got[:2] + got[3:] == [[0, 1, 2]] * 3


def test_a_program_that_uses_faulthandler_itself_keeps_its_own(tmp_path: Path) -> None:
    def work(x: int) -> int:
        with Path(tmp_path, str(x)).open("w") as file:
            faulthandler.enable(file)
            if x == 1:
                die("fault")
            faulthandler.disable()
        return x

    got = Parallel(1 + 1, on_error="return", batch_size=1)(delayed(work)(x) for x in range(2))
    assert got[1].stack == "" and "Segmentation" in (tmp_path / "1").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_deaths_leave_no_descriptor_behind() -> None:
    def count() -> int:
        shutdown_workers()  # a call that has lost one of its workers leaves only the other
        return len(os.listdir("/proc/self/fd"))

    Parallel(2, on_error="skip")(delayed(dies_at)(x, (3,)) for x in range(8))
    before = count()
    for _ in range(10):
        Parallel(2, on_error="skip")(delayed(dies_at)(x, (3, 5)) for x in range(8))
    assert count() <= before
