"""`Parallel` and `delayed`, as somebody who knows joblib comes to them."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simple_tasks import (
    copied,
    echo_bytes,
    nested_sum,
    slow_pid,
    slow_square,
    square,
    started_and_ended,
    wait_until,
)

import parallel_core
from parallel_core import Parallel, cpu_count, delayed, shutdown_workers

pytestmark = pytest.mark.warm_workers

ROOT = Path(parallel_core.__file__).resolve().parents[1]

NAMES = ["processes", "threading", "sequential", "loky", "multiprocessing"]
METHODS = multiprocessing.get_all_start_methods()
core = pytest.mark.core


def engine(name: str) -> Any:
    """Return what to pass as ``backend=`` for `name`; start methods are passed as contexts."""
    if name in METHODS:
        return multiprocessing.get_context(name)
    if name == "loky context":
        from loky.backend.context import get_context

        return get_context("loky")
    return name


def engines(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of these as `name`; the fastest ones belong to the core."""
    fastest = ("processes", "threading")
    marks = {True: [core], False: []}
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks[name in fastest]) for name in names]
    )


def run_script(folder: Path, text: str, *arguments: str, **environment: str) -> str:
    """Run `text` as a script of its own and return what it wrote to stdout; it must succeed."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def running(pid: int) -> bool:
    """Whether process `pid` is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


# What tasks call.


# Results equal those of the plain loop.


@engines("multiprocessing", "loky context")
def test_other_names_for_workers_of_multiprocessing(name: str) -> None:
    """The contract has its start methods one by one."""
    for n_jobs in (1, 2, 3):
        parallel = Parallel(n_jobs, engine(name), initializer=set_level, initargs=(3, "extra"))
        try:
            assert parallel(delayed(get_level)() for _ in range(6)) == [(3, "extra")] * 6
        finally:
            set_level(0, "unset")
        got = Parallel(n_jobs, engine(name))(delayed(math.sqrt)(i) for i in range(50))
        assert got == [math.sqrt(i) for i in range(50)]
        assert Parallel(n_jobs, engine(name))([]) == []


@core
@pytest.mark.parametrize("n_jobs", [None, 1.0, 1.9, 2.0, 2.9, -1, -2, -1000, np.int64(2), True])
def test_any_number_of_jobs(n_jobs: Any) -> None:
    assert Parallel(n_jobs=n_jobs)(delayed(abs)(-i) for i in range(20)) == list(range(20))


def test_floats_are_rounded_down() -> None:
    assert Parallel(n_jobs=2.9).n_jobs == 2
    assert Parallel(n_jobs=-1.5).n_jobs == -2


def test_minus_one_means_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    names = Parallel(n_jobs=-1, backend="threading", batch_size=1)(
        delayed(lambda: (time.sleep(0.05), threading.get_ident())[1])() for _ in range(8)
    )
    assert 1 <= len(set(names)) <= cpu_count()


def test_delayed_gives_a_plain_tuple() -> None:
    task = delayed(pow)(2, 3, mod=5)
    assert type(task) is tuple
    assert task == (pow, (2, 3), {"mod": 5})
    maker = delayed(square)
    assert maker(1) == (square, (1,), {})
    assert maker(x=2) == (square, (), {"x": 2})


@pytest.mark.parametrize("batch_size", ["auto", 1, 3, 100])
@pytest.mark.parametrize("pre_dispatch", ["all", 1, 5, "2*n_jobs", "1.5*n_jobs", "n_jobs"])
def test_batches_and_look_ahead_change_nothing(batch_size: Any, pre_dispatch: Any) -> None:
    for backend in ("processes", "threading"):
        parallel = Parallel(
            n_jobs=2, backend=backend, batch_size=batch_size, pre_dispatch=pre_dispatch
        )
        assert parallel(delayed(pow)(i, 2) for i in range(101)) == [i * i for i in range(101)]
        assert parallel([]) == []


