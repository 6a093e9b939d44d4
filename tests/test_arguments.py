"""Arguments and results: taken at the yield, shared with nobody, as in a plain loop."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import os
import pickle
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from parallel_core import Parallel, delayed
from watching import some

pytestmark = pytest.mark.warm_workers

PROCESSES = ["processes", "loky", "multiprocessing"]
BATCH_SIZES = [1, 3, "auto", 1000]


class Holder:
    """Something that can be changed."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holder) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # it can be changed


def same() -> Callable[[Any], Any]:
    """Return the identity, as a function that workers need no test module for."""
    return lambda value: value


# --- the generator goes on changing what it yielded -----------------------------------------------


def growing_list() -> Iterator[Any]:
    held: list[int] = []
    for n in range(20):
        held.append(n)
        yield held


def growing_nested_list() -> Iterator[Any]:
    inner: list[int] = []
    outer = ([inner], {"inner": inner})
    for n in range(20):
        inner.append(n)
        yield outer


def changing_dict() -> Iterator[Any]:
    held: dict[str, int] = {}
    for n in range(20):
        held["n"] = n
        yield held


def growing_set() -> Iterator[Any]:
    held: set[int] = set()
    for n in range(20):
        held.add(n)
        yield held


def changing_bytearray() -> Iterator[Any]:
    held = bytearray(1)
    for n in range(20):
        held[0] = n
        yield held


def growing_deque() -> Iterator[Any]:
    held: collections.deque[int] = collections.deque(maxlen=5)
    for n in range(20):
        held.append(n)
        yield held


def changing_object() -> Iterator[Any]:
    held = Holder(0)
    for n in range(20):
        held.value = [n]
        yield held


def changing_tuple() -> Iterator[Any]:
    held = ([0], "constant")
    for n in range(20):
        held[0][0] = n
        yield held


CHANGING = [
    growing_list,
    growing_nested_list,
    changing_dict,
    growing_set,
    changing_bytearray,
    growing_deque,
    changing_object,
    changing_tuple,
]


def snapshots(values: Iterator[Any]) -> list[Any]:
    import copy

    return [copy.deepcopy(value) for value in values]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("backend", PROCESSES)
@pytest.mark.timeout(120)
def test_arguments_are_taken_when_the_task_is_yielded(backend: str, batch_size: int | str) -> None:
    echo = same()
    with Parallel(2, backend=backend, batch_size=batch_size) as parallel:
        for values in CHANGING:
            results = parallel(delayed(echo)(value) for value in values())
            assert results == snapshots(values()), values.__name__


@pytest.mark.core
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_list_that_the_generator_goes_on_filling(batch_size: int | str) -> None:
    results = Parallel(2, batch_size=batch_size)(delayed(len)(held) for held in growing_list())
    assert results == list(range(1, 21))


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_keyword_arguments_are_taken_when_the_task_is_yielded(batch_size: int | str) -> None:
    echo = lambda **kwargs: kwargs["held"]  # noqa: E731 - goes by value
    results = Parallel(2, batch_size=batch_size)(
        delayed(echo)(held=held, other=1) for held in growing_list()
    )
    assert results == snapshots(growing_list())


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("backend", PROCESSES)
def test_an_array_that_the_generator_goes_on_changing(backend: str, batch_size: int | str) -> None:
    np = pytest.importorskip("numpy")

    def values() -> Iterator[Any]:
        held = np.zeros(3)
        view = held[::-1]
        for n in range(20):
            held[0] = n
            yield delayed(np.copy)(view)

    results = Parallel(2, backend=backend, batch_size=batch_size)(values())
    assert [list(result) for result in results] == [[0.0, 0.0, float(n)] for n in range(20)]


def test_the_containers_of_a_hand_made_task_may_be_used_again() -> None:
    arguments: list[int] = [0]
    keywords: dict[str, int] = {}

    def tasks() -> Iterator[Any]:
        for n in range(10):
            arguments[0] = n
            keywords["base"] = 10
            yield int, (str(arguments[0]),), keywords
            keywords.clear()

    assert Parallel(2, batch_size=100)(tasks()) == list(range(10))

    def lists() -> Iterator[Any]:
        for n in range(10):
            arguments[0] = n
            yield [abs, arguments, {}]

    assert Parallel(2, batch_size=100)(lists()) == list(range(10))


def test_an_iterator_that_yields_the_same_task_again_and_again() -> None:
    held = [1]
    task = delayed(len)(held)

    def tasks() -> Iterator[Any]:
        for _ in range(10):
            yield task
            held.append(1)

    assert Parallel(2)(tasks()) == list(range(1, 11))


# --- nothing is shared between tasks --------------------------------------------------------------


