"""Limits of time: for a task, from when it starts, and for a whole call."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parallel_core import CallTimeoutError, Parallel, TaskTimeoutError, delayed
from parallel_core.errors import RemoteTraceback
from watching import running, wait_until

pytestmark = pytest.mark.warm_workers

OWN = ["processes", "multiprocessing"]
RETURNS = ["list", "generator", "generator_unordered"]

released = threading.Event()


@pytest.fixture(autouse=True)
def release_threads() -> Iterator[None]:
    """Let threads that were disowned come to their end with the test."""
    released.clear()
    yield
    released.set()


def stick(x: int, bad: tuple[int, ...], how: str = "sleep") -> int:
    if x not in bad:
        return x
    if how == "wait":
        released.wait(300)
    elif how == "sleep":
        time.sleep(300)
    elif how == "compute":
        while True:
            pass
    elif how == "c":  # holds the interpreter's lock, and looks at no signal
        re.match(r"(a+)+$", "a" * 40 + "b")
    elif how == "swallow":
        while True:
            try:
                time.sleep(300)
            except BaseException:
                continue
    return -1


@pytest.mark.parametrize(
    ("backend", "how"),
    [
        *((backend, how) for backend in OWN for how in ("sleep", "compute")),
        *(("processes", how) for how in ("c", "swallow")),
    ],
)
def test_one_of_forty_sticks(backend: str, how: str) -> None:
    got = Parallel(2, backend, timeout=0.6, on_error="return")(
        delayed(stick)(x, (5,), how) for x in range(40)
    )
    assert got[:5] + got[6:] == [*range(5), *range(6, 40)]
    error = got[5]
    assert isinstance(error, TaskTimeoutError)
    assert "task 5 of the call" in str(error) and "more than timeout=0.6 s" in str(error)
    assert isinstance(error.__cause__, RemoteTraceback), "where it was is told"
    assert "in stick" in str(error.__cause__)


@pytest.mark.parametrize("backend", OWN)
def test_what_a_function_imports_takes_its_time(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "def work(x):\n    return x\n"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "slow_to_import.py").write_text(module)
    from slow_to_import import work  # type: ignore[import-not-found]  # it was written just now

    (tmp_path / "slow_to_import.py").write_text(f"import time\ntime.sleep(0.8)\n{module}")
    parallel = Parallel(2, backend, timeout=0.4)
    assert parallel(delayed(work)(x) for x in range(6)) == list(range(6))
    del sys.modules["slow_to_import"]


@pytest.mark.parametrize("backend", OWN)
def test_a_task_that_waits_for_a_child_can_end_it(backend: str, tmp_path: Path) -> None:
    def work(x: int) -> int:
        if x == 3:
            command = f"echo $$ > {tmp_path / 'pid'}; exec sleep 300"
            subprocess.run(["sh", "-c", command], check=False)
        return x

    got = Parallel(2, backend, timeout=0.3, on_error="skip")(delayed(work)(x) for x in range(6))
    assert got == [0, 1, 2, 4, 5]
    assert not running(int((tmp_path / "pid").read_text()))


def test_a_task_may_clean_up(tmp_path: Path) -> None:
    def work(x: int) -> int:
        if x == 1:
            try:
                time.sleep(300)
            finally:
                (tmp_path / "cleaned").touch()
        return x

    got = Parallel(2, timeout=0.3, on_error="skip")(delayed(work)(x) for x in range(4))
    assert got == [0, 2, 3] and (tmp_path / "cleaned").exists()


def test_a_task_that_turns_the_interrupt_into_something_else() -> None:
    def work(x: int) -> int:
        try:
            time.sleep(300 if x == 1 else 0)
        except BaseException:
            raise LookupError("lost") from None
        return x

    got = Parallel(2, timeout=0.3, on_error="return")(delayed(work)(x) for x in range(4))
    assert isinstance(got[1], TaskTimeoutError) and "LookupError: lost" in str(got[1].__cause__)


def test_a_task_that_ends_well_when_it_is_asked_to_counts() -> None:
    def work(x: int) -> int:
        try:
            time.sleep(300 if x == 1 else 0)
        except KeyboardInterrupt:
            return -x
        return x

    got = Parallel(2, timeout=0.3, on_error="return")(delayed(work)(x) for x in range(6))
    assert got == [0, -1, 2, 3, 4, 5]


def test_the_worker_is_replaced_and_others_are_not() -> None:
    def work(x: int) -> int:
        if x == 6:
            time.sleep(300)
        time.sleep(0.01)
        return os.getpid()

    with Parallel(2, timeout=0.4, on_error="return", batch_size=1) as parallel:
        got = parallel(delayed(work)(x) for x in range(200))
        before = set(got[:6])
        after = set(got[-40:])
        assert len(before | after) == 3 and len(before & after) == 1


def test_the_limit_counts_from_the_start_of_the_task_and_not_of_its_batch() -> None:
    def work(x: int) -> int:
        time.sleep(0.1)
        return x

    parallel = Parallel(2, timeout=0.9, batch_size=15)
    assert parallel(delayed(work)(x) for x in range(30)) == list(range(30))


def test_finished_tasks_of_the_batch_are_not_run_again(tmp_path: Path) -> None:
    def work(x: int) -> int:
        with (tmp_path / str(x)).open("ab") as file:
            file.write(b".")
        if x == 7:
            time.sleep(300)
        return x

    got = Parallel(2, timeout=0.4, batch_size=20, on_error="skip")(
        delayed(work)(x) for x in range(20)
    )
    assert got == [x for x in range(20) if x != 7]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {1}


def test_an_executor_whose_threads_are_all_stuck_ends_the_call() -> None:
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(TaskTimeoutError, match=r"all 2 workers .* cannot be stopped"):
            Parallel(2, executor, timeout=0.3, on_error="skip")(
                delayed(stick)(x, (1, 2), "wait") for x in range(10)
            )
        released.set()


def test_threads_that_were_given_up_change_nothing_later() -> None:
    done = []

    def work(x: int) -> int:
        if x == 1:
            released.wait(300)
            done.append(x)
            return 100
        return x

    seen = []
    results = Parallel(2, "threading", "generator", timeout=0.3, on_error="return")(
        delayed(work)(x) for x in range(30)
    )
    for x, value in enumerate(results):
        seen.append(value)
        if x == 5:
            released.set()
            wait_until(lambda: done, "the thread has ended its task")
    assert isinstance(seen[1], TaskTimeoutError)
    assert seen[:1] + seen[2:] == [0, *range(2, 30)]


@pytest.mark.parametrize("backend", ["processes", "threading"])
@pytest.mark.parametrize("return_as", RETURNS[1:])
def test_the_others_go_on_in_a_generator(backend: str, return_as: str) -> None:
    how = "wait" if backend == "threading" else "sleep"
    parallel = Parallel(2, backend, return_as, timeout=0.8, on_error="skip")
    got = list(parallel(delayed(stick)(x, (0, 3, 4), how) for x in range(20)))
    assert sorted(got) == [x for x in range(20) if x not in (0, 3, 4)]


@pytest.mark.parametrize("backend", ["processes", "threading"])
@pytest.mark.parametrize("return_as", RETURNS[1:])
def test_a_limit_for_the_whole_call_in_a_generator(backend: str, return_as: str) -> None:
    def nap(x: int) -> int:
        time.sleep(0.02)
        return x

    parallel = Parallel(2, backend, return_as, call_timeout=1, batch_size=1)
    got: list[int] = []
    with pytest.raises(CallTimeoutError, match=r"more than call_timeout=1 s"):
        got.extend(parallel(delayed(nap)(x) for x in itertools.count()))
    assert got and len(set(got)) == len(got)


@pytest.mark.parametrize("return_as", RETURNS)
def test_a_limit_for_the_whole_call_without_workers(return_as: str) -> None:
    def nap(x: int) -> int:
        time.sleep(0.02)
        return x

    with pytest.raises(CallTimeoutError) as caught:
        list(Parallel(1, None, return_as, call_timeout=0.3)(map(delayed(nap), itertools.count())))
    if return_as == "list":
        results = caught.value.results  # type: ignore[attr-defined]  # as above
        assert len(results) >= 1


def test_a_call_that_waits_to_try_again_ends_in_time() -> None:
    def fail() -> None:
        raise OSError

    for n_jobs, backend in ((1, "sequential"), (2, "processes"), (2, "threading")):
        with pytest.raises(CallTimeoutError):
            Parallel(
                n_jobs, backend, call_timeout=0.3, retries=3, retry_on=OSError, retry_backoff=50
            )([delayed(fail)()])


@pytest.mark.core
def test_both_limits_and_a_signal_of_the_users_own(tmp_path: Path) -> None:
    """A program that uses SIGUSR1, SIGUSR2 and SIGALRM in its tasks is not in our way."""

    def work(x: int) -> int:
        heard = []
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            signal.signal(number, lambda *_: heard.append(1))
            os.kill(os.getpid(), number)
        time.sleep(0.01)
        return x + len(heard)

    parallel = Parallel(2, timeout=30, call_timeout=50)
    assert parallel(delayed(work)(x) for x in range(8)) == [x + 3 for x in range(8)]
