"""Each piece of advice is given to a program that deserves it, and not to one that does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deadly_tasks import die_once
from recorded_tasks import (
    SlowToLoad,
    count,
    fail_once,
    length,
    multiply,
    numbers,
    spin,
    take_slow,
    wait,
)

from memmapping import share
from parallel_core import Parallel, delayed
from parallel_core.backends.cores import cpu_count
from parallel_core.dispatch import memory
from parallel_core.insights import advice as rules
from parallel_core.insights.figures import Figures, figures_of
from parallel_core.insights.record import CallRecord
from parallel_core.observe.events import TaskTimes
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definition

pytestmark = pytest.mark.measures


def advice(function: Callable[..., Any], tasks: Any, n_jobs: int = 2, **params: Any) -> list[str]:
    with Parallel(n_jobs=n_jobs, **params) as parallel:
        parallel(delayed(wait)(0.01) for _ in range(2 * n_jobs))  # so that the workers are there
        parallel(delayed(function)(*args) for args in tasks)
        return parallel.report().advice


def says(said: list[str], *words: str) -> bool:
    return any(all(word in sentence for word in words) for sentence in said)


def assert_some(said: list[str], *words: str) -> None:
    assert says(said, *words), said


def assert_none(said: list[str], word: str) -> None:
    assert not any(word in sentence for sentence in said), said


def large(number: int) -> dict[int, int]:
    return {number + x: x for x in range(300_000)}


def test_a_large_argument_for_each_task() -> None:
    table = large(0)
    said = advice(length, [(table, x) for x in range(7)])
    assert_some(said, "argument 0", "the same dict of", "for 7 tasks", "memmapping.share()")


def test_a_large_argument_by_name() -> None:
    table = large(0)
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(wait)(0.01) for _ in range(4))
        parallel(delayed(length)(values=table) for _ in range(7))
        assert_some(parallel.report().advice, "argument 'values', the same dict")


def test_a_large_argument_that_is_shared() -> None:
    with share(large(0)) as table:
        said = advice(length, [(table, x) for x in range(7)])
    assert_none(said, "pickling argument")


def test_large_arguments_that_differ() -> None:
    tables = [large(number) for number in range(6)]
    said = advice(length, [(table,) for table in tables])
    assert_some(said, "pickling arguments", "MiB in all")
    assert_none(said, "the same dict")


def test_small_arguments() -> None:
    assert_none(advice(wait, [(0.01,)] * 20), "pickling arguments")


def test_tiny_tasks() -> None:
    assert_some(advice(abs, [(x,) for x in range(150_000)]), "Put a loop into the task")


def test_tasks_that_are_not_tiny() -> None:
    assert_none(advice(wait, [(0.001,)] * 1000), "a loop")


def slowly(n: int) -> Iterator[tuple[float]]:
    for _ in range(n):
        time.sleep(0.01)
        yield (0.0,)


def test_a_slow_iterable() -> None:
    said = advice(wait, slowly(40))
    assert_some(said, "2 of 2 workers waited for the iterable of tasks", "Make the items in the")


def test_a_slow_task_with_a_quick_iterable() -> None:
    assert_none(advice(wait, [(0.01,)] * 40), "iterable")


@pytest.mark.parametrize("seconds", [0.01, 0.0])
def test_a_slow_consumer(seconds: float) -> None:
    with Parallel(n_jobs=2, return_as="generator") as parallel:
        assert len(list(parallel(delayed(wait)(0.01) for _ in range(4)))) == 4
        for _ in parallel(delayed(wait)(0.01 if not seconds else 0.0) for _ in range(40)):
            time.sleep(seconds)
        said = parallel.report().advice
    if seconds:
        assert_some(said, "went into the loop over the results")
    else:
        assert_none(said, "loop over the results")


@pytest.mark.skipif(cpu_count() < 2, reason="a single processor is shared in any case")
def test_threads_that_take_turns() -> None:
    shares = []
    for _ in range(6):
        with Parallel(n_jobs=2, prefer="threads") as parallel:
            began = time.process_time()
            parallel(delayed(count)(400_000) for _ in range(20))
            seconds, report = time.process_time() - began, parallel.report()
        if says(report.advice, "2 threads used", "the interpreter's lock"):
            return
        shares.append(seconds / report["seconds"])
    assert max(shares) < 0.9, shares
    pytest.skip("other programs leave less than one processor")


def test_threads_that_wait() -> None:
    assert_none(advice(wait, [(0.01,)] * 40, prefer="threads"), "interpreter's lock")


def test_processes_that_compute() -> None:
    assert_none(advice(count, [(400_000,)] * 20), "interpreter's lock")


def test_too_many_threads_of_a_library() -> None:
    pytest.importorskip("numpy")
    threads = 2 * cpu_count()
    said = advice(multiply, [(500, 5)] * 12, inner_max_num_threads=threads)
    assert_some(said, "inner_max_num_threads=1")


def test_as_many_threads_of_a_library_as_there_should_be() -> None:
    pytest.importorskip("numpy")
    assert_none(advice(multiply, [(500, 5)] * 12), "threads")


def test_large_results() -> None:
    said = advice(numbers, [(300_000,)] * 12)
    assert_some(said, "results have", "MiB", "Return less")


def test_small_results_of_much_work() -> None:
    assert_none(advice(wait, [(0.01,)] * 40), "results have")


def test_one_long_task_at_the_end() -> None:
    said = advice(wait, [(0.002,)] * 20 + [(0.4,)], batch_size=1)
    assert_some(said, "one task ran alone for", "task 20, recorded_tasks.wait(0.4)")


def test_the_long_task_first() -> None:
    assert_none(advice(wait, [(0.2,)] + [(0.01,)] * 20, batch_size=1), "ran alone")


def test_fewer_tasks_than_workers() -> None:
    said = advice(wait, [(0.1,)] * 2, n_jobs=4)
    assert_some(said, "2 tasks cannot keep 4 workers busy")
    assert_none(said, "ran alone")


def test_a_task_too_many() -> None:
    said = advice(wait, [(0.15,)] * 5, n_jobs=4)
    assert_some(said, "5 tasks do not divide well among 4 workers")
    assert_none(said, "ran alone")


def test_enough_tasks() -> None:
    assert_none(advice(wait, [(0.01,)] * 64, n_jobs=4), "tasks")


@pytest.mark.fresh_workers
def test_workers_that_are_slow_to_start() -> None:
    parallel = Parallel(n_jobs=2, initializer=time.sleep, initargs=(0.3,))
    parallel(delayed(abs)(x) for x in range(2))
    assert_some(parallel.report().advice, "workers took", "to start", "Keep them")


def test_workers_that_were_there() -> None:
    with Parallel(n_jobs=2, initializer=time.sleep, initargs=(0.3,)) as parallel:
        parallel(delayed(wait)(0.05) for _ in range(2))
        assert_some(parallel.report().advice, "to start")
        parallel(delayed(wait)(0.05) for _ in range(2))
        assert_none(parallel.report().advice, "to start")


def test_what_is_slow_to_load() -> None:
    said = advice(take_slow, [(SlowToLoad(0.03), x) for x in range(10)])
    assert_some(said, "loading functions and arguments", "preload")


def test_what_is_quick_to_load() -> None:
    assert_none(advice(wait, [(0.03,)] * 10), "loading")


def test_a_worker_that_died(tmp_path: Path) -> None:
    said = advice(die_once, [(str(tmp_path), x) for x in range(4)], retries=1, retry_backoff=0)
    assert_some(said, "1 worker died", "SIGKILL", "max_worker_memory")
    assert_some(said, "1 task had to run again, of")


def test_a_task_that_ran_out_of_time_is_no_death() -> None:
    said = advice(wait, [(0.0,), (60.0,)], timeout=0.2, on_error="skip")
    assert_none(said, "died")


def test_tasks_that_ran_again(tmp_path: Path) -> None:
    tasks = [(str(tmp_path), x) for x in range(4)]
    said = advice(fail_once, tasks, retries=1, retry_on=OSError)
    assert_some(said, "4 tasks had to run again")


def test_no_advice_for_what_is_well() -> None:
    assert advice(wait, [(0.01,)] * 60) == []


def test_no_advice_for_a_moment() -> None:
    parallel = Parallel(n_jobs=2)
    parallel(delayed(abs)(x) for x in range(2))
    parallel(delayed(abs)(x) for x in range(2))
    assert parallel.report()["seconds"] >= 0.05 or not parallel.report().advice


def test_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    until = 0.0

    def free() -> int:
        return 0 if time.monotonic() < until else 1 << 40

    monkeypatch.setattr(memory, "free_memory", free)
    with Parallel(n_jobs=2, min_free_memory="1G") as parallel:
        parallel(delayed(wait)(0.1) for _ in range(2))
        assert_none(parallel.report().advice, "held back")
        until = time.monotonic() + 0.6
        parallel(delayed(wait)(0.0) for _ in range(2))
        assert_some(parallel.report().advice, "held back", "min_free_memory")


@pytest.mark.fresh_workers
def test_loky_says_so_too() -> None:
    table = large(0)
    said = advice(length, [(table, x) for x in range(7)], backend="loky")
    assert_some(said, "the same dict of")


def test_advice_in_a_block() -> None:
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(length)(large(0), x) for x in range(2))
        table = large(0)
        parallel(delayed(length)(table, x) for x in range(7))
        assert_some(parallel.report().advice, "the same dict")
        parallel(delayed(wait)(0.02) for _ in range(20))
        assert_none(parallel.report().advice, "the same dict")


def test_spinning_tasks_are_not_said_to_wait() -> None:
    assert_none(advice(spin, [(0.02,)] * 20), "iterable")


def recorded(workers: list[tuple[float, float]], **known: Any) -> Figures:
    """Return the figures of a call of one second, in which each worker had one task."""
    record = CallRecord("threading", len(workers), "", 100.0)
    record.ended, record.n_workers, record.cores = 101.0, len(workers), 8
    for slot, (began, ended) in enumerate(workers):
        times = TaskTimes(1, 100.0 + ended)
        answer = 100.0 + ended, slot, slot, 1, ended - began, times
        record.take(
            answer, Batch(slot, 1, [(0, 0, [None])], {0: Definition(0, abs, b"", (), None)})
        )
    for name, value in known.items():
        setattr(record, name, value)
    return figures_of(record)


@pytest.mark.parametrize(
    ("seconds", "is_said"), [(1.0, True), (0.05, False), (0.4, False), (3.8, False)]
)
def test_threads_by_what_they_have_computed(seconds: float, is_said: bool) -> None:
    figures = recorded([(0.0, 1.0)] * 4, runs_here=True, processor_seconds=seconds)
    assert (rules.held_lock(figures) is not None) is is_said


@pytest.mark.parametrize(
    ("threads", "cores", "is_said"),
    [((7, 0.9), 8, True), ((7, 0.0), 8, False), ((1, 0.9), 8, False), ((0, 0.0), 2, False)],
)
def test_threads_of_libraries_by_their_number(
    threads: tuple[int, float], cores: int, is_said: bool
) -> None:
    figures = recorded([(0.0, 1.0)] * 4, library_threads=threads, cores=cores)
    said = rules.library_threads(figures)
    assert (said is not None) is is_said
    if said is not None:
        assert "each of 4 workers computes with 8 threads, on 8 cores" in said


def test_the_end_by_when_workers_were_busy() -> None:
    said = rules.slow_end(recorded([(0.0, 0.1), (0.0, 0.15), (0.0, 1.0)]))
    assert said is not None and "850 ms, 85% of the time: task 2, abs()" in said
    assert rules.slow_end(recorded([(0.0, 0.9), (0.0, 0.9), (0.0, 1.0)])) is None
    assert rules.slow_end(recorded([(0.0, 1.0)])) is None