@engines("processes", "multiprocessing", "loky", "threading")
@pytest.mark.parametrize("batch_size", [1, 4])
def test_large_arguments_and_results_both_ways_at_once(name: str, batch_size: int) -> None:
    size = 5_000_000
    got = Parallel(n_jobs=3, backend=name, batch_size=batch_size, pre_dispatch="all")(
        delayed(echo_bytes)(bytes([i % 251]) * size, i) for i in range(12)
    )
    assert [len(data) for data in got] == [size] * 12
    assert [data[0] for data in got] == [i + 1 for i in range(12)]
    assert all(data.count(data[0]) == size for data in got)


def test_large_lists_and_arrays_both_ways() -> None:
    def both(array: np.ndarray, items: list[int]) -> tuple[np.ndarray, list[int]]:
        return array + 1, items[::-1]

    arrays = [np.arange(650_000, dtype=float) + i for i in range(6)]
    items = list(range(200_000))
    with Parallel(n_jobs=3, max_nbytes=None) as parallel:
        for _ in range(2):
            for (array, back), original in zip(
                parallel(delayed(both)(array, items) for array in arrays), arrays, strict=True
            ):
                assert np.array_equal(array, original + 1)
                assert back == items[::-1]


def test_results_of_one_type_are_not_mixed_up() -> None:
    values = [1, 1.0, True, 1 + 0j, "1", b"1", None, np.int64(1), np.float64(1), np.bool_(1)] * 30
    for batch_size in ("auto", 64):
        got = Parallel(n_jobs=2, batch_size=batch_size)(delayed(copied)(value) for value in values)
        assert [type(value) for value in got] == [type(value) for value in values]


# pre_dispatch: the producer.


@pytest.mark.fresh_workers
@engines("processes", "multiprocessing", "loky", "threading")
@pytest.mark.parametrize("by_value", [False, True])
def test_three_items_are_taken_before_anything_runs(name: str, by_value: bool) -> None:
    taken: list[float] = []

    def producer() -> Iterator[int]:
        for i in range(6):
            taken.append(time.monotonic())
            yield i

    function = (lambda x: (time.monotonic(), x)) if by_value else started_and_ended

    def is_so() -> bool:
        shutdown_workers()
        taken.clear()
        got = Parallel(n_jobs=2, backend=name, pre_dispatch="1.5*n_jobs")(
            delayed(function)(i) for i in producer()
        )
        assert len(taken) == 6
        return min(began for began, _ in got) >= taken[2]

    # A busy machine may stop this process for so long between two items that a worker gets to one.
    assert any(is_so() for _ in range(10))


@pytest.mark.fresh_workers
def test_a_slow_producer_is_called_three_times_first() -> None:
    """It is called while the workers start; workers that are there take the first item at once."""

    def is_so() -> bool:
        shutdown_workers()
        taken = []

        def producer() -> Iterator[int]:
            for i in range(6):
                time.sleep(0.01)
                taken.append(time.monotonic())
                yield i

        got = Parallel(n_jobs=2, pre_dispatch="1.5*n_jobs")(
            delayed(started_and_ended)(i) for i in producer()
        )
        return min(began for began, _ in got) >= taken[2]

    assert any(is_so() for _ in range(10))  # unless this process was stopped between two items


@pytest.mark.parametrize(("pre_dispatch", "limit"), [(1, 1), ("n_jobs", 2), (7, 7)])
def test_never_more_than_pre_dispatch_are_ahead(pre_dispatch: Any, limit: int) -> None:
    class Watching(Parallel):
        ahead = 0

        def tasks(self) -> Iterator[Any]:
            for i in range(40):
                type(self).ahead = max(self.ahead, i + 1 - self.n_completed_tasks)
                yield delayed(square)(i)

    for backend in ("processes", "loky"):
        Watching.ahead = 0
        parallel = Watching(n_jobs=2, backend=backend, pre_dispatch=pre_dispatch, batch_size=1)
        assert parallel(parallel.tasks()) == [i * i for i in range(40)]
        assert Watching.ahead == limit


