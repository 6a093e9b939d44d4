"""What every backend owes: all results, in order, each task run once; pulling only so far ahead."""

from __future__ import annotations

import functools
import gc
import math
import operator
import os
import re
import sqlite3
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import contract_tasks
import numpy as np
import pytest
from contract import AWAY, DROPS, INITIALIZES, PARALLEL, every, of
from simple_tasks import (
    PATIENCE,
    Counting,
    Point,
    Result,
    cached,
    collect,
    copied,
    decorated,
    defaults,
    describe,
    echo_list,
    nothing,
    square,
    wait_for_file,
)

from parallel_core import Parallel, delayed

pytestmark = pytest.mark.warm_workers


@every()
def test_equals_the_plain_loop(backend: Any) -> None:
    for n_jobs in (1, 2, 3):
        got = Parallel(n_jobs=n_jobs, backend=backend)(delayed(math.sqrt)(i) for i in range(50))
        assert got == [math.sqrt(i) for i in range(50)]
        assert type(got) is list


@every()
def test_shapes_of_iterables(backend: Any) -> None:
    class OldSequence:
        def __getitem__(self, index: int) -> Any:
            if index >= 5:
                raise IndexError(index)
            return delayed(square)(index)

    class Once:
        def __init__(self) -> None:
            self.left = 5

        def __iter__(self) -> Once:
            return self

        def __next__(self) -> Any:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return delayed(square)(4 - self.left)

    expected = [0, 1, 4, 9, 16]
    tasks = [delayed(square)(i) for i in range(5)]
    with Parallel(n_jobs=2, backend=backend) as parallel:
        assert parallel([]) == []
        assert parallel(()) == []
        assert parallel(delayed(square)(i) for i in range(0)) == []
        assert parallel(iter([])) == []
        assert parallel(tasks) == expected
        assert parallel(tuple(tasks)) == expected
        assert parallel(map(delayed(square), range(5))) == expected
        assert parallel(iter(tasks)) == expected
        assert parallel(OldSequence()) == expected
        assert parallel(Once()) == expected
        assert parallel([delayed(square)(7)]) == [49]
        assert parallel({"a": delayed(square)(3)}.values()) == [9]


@every()
def test_many_shapes_of_tasks(backend: Any) -> None:
    counting = Counting(5)
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        delayed(nothing)(),
        delayed(collect)(),
        delayed(collect)(1),
        delayed(collect)(1, "two"),
        delayed(collect)(1, "two", 3.0),
        delayed(collect)(1, "two", 3.0, None),
        delayed(collect)(*range(50)),
        delayed(collect)(*range(50), key=(1, [2, {3}])),
        delayed(collect)(self=1, function=2, args=3, kwargs=4, obj=5, item=6),
        delayed(collect)((), [], {}, set(), frozenset(), "", b"", None),
        delayed(defaults)(1),
        delayed(defaults)(1, 2, 3, 4, c=5, d=6, e=7),
        delayed(pow)(2, 10),
        delayed(pow)(2, 10, 1000),
        delayed(int)("12", base=3),
        delayed(Point)(1, y=2),
        delayed(OrderedDict)([(1, 2), (3, 4)]),
        delayed(dict)(a=1),
        delayed(counting.plus)(1),
        delayed(Counting.plus)(counting, 1),
        delayed(Counting.of_class)(1),
        delayed(Counting.of_none)(1),
        delayed(counting.of_class)(1),
        delayed(counting)(1),
        delayed(counting)(1, times=3),
        delayed(functools.partial(pow, 2))(5),
        delayed(functools.partial(collect, 1, a=2))(3, b=4),
        delayed(functools.partial(functools.partial(counting, 1), times=2))(),
        delayed("a-b-c".split)("-"),
        delayed(str.upper)("abc"),
        delayed(operator.itemgetter(1, 2))("abc"),
        delayed(operator.attrgetter("x"))(Point(1, 2)),
        delayed(operator.methodcaller("index", 3))([1, 2, 3]),
        delayed([1, 2, 3].index)(3),
        delayed({"k": "v"}.get)("k"),
        delayed(re.compile("b+").findall)("abbcb"),
        delayed(cached)(1),
        delayed(lambda: 0)(),
        delayed(lambda x, y=[]: (x, y))(1),
        delayed(len)([1, 2]),
        delayed(sum)([[1], [2]], []),
        delayed(np.sin)(0.5),
        delayed(np.add)(1, 2),
        delayed(getattr)(Point(3, 4), "y"),
        delayed(ValueError)("returned, not raised"),
        decorated(4),
    ]

    def shown(values: Iterable[Any]) -> list[tuple[str, str]]:
        return [(type(value).__name__, repr(value)) for value in values]

    expected = shown(function(*args, **kwargs) for function, args, kwargs in calls)
    for batch_size in ("auto", 1, 7, 1000):
        got = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)(calls)
        assert shown(got) == expected
    again = Parallel(n_jobs=3, backend=backend)(calls * 5)
    assert shown(again) == expected * 5


