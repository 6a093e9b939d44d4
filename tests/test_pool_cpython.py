"""The standard library's own tests of pools, against ours, where this Python has them."""

from __future__ import annotations

import multiprocessing
import time
import unittest
from typing import Any

import pytest

import pool_tasks as tasks
from parallel_core.compat.multiprocessing import Pool, ThreadPool

try:
    from test import _test_multiprocessing as theirs
except ImportError:
    theirs = None  # type: ignore[assignment]  # this Python comes without its own tests

#: Tests that do not apply.
LEFT_OUT = {
    "test_map_no_failfast": "takes 1 s; what is closed is finished in the test below, too",
    "test_terminate": "leaves threads asleep for minutes; in the test below",
    "test_async_timeout": "takes 5 s; in the test below",
    "test_async": "takes 1 s of sleep; in the test below",
    "test_release_task_refs": "counts instances after a fixed time",
}


class Base:
    """Has a pool for each test, where theirs have one for all."""

    Pool: Any

    @classmethod
    def setUpClass(cls) -> None:
        pass

    @classmethod
    def tearDownClass(cls) -> None:
        pass

    def setUp(self) -> None:
        self.pool = self.Pool(4)

    def tearDown(self) -> None:
        self.pool.terminate()
        self.pool.join()


def case(mixin: str, pool: Any) -> Any:
    """Return their tests for processes or for threads, with our pool."""
    if theirs is None:
        return pytest.mark.skip(reason="this Python comes without its own tests")(
            type("Skipped", (unittest.TestCase,), {"test": lambda self: None})
        )
    private: Any = theirs
    bases = (private._TestPool, getattr(private, mixin), unittest.TestCase)
    attributes = {**dict.fromkeys(LEFT_OUT), "Pool": staticmethod(pool), "__test__": True}
    return type(f"Test{mixin}", (Base, *bases), {**attributes, "__module__": __name__})


TestProcessesMixin = case("ProcessesMixin", Pool)
TestThreadsMixin = case("ThreadsMixin", ThreadPool)


@pytest.mark.parametrize("kind", [Pool, ThreadPool])
def test_maps_and_single_calls(kind: Any) -> None:
    with kind(2) as pool:
        assert pool.apply(tasks.multiply, (3,), {"y": 4}) == 12
        assert pool.map(tasks.double, range(10)) == [2 * x for x in range(10)]
        assert pool.map(lambda x: x + 1, (x for x in range(4))) == [1, 2, 3, 4]
        assert pool.starmap(tasks.multiply, [(2, 3), [4, 5]], chunksize=1) == [6, 20]
        assert pool.map(tasks.given, [(1, 2)]) == [(((1, 2),), {})]
        told: list[Any] = []
        result = pool.map_async(tasks.double, range(3), callback=told.append)
        assert result.get() == [0, 2, 4] and told == [[0, 2, 4]]
        assert result.ready() and result.successful()
        assert pool.starmap_async(tasks.multiply, [(2, 3)]).get() == [6]
        assert list(pool.imap(tasks.double, range(100), chunksize=7)) == [2 * x for x in range(100)]
        assert sorted(pool.imap_unordered(tasks.double, range(9))) == [2 * x for x in range(9)]
        failed = pool.map_async(tasks.fail_at_three, range(9), error_callback=told.append)
        with pytest.raises(ValueError, match="three"):
            failed.get()
        assert isinstance(told[1], ValueError)
        assert pool.map(tasks.double, []) == [] and list(pool.imap(tasks.double, [])) == []


def test_an_iterator_goes_on_after_an_error_and_pulls_no_further_than_it_must() -> None:
    pulled = []

    def items() -> Any:
        x = 0
        while True:
            pulled.append(x)
            yield x
            x += 1

    with ThreadPool(2) as pool:
        results = pool.imap(tasks.fail_at_three, items())
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="three"):
            next(results)
        assert next(results) == 4
        assert len(pulled) < 20


def test_time_limits_of_whoever_waits(tmp_path: Any) -> None:
    go = str(tmp_path / "go")
    with Pool(1) as pool:
        result = pool.apply_async(tasks.wait_for, (go,))
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0.01)
        with pytest.raises(ValueError, match="not done"):
            result.successful()
        for results in (pool.imap(tasks.wait_for, [go]), pool.imap_unordered(tasks.wait_for, [go])):
            with pytest.raises(multiprocessing.TimeoutError):
                results.next(timeout=0.01)
        open(go, "w").close()
        assert result.get() is True


def test_the_states_of_a_pool() -> None:
    pool = Pool(2)
    assert "state=RUN" in repr(pool)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    results = [pool.apply_async(tasks.wait, (0.02,)) for _ in range(4)]
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.map(tasks.double, [1])
    pool.join()
    assert all(result.ready() for result in results)
    with pytest.raises(ValueError, match="not running"), pool:
        pass
    pool = Pool(2)
    pending = pool.map_async(time.sleep, [60] * 100, chunksize=1)
    pool.terminate()
    pool.join()
    with pytest.raises(RuntimeError, match="terminated"):
        pending.get(timeout=10)


def test_workers_are_made_and_replaced_as_asked() -> None:
    with Pool(2, initializer=remember, initargs=(5,), maxtasksperchild=2) as pool:
        assert pool.map(recall, range(4), chunksize=1) == [5] * 4
        assert len(set(pool.map(tasks.pid, range(12), chunksize=1))) >= 3
    with Pool(1, remember, (6,), context=multiprocessing.get_context("spawn")) as pool:
        assert pool.map(recall, range(2)) == [6, 6]


_remembered = 0


def remember(x: int) -> None:
    global _remembered
    _remembered = x


def recall(x: int) -> int:
    return _remembered


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"processes": 0}, ValueError),
        ({"processes": -1}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"maxtasksperchild": 1.5}, ValueError),
    ],
)
def test_bad_input(given: Any, kind: Any) -> None:
    with pytest.raises(kind):
        Pool(**given)


def test_bad_calls() -> None:
    with ThreadPool(1) as pool:
        with pytest.raises(ValueError, match="Chunksize"):
            pool.imap(tasks.double, [1], chunksize=0)
        with pytest.raises(TypeError):
            pool.map(tasks.double, 3)  # type: ignore[arg-type]  # that is the test
        with pytest.raises(TypeError, match="takes a function"):
            pool.apply(3)  # type: ignore[arg-type]  # that is the test
        with pytest.raises(NotImplementedError):
            pool.__reduce__()


def test_what_does_not_pickle() -> None:
    with Pool(1) as pool:
        with pytest.raises(Exception, match="pickle"):
            pool.map(tasks.unpicklable, [1])
        with pytest.raises(Exception, match="pickle"):
            pool.apply(tasks.double, ((x for x in "a"),))
        assert pool.apply(tasks.double, (2,)) == 4