@pytest.mark.parametrize(
    ("expression", "n_jobs"),
    [
        ("n_jobs-1", 3),
        ("n_jobs//2", 2),
        ("12//(n_jobs-1)", 2),
        ("max(1, n_jobs-5)", 2),
        ("  3 * n_jobs ", 2),
        ("2.5*n_jobs", 2),
        ("int(n_jobs/2)", 2),
        ("ALL".lower(), 2),
        ("7", 2),
        (np.int64(3), 2),
        (2.7, 2),
    ],
)
def test_expressions_for_pre_dispatch(expression: Any, n_jobs: int) -> None:
    parallel = Parallel(n_jobs=n_jobs, pre_dispatch=expression)
    assert parallel(delayed(abs)(-i) for i in range(20)) == list(range(20))


# Generators of tasks that do something.


@pytest.mark.parametrize("inner", [None, "processes", "threading", "sequential"])
@pytest.mark.parametrize("outer", ["processes", "threading", "sequential"])
def test_a_generator_that_calls_parallel(outer: str, inner: str | None) -> None:
    def tasks() -> Iterator[Any]:
        for i in range(5):
            yield delayed(square)(nested_sum(i, inner))

    expected = [sum(j * j for j in range(i)) ** 2 for i in range(5)]
    assert Parallel(n_jobs=2, backend=outer)(tasks()) == expected


def test_a_generator_that_takes_from_another_call() -> None:
    inner = Parallel(n_jobs=2, return_as="generator")(delayed(square)(i) for i in range(50))
    outer = Parallel(n_jobs=2)(delayed(square)(x) for x in inner)
    assert outer == [i**4 for i in range(50)]


@pytest.mark.parametrize("name", ["processes", "threading", "loky"])
def test_a_slow_generator(name: str) -> None:
    def tasks() -> Iterator[Any]:
        for i in range(8):
            time.sleep(0.02)
            yield delayed(square)(i)

    assert Parallel(n_jobs=3, backend=name)(tasks()) == [i * i for i in range(8)]


@engines("processes", "multiprocessing", "loky", "spawn", "forkserver")
def test_the_context_manager_keeps_its_workers(name: str) -> None:
    seen = set()
    with Parallel(n_jobs=2, backend=engine(name)) as parallel:
        for _ in range(5):
            seen.update(parallel(delayed(slow_pid)(0.01) for _ in range(4)))
    assert len(seen) == 2
    assert os.getpid() not in seen


@core
def test_plain_calls_reuse_warm_workers() -> None:
    first = set(Parallel(n_jobs=2)(delayed(slow_pid)(0.05) for _ in range(4)))
    again = set()
    for _ in range(10):
        again |= set(Parallel(n_jobs=2)(delayed(slow_pid)(0.001) for _ in range(4)))
    assert len(first) == 2
    assert again == first


def test_the_context_manager_takes_over_warm_workers() -> None:
    def pids(parallel: Parallel) -> set[int]:
        return set(parallel(delayed(slow_pid)(0.05) for _ in range(4)))

    first = pids(Parallel(n_jobs=2))
    with Parallel(n_jobs=2) as parallel:
        assert pids(parallel) == first
        # they are taken: another call gets others
        assert not pids(Parallel(n_jobs=2)) & first
        assert pids(parallel) == first


@pytest.mark.fresh_workers
def test_growing_and_shrinking() -> None:
    def pids(n_jobs: int) -> set[int]:
        return set(
            Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch="all")(
                delayed(slow_pid)(0.1) for _ in range(n_jobs)
            )
        )

    two = pids(2)
    four = pids(4)
    assert len(two) == 2
    assert len(four) == 4
    assert two < four
    for _ in range(4):
        smaller = pids(2)
        assert len(smaller) == 2
        assert smaller < four
    assert shutdown_workers() == 2
    assert wait_until(lambda: not any(running(pid) for pid in four))


