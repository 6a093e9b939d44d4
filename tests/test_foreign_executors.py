"""Executors of others as backends: what they lack, how large they are, what they bring back."""

from __future__ import annotations

import operator
import pickle
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import loky
import numpy as np
import pytest
import remote

from parallel_core import Parallel, delayed, effective_n_jobs, parallel_config
from parallel_core.errors import PerformanceWarning, SerializationError, TaskTimeoutError

pytestmark = pytest.mark.warm_workers


def fail_at(x: int, at: int) -> int:
    if x == at:
        raise KeyError(x)
    return x


class UncancellableFuture(Future[Any]):
    """One as parsl's."""

    def cancel(self) -> bool:
        raise NotImplementedError("Cancel not implemented")


class Uncancellable(Executor):
    """Runs what it is given in another executor, in its own time."""

    def __init__(self) -> None:
        self._inner = ThreadPoolExecutor(1)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = UncancellableFuture()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._inner.submit(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._inner.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.core
def test_futures_that_refuse_to_be_cancelled() -> None:
    with Uncancellable() as executor:
        with pytest.raises(KeyError, match="2"):
            Parallel(n_jobs=4, backend=executor, batch_size=1)(
                delayed(fail_at)(x, 2) for x in range(50)
            )
        results = Parallel(n_jobs=4, backend=executor)(delayed(fail_at)(x, 9) for x in range(5))
        assert results == list(range(5))


class OwnThreads(Uncancellable):
    """Has an attribute of the name that the standard library's have, and something else in it."""

    def __init__(self) -> None:
        super().__init__()
        self._threads = self._inner


def test_an_executor_with_a_pool_of_threads_in_it() -> None:
    with OwnThreads() as executor:
        results = Parallel(n_jobs=2, backend=executor)(delayed(fail_at)(x, 9) for x in range(5))
        assert results == list(range(5))


class Remembering(Uncancellable):
    """Runs equal calls once, as dask's."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, Future[Any]] = {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if (fn, args) not in self._known:
            self._known[fn, args] = super().submit(fn, *args, **kwargs)
        return self._known[fn, args]


_tries: list[int] = []


def fail_at_first(x: int) -> int:
    _tries.append(x)
    if _tries.count(x) == 1:
        raise ConnectionError(x)
    return x


def test_an_engine_that_runs_equal_calls_once_tries_again() -> None:
    _tries.clear()
    with Remembering() as executor:
        parallel = Parallel(
            2, executor, retries=2, retry_on=ConnectionError, retry_backoff=0, batch_size=1
        )
        assert parallel(delayed(fail_at_first)(x) for x in range(4)) == list(range(4))
    assert sorted(_tries) == [0, 0, 1, 1, 2, 2, 3, 3]


_held = threading.Event()


def _wait_until_let_go(_: int) -> None:
    _held.wait()


def test_futures_that_refuse_to_be_cancelled_and_a_time_limit() -> None:
    with Uncancellable() as executor:
        try:
            with pytest.raises(TaskTimeoutError):
                Parallel(n_jobs=2, backend=executor, timeout=0.1)(
                    delayed(_wait_until_let_go)(x) for x in range(2)
                )
        finally:
            _held.set()


class Sized(Uncancellable):
    """Tells its size in one of the ways that are known."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


class Client:
    """Stands for dask's client."""

    def __init__(self, **threads: int) -> None:
        self._threads = threads

    def ncores(self) -> dict[str, int]:
        return self._threads


@pytest.mark.parametrize(
    "attributes",
    [
        {"_max_workers": 5},
        {"max_workers": 5},
        {"_max_workers": None, "num_workers": 5},
        {"_client": Client(first=2, second=3)},
    ],
)
def test_the_size_of_an_executor_that_tells_it(attributes: dict[str, Any]) -> None:
    with Sized(**attributes) as executor, parallel_config(backend=executor):
        assert [effective_n_jobs(n_jobs) for n_jobs in (-1, -2, -9, 3)] == [5, 4, 1, 3]


@pytest.mark.parametrize("attributes", [{}, {"max_workers": None}, {"_client": Client()}])
def test_the_size_of_an_executor_that_does_not_tell_it(attributes: dict[str, Any]) -> None:
    class Untold(Sized):
        @property
        def num_workers(self) -> int:
            raise RuntimeError("it has been shut down")

    words = "n_jobs=-1 with an executor that does not tell its size: Untold is given . batches"
    with Untold(**attributes) as executor:
        parallel = Parallel(n_jobs=-1, backend=executor)
        with pytest.warns(PerformanceWarning, match=words) as told:
            results = parallel(delayed(fail_at)(x, 9) for x in range(5))
        assert results == list(range(5))
        assert len(told) == 1
        assert told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert parallel(delayed(fail_at)(x, 9) for x in range(5)) == list(range(5))
            Parallel(n_jobs=3, backend=executor)(delayed(fail_at)(x, 9) for x in range(5))


class Counting(Executor):
    """Runs each batch at once, and counts them."""

    def __init__(self) -> None:
        self.batches = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.batches += 1
        future: Future[Any] = Future()
        future.set_result(self.run(fn, *args, **kwargs))
        return future

    def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)


