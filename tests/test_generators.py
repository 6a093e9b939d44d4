"""Generators of results: as they come, lazily, and clean however they end."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_tasks import touch, touch_and_sleep, touch_and_wait

from parallel_core import Parallel, delayed
from watching import HOME, LIMIT, Counted, begun, running, steady, wait_until

pytestmark = pytest.mark.warm_workers

ALL = ["processes", "multiprocessing", "loky", "threading", "sequential"]
KINDS = ["generator", "generator_unordered"]


# --- results, as they come ------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, "auto", 1000])
@pytest.mark.parametrize("pre_dispatch", ["all", 1, 2, "3*n_jobs"])
def test_all_results_in_order_however_they_are_cut(
    n_jobs: int, batch_size: int | str, pre_dispatch: int | str
) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "pre_dispatch": pre_dispatch}
    for return_as in KINDS:
        results = Parallel(n_jobs, return_as=return_as, **options)(
            delayed(divmod)(n, 7) for n in range(500)
        )
        assert sorted(results) == sorted(divmod(n, 7) for n in range(500))
    results = Parallel(n_jobs, return_as="generator", **options)(
        delayed(divmod)(n, 7) for n in range(500)
    )
    assert list(results) == [divmod(n, 7) for n in range(500)]


def test_ordered_results_wait_for_the_one_before(tmp_path: Path) -> None:
    path = str(tmp_path)
    results = Parallel(2, return_as="generator", batch_size=1)(
        [delayed(touch_and_wait)(path, 0, "go")] + [delayed(touch)(path, n) for n in range(1, 6)]
    )
    wait_until(lambda: 1 in begun(tmp_path), "another task has run")
    assert steady(lambda: len(begun(tmp_path))) >= 2
    Path(path, "go").touch()
    assert list(results) == list(range(6))


def test_a_big_result_does_not_wait_for_the_next_task(tmp_path: Path) -> None:
    """What is done is told, also when it does not fit into the socket at once."""

    def work(n: int) -> bytes:
        import os
        import time

        limit = time.monotonic() + 5
        while n >= 2 and not os.path.exists(os.path.join(path, f"taken-{n - 2}")):
            if time.monotonic() > limit:
                return b"in vain"
            time.sleep(0.003)
        return bytes([n]) * 5_000_000

    path = str(tmp_path)
    results = Parallel(2, return_as="generator", batch_size=1, pre_dispatch=6)(
        delayed(work)(n) for n in range(10)
    )
    for n, result in enumerate(results):
        assert result[:1] == bytes([n]), f"{result!r}"[:20]
        assert len(result) == 5_000_000
        Path(path, f"taken-{n}").touch()


# --- laziness -------------------------------------------------------------------------------------


def test_nothing_runs_before_its_turn_with_one_job(tmp_path: Path) -> None:
    path = str(tmp_path)
    tasks = Counted(delayed(touch)(path, n) for n in range(10))
    results = Parallel(1, return_as="generator")(tasks)
    assert tasks.pulled == 0
    assert next(results) == 0
    assert begun(tmp_path) == {0} and tasks.pulled == 1
    results.close()
    assert tasks.closed or tasks.pulled == 1


def test_a_consumer_that_feeds_the_iterable() -> None:
    """Each result asks for more work, as a crawler does."""
    waiting = [1]

    def tasks() -> Iterator[Any]:
        while waiting:
            yield delayed(abs)(waiting.pop())

    results = Parallel(2, return_as="generator", batch_size=1, pre_dispatch=1)(tasks())
    got = []
    for result in results:
        got.append(result)
        if len(got) < 50:
            waiting.append(len(got) + 1)
    assert got == list(range(1, 51))


# --- ends -----------------------------------------------------------------------------------------


def test_dropping_within_a_reference_circle_warns() -> None:
    class Node:
        pass

    node = Node()
    node.itself = node  # type: ignore[attr-defined]  # the circle
    node.results = Parallel(2, return_as="generator")(  # type: ignore[attr-defined]  # as above
        delayed(abs)(-n) for n in range(1000)
    )
    with pytest.warns(ResourceWarning, match="before its end"):  # noqa: PT031 - `del`
        del node
        gc.collect()


def test_dropping_after_the_last_result_but_before_the_end() -> None:
    """All results were taken, but nobody asked whether there are more."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = Parallel(2, return_as="generator")([delayed(abs)(-n) for n in range(3)])
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        del results
        gc.collect()
    assert all("before its end" in str(one.message) for one in caught)
    assert Parallel(2)([delayed(abs)(-1)]) == [1]


def test_idle_workers_stay_when_a_generator_is_closed() -> None:
    parallel = Parallel(2, return_as="generator")
    before = set()
    wait_until(lambda: len(before) == 2 or before.update(slow_pids(parallel)), "two have worked")
    for _ in range(5):
        results = parallel(delayed(abs)(-n) for n in itertools.count())
        next(results)
        results.close()
    after = set()
    wait_until(lambda: len(after) == 2 or after.update(slow_pids(parallel)), "two have worked")
    assert after == before