@pytest.mark.fresh_workers
@core
def test_shutdown_workers() -> None:
    pids = set(Parallel(n_jobs=2)(delayed(slow_pid)(0.02) for _ in range(4)))
    assert shutdown_workers() == 2
    assert wait_until(lambda: not any(running(pid) for pid in pids))
    assert shutdown_workers() == 0
    again = set(Parallel(n_jobs=2)(delayed(slow_pid)(0.02) for _ in range(4)))
    assert not again & pids


@pytest.mark.fresh_workers
def test_shutdown_workers_leaves_running_calls_alone() -> None:
    with Parallel(n_jobs=2) as parallel:
        first = set(parallel(delayed(slow_pid)(0.02) for _ in range(4)))
        assert shutdown_workers() == 0
        assert set(parallel(delayed(slow_pid)(0.02) for _ in range(4))) == first

    def tasks() -> Iterator[Any]:
        for i in range(6):
            shutdown_workers()
            yield delayed(square)(i)

    assert Parallel(n_jobs=2)(tasks()) == [i * i for i in range(6)]


def test_idle_workers_end_and_the_next_call_works() -> None:
    parallel = Parallel(n_jobs=2, idle_worker_timeout=0.2)
    pids = set(parallel(delayed(slow_pid)(0.02) for _ in range(4)))
    assert wait_until(lambda: not any(running(pid) for pid in pids))
    again = set(parallel(delayed(slow_pid)(0.02) for _ in range(4)))
    assert again
    assert not again & pids


def test_idle_workers_end_within_a_context_manager() -> None:
    with Parallel(n_jobs=2, idle_worker_timeout=0.1) as parallel:
        for _ in range(3):
            pids = set(parallel(delayed(slow_pid)(0.02) for _ in range(4)))
            assert wait_until(lambda pids=pids: not any(running(pid) for pid in pids))
        assert parallel(delayed(square)(i) for i in range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_workers_that_idle_while_the_generator_is_slow(seconds: float) -> None:
    def tasks() -> Iterator[Any]:
        for i in range(3):
            time.sleep(0.4)
            yield delayed(square)(i)

    assert Parallel(n_jobs=2, idle_worker_timeout=seconds)(tasks()) == [0, 1, 4]


def test_a_longer_idle_time_counts_for_warm_workers() -> None:
    Parallel(n_jobs=2, idle_worker_timeout=0.3)(delayed(slow_pid)(0.02) for _ in range(4))
    pids = set(
        Parallel(n_jobs=2, idle_worker_timeout=None)(delayed(slow_pid)(0.02) for _ in range(4))
    )
    time.sleep(0.6)
    assert all(running(pid) for pid in pids)


def test_calls_from_several_threads() -> None:
    results: dict[int, Any] = {}

    def call(number: int) -> None:
        for _ in range(5):
            results[number] = Parallel(n_jobs=2)(delayed(pow)(number, i) for i in range(30))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number**i for i in range(30)] for number in range(4)}


# Counters, progress and messages.


