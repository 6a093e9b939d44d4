"""`WorkerPool`: numbers, state, shared objects, init and exit, order, pinning, insights."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
from typing import Any

import pytest

import pool_tasks as tasks
from parallel_core import WorkerPool
from parallel_core.workers.pool import worker_pool

METHODS = ["fork", "forkserver", "spawn", "threading", "processes"]
PROCESSES = ["fork", "forkserver", "spawn", "processes"]
BY_MULTIPROCESSING = ["fork", "forkserver", "spawn"]


@pytest.mark.parametrize("method", METHODS)
class TestInEveryStartMethod:
    def test_arguments_come_in_order(self, method: str) -> None:
        with WorkerPool(
            2,
            start_method=method,
            shared_objects=["shared"],
            pass_worker_id=True,
            use_worker_state=True,
        ) as pool:
            for (worker, shared, state, x), kwargs in pool.map(tasks.given, [(1,), (2,)]):
                assert worker in (0, 1) and shared == ["shared"] and state == {}
                assert x in (1, 2) and kwargs == {}
            [(worker, shared, state), kwargs] = pool.apply(tasks.given, kwargs={"y": 3})
            assert kwargs == {"y": 3}

    def test_state_begins_and_ends_with_functions(self, method: str) -> None:
        with WorkerPool(2, start_method=method, use_worker_state=True) as pool:
            for _ in range(2):
                counts = pool.map(
                    tasks.count,
                    range(20),
                    chunk_size=1,
                    worker_init=tasks.begin_at_ten,
                    worker_exit=tasks.total,
                )
                assert min(counts) == 11
                assert sum(n - 10 for n in pool.get_exit_results()) == 20

    def test_each_worker_runs_its_tasks_in_order(self, method: str) -> None:
        with WorkerPool(2, start_method=method, use_worker_state=True) as pool:
            for order in pool.map(tasks.note_order, range(40), chunk_size=20):
                assert order == sorted(order)

    def test_state_lives_on_where_workers_do(self, method: str) -> None:
        # In order, so that each worker has tasks of the first map, and begins then.
        with WorkerPool(
            2, start_method=method, use_worker_state=True, keep_alive=True, order_tasks=True
        ) as pool:
            pool.map(tasks.count, range(10), worker_init=tasks.begin_at_ten, chunk_size=1)
            assert pool.get_exit_results() == []
            assert min(pool.map(tasks.count, range(10))) >= 11
            with pytest.warns(RuntimeWarning, match="has changed while workers are kept alive"):
                pool.map(
                    tasks.count,
                    range(10),
                    worker_init=tasks.begin_at_hundred,
                    worker_exit=tasks.minus_total,
                )
            pool.stop_and_join()
            ended = pool.get_exit_results()
            assert ended and all(-100 < n < -10 for n in ended)

    def test_single_calls_keep_their_workers(self, method: str) -> None:
        with WorkerPool(1, start_method=method, use_worker_state=True) as pool:
            first = {"worker_init": tasks.begin_at_ten, "worker_exit": tasks.total}
            assert [pool.apply(tasks.count, **first) for _ in range(3)] == [11, 12, 13]
        assert pool.get_exit_results() == [13]

    def test_errors_of_init_and_exit(self, method: str) -> None:
        with WorkerPool(2, start_method=method) as pool:
            with pytest.raises(KeyError, match="no beginning"):
                pool.map(tasks.double, range(4), worker_init=tasks.fail_to_begin)
            with pytest.raises(KeyError, match="no end"):
                pool.map(tasks.double, range(4), worker_exit=tasks.fail_to_end)
            with pytest.raises(KeyError, match="no beginning"):
                pool.apply(tasks.double, 2, worker_init=tasks.fail_to_begin)
            pool.terminate()
            assert pool.map(tasks.double, range(4)) == [0, 2, 4, 6]

    def test_time_limits_of_init_and_exit(self, method: str) -> None:
        if method == "threading":
            return  # threads cannot be stopped, and these would sleep for a minute
        with WorkerPool(1, start_method=method) as pool:
            with pytest.raises(TimeoutError, match="worker_init"):
                pool.map(tasks.double, [1], worker_init=tasks.be_slow, worker_init_timeout=0.1)
            with pytest.raises(TimeoutError, match="worker_exit"):
                pool.map(tasks.double, [1], worker_exit=tasks.be_slow, worker_exit_timeout=0.1)
            assert pool.map(tasks.double, [1]) == [2]

    def test_tasks_in_order_of_workers(self, method: str) -> None:
        with WorkerPool(2, start_method=method, pass_worker_id=True, keep_alive=True) as pool:
            pool.set_order_tasks()
            assert pool.map(tasks.number, range(6), chunk_size=1) == [0, 1] * 3
            assert pool.map(tasks.number, range(5), chunk_size=2) == [0, 0, 1, 1, 0]
            assert list(pool.imap(tasks.number, range(6), chunk_size=3)) == [0, 0, 0, 1, 1, 1]

    def test_a_change_of_what_is_passed_restarts_workers(
        self, method: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with WorkerPool(1, start_method=method, keep_alive=True) as pool:
            assert pool.map(tasks.given, [1]) == [((1,), {})]
            pool.set_shared_objects("words")
            with caplog.at_level(logging.WARNING, logger="parallel_core.pool"):
                assert pool.map(tasks.given, [1]) == [(("words", 1), {})]
            assert "restarted" in caplog.text
            pool.pass_on_worker_id()
            assert pool.map(tasks.given, [1]) == [((0, "words", 1), {})]
            pool.set_use_worker_state()
            assert pool.map(tasks.given, [1]) == [((0, "words", {}, 1), {})]
            pool.set_shared_objects()
            pool.pass_on_worker_id(False)
            pool.set_use_worker_state(False)
            assert pool.map(tasks.given, [1]) == [((1,), {})]

    def test_insights(self, method: str, capsys: pytest.CaptureFixture[str]) -> None:
        with WorkerPool(2, start_method=method, enable_insights=True) as pool:
            assert pool.get_insights() == {}
            pool.print_insights()
            assert "No insights" in capsys.readouterr().out
            ends = {"worker_init": tasks.seven, "worker_exit": tasks.seven}
            results = pool.imap(tasks.wait, [0.01] * 10, chunk_size=1, **ends)
            next(results)
            assert sum(pool.get_insights()["n_completed_tasks"]) >= 1  # while it runs
            assert len(list(results)) == 9
            found = pool.get_insights()
            assert sum(found["n_completed_tasks"]) == 10
            assert len(found["top_5_max_task_durations"]) == 5
            assert found["top_5_max_task_args"] == ["Arg 0: 0.01"] * 5
            parts = ("start_up", "init", "waiting", "working", "exit")
            for part in parts:
                assert len(found[f"{part}_time"]) == 2
                for name in (f"total_{part}_time", f"{part}_time_mean", f"{part}_time_std"):
                    assert re.fullmatch(r"\d+:\d\d:\d\d(\.\d{3})?", found[name]), name
            assert sum(found[f"{part}_ratio"] for part in parts) == pytest.approx(1)
            assert found["total_working_time"] >= "0:00:00.100"
            pool.print_insights()
            assert "Tasks completed: 10" in capsys.readouterr().out
            assert pool.get_exit_results() == [7, 7][: len(pool.get_exit_results())]
            pool.map(tasks.given, [{"x": "a"}])
            assert pool.get_insights()["top_5_max_task_args"] == ["Arg x: 'a'"]


@pytest.mark.parametrize("method", PROCESSES)
def test_lifespan(method: str) -> None:
    with WorkerPool(2, start_method=method, use_worker_state=True) as pool:
        counts = pool.map(
            tasks.count,
            range(10),
            chunk_size=1,
            worker_lifespan=2,
            worker_init=tasks.begin_at_ten,
            worker_exit=tasks.total,
        )
        assert max(counts) == 12
        ended = pool.get_exit_results()
        assert sum(n - 10 for n in ended) == 10 and len(ended) >= 5


def test_lifespans_of_maps_on_kept_workers() -> None:
    with WorkerPool(1, keep_alive=True, use_worker_state=True) as pool:
        assert pool.map(tasks.count, range(4), chunk_size=1) == [1, 2, 3, 4]
        assert max(pool.map(tasks.count, range(4), chunk_size=1, worker_lifespan=2)) <= 2
        assert pool.map(tasks.count, range(4), chunk_size=1)[-1] >= 4


@pytest.mark.parametrize("method", PROCESSES)
def test_death_in_init_and_exit(method: str) -> None:
    with WorkerPool(1, start_method=method) as pool:
        with pytest.raises(RuntimeError, match="SIGKILL"):
            pool.map(tasks.double, [1], worker_init=tasks.die_instead)
        with pytest.raises(RuntimeError, match="SIGKILL"):
            pool.map(tasks.double, [1], worker_exit=tasks.die_instead)
        assert pool.map(tasks.double, [1]) == [2]


def test_a_worker_without_a_task_calls_neither() -> None:
    with WorkerPool(3) as pool:
        pool.map(tasks.double, [1], worker_exit=tasks.seven)
        assert pool.get_exit_results() == [7]


@pytest.mark.parametrize("method", PROCESSES)
def test_no_task_waits_for_a_worker_that_leaves_slowly(method: str) -> None:
    with WorkerPool(3, start_method=method) as pool:
        options = {"worker_exit": tasks.wait_a_moment, "worker_lifespan": 2, "chunk_size": 1}
        assert pool.map(tasks.double, range(18), **options) == [2 * x for x in range(18)]
        assert len(pool.get_exit_results()) >= 9


def test_values_that_threads_share_have_locks() -> None:
    context = WorkerPool(2, start_method="threading").ctx
    value, array = context.Value("i", 3), context.Array("i", [1, 2])
    with value.get_lock(), array.get_lock():
        assert value.value == 3 and list(array) == [1, 2]


@pytest.mark.parametrize("method", BY_MULTIPROCESSING)
def test_what_multiprocessing_shares(method: str) -> None:
    pool = WorkerPool(2, start_method=method)
    context = pool.ctx
    lock, value, event = context.Lock(), context.Value("i", 0), context.Event()
    queue = context.Queue()
    pool.set_shared_objects((lock, value, event, queue))
    with pool:
        pool.map(tasks.increment, range(20), chunk_size=1)
        assert value.value == 20 and event.is_set()
        assert sorted(queue.get() for _ in range(20)) == list(range(20))
    queue.close()
    queue.join_thread()


def test_arrays_of_multiprocessing_without_locks() -> None:
    results = multiprocessing.Array("f", 4, lock=False)
    with WorkerPool(4, shared_objects=results, pass_worker_id=True) as pool:
        pool.map_unordered(tasks.add_squares, range(100))
    assert sum(results) == sum(x * x for x in range(100))
    shared = (
        multiprocessing.Array("f", 100, lock=False),
        multiprocessing.Array("f", 100, lock=False),
    )
    with WorkerPool(4, shared_objects=shared) as pool:
        found = pool.map(tasks.square_and_add, enumerate(range(100)), iterable_len=100)
    assert found == [x % 2 for x in range(100)]
    assert list(shared[0]) == [x * x for x in range(100)]
    assert list(shared[1]) == [2 * x for x in range(100)]


def test_a_fork_sees_what_there_was_when_it_was_made() -> None:
    shared: dict[str, Any] = {"generator": (x for x in range(3))}  # which nothing can pickle
    with WorkerPool(2, shared_objects=shared, start_method="fork") as pool:
        assert pool.map(has_generator, range(3)) == [True] * 3
    for value in (1, 2):
        tasks.seven.__dict__["value"] = value
        with WorkerPool(2, start_method="fork") as pool:
            assert pool.map(value_of_seven, [0]) == [value]


def has_generator(shared: dict[str, Any], x: int) -> bool:
    return "generator" in shared


def value_of_seven(x: int) -> Any:
    return tasks.seven.__dict__["value"]


@pytest.mark.parametrize("method", PROCESSES)
def test_pinning(method: str) -> None:
    own = sorted(os.sched_getaffinity(0))
    for cpu_ids, expected in (
        ([own[0]], {own[0]}),
        ([own], set(own)),
        ([own[0], own[0]], {own[0]}),
        ([[own[0]], own[:1]], {own[0]}),
    ):
        with WorkerPool(2, cpu_ids=cpu_ids, start_method=method) as pool:
            assert pool.map(tasks.affinity, range(4), chunk_size=1) == [expected] * 4


def test_variables_of_each_worker() -> None:
    variables = [{"POOL_TEST_SLOT": "0"}, {"POOL_TEST_SLOT": "1"}]
    with WorkerPool(2, worker_env=variables, order_tasks=True) as pool:
        assert pool.map(tasks.environ, range(4), chunk_size=1) == ["0", "1"] * 2
    assert not any(worker_pool().demand.leased())


def test_what_loky_has_not() -> None:
    with WorkerPool(2, start_method="loky", use_worker_state=True) as pool:
        with pytest.raises(ValueError, match="use_worker_state"):
            pool.map(tasks.count, range(3))
    with WorkerPool(2, start_method="loky") as pool:
        with pytest.raises(ValueError, match="worker_init"):
            pool.map(tasks.double, range(3), worker_init=tasks.seven)