def slow_pids(parallel: Parallel) -> set[int]:
    def pid() -> int:
        time.sleep(0.002)
        return os.getpid()

    return set(parallel(delayed(pid)() for _ in range(10)))


def test_the_callers_generator_is_closed_with_the_results() -> None:
    for backend in ("processes", "loky", "sequential"):
        events: list[str] = []

        def tasks(events: list[str] = events) -> Iterator[Any]:
            try:
                for n in itertools.count():
                    yield delayed(abs)(n)
            finally:
                events.append("closed")

        results = Parallel(2, backend=backend, return_as="generator")(tasks())
        next(results)
        results.close()
        del results
        gc.collect()
        assert events == ["closed"], backend


def test_a_list_call_from_within_its_own_generator_is_refused() -> None:
    parallel = Parallel(2)

    def tasks() -> Iterator[Any]:
        yield delayed(abs)(1)
        with pytest.raises(RuntimeError, match="running"):
            parallel([delayed(abs)(2)])
        yield delayed(abs)(3)

    assert parallel(tasks()) == [1, 3]


# --- errors ---------------------------------------------------------------------------------------


def test_an_item_that_is_no_task_midway() -> None:
    def tasks() -> Iterator[Any]:
        for n in range(50):
            yield delayed(abs)(n)
        yield abs(3)

    for backend in ALL:
        parallel = Parallel(2, backend=backend, return_as="generator", batch_size=1)
        with pytest.raises(TypeError, match="item 50"):
            list(parallel(tasks()))
        assert sum(parallel(delayed(abs)(-n) for n in range(10))) == 45


# --- with -----------------------------------------------------------------------------------------


def test_a_with_block_left_while_tasks_sleep(tmp_path: Path) -> None:
    path = str(tmp_path)
    with Parallel(2, return_as="generator", batch_size=1) as parallel:
        results = parallel(delayed(touch_and_sleep)(path, n) for n in range(10))
        wait_until(lambda: len(begun(tmp_path)) == 2, "both workers are busy")
    pids = [int((tmp_path / str(n)).read_text()) for n in begun(tmp_path)]
    for pid in pids:
        wait_until(lambda pid=pid: not running(pid), "the busy worker is gone")
    assert list(results) == []


# --- several at a time ----------------------------------------------------------------------------


def test_one_generator_feeds_another() -> None:
    first = Parallel(2, return_as="generator")(delayed(abs)(-n) for n in range(300))
    second = Parallel(2, return_as="generator")(delayed(pow)(n, 2) for n in first)
    third = Parallel(2)(delayed(str)(n) for n in second)
    assert third == [str(n**2) for n in range(300)]


def test_a_generator_of_one_instance_within_calls_of_others() -> None:
    results = Parallel(2, return_as="generator")(delayed(abs)(-n) for n in range(20))
    for n, result in enumerate(results):
        assert Parallel(2)(delayed(pow)(result, k) for k in range(3)) == [1, n, n**2]


def test_a_generator_closed_in_another_thread() -> None:
    results = Parallel(2, return_as="generator")(delayed(abs)(-n) for n in itertools.count())
    next(results)
    thread = threading.Thread(target=results.close)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert list(results) == []
    assert Parallel(2)([delayed(abs)(-1)] * 3) == [1] * 3


# --- in bulk --------------------------------------------------------------------------------------


def run_script(folder: Path, text: str) -> str:
    (folder / "script.py").write_text(textwrap.dedent(text))
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("return_as", KINDS)
def test_many_results_take_no_more_memory_than_few(return_as: str, tmp_path: Path) -> None:
    text = f"""
        import itertools, re
        from parallel_core import Parallel, delayed

        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

        results = Parallel(2, return_as={return_as!r})(
            delayed(divmod)(n, 1000) for n in itertools.count()
        )
        total = sum(result[1] for result in itertools.islice(results, 50_000))
        before = peak()
        count = sum(1 for result in itertools.islice(results, 300_000))
        grown = peak() - before
        results.close()
        assert count == 300_000
        assert grown < 20_000, f"{{grown}} KiB"
        print("good")
    """
    assert run_script(tmp_path, text) == "good\n"


def test_big_results_ahead_of_a_resting_consumer_are_bounded(tmp_path: Path) -> None:
    text = """
        import re, time
        from parallel_core import Parallel, delayed

        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

        results = Parallel(2, return_as="generator", batch_size=1, pre_dispatch=4)(
            delayed(bytes)(1 << 22) for n in range(60)
        )
        next(results)
        before = peak()
        for result in results:
            assert len(result) == 1 << 22
            time.sleep(0.002)
            del result
        grown = peak() - before
        assert grown < 60_000, f"{grown} KiB"
        print("good")
    """
    assert run_script(tmp_path, text) == "good\n"


def test_a_generator_left_open_at_the_end_of_the_program(tmp_path: Path) -> None:
    text = """
        import itertools, os
        from parallel_core import Parallel, delayed

        def work(n):
            return os.getpid()

        results = Parallel(2, return_as="generator")(delayed(work)(n) for n in itertools.count())
        print(next(results))
    """
    text = textwrap.dedent(text)
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    wait_until(lambda: not running(int(done.stdout)), "the worker is gone")
