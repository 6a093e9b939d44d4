"""`WorkerPool`: maps, single calls, chunks, errors, and the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import pool_tasks as tasks
from parallel_core import (
    AsyncResult,
    TaskTimeoutError,
    WorkerDiedError,
    WorkerPool,
    chunk_tasks,
    make_single_arguments,
    pmap,
    pstarmap,
)

METHODS = ["fork", "forkserver", "spawn", "threading", "processes", "loky"]
PROCESSES = ["fork", "forkserver", "spawn", "processes"]


@pytest.mark.parametrize("method", METHODS)
def test_every_map_in_every_start_method(method: str) -> None:
    with WorkerPool(n_jobs=2, start_method=method) as pool:
        assert pool.map(tasks.double, range(20)) == [2 * x for x in range(20)]
        assert sorted(pool.map_unordered(tasks.double, range(20))) == [2 * x for x in range(20)]
        assert list(pool.imap(tasks.double, range(20))) == [2 * x for x in range(20)]
        assert sorted(pool.imap_unordered(tasks.double, range(20))) == [2 * x for x in range(20)]
        assert pool.apply(tasks.multiply, (3,), {"y": 4}) == 12
        results = [pool.apply_async(tasks.double, (x,)) for x in range(5)]
        assert [result.get() for result in results] == [0, 2, 4, 6, 8]
        with pytest.raises(ValueError, match="three") as caught:
            pool.map(tasks.fail_at_three, range(10))
        assert caught.value.args == ("three", 3)
        assert pool.map(tasks.double, [5]) == [10]  # and goes on


def test_how_items_become_arguments() -> None:
    items = [1, "ab", b"cd", (2, 3), [4, 5], {"x": 6}, OrderedDict(y=7), {8}, np.arange(2)]
    with WorkerPool(2, start_method="threading") as pool:
        found = pool.map(tasks.given, items, concatenate_numpy_output=False)
        assert found[:8] == [
            ((1,), {}),
            (("ab",), {}),
            ((b"cd",), {}),
            ((2, 3), {}),
            ((4, 5), {}),
            ((), {"x": 6}),
            ((), {"y": 7}),
            ((8,), {}),
        ]
        [[array], _] = found[8]
        assert array.tolist() == [0, 1]
        assert pool.map(tasks.given, [(), []]) == [((), {}), ((), {})]


def test_dictionaries_and_pairs_are_unpacked_or_not() -> None:
    with WorkerPool(2) as pool:
        pairs = zip(range(100), range(100, 200), strict=True)
        found = list(pool.imap(tasks.multiply, pairs, iterable_len=100))
        assert found == [x * (x + 100) for x in range(100)]
        named = [{"x": 0, "y": 100}, {"y": 101, "x": 1}]
        assert list(pool.imap(tasks.multiply, named)) == [0, 101]
        singles = make_single_arguments(named, generator=False)
        assert list(pool.imap(tasks.multiply_dict, singles)) == [0, 101]


def test_make_single_arguments() -> None:
    assert make_single_arguments([1, (2, 3)], generator=False) == [(1,), ((2, 3),)]
    generator = make_single_arguments(range(2))
    assert next(iter(generator)) == (0,)


def test_chunk_tasks() -> None:
    assert list(chunk_tasks(range(10), n_splits=3)) == [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert list(chunk_tasks(range(10), chunk_size=2.5)) == [
        (0, 1, 2),
        (3, 4),
        (5, 6, 7),
        (8, 9),
    ]
    six = [(0, 1), (2, 3), (4,), (5, 6), (7, 8), (9,)]
    assert list(chunk_tasks((x for x in range(10)), iterable_len=10, n_splits=6)) == six
    assert list(chunk_tasks(range(3), n_splits=6)) == [(0,), (1,), (2,)]
    assert list(chunk_tasks([], n_splits=3)) == []
    assert list(chunk_tasks(iter(range(4)), chunk_size=3)) == [(0, 1, 2), (3,)]
    assert list(chunk_tasks(range(10), iterable_len=5, chunk_size=2)) == [(0, 1), (2, 3), (4,)]
    assert next(chunk_tasks(range(10), chunk_size=3, n_splits=2)) == (0, 1, 2)
    arrays = list(chunk_tasks(np.arange(10), chunk_size=3))
    assert [array.tolist() for array in arrays] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [len(array) for array in chunk_tasks(np.arange(10), iterable_len=4, n_splits=3)] == [
        2,
        1,
        1,
    ]
    with pytest.raises(ValueError, match="cannot both be None"):
        list(chunk_tasks(range(3)))
    for unknown in ((x for x in range(3)), iter([1, 2, 3])):
        with pytest.raises(ValueError, match="n_splits needs to know"):
            list(chunk_tasks(unknown, n_splits=2))


def test_input_of_any_length() -> None:
    with WorkerPool(2, start_method="threading") as pool:
        assert pool.map(tasks.double, (x for x in range(1000))) == [2 * x for x in range(1000)]
        assert pool.map(tasks.double, ((x,) for x in range(10)), n_splits=4)[-1] == 18
        assert pool.map(tasks.double, ((x,) for x in range(10)), chunk_size=4)[-1] == 18
        assert pool.map(tasks.double, iter(range(10)), iterable_len=10, n_splits=4)[-1] == 18
        assert pool.map(tasks.double, range(10), iterable_len=5) == [0, 2, 4, 6, 8]
        assert pool.map(tasks.double, range(5), iterable_len=10) == [0, 2, 4, 6, 8]
        assert pool.map(tasks.double, []) == []
        assert list(pool.imap(tasks.double, iter([]))) == []
        huge = pool.imap(tasks.double, range(10**30), iterable_len=10**30, chunk_size=1)
        assert [next(huge), next(huge)] == [0, 2]
        huge.close()
        assert pool.map(tasks.double, range(2)) == [0, 2]


def test_arrays_are_cut_and_joined() -> None:
    array = np.arange(30.0).reshape(10, 3)
    with WorkerPool(2) as pool:
        joined = pool.map(tasks.add_five, array, chunk_size=3)
        assert (joined == array + 5).all()
        parts = pool.map(tasks.add_five, array, chunk_size=3, concatenate_numpy_output=False)
        assert [len(part) for part in parts] == [3, 3, 3, 1]
        assert [len(part) for part in pool.imap(tasks.add_five, array, n_splits=2)] == [5, 5]
        assert len(pool.map(tasks.shape, np.zeros((100, 3)))) == 8
        assert pool.map(tasks.shape, np.zeros((100, 3)), n_splits=3) == [(34, 3), (33, 3), (33, 3)]
        assert pool.map(tasks.shape, np.zeros((0, 3))) == []
        # What cannot be joined comes as it is.
        assert len(pool.map(np.array, [(x,) for x in range(3)])) == 3
        assert len(pool.map(np.zeros, [((1, 2),), ((1, 3),)])) == 2
    with pytest.raises(TypeError, match="without dimensions"), WorkerPool(2) as pool:
        pool.map(tasks.double, np.array(3))


def test_max_tasks_active_bounds_how_far_input_is_pulled() -> None:
    pulled = []

    def items() -> Any:
        for x in range(100):
            pulled.append(x)
            yield x

    with WorkerPool(2, start_method="threading") as pool:
        results = pool.imap(tasks.double, items(), max_tasks_active=6, chunk_size=2)
        assert next(results) == 0
        assert len(pulled) <= 6 + 2
        assert len(list(results)) == 99


def test_iterators_do_nothing_before_they_are_asked() -> None:
    with WorkerPool(2, start_method="threading") as pool:
        unused = pool.imap(tasks.double, range(10), chunk_size=0)
        later = pool.imap(tasks.double, range(3))
    assert list(later) == [0, 2, 4]
    with pytest.raises(ValueError, match="chunk_size"):
        next(unused)


def test_a_map_within_an_iterator_raises_and_ends_it() -> None:
    with WorkerPool(2) as pool:
        results = pool.imap(tasks.double, range(100))
        assert next(results) == 0
        with pytest.raises(RuntimeError, match="Cannot call 'map' while another 'map' is running"):
            pool.map(tasks.double, range(3))
        with pytest.raises(RuntimeError, match="Pool was terminated"):
            list(results)
        assert pool.map(tasks.double, range(3)) == [0, 2, 4]


@pytest.mark.parametrize("how", ["terminate", "join", "leave"])
def test_iterators_that_are_not_exhausted_when_the_pool_ends(how: str) -> None:
    with WorkerPool(2) as pool:
        results = pool.imap(tasks.double, range(1000))
        next(results)
        if how == "terminate":
            pool.terminate()
        elif how == "join":
            pool.join()
    with pytest.raises(RuntimeError, match="Pool was terminated"):
        list(results)


def test_single_calls_beside_an_iterator_and_before_a_map() -> None:
    with WorkerPool(2) as pool:
        results = pool.imap(tasks.double, range(100))
        next(results)
        assert pool.apply(tasks.double, 3) == 6
        assert len(list(results)) == 99
        pending = [pool.apply_async(tasks.double, (x,)) for x in range(4)]
        assert pool.map(tasks.double, range(3)) == [0, 2, 4]
        assert [one.get() for one in pending] == [0, 2, 4, 6]


def test_maps_of_several_threads_take_turns() -> None:
    with WorkerPool(2) as pool:
        found: list[Any] = []
        threads = [
            threading.Thread(target=lambda: found.append(pool.map(tasks.double, range(50))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[2 * x for x in range(50)]] * 3


def test_terminate_from_another_thread_ends_a_map() -> None:
    pool = WorkerPool(2)
    threading.Timer(0.2, pool.terminate).start()
    with pytest.raises(RuntimeError, match="Pool was terminated"):
        pool.map(tasks.wait, [30, 30])
    assert pool.map(tasks.double, range(2)) == [0, 2]


def test_an_ended_pool_can_be_used_again() -> None:
    pool = WorkerPool(2)
    pool.stop_and_join()
    pool.terminate()
    pool.join()
    assert pool.map(tasks.double, range(3)) == [0, 2, 4]
    pool.terminate()
    assert pool.map(tasks.double, range(3)) == [0, 2, 4]


def test_keep_alive_keeps_workers() -> None:
    with WorkerPool(2, keep_alive=True) as pool:
        first = set(pool.map(tasks.pid, range(20), chunk_size=1))
        assert set(pool.map(tasks.pid, range(20), chunk_size=1)) <= first


class TestAsyncResult:
    def test_what_it_tells(self, tmp_path: Any) -> None:
        go = str(tmp_path / "go")
        with WorkerPool(1) as pool:
            result = pool.apply_async(tasks.wait_for, (go,))
            assert isinstance(result, AsyncResult)
            assert not result.ready()
            with pytest.raises(ValueError, match="not done"):
                result.successful()
            with pytest.raises(TimeoutError, match="not done"):
                result.get(timeout=0.01)
            assert result.wait(0.01) is None
            open(go, "w").close()
            assert result.wait() is None
            assert result.ready() and result.successful()
            assert result.get() is True and result.get(timeout=0) is True
            failed = pool.apply_async(tasks.fail_at_three, 3)
            for _ in range(2):
                with pytest.raises(ValueError, match="three"):
                    failed.get()
            assert not failed.successful()

    def test_arguments(self) -> None:
        with WorkerPool(1, start_method="threading") as pool:
            assert pool.apply(tasks.given) == ((), {})
            assert pool.apply(tasks.given, 42) == ((42,), {})
            assert pool.apply(tasks.given, "ab") == (("ab",), {})
            assert pool.apply(tasks.given, [1, 2]) == ((1, 2), {})
            assert pool.apply(tasks.given, {"x": 1}) == ((), {"x": 1})
            assert pool.apply(tasks.given, (1,), {"y": 2}) == ((1,), {"y": 2})
            with pytest.raises(TypeError, match="kwargs must be"):
                pool.apply(tasks.given, (), [1])  # type: ignore[arg-type]  # that is the test
            with pytest.raises(TypeError, match="takes a function"):
                pool.apply(3)  # type: ignore[arg-type]  # that is the test
            with pytest.raises(TypeError, match="callback must be"):
                pool.apply(tasks.double, 1, callback=3)  # type: ignore[arg-type]  # likewise

    def test_callbacks_come_first(self) -> None:
        told: list[Any] = []
        with WorkerPool(1) as pool:
            assert pool.apply(tasks.double, 2, callback=told.append) == 4
            assert told == [4]
            with pytest.raises(ValueError, match="three"):
                pool.apply(tasks.fail_at_three, 3, error_callback=told.append)
            assert isinstance(told[1], ValueError)

    def test_an_error_in_a_callback_is_reported_and_stops_nobody(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))

        def broken(result: int) -> None:
            raise KeyError(result)

        with WorkerPool(1) as pool:
            assert pool.apply(tasks.double, 2, callback=broken) == 4
            assert pool.apply(tasks.double, 3) == 6
        assert [error.args for error in seen] == [(4,)]

    def test_a_callback_may_not_wait_for_its_own_pool(self) -> None:
        seen: list[Any] = []

        with WorkerPool(1) as pool:

            def ask(result: int) -> None:
                for call in (pool.apply, pool.map):
                    try:
                        call(tasks.double, [1])  # type: ignore[operator]  # of two kinds
                    except RuntimeError as error:
                        seen.append(str(error))

            pool.apply(tasks.double, 2, callback=ask)
            assert len(seen) == 2

    def test_the_end_of_the_block_loses_nothing(self) -> None:
        with WorkerPool(2) as pool:
            results = [pool.apply_async(tasks.wait, (0.02,)) for _ in range(4)]
        assert [result.get() for result in results] == [0.02] * 4

    def test_join_waits(self) -> None:
        with WorkerPool(2) as pool:
            results = [pool.apply_async(tasks.wait, (0.02,)) for _ in range(4)]
            pool.stop_and_join(keep_alive=True)
            assert all(result.ready() for result in results)

    def test_terminate_ends_what_runs(self) -> None:
        with WorkerPool(1) as pool:
            results = [pool.apply_async(tasks.wait, (60,)) for _ in range(3)]
            time.sleep(0.1)
            pool.terminate()
            for result in results:
                with pytest.raises(RuntimeError, match="Pool was terminated"):
                    result.get(timeout=10)
            assert pool.apply(tasks.double, 2) == 4

    def test_an_error_in_the_block_stops_what_runs(self) -> None:
        results: list[AsyncResult] = []

        def run() -> None:
            with WorkerPool(1) as pool:
                results.append(pool.apply_async(tasks.wait, (60,)))
                time.sleep(0.1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            run()
        with pytest.raises(RuntimeError, match="Pool was terminated"):
            results[0].get(timeout=10)

    def test_a_killed_worker_fails_its_own_task_alone(self) -> None:
        with WorkerPool(2) as pool:
            results = [pool.apply_async(tasks.double, (x,)) for x in range(5)]
            dead = pool.apply_async(tasks.die, (1,))
            results += [pool.apply_async(tasks.double, (x,)) for x in range(5)]
            with pytest.raises(WorkerDiedError, match="die"):
                dead.get()
            assert [result.get() for result in results] == [0, 2, 4, 6, 8] * 2

    @pytest.mark.parametrize("method", METHODS)
    def test_time_limits_are_those_of_single_tasks(self, method: str) -> None:
        with WorkerPool(2, start_method=method) as pool:
            fine = pool.apply_async(tasks.wait, (0.3,))
            late = pool.apply_async(tasks.wait, (3,), task_timeout=0.1)
            assert pool.apply_async(tasks.wait, (0.01,), task_timeout=20).get() == 0.01
            with pytest.raises(TimeoutError, match=r"0\.1 s"):
                late.get()
            assert fine.get() == 0.3


class TestErrors:
    def test_as_they_were_raised(self) -> None:
        with WorkerPool(2) as pool:
            with pytest.raises(tasks.TwoArguments) as caught:
                pool.map(tasks.fail_with_two, range(3))
            assert caught.value.args == ("a",) and caught.value.second == "b"
            assert "fail_with_two" in str(caught.value.__cause__)
            with pytest.raises(SystemExit) as left:
                pool.map(tasks.leave, range(3))
            assert left.value.code == 7
            with pytest.raises(TypeError):
                pool.map(tasks.double, [(1, 2)])

    @pytest.mark.parametrize("method", PROCESSES)
    def test_what_does_not_pickle(self, method: str) -> None:
        with WorkerPool(2, start_method=method) as pool:
            for _ in range(2):
                with pytest.raises(Exception, match="generator"):
                    pool.map(tasks.unpicklable, [3])
                with pytest.raises(Exception, match="generator"):
                    pool.map(tasks.given, [((x for x in "ab"),)])
                with pytest.raises(Exception, match="mine"):
                    pool.map(tasks.fail_unpicklable, [1])
            assert pool.map(tasks.double, [1]) == [2]

    def test_death_is_told_with_its_cause(self) -> None:
        with WorkerPool(2) as pool, pytest.raises(RuntimeError, match="SIGKILL"):
            pool.map(tasks.die, range(3))

    def test_time_limit(self) -> None:
        with WorkerPool(2) as pool:
            with pytest.raises(TaskTimeoutError):
                pool.map(tasks.wait, [0, 60], task_timeout=0.1)
            with pytest.raises(TimeoutError):
                list(pool.imap(tasks.wait, [0, 60], task_timeout=0.1))
            # It starts with the task, not in the queue.
            assert pool.map(tasks.wait, [0.05] * 8, task_timeout=5, chunk_size=1) == [0.05] * 8


class TestOptionsOfParallel:
    def test_one_failure_does_not_fail_all(self) -> None:
        with WorkerPool(2, on_error="return") as pool:
            found = pool.map(tasks.fail_at_three, range(5))
            assert isinstance(found[3], ValueError) and found[4] == 4
            assert pool.map(tasks.fail_at_three, range(5), on_error="skip") == [0, 1, 2, 4]
            dead = pool.map(tasks.die, [1])
            assert isinstance(dead[0], WorkerDiedError)
            slow = pool.map(tasks.wait, [0, 60, 0], task_timeout=0.1)
            assert slow[0] == slow[2] == 0 and isinstance(slow[1], TimeoutError)

    def test_results_are_kept_after_an_error(self) -> None:
        with WorkerPool(1) as pool, pytest.raises(ValueError, match="three") as caught:
            pool.map(tasks.fail_at_three, range(5), chunk_size=1)
        results = dict(caught.value.results)  # type: ignore[attr-defined]  # every error has them
        assert results.items() >= {0: 0, 1: 1, 2: 2}.items()
        assert 3 not in results

    def test_journal(self, tmp_path: Any) -> None:
        journal = tmp_path / "journal"
        with WorkerPool(2) as pool:
            assert pool.map(tasks.double, range(5), journal=journal) == [0, 2, 4, 6, 8]
            assert pool.map(tasks.double, range(5), journal=journal) == [0, 2, 4, 6, 8]

    def test_seed_and_output(self) -> None:
        with WorkerPool(2) as pool:
            first = pool.map(random_number, range(4), seed=3)
            assert pool.map(random_number, range(4), seed=3, chunk_size=1) == first
            [captured] = pool.map(tasks.echo, ["words"], output="capture")
            assert captured.stdout == "words\n"

    def test_retries(self, tmp_path: Any) -> None:
        path = str(tmp_path / "once")
        with WorkerPool(1) as pool:
            assert pool.map(die_once, [path], retries=1) == ["alive"]
            os.unlink(path)
            assert pool.apply(die_once, path, retries=1) == "alive"


def random_number(x: int) -> float:
    import random

    return random.random()


def die_once(path: str) -> str:
    if not os.path.exists(path):
        open(path, "w").close()
        tasks.die(0)
    return "alive"


class TestBadInput:
    @pytest.mark.parametrize(
        ("kwargs", "kind", "match"),
        [
            ({"n_jobs": 1.5}, TypeError, "n_jobs"),
            ({"n_jobs": "2"}, TypeError, "n_jobs"),
            ({"n_jobs": True}, TypeError, "n_jobs"),
            ({"start_method": "spoon"}, ValueError, "Unknown start method"),
            ({"cpu_ids": [0, 0, 0]}, ValueError, "does not match"),
            ({"cpu_ids": [-1]}, ValueError, "negative"),
            ({"cpu_ids": [10**6]}, ValueError, "exceeds"),
            ({"cpu_ids": ["a"]}, TypeError, "CPU ID"),
            ({"cpu_ids": [[0, "a"]]}, TypeError, "CPU ID"),
            ({"cpu_ids": [[]]}, ValueError, "at least one"),
            ({"cpu_ids": 0}, TypeError, "cpu_ids must be"),
            ({"retrys": 1}, TypeError, "did you mean 'retries'"),
        ],
    )
    def test_of_the_pool(self, kwargs: Any, kind: Any, match: str) -> None:
        with pytest.raises(kind, match=match):
            WorkerPool(**{"n_jobs": 2, **kwargs})

    @pytest.mark.parametrize(
        ("kwargs", "kind"),
        [
            ({"chunk_size": 0}, ValueError),
            ({"chunk_size": "3"}, TypeError),
            ({"n_splits": 0}, ValueError),
            ({"n_splits": 1.5}, TypeError),
            ({"max_tasks_active": 0}, ValueError),
            ({"max_tasks_active": 1.5}, TypeError),
            ({"worker_lifespan": 0}, ValueError),
            ({"worker_lifespan": "2"}, TypeError),
            ({"task_timeout": 0}, ValueError),
            ({"task_timeout": "2"}, TypeError),
            ({"worker_init_timeout": -1}, ValueError),
            ({"worker_exit_timeout": "2"}, TypeError),
            ({"worker_init": 3}, TypeError),
            ({"worker_exit": 3}, TypeError),
            ({"iterable_len": "3"}, TypeError),
            ({"iterable_len": -1}, ValueError),
            ({"progress_bar_style": "square"}, ValueError),
            ({"progress_bar_options": 3}, TypeError),
            ({"chunksize": 3}, TypeError),
        ],
    )
    def test_of_maps(self, kwargs: Any, kind: Any) -> None:
        [name] = kwargs
        with WorkerPool(2, start_method="threading") as pool:
            for call in (pool.map, pool.map_unordered):
                with pytest.raises(kind, match=name.replace("_", ".")):
                    call(tasks.double, range(3), **kwargs)
            with pytest.raises(kind, match=name.replace("_", ".")):
                list(pool.imap(tasks.double, range(3), **kwargs))
            assert pool.map(tasks.double, [1]) == [2]

    def test_functions_and_items(self) -> None:
        with WorkerPool(2, start_method="threading") as pool:
            with pytest.raises(TypeError, match="takes an iterable"):
                pool.map(tasks.double, 3)  # type: ignore[arg-type]  # that is the test
            with pytest.raises(TypeError, match="takes a function"):
                pool.map(3, [1])  # type: ignore[arg-type]  # that is the test

    def test_cpus_of_threads(self) -> None:
        with pytest.warns(RuntimeWarning, match="no effect"):
            WorkerPool(2, cpu_ids=[0], start_method="threading")


def test_numbers_of_workers() -> None:
    assert WorkerPool().pool_params.n_jobs == WorkerPool(0).pool_params.n_jobs == os.cpu_count()
    assert WorkerPool(-1).pool_params.n_jobs >= 1
    assert WorkerPool(7).pool_params.n_jobs == 7


def test_setters() -> None:
    pool = WorkerPool(2)
    pool.pass_on_worker_id()
    pool.set_shared_objects(3)
    pool.set_use_worker_state()
    pool.set_keep_alive()
    pool.set_order_tasks()
    params = pool.pool_params
    assert params.pass_worker_id and params.use_worker_state and params.keep_alive
    assert params.order_tasks and params.shared_objects == 3


def test_pools_within_tasks() -> None:
    with WorkerPool(2, daemon=False) as pool:
        assert pool.map(nested, [2, 3]) == [[0, 2], [0, 2, 4]]
    with WorkerPool(2, daemon=True, start_method="spawn") as pool:
        assert pool.map(nested, [2, 3]) == [[0, 2], [0, 2, 4]]


def nested(count: int) -> Any:
    with WorkerPool(2) as pool:
        return pool.map(tasks.double, range(count))


INTERRUPTED = """
import sys, time
from parallel_core import WorkerPool