@every(AWAY)
def test_shapes_of_tasks_by_value(backend: Any) -> None:
    offset = 100

    def closure(x: int, *more: int, key: int = 0) -> Any:
        return x + offset, more, key

    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: object) -> bool:
            return type(other) is Local and other.x == self.x

        __hash__ = None  # type: ignore[assignment]

        def method(self, y: int) -> Local:
            return Local(self.x + y)

    def recursive(n: int) -> int:
        return 1 if n < 2 else n * recursive(n - 1)

    calls = [
        delayed(closure)(1),
        delayed(closure)(1, 2, 3, key=4),
        delayed(lambda *a, **k: (a, k))(1, k=2),
        delayed(Local)(3),
        delayed(Local(3).method)(4),
        delayed(Local.method)(Local(3), 4),
        delayed(recursive)(5),
        delayed(functools.partial(closure, 5))(6),
        delayed(list)((Local(1), Local(2))),
        delayed(lambda item: isinstance(item, Local))(Local(1)),
        delayed(type)(Local(1)),
    ] * 4
    expected = [function(*args, **kwargs) for function, args, kwargs in calls]
    assert Parallel(n_jobs=2, backend=backend)(calls) == expected


@every()
def test_tuples_that_others_made(backend: Any) -> None:
    def foreign(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def delayed_function(*args: Any, **kwargs: Any) -> Any:
            return function, args, kwargs

        return delayed_function

    class Named(NamedTuple):
        func: Callable[..., Any]
        args: tuple[Any, ...]
        kwargs: dict[str, Any]

    tasks = [
        foreign(pow)(2, 3),
        (pow, (2, 3), {}),
        [pow, (2, 3), {}],
        (pow, [2, 3], {}),
        [pow, [2], {"exp": 3}],
        (pow, (2, 3), OrderedDict()),
        Named(pow, (2,), {"exp": 3}),
    ]
    assert Parallel(n_jobs=2, backend=backend)(tasks) == [8] * len(tasks)
    assert Parallel(n_jobs=2, backend=backend)(tasks * 10) == [8] * 10 * len(tasks)


@every()
def test_the_caller_keeps_its_objects(backend: Any) -> None:
    mine = [1, 2]
    results = Parallel(n_jobs=2, backend=backend)([delayed(echo_list)(mine) for _ in range(4)])
    if of(backend).supports_sharedmem:
        assert all(result is mine for result in results)
    else:
        assert results == [[1, 2, -1]] * 4
        assert mine == [1, 2]
        assert len({id(result) for result in results}) == 4


@every(PARALLEL)
def test_order_with_uneven_tasks(backend: Any) -> None:
    def work(i: int) -> int:
        time.sleep(0.002 * (i * 7 % 5))
        return i

    for batch_size in ("auto", 4):
        got = Parallel(n_jobs=3, backend=backend, batch_size=batch_size)(
            delayed(work)(i) for i in range(60)
        )
        assert got == list(range(60))


@every()
def test_more_jobs_than_tasks(backend: Any) -> None:
    assert Parallel(n_jobs=5, backend=backend)([delayed(abs)(-1), delayed(abs)(-2)]) == [1, 2]


@every()
def test_a_hundred_thousand_tiny_tasks(backend: Any) -> None:
    count = 100_000 if of(backend).name in ("processes", "threading", "sequential") else 10_000
    got = Parallel(n_jobs=2, backend=backend)(delayed(math.sqrt)(i) for i in range(count))
    assert got == [math.sqrt(i) for i in range(count)]


@every()
def test_every_task_runs_once(backend: Any, tmp_path: Path) -> None:
    def note(i: int) -> int:
        with open(tmp_path / f"{os.getpid()}", "a") as log:
            log.write(f"{i}\n")
        return i

    parallel = Parallel(n_jobs=3, backend=backend)
    assert parallel(delayed(note)(i) for i in range(2000)) == list(range(2000))
    counted = Counter(line for path in tmp_path.iterdir() for line in path.read_text().split())
    assert counted == Counter(map(str, range(2000)))


@every(AWAY)
def test_numpy_scalars_and_small_arrays(backend: Any) -> None:
    values = [
        np.float64(1.5),
        np.float32(-0.0),
        np.float16("nan"),
        np.int8(-128),
        np.uint64(2**64 - 1),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.longdouble(1) / 3,
        np.datetime64("2024-02-29"),
        np.timedelta64(5, "D"),
        np.str_("text"),
        np.bytes_(b"bytes"),
        np.array([], dtype=int),
        np.array(3.0),
        np.arange(6).reshape(2, 3)[:, ::-1],
        np.array(["a", "bcd"]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)])[0],
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.array([None, [1]], dtype=object),
        math.nan,
        -0.0,
        math.inf,
        2**100,
        True,
    ]
    parallel = Parallel(n_jobs=2, backend=backend)
    assert parallel(delayed(describe)(value) for value in values) == list(map(describe, values))
    back = parallel(delayed(copied)(value) for value in values)
    assert list(map(describe, back)) == list(map(describe, values))


