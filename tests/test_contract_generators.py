"""What every backend owes whoever takes its results one by one, however the generator ends."""

from __future__ import annotations

import gc
import itertools
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import PARALLEL, STOPS, every
from contract_tasks import touch, touch_and_sleep, touch_and_wait

from parallel_core import Parallel, delayed
from watching import LIMIT, Counted, begun, running, steady, wait_until

pytestmark = pytest.mark.warm_workers

KINDS = ["generator", "generator_unordered"]


@every()
@pytest.mark.parametrize("return_as", KINDS)
def test_all_results(backend: Any, return_as: str) -> None:
    for count in (0, 1, 7, 2000):
        results = Parallel(2, backend=backend, return_as=return_as)(
            delayed(abs)(-n) for n in range(count)
        )
        assert iter(results) is results
        got = list(results)
        if return_as == "generator":
            assert got == list(range(count))
        else:
            assert sorted(got) == list(range(count))
        assert list(results) == []


@every(PARALLEL)
def test_results_come_before_the_last_task_is_done(backend: Any, tmp_path: Path) -> None:
    path = str(tmp_path)
    results = Parallel(2, backend=backend, return_as="generator", batch_size=1)(
        delayed(touch_and_wait)(path, n, f"go-{n}") for n in range(6)
    )
    for n in range(6):
        Path(path, f"go-{n}").touch()
        assert next(results) == n
        if n < 4:
            assert not Path(path, f"go-{n + 1}").exists()
    assert list(results) == []


@every(PARALLEL)
def test_unordered_results_come_in_the_order_of_their_ends(backend: Any, tmp_path: Path) -> None:
    path = str(tmp_path)
    results = Parallel(2, backend=backend, return_as="generator_unordered", batch_size=1)(
        [delayed(touch_and_wait)(path, 0, "go")] + [delayed(touch)(path, n) for n in range(1, 6)]
    )
    got = [next(results) for _ in range(3)]
    assert 0 not in got
    Path(path, "go").touch()
    assert sorted([*got, *results]) == list(range(6))


@every(PARALLEL)
def test_no_more_is_pulled_than_asked_for_while_the_consumer_rests(backend: Any) -> None:
    calls = []
    for return_as, pre_dispatch in zip(KINDS, (5, 2), strict=True):
        tasks = Counted(delayed(abs)(n) for n in itertools.count())
        parallel = Parallel(
            2, backend=backend, return_as=return_as, batch_size=1, pre_dispatch=pre_dispatch
        )
        calls.append((tasks, parallel(tasks), pre_dispatch))
    steady(lambda: sum(tasks.pulled for tasks, _, _ in calls))
    for tasks, results, pre_dispatch in calls:
        assert tasks.pulled <= pre_dispatch
        for taken in range(1, 30):
            next(results)
            assert tasks.pulled <= taken + pre_dispatch
    steady(lambda: sum(tasks.pulled for tasks, _, _ in calls))
    for tasks, results, pre_dispatch in calls:
        assert tasks.pulled <= 29 + pre_dispatch
        results.close()
        assert list(results) == []


@every(PARALLEL)
def test_batches_count_not_tasks(backend: Any) -> None:
    calls = []
    for batch_size in (4, 10):
        tasks = Counted(delayed(abs)(n) for n in itertools.count())
        results = Parallel(
            2, backend=backend, return_as="generator", batch_size=batch_size, pre_dispatch=3
        )(tasks)
        for taken in range(1, 60):
            assert next(results) == taken - 1
            assert tasks.pulled <= taken - 1 + 4 * batch_size
        calls.append((tasks, results, batch_size))
    steady(lambda: sum(tasks.pulled for tasks, _, _ in calls))
    for tasks, results, batch_size in calls:
        assert tasks.pulled <= 59 + 4 * batch_size
        results.close()