class Bar:
    """What recipes use of tqdm."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.n = 0
        self.shown: list[tuple[int, int | None]] = []
        self.closed = False

    def update(self, count: int) -> None:
        assert count >= 0
        self.n += count
        self.refresh()

    def refresh(self) -> None:
        self.shown.append((self.n, self.total))

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProgressParallel(Parallel):
    """The recipe that sets the bar to the counters."""

    def __init__(
        self, use_bar: bool = True, total: int | None = None, *args: Any, **kwargs: Any
    ) -> None:
        self._use_bar = use_bar
        self._total = total
        self.threads: set[int] = set()
        super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with Bar(self._total) as self._bar:
            return Parallel.__call__(self, *args, **kwargs)

    def print_progress(self) -> None:
        self.threads.add(threading.get_ident())
        if self._total is None:
            self._bar.total = self.n_dispatched_tasks
        self._bar.n = self.n_completed_tasks
        self._bar.refresh()


class UpdatingParallel(Parallel):
    """The recipe that updates by the difference, with the total known beforehand."""

    def __init__(self, n_total: int, **kwargs: Any) -> None:
        super().__init__(verbose=kwargs.pop("verbose", 0), **kwargs)
        self.bar = Bar(n_total)

    def __call__(self, iterable: Iterable[Any]) -> Any:
        try:
            return super().__call__(iterable)
        finally:
            self.bar.close()

    def print_progress(self) -> None:
        super().print_progress()
        if self.n_completed_tasks > self.bar.n:
            self.bar.update(self.n_completed_tasks - self.bar.n)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", [None, 25])
def test_progress_by_counters(name: str, total: int | None) -> None:
    parallel = ProgressParallel(True, total, n_jobs=2, backend=name, batch_size=1)
    assert parallel(delayed(slow_square)(i) for i in range(25)) == [i * i for i in range(25)]
    bar = parallel._bar
    assert bar.closed
    done = [n for n, _ in bar.shown]
    assert done == sorted(done)
    assert bar.shown[-1] == (25, 25)
    assert all(n <= (shown_total or 0) for n, shown_total in bar.shown)
    assert len(set(done)) > 3
    assert parallel.threads == {threading.get_ident()}


@pytest.mark.parametrize("name", NAMES)
def test_progress_by_differences(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    parallel = UpdatingParallel(25, n_jobs=2, backend=name)
    assert parallel(delayed(square)(i) for i in range(25)) == [i * i for i in range(25)]
    assert parallel.bar.n == 25
    assert parallel.bar.closed
    assert capfd.readouterr().err == ""


def test_progress_set_on_the_instance() -> None:
    parallel = Parallel(n_jobs=2)
    seen = []
    parallel.print_progress = lambda: seen.append(parallel.n_completed_tasks)  # type: ignore[method-assign]
    parallel(delayed(square)(i) for i in range(10))
    assert seen[-1] == 10


@pytest.mark.parametrize("name", ["processes", "threading", "sequential"])
def test_an_error_in_print_progress_is_raised(name: str) -> None:
    class Broken(Parallel):
        broken = True

        def print_progress(self) -> None:
            if self.broken:
                raise OSError("no terminal")

    parallel = Broken(n_jobs=2, backend=name)
    with pytest.raises(OSError, match="no terminal"):
        parallel(delayed(square)(i) for i in range(10))
    parallel.broken = False
    assert parallel(delayed(square)(i) for i in range(3)) == [0, 1, 4]


def messages_of(verbose: Any, count: int, name: str = "processes", **kwargs: Any) -> list[str]:
    """Return the lines on stderr (up to 50) or stdout; the other one must be empty."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        Parallel(n_jobs=2, backend=name, verbose=verbose, **kwargs)(
            delayed(slow_square)(i) for i in range(count)
        )
    said, silent = (out, err) if verbose > 50 else (err, out)
    assert silent.getvalue() == ""
    return said.getvalue().splitlines()


@engines("processes", "threading", "sequential", "loky")
@pytest.mark.parametrize("verbose", [1, 50, 51])
def test_messages(name: str, verbose: int) -> None:
    lines = messages_of(verbose, 20, name, batch_size=1)
    front = re.escape("[Parallel(n_jobs=2)]: ")
    using, *middle, last = lines
    assert re.fullmatch(front + r"Using backend \w+ with \d concurrent workers\.", using)
    assert re.fullmatch(front + r"Done  20 out of  20 \| elapsed: +\d+\.\ds finished", last)
    pattern = (
        r"Done +(\d+) (tasks     |out of +20) \| elapsed: +\d+\.\ds( remaining: +\d+\.\d(s|min))?"
    )
    for line in middle:
        assert re.fullmatch(front + pattern, line), line
    if verbose > 10:
        done = [int(line.split("Done")[1].split()[0]) for line in middle]
        assert done == sorted(set(done))
        assert done
        assert done[-1] <= 20


