"""Calls of one process that hold the same memory: they share one watch and one copy."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memmapping import mirrors
from memmapping.reducer import ArrayReducer
from parallel_core import Parallel, delayed
from transferring import BOTH_WAYS, Transfer, tracks_pages, transfer

needs_tracking = pytest.mark.skipif(not tracks_pages(), reason="written pages are not tracked here")


def largest(array: Any, *others: Any) -> float:
    return float(array.max())


def bits(array: Any) -> bytes:
    return np.asarray(array).tobytes()


def another(arrays: Transfer, **parameters: Any) -> Transfer:
    """Return what a second call has at the same time, which notices changes in the same way."""
    found = Transfer(ArrayReducer(**{"max_nbytes": 1, "check": "always", **parameters}))
    found.reducer._watches = arrays.reducer._watches
    return found


@pytest.mark.core
@pytest.mark.parametrize("way", BOTH_WAYS)
def test_two_calls_share_one_copy(way: str) -> None:
    for one in transfer(way):
        two = another(one)
        array = np.zeros(100_000)
        segments = [arrays.pickle(array)[2][0].segment for arrays in (one, two, one, two)]
        assert all(segment is segments[0] for segment in segments)
        assert (one.reducer.copied_nbytes, two.reducer.copied_nbytes) == (array.nbytes, 0)
        array[7] = 1
        assert two(array)[7] == one(array)[7] == 1
        one.reducer.close()
        array[7] = 2
        assert two(array)[7] == 2
        two.reducer.close()


@needs_tracking
def test_each_page_is_watched_and_nobody_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "_WATCHED_AT_ONCE", 0)
    compared: list[int] = []

    def note(self: Any, low: int, high: int) -> list[Any]:
        compared.append(high - low)
        return []

    monkeypatch.setattr(mirrors.Mirror, "_different", note)
    for one in transfer("tracked"):
        two, three = another(one), another(one, mmap_mode="r+")
        array = np.zeros(100_000)
        for value in range(4):
            array[7] = value
            for arrays in (one, two, three):
                assert arrays(array)[7] == arrays(array[:50_000])[7] == value
        two.reducer.close()
        three.reducer.close()
    assert compared == []


@needs_tracking
def test_the_watch_ends_with_the_last_call() -> None:
    def watches() -> int:
        gc.collect()
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum("userfaultfd" in os.readlink(link) for link in links if os.path.islink(link))

    for one in transfer("tracked", mmap_mode="c"):
        two = another(one)
        array = np.zeros(100_000)
        for arrays in (one, two) * 2:
            arrays(array)
        assert watches() == 1
        one.reducer.close()
        assert watches() == 1
        two.reducer.close()
        assert watches() == 0


STEPS = st.tuples(
    st.sampled_from(["send", "send", "write", "keep", "drop", "end"]),
    st.integers(0, 3),
    st.integers(0, 39_999),
    st.integers(1, 20_000),
)


@pytest.mark.parametrize("way", BOTH_WAYS)
@settings(max_examples=60, deadline=None)
@given(history=st.lists(STEPS, min_size=3, max_size=30))
def test_any_history(way: str, history: list[tuple[str, int, int, int]]) -> None:
    for first in transfer(way):
        base = np.zeros(40_000, np.int64)
        other = np.frombuffer(memoryview(base), np.int64)[10_000:]  # the same memory, another owner
        calls = [first, another(first), another(first, mmap_mode="r+"), another(first)]
        kept: list[tuple[Transfer, Any, bytes]] = []
        for number, (step, who, start, length) in enumerate(history):
            arrays = calls[who]
            view = other[start : start + length] if who == 3 else base[start : start + length]
            if not view.size:
                continue
            if step == "write":
                base[start : start + length] = number
            elif step == "send":
                assert bits(arrays(view)) == bits(view)
            elif step == "keep":
                kept.append((arrays, arrays.pickle(view), bits(view)))
            elif step == "drop":
                kept.clear()
            else:
                arrays.reducer.end_call()
            for arrays, sent, expected in kept:
                assert bits(arrays.unpickle(sent)) == expected
        for arrays in calls:
            arrays.reducer.close()


def test_threads_that_each_run_calls_on_one_array_that_changes() -> None:
    array = np.zeros(5_000_000)
    turn = threading.Barrier(3)
    found: list[list[float]] = []

    def call() -> None:
        with Parallel(n_jobs=2) as parallel:
            for value in range(3):
                turn.wait()
                found.append([value, *parallel(delayed(largest)(array) for _ in range(20))])
                turn.wait()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for value in range(3):
        array[4_321_000] = value
        turn.wait()
        turn.wait()
    for thread in threads:
        thread.join()
    assert sorted(found) == [[value] * 21 for value in (0.0, 0.0, 1.0, 1.0, 2.0, 2.0)]


def test_a_call_on_the_results_of_another_with_the_same_array() -> None:
    table = np.arange(5_000_000.0)

    def more(table: Any, number: int, found: float) -> float:
        return float(table[number]) + found

    first = Parallel(n_jobs=2, return_as="generator")(delayed(largest)(table, i) for i in range(40))
    tasks = (delayed(more)(table, i, found) for i, found in enumerate(first))
    assert Parallel(n_jobs=2)(tasks) == [4_999_999.0 + i for i in range(40)]