@every(PARALLEL)
def test_what_is_in_flight_goes_on_while_the_consumer_rests(backend: Any, tmp_path: Path) -> None:
    path = str(tmp_path)
    results = Parallel(2, backend=backend, return_as="generator", batch_size=1, pre_dispatch=6)(
        delayed(touch)(path, n) for n in range(100)
    )
    wait_until(lambda: begun(tmp_path) == set(range(6)), "the first six have run")
    assert steady(lambda: len(begun(tmp_path))) == 6
    assert next(results) == 0
    assert steady(lambda: len(begun(tmp_path))) <= 7
    assert list(results) == list(range(1, 100))


@every()
def test_an_infinite_iterable(backend: Any) -> None:
    iterables = []
    for return_as in KINDS:
        tasks = Counted(delayed(abs)(-n) for n in itertools.count())
        results = Parallel(2, backend=backend, return_as=return_as)(tasks)
        got = list(itertools.islice(results, 300))
        assert len(set(got)) == 300
        if return_as == "generator":
            assert got == list(range(300))
        results.close()
        iterables.append(tasks)
    pulled = sum(tasks.pulled for tasks in iterables)
    assert steady(lambda: sum(tasks.pulled for tasks in iterables)) == pulled


@every()
@pytest.mark.parametrize("return_as", KINDS)
def test_exhausting_and_closing_are_quiet(backend: Any, return_as: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel = Parallel(2, backend=backend, return_as=return_as)
        assert sum(parallel(delayed(abs)(-n) for n in range(10))) == 45
        for take in (0, 1, 5):
            results = parallel(delayed(abs)(-n) for n in range(1000))
            for _ in range(take):
                next(results)
            results.close()
            results.close()
            with pytest.raises(StopIteration):
                next(results)
            del results
        assert sum(parallel(delayed(abs)(-n) for n in range(10))) == 45
        gc.collect()


@every()
@pytest.mark.parametrize("return_as", KINDS)
def test_dropping_an_unfinished_generator_warns(backend: Any, return_as: str) -> None:
    parallel = Parallel(2, backend=backend, return_as=return_as)
    for take in (0, 3):
        results = parallel(delayed(abs)(-n) for n in range(1000))
        for _ in range(take):
            next(results)
        with pytest.warns(ResourceWarning, match="before its end"):  # noqa: PT031 - `del`
            del results
            gc.collect()
        assert sum(parallel(delayed(abs)(-n) for n in range(10))) == 45


@every(STOPS)
@pytest.mark.parametrize("how", ["close", "drop", "throw"])
def test_closing_frees_workers_that_are_inside_a_task(
    backend: Any, how: str, tmp_path: Path
) -> None:
    path = str(tmp_path)
    parallel = Parallel(2, backend=backend, return_as="generator", batch_size=1)
    results = parallel(delayed(touch_and_sleep)(path, n) for n in range(10))
    wait_until(lambda: len(begun(tmp_path)) == 2, "both workers are busy")
    pids = [int((tmp_path / str(n)).read_text()) for n in begun(tmp_path)]
    if how == "close":
        results.close()
    elif how == "throw":
        with pytest.raises(LookupError):
            results.throw(LookupError)
    else:
        with pytest.warns(ResourceWarning, match="before its end"):  # noqa: PT031 - `del`
            del results
            gc.collect()
    for pid in pids:
        wait_until(lambda pid=pid: not running(pid), "the busy worker is gone")
    assert len(begun(tmp_path)) == 2
    assert list(parallel(delayed(abs)(-n) for n in range(4))) == [0, 1, 2, 3]


@every()
def test_a_second_call_on_a_running_instance(backend: Any) -> None:
    parallel = Parallel(2, backend=backend, return_as="generator")
    first = parallel(delayed(abs)(-n) for n in range(100))
    with pytest.raises(RuntimeError, match="running"):
        parallel(delayed(abs)(-n) for n in range(100))
    assert next(first) == 0
    with pytest.raises(RuntimeError, match="running"):
        parallel(delayed(abs)(-n) for n in range(100))
    assert next(first) == 1  # the refusal did it no harm
    first.close()
    second = parallel(delayed(abs)(-n) for n in range(5))
    assert list(second) == [0, 1, 2, 3, 4]
    assert list(parallel(delayed(abs)(-n) for n in range(5))) == [0, 1, 2, 3, 4]


@every()
def test_results_are_gone_when_nobody_has_them(backend: Any) -> None:
    """Not when the garbage collector comes round: they may be large."""
    gc.disable()
    try:
        results = Parallel(2, backend=backend)(delayed(Counter)([n]) for n in range(4))
        kept = weakref.ref(results[3])
        del results
        wait_until(lambda: kept() is None, "threads have ended, and the result is gone")
    finally:
        gc.enable()


@every()
def test_results_before_the_failing_task_are_had_first(backend: Any) -> None:
    def work(n: int) -> int:
        if n == 7:
            raise LookupError("told")
        return n

    for batch_size in (1, 10):
        parallel = Parallel(2, backend=backend, return_as="generator", batch_size=batch_size)
        results = parallel(delayed(work)(n) for n in range(8))
        got: list[int] = []
        with pytest.raises(LookupError, match="told"):
            got.extend(results)
        assert got == list(range(len(got)))
        if backend == "sequential":
            assert got == list(range(7))
        assert list(results) == []
        assert list(parallel(delayed(abs)(-n) for n in range(4))) == [0, 1, 2, 3]


@every()
def test_an_iterable_that_raises_midway(backend: Any) -> None:
    def tasks() -> Iterator[Any]:
        for n in range(50):
            yield delayed(abs)(n)
        raise KeyError("own")

    for return_as in KINDS:
        parallel = Parallel(2, backend=backend, return_as=return_as, batch_size=1)
        with pytest.raises(KeyError, match="own"):
            list(parallel(tasks()))
        assert sum(parallel(delayed(abs)(-n) for n in range(10))) == 45


@every()
def test_throwing_into_a_generator(backend: Any) -> None:
    parallel = Parallel(2, backend=backend, return_as="generator")
    results = parallel(delayed(abs)(-n) for n in itertools.count())
    assert next(results) == 0
    error = LookupError("thrown")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LookupError, match="thrown") as caught:
            results.throw(error)
        del results
        gc.collect()
    assert caught.value is error
    assert list(parallel(delayed(abs)(-n) for n in range(4))) == [0, 1, 2, 3]