def test_every_completion_is_told_above_ten() -> None:
    for name in ("processes", "sequential", "threading"):
        lines = messages_of(11, 12, name, batch_size=1, pre_dispatch=1)
        done = [int(line.split("Done")[1].split()[0]) for line in lines if "Done" in line]
        if name == "threading":  # the threads do not wait for the one that tells
            assert done == sorted(done) and done[-1] == 12 and set(done) <= set(range(1, 13))
        else:
            assert sorted(set(done)) == list(range(1, 13)), name


def test_messages_grow_rarer_and_depend_on_the_level() -> None:
    counts = {}
    for verbose in (1, 5, 10, 11):
        lines = messages_of(verbose, 300, batch_size=1)
        done = [int(line.split("Done")[1].split()[0]) for line in lines if "Done" in line]
        counts[verbose] = len(done)
        if verbose <= 10:
            early = sum(1 for n in done if n <= 150)
            late = sum(1 for n in done[:-1] if n > 150)
            assert early >= late
    assert counts[1] < counts[5] < counts[10] < counts[11]
    assert counts[1] <= 8


def test_silence_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    for backend in NAMES:
        Parallel(n_jobs=2, backend=backend)(delayed(square)(i) for i in range(5))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [np.int64(1), 1.0, True])
def test_verbose_may_be_any_number(verbose: Any) -> None:
    assert "finished" in messages_of(verbose, 3)[-1]


def test_messages_name_the_subclass_and_an_empty_call() -> None:
    err = io.StringIO()
    with redirect_stderr(err):
        UpdatingParallel(0, n_jobs=2, verbose=1)([])
    assert "[UpdatingParallel(n_jobs=2)]: Done   0 out of   0" in err.getvalue()


# Initializers.


def set_level(level: int, extra: str = "none") -> None:
    global _level
    _level = (level, extra)


_level: tuple[int, str] = (0, "unset")


def get_level() -> tuple[int, str]:
    return _level


def test_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    def note() -> None:
        with open(tmp_path / str(os.getpid()), "a") as log:
            log.write("x")

    for backend in ("processes", "multiprocessing"):
        for path in tmp_path.iterdir():
            path.unlink()
        with Parallel(n_jobs=2, backend=backend, initializer=note) as parallel:
            for _ in range(3):
                pids = set(parallel(delayed(slow_pid)(0.02) for _ in range(6)))
        assert {path.name for path in tmp_path.iterdir()} == set(map(str, pids))
        assert all(path.read_text() == "x" for path in tmp_path.iterdir())