@every()
def test_the_iterable_may_be_a_cursor_of_a_database(backend: Any) -> None:
    """It belongs to the thread that has opened it, which calls, and takes the results."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table numbers (value integer)")
        values = range(3_000)
        database.executemany("insert into numbers values (?)", [(value,) for value in values])
        for return_as in ("list", "generator", "generator_unordered"):
            rows = database.execute("select value from numbers")
            parallel = Parallel(n_jobs=2, backend=backend, return_as=return_as)
            assert sorted(parallel(delayed(abs)(value) for (value,) in rows)) == list(values)


@every()
def test_the_iterable_is_closed_where_it_was_pulled(backend: Any) -> None:
    seen: set[int] = set()

    def tasks() -> Iterator[Any]:
        try:
            for i in range(10_000):
                seen.add(threading.get_ident())
                yield delayed(divmod)(1, 500 - i)
        finally:
            seen.add(threading.get_ident())

    for return_as in ("list", "generator"):
        with pytest.raises(ZeroDivisionError):
            list(Parallel(n_jobs=2, backend=backend, return_as=return_as)(tasks()))
    assert seen == {threading.get_ident()}


@every(PARALLEL)
def test_producer_is_called_three_times_then_as_tasks_complete(
    backend: Any, tmp_path: Path
) -> None:
    """The first tasks end only when three have been taken; a fourth is taken when one has ended."""

    def consume(i: int) -> int:
        wait_for_file(str(tmp_path / "taken-2"))
        (tmp_path / f"done-{i}").touch()
        return i

    def producer() -> Iterator[Any]:
        for i in range(6):
            done = len(list(tmp_path.glob("done-*")))
            assert done >= i - 2, f"{i} were taken when {done} were done"
            (tmp_path / f"taken-{i}").touch()
            yield delayed(consume)(i)

    parallel = Parallel(
        n_jobs=2, backend=backend, pre_dispatch="1.5*n_jobs", batch_size=1, return_as="list"
    )
    assert parallel(producer()) == list(range(6))


@every(PARALLEL)
def test_all_are_taken_before_anything_is_waited_for(backend: Any, tmp_path: Path) -> None:
    """With 'all', tasks may wait for what the end of the iterable brings."""
    last = tmp_path / "last"

    def producer() -> Iterator[Any]:
        for _ in range(8):
            yield delayed(wait_for_file)(str(last))
        last.touch()

    parallel = Parallel(n_jobs=2, backend=backend, pre_dispatch="all", batch_size=1)
    assert parallel(producer()) == [str(last)] * 8


@every()
def test_a_generator_that_raises(backend: Any) -> None:
    error = LookupError("mine", 3)

    def tasks(good: int) -> Iterator[Any]:
        for i in range(good):
            yield delayed(square)(i)
        raise error

    for good, batch_size in [(0, "auto"), (1, "auto"), (5, 10), (100, "auto")]:
        parallel = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)
        with pytest.raises(LookupError) as caught:
            parallel(tasks(good))
        assert caught.value is error
        assert parallel([delayed(abs)(-1)]) == [1]


@every()
def test_the_generator_is_closed_when_a_task_fails(backend: Any) -> None:
    closed = []

    def tasks() -> Iterator[Any]:
        try:
            for i in range(1000):
                yield delayed(operator.truediv)(1, i)
        finally:
            closed.append(True)

    parallel = Parallel(n_jobs=2, backend=backend)
    try:
        parallel(tasks())
    except ZeroDivisionError:
        pass
    assert closed == [True]


@every()
def test_a_generator_that_calls_the_same_instance(backend: Any) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)

    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        yield delayed(abs)(parallel([delayed(abs)(-2)])[0])

    with pytest.raises(RuntimeError, match="already"):
        parallel(tasks())
    assert parallel([delayed(abs)(-3)]) == [3]


@every(PARALLEL)
def test_jobs_really_run_at_the_same_time(
    backend: Any, tmp_path: Path, can: frozenset[str]
) -> None:
    count = 3 if DROPS in can else 2  # others have two workers

    def meet(i: int) -> None:
        (tmp_path / str(i)).touch()
        for other in range(count):
            wait_for_file(str(tmp_path / str(other)))

    Parallel(n_jobs=3, backend=backend, batch_size=1)(delayed(meet)(i) for i in range(count))


@every()
def test_one_call_at_a_time_on_an_instance(backend: Any) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    inside, go_on = threading.Event(), threading.Event()
    results: list[Any] = []

    def tasks() -> Iterator[Any]:
        inside.set()
        go_on.wait(PATIENCE)
        yield delayed(abs)(-1)

    thread = threading.Thread(target=lambda: results.append(parallel(tasks())))
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        with pytest.raises(RuntimeError, match="already"):
            parallel([delayed(abs)(-2)])
    finally:
        go_on.set()
        thread.join()
    assert results == [[1]]
    assert parallel([delayed(abs)(-3)]) == [3]


@every(AWAY)
def test_a_local_class_is_called_and_comes_back(backend: Any) -> None:
    class Local:
        def __init__(self, x: int = 0) -> None:
            self.x = x

    results = Parallel(n_jobs=2, backend=backend)(delayed(Local)(i) for i in range(5))
    assert [type(result) for result in results] == [Local] * 5
    assert [result.x for result in results] == list(range(5))
    made = Parallel(n_jobs=2, backend=backend)(delayed(lambda i: Local(i))(i) for i in range(5))
    assert [(type(result), result.x) for result in made] == [(Local, i) for i in range(5)]
    kinds = Parallel(n_jobs=2, backend=backend)(
        [delayed(lambda: Local)(), delayed(lambda: [Local])()]
    )
    assert kinds == [Local, [Local]]


@every()
def test_results_are_not_kept_alive_by_the_instance(backend: Any) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    results = parallel([delayed(Result)() for _ in range(3)])
    references = [weakref.ref(result) for result in results]
    assert parallel.n_completed_tasks == 3
    del results
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
    assert (parallel.n_tasks, parallel.n_completed_tasks, parallel.n_dispatched_tasks) == (3, 3, 3)


@every()
def test_counters(backend: Any) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    assert (parallel.n_tasks, parallel.n_dispatched_tasks, parallel.n_completed_tasks) == (
        None,
        0,
        0,
    )
    parallel(delayed(square)(i) for i in range(30))
    assert (parallel.n_tasks, parallel.n_dispatched_tasks, parallel.n_completed_tasks) == (
        30,
        30,
        30,
    )
    parallel([])
    assert (parallel.n_tasks, parallel.n_dispatched_tasks, parallel.n_completed_tasks) == (0, 0, 0)


@every(INITIALIZES)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_initializer_of_a_module(backend: Any, n_jobs: int, can: frozenset[str]) -> None:
    try:
        parallel = Parallel(
            n_jobs=n_jobs,
            backend=backend,
            initializer=contract_tasks.set_level,
            initargs=(3, "extra"),
        )
        for _ in range(2):
            assert (
                parallel(delayed(contract_tasks.get_level)() for _ in range(6))
                == [(3, "extra")] * 6
            )
        # Others see nothing of it.
        if n_jobs == 2 and AWAY in can:
            plain = Parallel(n_jobs=2, backend=backend)
            assert plain([delayed(contract_tasks.get_level)()]) == [(0, "unset")]
    finally:
        contract_tasks.set_level(0, "unset")


@every(AWAY)
def test_tasks_never_share_an_argument(backend: Any) -> None:
    shared: list[Any] = [0, {"key": [1]}]

    def change(value: list[Any]) -> Any:
        value[0] += 1
        value[1]["key"].append(2)
        value.append("more")
        return value

    results = Parallel(2, backend=backend, batch_size=10)(
        delayed(change)(shared) for _ in range(40)
    )
    assert results == [[1, {"key": [1, 2]}, "more"]] * 40
    assert shared == [0, {"key": [1]}]
    assert len({id(result[1]["key"]) for result in results}) == 40