@pytest.mark.core
def test_identity_within_a_task_is_kept() -> None:
    held = [1]
    both = lambda a, b, c: (a is b, c["a"] is a, c["again"] is c["a"])  # noqa: E731 - by value
    tasks = [delayed(both)(held, held, {"a": held, "again": held})] * 3
    assert Parallel(2)(tasks) == [(True, True, True)] * 3
    keywords = lambda a, b: a is b  # noqa: E731 - by value
    assert Parallel(2)([delayed(keywords)(held, b=held)] * 3) == [True] * 3
    assert Parallel(2)([delayed(keywords)([1], b=[1])] * 3) == [False] * 3


def test_a_structure_that_contains_itself() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    check = lambda value: value[1] is value  # noqa: E731 - by value
    assert Parallel(2)([delayed(check)(ring)] * 3) == [True] * 3
    (back,) = Parallel(2)([delayed(same())(ring)])
    assert back[1] is back and back is not ring


def test_the_method_of_an_argument_is_bound_to_that_argument() -> None:
    class Thing:
        def method(self, other: Any) -> bool:
            return self is other

    thing = Thing()
    assert Parallel(2)([delayed(thing.method)(thing), delayed(thing.method)(Thing())]) == [
        True,
        False,
    ]


@pytest.mark.parametrize("backend", PROCESSES)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_results_are_snapshots_of_what_the_worker_shares(
    backend: str, batch_size: int | str
) -> None:
    def collect(n: int) -> Any:
        import sys

        held = sys.__dict__.setdefault("held_by_a_test", [])
        held.append((os.getpid(), n))
        return held

    results = Parallel(2, backend=backend, batch_size=batch_size)(
        delayed(collect)(n) for n in range(20)
    )
    assert [result[-1][1] for result in results] == list(range(20))
    assert len({id(result) for result in results}) == 20
    for result in results:  # its end, and before it only what the same worker did earlier
        (pid,) = {pid for pid, _ in result}
        all_of_it = max((other for other in results if other[0][0] == pid), key=len)
        assert result == all_of_it[: len(result)]


def test_an_argument_that_is_returned_is_another_object() -> None:
    held = Holder([1])
    results = Parallel(2)(delayed(same())(held) for _ in range(4))
    assert results == [held] * 4
    assert len({id(result) for result in [held, *results]}) == 5


# --- exactness ------------------------------------------------------------------------------------


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


FLOATS = [
    -0.0,
    0.0,
    math.inf,
    -math.inf,
    5e-324,
    1.7976931348623157e308,
    struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0],
    struct.unpack("<d", bytes.fromhex("efbeaddefecaf8ff"))[0],
]

VALUES = [
    0,
    -1,
    2**31,
    2**63,
    -(2**64),
    10**400,
    True,
    None,
    "",
    "ünïcödé \U0001f600 \ud800",
    "__main__",
    "\0",
    "x" * 70000,
    b"",
    b"__main__",
    bytes(range(256)),
    b"\x80" * 70000,
    bytearray(b"abc"),
    complex(-0.0, math.inf),
    ...,
    NotImplemented,
    int,
    len,
    range(3, 10, 2),
    slice(1, None, 2),
    frozenset({1, frozenset()}),
    {"a": {1: {2.5: (None,)}}},
    (),
    [],
    {},
    set(),
    ((), [()], {(): []}),
    decimal.Decimal("-0.10"),
    fractions.Fraction(1, 3),
    datetime.datetime(2020, 2, 29, 1, 2, 3, 4, datetime.UTC),
    uuid.UUID(int=5),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("aab"),
]


@pytest.mark.core
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_floats_arrive_bit_by_bit(n_jobs: int) -> None:
    for wrapped in (lambda x: x, lambda x: [x], lambda x: {"x": (x,)}):
        results = Parallel(n_jobs)(delayed(same())(wrapped(x)) for x in FLOATS)
        while not isinstance(results[0], float):
            results = [next(iter(r.values() if isinstance(r, dict) else r)) for r in results]
        assert [bits(result) for result in results] == [bits(x) for x in FLOATS]


@pytest.mark.parametrize("backend", some([*PROCESSES, "threading", "sequential"]))
def test_values_of_all_kinds(backend: str) -> None:
    echo = same()
    results = Parallel(2, backend=backend)(delayed(echo)(value) for value in VALUES)
    assert results == VALUES
    assert [type(result) for result in results] == [type(value) for value in VALUES]
    results = Parallel(2, backend=backend)(delayed(echo)(v) for value in VALUES for v in (1, value))
    assert results == [v for value in VALUES for v in (1, value)]