MAIN_INITIALIZER = """
    import sys
    from parallel_core import Parallel, delayed

    state = "before"

    def set_up(value, *, times=1):
        global state, other
        state = value * times
        other = [value]

    def get():
        return state, other

    class Reader:
        def read(self):
            return state, other

        def __call__(self):
            return state, other

    def main(backend, n_jobs, what):
        if backend in ("fork", "spawn", "forkserver"):
            import multiprocessing
            backend = multiprocessing.get_context(backend)
        function = {
            "function": get,
            "lambda": lambda: (state, other),
            "method": Reader().read,
            "object": Reader(),
        }[what]
        parallel = Parallel(n_jobs=n_jobs, backend=backend, initializer=set_up, initargs=("ab",))
        for _ in range(2):
            got = parallel(delayed(function)() for _ in range(6))
            assert got == [("ab", ["ab"])] * 6, got
        return "fine"

    if __name__ == "__main__":
        print(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""


@pytest.mark.parametrize("name", [*NAMES, *METHODS])
def test_initializer_of_a_script(name: str, tmp_path: Path) -> None:
    assert run_script(tmp_path, MAIN_INITIALIZER, name, "2", "function") == "fine\n"


@pytest.mark.parametrize("name", ["processes", "loky"])
@pytest.mark.parametrize("what", ["lambda", "method", "object"])
def test_initializer_of_a_script_and_other_callables(name: str, what: str, tmp_path: Path) -> None:
    assert run_script(tmp_path, MAIN_INITIALIZER, name, "2", what) == "fine\n"


@pytest.mark.parametrize("name", ["processes", "loky"])
def test_initializer_of_a_script_with_one_job(name: str, tmp_path: Path) -> None:
    assert run_script(tmp_path, MAIN_INITIALIZER, name, "1", "method") == "fine\n"


def test_initializer_from_the_configuration() -> None:
    global _level
    try:
        with parallel_core.parallel_config("processes", initializer=set_level, initargs=(8,)):
            assert Parallel(n_jobs=2)([delayed(get_level)()]) == [(8, "none")]
            explicit = Parallel(n_jobs=2, initargs=(9,))
            assert explicit([delayed(get_level)()]) == [(9, "none")]
    finally:
        _level = (0, "unset")


# Scripts as people write them.


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    script = """
        import os
        from parallel_core import Parallel, delayed

        print("once")
        table = {"a": 1}

        def look(key, default=0):
            return table.get(key, default)

        class Thing:
            def __init__(self, x):
                self.x = x
            def double(self):
                return Thing(2 * self.x)

        print(Parallel(n_jobs=2)(delayed(look)(key) for key in "ab"))
        table["b"] = 2
        print(Parallel(n_jobs=2)(delayed(look)(key) for key in "ab"))
        things = Parallel(n_jobs=2)(delayed(Thing(i).double)() for i in range(3))
        print([isinstance(thing, Thing) and thing.x for thing in things])
    """
    assert run_script(tmp_path, script) == "once\n[1, 0]\n[1, 2]\n[0, 2, 4]\n"


@core
def test_examples_of_the_documentation(tmp_path: Path) -> None:
    script = """
        from math import modf, sqrt
        from parallel_core import Parallel, delayed

        print(Parallel(n_jobs=1)(delayed(sqrt)(i**2) for i in range(3)))
        results, i = zip(*Parallel(n_jobs=1)(delayed(modf)(i / 2.0) for i in range(4)))
        print(results, i)
        shared_set = set()
        def collect(x):
            shared_set.add(x)
        print(Parallel(n_jobs=2, require="sharedmem")(delayed(collect)(i) for i in range(5)))
        print(sorted(shared_set))
        with Parallel(n_jobs=2) as parallel:
            accumulator = 0.0
            n_iter = 0
            while accumulator < 1000:
                results = parallel(delayed(sqrt)(accumulator + i**2) for i in range(5))
                accumulator += sum(results)
                n_iter += 1
        print(round(accumulator, 3), n_iter)
        def producer():
            for i in range(6):
                print("Produced %s" % i)
                yield i
        out = Parallel(n_jobs=2, verbose=100, pre_dispatch="1.5*n_jobs")(
            delayed(sqrt)(i) for i in producer()
        )
    """
    lines = run_script(tmp_path, script).splitlines()
    assert lines[:5] == [
        "[0.0, 1.0, 2.0]",
        "(0.0, 0.5, 0.0, 0.5) (0.0, 0.0, 1.0, 1.0)",
        "[None, None, None, None, None]",
        "[0, 1, 2, 3, 4]",
        "1136.597 14",
    ]
    said = [line for line in lines[5:] if "Using" not in line]
    assert [line for line in said if "Produced" in line] == [f"Produced {x}" for x in range(6)]
    first_done = next(at for at, line in enumerate(said) if "Done" in line)
    assert 1 <= first_done <= 3  # no more than three are ahead; the first may be quick
    done = r"\[Parallel\(n_jobs=2\)\]: Done +\d tasks +\| elapsed: .*s"
    assert re.fullmatch(done, said[first_done])
    assert re.search(r"Done   6 out of   6 \| elapsed: .* finished$", said[-1])