class OutOfBand(Counting):
    """Moves results as dask does; the buffers arrive read-only."""

    def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(fn(*args, **kwargs), 5, buffer_callback=buffers.append)
        return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


class TestLargeResults:
    """They travel beside the answers, as large ones of our own workers do."""

    @pytest.fixture(params=["processes", "loky", "threads", "out of band"])
    def executor(self, request: pytest.FixtureRequest) -> Iterator[Executor]:
        """Executors that pickle by protocol 4 and 5, in this process, and with buffers apart."""
        if request.param == "processes":
            made: Executor = ProcessPoolExecutor(2)
        elif request.param == "loky":
            made = loky.ProcessPoolExecutor(2)
        elif request.param == "threads":
            made = ThreadPoolExecutor(2)
        else:
            made = OutOfBand()
        with made:
            yield made

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_they_are_as_in_a_plain_loop(self, executor: Executor, batch_size: int) -> None:
        names = list(remote.LARGE) * 2
        results = Parallel(n_jobs=2, backend=executor, batch_size=batch_size)(
            delayed(remote.large_result)(name) for name in names
        )
        for name, result in zip(names, results, strict=True):
            assert remote.same(result, remote.large_result(name)), name

    def test_a_later_task_does_not_change_them(self, executor: Executor) -> None:
        results = Parallel(n_jobs=1, backend=executor, batch_size=4)(
            delayed(remote.fill_buffer)(x) for x in range(8)
        )
        assert [(array[0], array[-1]) for array in results] == [(x, x) for x in range(8)]
        assert all(array.flags.writeable for array in results)

    def test_failures_between_them(self, executor: Executor) -> None:
        results = Parallel(n_jobs=1, backend=executor, batch_size=4, on_error="return")(
            delayed(remote.large_unless)(x, 2) for x in range(8)
        )
        assert isinstance(results[2], KeyError)
        assert [len(result) for x, result in enumerate(results) if x != 2] == [200_000] * 7

    def test_one_that_does_not_unpickle_fails_alone(self, executor: Executor) -> None:
        results = Parallel(n_jobs=1, backend=executor, batch_size=3, on_error="return")(
            delayed(remote.unloadable_at)(x, 1) for x in range(3)
        )
        assert isinstance(results[1], SerializationError)
        assert [len(results[x]) for x in (0, 2)] == [100_000] * 2

    def test_folding(self, executor: Executor) -> None:
        total = Parallel(n_jobs=2, backend=executor, reduce=operator.add)(
            delayed(np.full)(100_000, x) for x in range(8)
        )
        assert (total == 28).all()


def test_batches_with_large_results_stay_small() -> None:
    """Their size goes by how much comes back, where all of it comes at once."""
    with Counting() as executor:
        results = Parallel(n_jobs=1, backend=executor)(
            delayed(remote.fill_buffer)(x, 1 << 21) for x in range(12)
        )
        assert len(results) == 12
        assert executor.batches >= 6