def rest(path):
    open(path, "w").close()
    time.sleep(300)

def outer(path):
    with WorkerPool(1) as pool:
        pool.map(rest, [path])

if __name__ == "__main__":
    with WorkerPool(2) as pool:
        pool.map(outer, [sys.argv[1]])
"""


def test_ctrl_c_ends_pools_within_tasks(tmp_path: Any) -> None:
    program, path = tmp_path / "program.py", str(tmp_path / "begun")
    program.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, program, path], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert tasks.wait_for(path)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in told
    assert process.returncode in (1, -signal.SIGINT)


def test_functions_without_a_name_to_import() -> None:
    for method in PROCESSES:
        with WorkerPool(2, start_method=method) as pool:
            assert pool.map(lambda x: x + 1, range(3)) == [1, 2, 3]


def test_dill() -> None:
    pytest.importorskip("dill")
    with WorkerPool(2, start_method="spawn", use_dill=True) as pool:
        assert pool.map(lambda x, y=1: lambda: x + y, [1, {"x": 2, "y": 3}])[1]() == 5
        assert pool.apply(lambda x: x, (3,)) == 3
        with pytest.raises(ValueError, match="three"):
            pool.map(tasks.fail_at_three, range(5))


def test_dill_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dill", None)
    with pytest.raises(ImportError, match="pip install dill"):
        WorkerPool(2, use_dill=True)


class TestSmallDoors:
    def test_pmap(self) -> None:
        assert pmap(tasks.double, range(4), n_jobs=2) == [0, 2, 4, 6]
        assert pmap(pow, [2, 3, 4], [5, 2], n_jobs=2) == [32, 9]
        assert pmap(tasks.given, [(1, 2)], n_jobs=1) == [(((1, 2),), {})]
        assert pmap(lambda x: x + 1, [1], n_jobs=2) == [2]
        assert pmap(tasks.fail_at_three, range(5), n_jobs=2, on_error="skip") == [0, 1, 2, 4]
        assert pmap(tasks.double, range(4), n_jobs=2, reduce=max) == 6
        with pytest.raises(TypeError, match="takes a function"):
            pmap([1], tasks.double)  # type: ignore[arg-type]  # that is the test

    def test_pstarmap(self) -> None:
        assert pstarmap(pow, [(2, 5), [3, 2]], n_jobs=2) == [32, 9]
        with pytest.raises(TypeError, match="takes a function"):
            pstarmap([1], tasks.double)  # type: ignore[arg-type]  # that is the test


class TestProgressBars:
    def test_a_bar_tells_how_many(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm")
        with WorkerPool(2, start_method="threading") as pool:
            pool.map(tasks.double, range(10), progress_bar=True)
            assert "10/10" in capsys.readouterr().err
            list(pool.imap(tasks.double, iter(range(7)), progress_bar=True))
            assert "7/7" in capsys.readouterr().err
            options = {"desc": "Doing", "unit": "items", "colour": "green"}
            pool.map(tasks.double, range(3), progress_bar=True, progress_bar_options=options)
            assert "Doing" in capsys.readouterr().err
            pool.map(tasks.double, [], progress_bar=True)

    def test_options(self) -> None:
        tqdm = pytest.importorskip("tqdm")
        with WorkerPool(2, start_method="threading") as pool:
            for name in ("total", "leave"):
                with pytest.warns(RuntimeWarning, match=name):
                    pool.map(tasks.double, [1], progress_bar_options={name: 3})
            with pytest.raises(tqdm.TqdmKeyError):
                pool.map(tasks.double, [1], progress_bar=True, progress_bar_options={"no": 1})
            assert pool.map(tasks.double, [1]) == [2]

    def test_rich(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("rich")
        pytest.importorskip("tqdm")
        with WorkerPool(2, start_method="threading", keep_alive=True) as pool:
            pool.map(tasks.double, range(5), progress_bar=True, progress_bar_style="rich")
            captured = capsys.readouterr()
            assert "5/5" in captured.out + captured.err
            with pytest.raises(NotImplementedError, match="position"):
                pool.map(
                    tasks.double,
                    [1],
                    progress_bar_style="rich",
                    progress_bar_options={"position": 1},
                )

    def test_what_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
        monkeypatch.setitem(sys.modules, "rich", None)
        with WorkerPool(2, start_method="threading") as pool:
            with pytest.raises(ImportError, match="pip install rich"):
                pool.map(tasks.double, [1], progress_bar_style="rich")

    def test_an_error_leaves_the_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm")
        with WorkerPool(2, start_method="threading") as pool:
            with contextlib.suppress(ValueError):
                pool.map(tasks.fail_at_three, range(10), progress_bar=True)
        assert "Exception occurred" in capsys.readouterr().err
