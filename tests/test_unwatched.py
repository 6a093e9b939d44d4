"""Arrays where the kernel does not tell what was written: what is compared, and what is found."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import parallel_core
from memmapping import mirrors, pages
from memmapping.damage import ChangedArrayError
from parallel_core import Parallel, PerformanceWarning, delayed, get_executor, parallel_config
from transferring import Transfer, transfer
from watching import HOME

HERE = Path(__file__).parent

#: The tests of other files that show whether changes arrive; they take some seconds together.
OF_CHANGES = [
    "test_arrays.py::test_a_generator_that_reuses_its_buffer",
    "test_arrays.py::test_changes_between_calls",
    "test_array_hazards.py::test_two_ways_to_the_same_memory",
    "test_array_hazards.py::test_memory_that_is_watched_by_somebody_else",
    "test_mirrors_of_several.py::test_threads_that_each_run_calls_on_one_array_that_changes",
    "test_mirrors_of_several.py::test_a_call_on_the_results_of_another_with_the_same_array",
]


def first(array: Any) -> float:
    return float(array.flat[0])


def total(array: Any) -> float:
    return float(array.sum())


@pytest.mark.timeout(300)
def test_changes_arrive_behind_a_filter() -> None:
    pytest.importorskip("benchmarks", reason="the filter is theirs")
    tests = [str(HERE / name) for name in OF_CHANGES]
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(HOME)}
    command = [sys.executable, str(HERE / "unwatched_program.py"), "-q", "-p", "no:xdist", *tests]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.skipif(not os.access("/dev/userfaultfd", os.R_OK | os.W_OK), reason="no such device")
def test_the_device_does_where_the_system_call_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = mock.Mock()
    libc.return_value.syscall.return_value = -1
    monkeypatch.setattr(pages.ctypes, "CDLL", libc)
    assert pages.tracking_problem() is None
    assert libc.return_value.syscall.called


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel refuse; the filter itself could not be taken off again."""
    refused = mock.Mock(side_effect=pages.Unwatchable(1, "refused"))
    monkeypatch.setattr(pages, "PageWatch", refused)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many pages each comparison was about."""
    found: list[int] = []
    different = mirrors.Mirror._different

    def note(self: Any, low: int, high: int) -> Any:
        found.append(high - low)
        return different(self, low, high)

    monkeypatch.setattr(mirrors.Mirror, "_different", note)
    return found


@pytest.fixture
def arrays() -> Iterator[Transfer]:
    """Yield what makes references in one call that does not follow changes."""
    yield from transfer("compared", check="auto", warn_of_cost=lambda message: None)


@pytest.mark.core
def test_an_array_is_compared_once_a_call_and_in_parts_after_that(
    arrays: Transfer, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    array = np.zeros(1 << 20)
    number = array.nbytes // 4096
    arrays(array)
    for _ in range(10):
        arrays(array)
    assert sum(compared) == 0, "it is as it was copied, and no time has gone by"
    now = 1.0
    arrays(array)  # and as this clock stands still, it compares for as long as it likes
    assert number - 2 <= sum(compared) <= number
    arrays.reducer.confirm()
    assert 2 * (number - 2) <= sum(compared) <= 2 * number
    arrays.reducer.end_call()
    compared.clear()
    arrays(array)
    assert number - 2 <= sum(compared) <= number
    assert arrays.reducer.changed is None


def test_each_look_is_at_another_part(
    arrays: Transfer, compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))  # a block is a second
    array = np.zeros(1 << 20)
    arrays(array)
    for uses in range(2000):
        arrays(array)
        if uses == 1000:
            array[-5000] = 1
        if arrays.reducer.changed is not None:
            break
    assert arrays.reducer.changed is not None
    assert 0 < sum(compared) < uses * array.nbytes // 4096 / 10


def changing(array: Any, count: int) -> Iterator[Any]:
    for number in range(count):
        array[123_456] = number
        yield delayed(total)(array)


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_a_change_within_a_call_is_an_error_that_says_what_to_do(
    unwatched: None, return_as: str
) -> None:
    array = np.zeros(1_000_000)
    with pytest.raises(ChangedArrayError, match=r"8\.0 MB has changed.*check_arrays='always'"):
        list(Parallel(n_jobs=2, return_as=return_as)(changing(array, 20)))
    always = Parallel(n_jobs=2, return_as=return_as, check_arrays="always")
    assert sorted(always(changing(array, 20))) == list(range(20))
    copies = (delayed(total)(np.full(200_000, float(i))) for i in range(20))
    assert Parallel(n_jobs=2)(copies) == [200_000.0 * i for i in range(20)]


def test_a_change_behind_the_back_of_every_look_is_found_at_the_end(unwatched: None) -> None:
    array = np.zeros(1_000_000)
    tasks = [delayed(total)(array) for _ in range(4)]

    def late() -> Iterator[Any]:
        yield from tasks
        array[999_000] = 1

    with pytest.raises(ChangedArrayError):
        Parallel(n_jobs=2)(late())


@pytest.mark.parametrize("check", ["auto", "always"])
def test_changes_between_calls_arrive(unwatched: None, check: str) -> None:
    table = np.zeros((20, 200_000))
    with Parallel(n_jobs=2, check_arrays=check) as parallel:
        for value in range(1, 4):
            table[value:] = value
            rows = [delayed(total)(row) for row in table]
            assert parallel(rows * 2) == [200_000.0 * min(row, value) for row in range(20)] * 2


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_other_processes(unwatched: None, backend: str) -> None:
    array = np.ones(200_000)
    parallel = Parallel(n_jobs=2, backend=backend)
    assert parallel(delayed(total)(array) for _ in range(20)) == [200_000.0] * 20
    with pytest.raises(ChangedArrayError):
        parallel(changing(array, 10))


def test_what_nobody_may_write_to_is_not_compared(arrays: Transfer, compared: list[int]) -> None:
    array = np.zeros(1 << 18)
    array.flags.writeable = False
    for _ in range(3):
        arrays(array)
        arrays(array[100:])
        arrays.reducer.confirm()
        arrays.reducer.end_call()
    assert compared == []
    array.flags.writeable = True
    readable = array[:]
    readable.flags.writeable = False
    arrays(readable)
    assert compared != [], "somebody may write to what it is a view of"


@pytest.mark.core
def test_never_looks_at_nothing(compared: list[int]) -> None:
    for arrays in transfer("compared", check="never"):
        array = np.zeros(1 << 18)
        arrays(array)
        array[:] = 1
        assert arrays(array)[5] == 0
        arrays.reducer.confirm()
        arrays.reducer.end_call()
        assert arrays(array)[5] == 0
        assert compared == [] and arrays.reducer.changed is None


def test_buffers_of_other_libraries_are_compared_whatever_is_said(arrays: Transfer) -> None:
    for never in transfer("compared", check="never"):
        for one in (arrays, never):
            data = bytearray(100_000)
            for value in range(4):
                data[777] = value
                assert one(pickle.PickleBuffer(data))[777] == value
            assert one.reducer.changed is None


def test_never_does_not_watch_either() -> None:
    array = np.zeros(5_000_000)
    with Parallel(n_jobs=2, check_arrays="never") as parallel:
        assert parallel([delayed(first)(array)]) == [0]
        array[0] = 1
        assert parallel([delayed(first)(array)]) == [0]
    assert Parallel(n_jobs=2, check_arrays="never")([delayed(first)(array)]) == [1]


def test_memory_that_others_write_is_compared_all_the_same() -> None:
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=1 << 21)
    try:
        array = np.frombuffer(block.buf)
        assert Parallel(n_jobs=2)(changing(array, 10)) == list(range(10))
        del array
    finally:
        block.close()
        block.unlink()


def test_an_executor_takes_tasks_as_they_are_put_in(unwatched: None) -> None:
    array = np.zeros(1_000_000)
    with get_executor(2) as executor:
        for value in range(5):
            array[0] = value
            assert executor.submit(first, array).result() == value
    with parallel_config(check_arrays="auto"), get_executor(2) as executor:
        error = None
        while error is None:  # looks go by time, and each is at another part
            array += 1
            error = executor.submit(first, array).exception()
        assert isinstance(error, ChangedArrayError)
        assert executor.submit(first, array).result() == array[0], "it goes on with a new call"


def test_under_joblib(unwatched: None) -> None:
    joblib = pytest.importorskip("joblib")
    parallel_core.register_joblib()
    array = np.ones(1_000_000)
    with joblib.parallel_config("parallel_core", n_jobs=2, check_arrays="auto"):
        assert joblib.Parallel()(joblib.delayed(total)(array) for _ in range(9)) == [1e6] * 9
    with pytest.raises(ValueError, match="check_arrays must be"):
        joblib.parallel_config("parallel_core", n_jobs=2, check_arrays="seldom")


def test_two_calls_of_which_one_finds_the_change(compared: list[int]) -> None:
    for one in transfer("compared", check="auto"):
        for two in transfer("compared", check="auto"):
            array = np.zeros(1 << 18)
            one(array)
            array[1000] = 1
            assert two(array)[1000] == 1, "its first look is at all of it"
            assert one(array)[1000] == 1
            assert one.reducer.changed is not None, "what it was given before may be outdated"
            assert two.reducer.changed is None


def test_a_warning_when_comparing_takes_much_of_the_time(unwatched: None) -> None:
    array = np.zeros(4_000_000)
    with mock.patch("memmapping.checking._WORTH_A_WORD", 0.001):
        with pytest.warns(PerformanceWarning, match="comparing large arrays") as told:
            Parallel(n_jobs=2, check_arrays="always")(delayed(len)(array) for _ in range(100))
        assert len(told) == 1 and told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Parallel(n_jobs=2, check_arrays="never")(delayed(len)(array) for _ in range(100))


@pytest.mark.core
def test_what_check_arrays_may_be() -> None:
    for given in ("sometimes", None, True):
        with pytest.raises(ValueError, match="check_arrays must be 'auto', 'always' or 'never'"):
            Parallel(check_arrays=given)
        with pytest.raises(ValueError, match="check_arrays must be"):
            parallel_config(check_arrays=given)
    with parallel_config(check_arrays="never"):
        assert Parallel().check_arrays == "never"
        assert Parallel(check_arrays="always").check_arrays == "always"
    assert Parallel().check_arrays == "auto"
    assert "check_arrays" in parallel_core.Parallel.__doc__  # type: ignore[operator]  # it has one
