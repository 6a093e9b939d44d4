"""Tests that hold on every engine; the file of each has a fixture `parallel` that chooses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_tasks import Odd, make_array, memory_file_of, refuse_odd, touch, wait_for

from memmapping import share
from parallel_core import Parallel, delayed, effective_n_jobs


def test_results_in_order(parallel: Parallel) -> None:
    shift = 7
    add = lambda x: x + shift  # noqa: E731 - it goes by value
    assert parallel(delayed(add)(x) for x in range(20_000)) == [*range(7, 20_007)]
    assert parallel([]) == []
    ordered = Parallel(return_as="generator")(delayed(pow)(x, 2) for x in range(30))
    assert list(ordered) == [x * x for x in range(30)]
    unordered = Parallel(return_as="generator_unordered")(delayed(pow)(x, 2) for x in range(30))
    assert sorted(unordered) == [x * x for x in range(30)]
    assert Parallel(reduce=max)(delayed(pow)(x, 2) for x in range(30)) == 29**2
    with Parallel() as twice:
        assert [twice([delayed(abs)(-i)]) for i in range(2)] == [[0], [1]]
    assert [effective_n_jobs(n) for n in (-1, -2, 5)] == [2, 1, 5]


def test_a_task_that_raises(parallel: Parallel) -> None:
    with pytest.raises(Odd, match=r"\d is odd: not even") as caught:
        parallel(delayed(refuse_odd)(x) for x in range(10**6))
    assert "in refuse_odd" in str(caught.value.__cause__)
    kept = Parallel(on_error="skip")(delayed(refuse_odd)(x) for x in range(20))
    assert kept == [*range(0, 20, 2)]


def test_a_long_batch_is_shared(parallel: Parallel, tmp_path: Path) -> None:
    marker = str(tmp_path / "done")
    tasks = [delayed(wait_for)(marker), *[delayed(touch)(str(tmp_path / str(i))) for i in range(8)]]
    tasks.append(delayed(touch)(marker))  # it is behind the task that waits for it
    assert all(Parallel(batch_size=len(tasks))(tasks))


def test_arrays_are_not_copied_on_this_host(parallel: Parallel) -> None:
    array = np.ones(500_000)
    found = parallel(delayed(memory_file_of)(array) for _ in range(8))
    assert [(total, is_mapped) for total, is_mapped, _ in found] == [(500_000.0, True)] * 8
    with share({"array": array}) as shared:
        got = parallel(delayed(lambda words: float(words["array"].sum()))(shared) for _ in range(4))
    assert got == [500_000.0] * 4


def test_large_results(parallel: Parallel) -> None:
    results = parallel(delayed(make_array)(700_000, i) for i in range(6))
    assert [(one.shape, one[0], one[-1]) for one in results] == [
        ((700_000,), i, i) for i in range(6)
    ]