@every()
def test_generators_within_a_with_block(backend: Any) -> None:
    with Parallel(2, backend=backend, return_as="generator") as parallel:
        for count in (5, 0, 100):
            assert list(parallel(delayed(abs)(-n) for n in range(count))) == list(range(count))
        results = parallel(delayed(abs)(-n) for n in range(100))
        next(results)
        results.close()
        assert list(parallel(delayed(abs)(-n) for n in range(5))) == [0, 1, 2, 3, 4]


@every()
def test_leaving_the_with_block_ends_an_open_generator(backend: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Parallel(2, backend=backend, return_as="generator") as parallel:
            results = parallel(delayed(abs)(-n) for n in itertools.count())
            assert next(results) == 0
        assert list(results) == []
        assert list(parallel(delayed(abs)(-n) for n in range(4))) == [0, 1, 2, 3]
        with pytest.raises(ZeroDivisionError), parallel:  # noqa: PT012 - what is left is at issue
            results = parallel(delayed(abs)(-n) for n in itertools.count())
            assert next(results) == 0
            raise ZeroDivisionError
        assert list(results) == []


@every(PARALLEL)
def test_two_generators_taken_in_turns(backend: Any) -> None:
    one = Parallel(2, backend=backend, return_as="generator")(delayed(abs)(-n) for n in range(200))
    two = Parallel(2, backend=backend, return_as="generator")(
        delayed(divmod)(n, 3) for n in range(200)
    )
    for n, (first, second) in enumerate(zip(one, two, strict=True)):
        assert first == n and second == divmod(n, 3)


@every()
def test_a_generator_consumed_in_another_thread(backend: Any) -> None:
    results = Parallel(2, backend=backend, return_as="generator")(
        delayed(abs)(-n) for n in range(500)
    )
    got = [next(results)]
    thread = threading.Thread(target=lambda: got.extend(results))
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert got == list(range(500))