def test_subclasses_of_plain_values_keep_their_class_and_attributes() -> None:
    class Text(str):
        note: str

    class Number(int):
        pass

    class Real(float):
        pass

    class Items(list):  # type: ignore[type-arg]  # an old-style subclass
        pass

    text = Text("abc")
    text.note = "kept"
    values = [text, Number(3), Real(0.5), Items([1])]
    results = Parallel(2)(delayed(same())(value) for value in values)
    assert results == values
    assert [type(result) for result in results] == [Text, Number, Real, Items]
    assert results[0].note == "kept"


def test_numpy_scalars_and_arrays() -> None:
    np = pytest.importorskip("numpy")
    values = [
        np.float64(-0.0),
        np.float32(1.5),
        np.int8(-3),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.datetime64("2020-01-01"),
        np.timedelta64(3, "D"),
        np.str_("text"),
        np.arange(6).reshape(2, 3).T,
        np.array([], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([1, "a", None], dtype=object),
        np.array(5),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.arange(3, dtype=">i4"),
    ]
    results = Parallel(2)(delayed(same())(value) for value in values)
    for value, result in zip(values, results, strict=True):
        assert type(result) is type(value)
        assert result.dtype == value.dtype and result.shape == value.shape
        assert repr(result) == repr(value)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 262136, 262144, 262145, 3_000_000])
def test_sizes_around_the_borders_of_frames(size: int) -> None:
    data = os.urandom(size)
    echo = same()
    assert Parallel(2)(delayed(echo)(data) for _ in range(3)) == [data] * 3
    assert Parallel(2)(delayed(echo)([data]) for _ in range(3)) == [[data]] * 3


def test_big_arguments_meet_big_results_on_the_way() -> None:
    def answer(data: bytes) -> list[bytes]:
        return [data, data[::-1]]

    data = [bytes([n]) * 6_000_000 for n in range(8)]
    results = Parallel(2, pre_dispatch="all", batch_size=2)(delayed(answer)(one) for one in data)
    assert results == [[one, one] for one in data]


# --- the forms of a call --------------------------------------------------------------------------


@pytest.mark.core
def test_positional_and_keyword_arguments() -> None:
    show = lambda *args, **kwargs: (args, kwargs)  # noqa: E731 - by value
    tasks = [
        delayed(show)(),
        delayed(show)(1),
        delayed(show)(1, 2, 3),
        delayed(show)(a=1),
        delayed(show)(function=1, self=2, args=3, kwargs=4),
        delayed(show)(*range(300)),
        delayed(show)(**{"not an identifier": 1, "": 2}),
        delayed(show)([1], b={"c": 3}),
        delayed(show)((), {}),
    ]
    for n_jobs in (1, 2):
        for batch_size in (1, 1000):
            results = Parallel(n_jobs, batch_size=batch_size)(tasks)
            assert results == [(args, kwargs) for _, args, kwargs in tasks]


def test_runs_of_different_functions_and_numbers_of_arguments() -> None:
    def tasks() -> Iterator[Any]:
        for n in range(300):
            yield delayed(max)(n, 2, 3)
            yield delayed(abs)(-n)
            if n % 7 == 0:
                yield delayed(dict)()
                yield delayed(dict)(n=n)
                yield delayed(len)([n])
                yield delayed(len)("x" * n)
                yield delayed("{}".format)(n)

    expected = [function(*args, **kwargs) for function, args, kwargs in tasks()]
    for batch_size in (1, 2, 5, 64, "auto", 10_000):
        assert Parallel(2, batch_size=batch_size)(tasks()) == expected


def test_an_argument_that_changes_when_it_is_pickled() -> None:
    class Counting:
        def __init__(self) -> None:
            self.pickled = 0

        def __getstate__(self) -> dict[str, int]:
            self.pickled += 1
            return {"pickled": 0}

    counting = Counting()
    assert Parallel(2)([delayed(lambda value: value.pickled)(counting)]) == [0]
    assert counting.pickled >= 1


def test_arguments_are_let_go_when_their_task_is_done() -> None:
    def alive() -> int:
        import gc

        gc.collect()
        return sum(type(one).__name__ == "Weighty" for one in gc.get_objects())

    class Weighty:
        pass

    def weigh(one: Any) -> int:
        return alive()

    counts = Parallel(2, batch_size=10)(delayed(weigh)(Weighty()) for _ in range(20))
    assert counts == [1] * 20


def test_an_executor_of_ones_own_gets_the_arguments_of_the_yield() -> None:
    with ThreadPoolExecutor(2) as executor:
        results = Parallel(2, backend=executor, batch_size=5)(
            delayed(same())(held) for held in growing_list()
        )
    assert results == snapshots(growing_list())


def test_threads_share_the_callers_objects() -> None:
    held = object()
    results = Parallel(2, backend="threading")(delayed(same())(held) for _ in range(10))
    assert all(result is held for result in results)


# --- the same as a plain loop ---------------------------------------------------------------------


def exact(value: Any) -> Any:
    """Return what is equal only for values of the same types and bits; sets have no order."""
    kind = type(value).__name__
    if isinstance(value, float):
        return kind, bits(value)
    if isinstance(value, (list, tuple)):
        return kind, [exact(item) for item in value]
    if isinstance(value, dict):
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    if isinstance(value, frozenset):
        return kind, sorted(map(repr, map(exact, value)))
    return kind, value


@pytest.mark.timeout(120)
def test_any_containers_give_what_a_plain_loop_gives() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the extra 'test'")
    st = hypothesis.strategies
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8)
        | st.binary(max_size=8)
    )
    keys = st.integers() | st.text(max_size=4)
    values = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(keys, inner, max_size=4)
            | st.tuples(inner, inner)
            | st.frozensets(leaves, max_size=3)
        ),
        max_leaves=12,
    )

    def mangle(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, list):
                value.append(len(value))
            elif isinstance(value, dict):
                value["added"] = list(value)
        return args, kwargs, [args[:1]] * 2

    calls = st.lists(
        st.tuples(
            st.lists(values, max_size=3),
            st.dictionaries(st.sampled_from("abc"), values, max_size=2),
        ),
        max_size=12,
    )

    @hypothesis.settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(calls, st.sampled_from(BATCH_SIZES), st.sampled_from([1, 2]))
    def check(calls: Any, batch_size: int | str, repeats: int) -> None:
        import copy

        expected = [
            mangle(*copy.deepcopy(args), **copy.deepcopy(kwargs)) for args, kwargs in calls
        ] * repeats
        results = parallel(delayed(mangle)(*args, **kwargs) for args, kwargs in calls * repeats)
        assert exact(results) == exact(expected)
        assert all(first is second for *_, (first, second) in results)

    with Parallel(2) as parallel:
        check()


@pytest.mark.core
def test_no_task_is_lost_or_doubled_however_they_are_cut() -> None:
    import random

    chance = random.Random(5)
    for _ in range(10):
        count = chance.choice([0, 1, 2, 3, 17, 400])
        sizes = [chance.choice([0, 1, 50]) for _ in range(count)]
        parallel = Parallel(
            chance.choice([2, 3]),
            batch_size=chance.choice(BATCH_SIZES),
            pre_dispatch=chance.choice(["all", 1, 2, "3*n_jobs"]),
        )
        results = parallel(delayed(divmod)(n, size or 7) for n, size in enumerate(sizes))
        assert results == [divmod(n, size or 7) for n, size in enumerate(sizes)]


def test_tasks_of_very_different_length_come_back_in_their_places() -> None:
    def work(n: int) -> int:
        time.sleep(0.03 if n % 50 == 0 else 0)
        return n

    assert Parallel(2)(delayed(work)(n) for n in range(400)) == list(range(400))


class OverBuffer:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OverBuffer, (pickle.PickleBuffer(self.buffer),)


def first_bytes(left: OverBuffer, call: Any, right: OverBuffer) -> tuple[bytes, Any, bytes]:
    return bytes(left.buffer[:1]), call(), bytes(right.buffer[:1])


def test_large_buffers_on_both_sides_of_what_only_cloudpickle_takes() -> None:
    left, right = (OverBuffer(bytearray(text * (2 << 20))) for text in (b"l", b"r"))
    task = delayed(first_bytes)(left, lambda: 1, right)
    assert Parallel(n_jobs=2)([task, task]) == [(b"l", 1, b"r")] * 2


# --- short lists of numbers, which are copied -----------------------------------------------------


def test_a_short_list_that_is_passed_twice_is_one_list_in_the_task() -> None:
    def work(one: list[int], two: list[int]) -> tuple[bool, list[int]]:
        one.append(0)
        return one is two, two

    held = [1, 2]
    tasks = [delayed(work)(held, held), delayed(work)(held, [1, 2])] * 3
    results = Parallel(2, batch_size=6)(tasks)
    assert results == [(True, [1, 2, 0]), (False, [1, 2])] * 3 and held == [1, 2]


def test_tasks_share_no_short_list_with_each_other_or_with_results() -> None:
    def work(given: list[float]) -> list[float]:
        import sys

        kept: list[list[float]] = sys.__dict__.setdefault("kept_lists", [])
        for one in kept:
            one.append(-1.0)  # the results of earlier tasks, and what they were given
        kept.append(given)
        return given

    held = [0.5]
    tasks = (delayed(work)(held) for _ in range(6))
    assert Parallel(2, batch_size=3)(tasks) == [[0.5]] * 6 and held == [0.5]
