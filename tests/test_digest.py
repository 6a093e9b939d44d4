"""Digests: the same for equal values in any process, another for another value or code."""

from __future__ import annotations

import collections
import copy
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import importlib
import itertools
import math
import operator
import os
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import textwrap
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from memmapping import share
from parallel_core import SerializationError, wrap_non_picklable_objects
from parallel_core.journal import arrays
from parallel_core.journal import digest as digest_module
from parallel_core.journal.digest import FunctionDigests, digest, function_digest
from watching import HOME, LIMIT

core = pytest.mark.core


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: Any


class Tagged(set[Any]):
    tag = 0


class ForkServerChannel:
    """One of several that refer to each other."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.others: Any = []


class Pair(collections.namedtuple("Pair", "a b")):
    __slots__ = ()


def some_function(value: Any) -> Any:
    return value + 1


# --- values ---------------------------------------------------------------------------------------


def big_text() -> str:
    return "".join(["ab" * 5000])


EQUAL: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: {"a": 1, "b": 2}, lambda: {"b": 2, "a": 1}),
    (lambda: {1: [2], 3: (4,)}, lambda: dict(reversed({1: [2], 3: (4,)}.items()))),
    (lambda: {8, 0, 16}, lambda: {16, 8, 0}),
    (lambda: {(8,), (0,), (16,)}, lambda: {(16,), (8,), (0,)}),
    (lambda: frozenset("abcdef"), lambda: frozenset("fedcba")),
    (lambda: [[1, 2]] * 3, lambda: [[1, 2], [1, 2], [1, 2]]),
    (lambda: ("ab" * 2, "abab"), lambda: ("".join(["ab", "ab"]), "abab")),
    (lambda: [10**6, 10**6], lambda: [int("1000000"), int("1000000")]),
    (lambda: [math.nan], lambda: [float("nan")]),
    (big_text, big_text),
    (lambda: [big_text()] * 2, lambda: [big_text(), big_text()]),
    (lambda: collections.Counter("aab"), lambda: collections.Counter("baa")),
    (lambda: Point({1}, [2]), lambda: Point(y=[2], x={1})),
    (lambda: np.arange(6).reshape(2, 3), lambda: np.asfortranarray(np.arange(6).reshape(2, 3))),
    (lambda: np.arange(20)[::2], lambda: np.arange(0, 20, 2)),
    (lambda: np.broadcast_to(np.int64(3), (4,)), lambda: np.full(4, 3)),
    (lambda: np.array([1, "a", [2]], object), lambda: np.array([None, 1, "a", [2]], object)[1:]),
    (lambda: bytearray(b"abc"), lambda: bytearray(b"xabc")[1:]),
    (lambda: memoryview(b"abcabc")[::3], lambda: memoryview(b"aa")),
    (lambda: types.MappingProxyType({1: 2, 3: 4}), lambda: types.MappingProxyType({3: 4, 1: 2})),
]


@core
@pytest.mark.parametrize("pair", EQUAL)
def test_equal_values(pair: Any) -> None:
    one, other = pair
    assert digest(one()) == digest(other()) == digest(one())


@core
def test_exceptions_whose_attributes_were_only_looked_at() -> None:
    error = KeyError("a")
    before = digest(error)
    assert error.__dict__ == {}
    assert digest(error) == before
    vars(error)["place"] = 3  # as libraries add some
    assert digest(error) != before


def test_pickled_and_back() -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[5, 6])
    values = [
        frame,
        frame.a,
        frame.index,
        pandas.Timestamp("2024-01-01", tz="UTC"),
        polars.DataFrame({"a": [1, None], "b": ["x", "y"]}),
        np.random.default_rng(5),
        np.random.RandomState(5),
        np.random.SeedSequence(5),
        np.ma.masked_array([1, 2], [True, False]),
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        [value for value in DIFFERENT if not isinstance(value, types.ModuleType)],
    ]
    for value in values:
        assert digest(value) == digest(pickle.loads(pickle.dumps(value, 5))), value
    assert len({digest(value) for value in values}) == len(values)
    changed = frame.copy()
    changed.loc[5, "a"] = 9
    assert digest(changed) != digest(frame)


def test_how_exceptions_are_pickled_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(KeyError("a"))
    numbers = iter(range(9))

    def reduce(error: KeyError) -> Any:
        return KeyError, error.args, {"number": next(numbers)}

    monkeypatch.setitem(copyreg.dispatch_table, KeyError, reduce)
    assert digest(KeyError("a")) == before != digest(KeyError("b"))


def drawn(generator: Any) -> Any:
    generator.random()
    return generator


DIFFERENT: list[Any] = [
    None,
    *(True, 1, 1.0, 1 + 0j, "1", b"1", bytearray(b"1")),
    *(False, 0, 0.0, -0.0, -1, 2**31, 2**63, 2**100, -(2**100)),
    *(math.inf, -math.inf, math.nan, complex(0.0, -0.0)),
    *("", "a", "b", "\udcff", "a\0", "a" * 5000, b"a" * 5000, "a" * 5001),
    *([], (), {}, set(), frozenset()),
    *([1], (1,), {1}, frozenset([1]), {1: None}, [[1]], [(1,)], ([1],)),
    *([1, 2], [2, 1], [[1], 2], [[1, 2]], [1, [2]], [[], []], [[[]]]),
    *({"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": [1], "b": [2]}, {"a": [2], "b": [1]}),
    *({(1,), (2,)}, {(1,), (3,)}),
    *(range(3), range(0, 3, 2), slice(3), slice(0, 3), ..., NotImplemented),
    *(collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
    *(collections.Counter("ab"), collections.defaultdict(int, a=1, b=1), collections.deque([1])),
    *(Tagged([1]), Tagged([2])),
    *(Point(1), Point(2), Point(1, 1), Slotted(1), Slotted(2), Pair(1, 2), Pair(2, 1)),
    *(Colour.RED, Colour.GREEN, Colour, Point),
    *(pathlib.Path("a"), pathlib.Path("b"), pathlib.PurePosixPath("a")),
    *(decimal.Decimal("1.0"), decimal.Decimal("1.00"), fractions.Fraction(1, 2)),
    *(datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), datetime.timedelta(1)),
    *(uuid.UUID(int=1), re.compile("a"), re.compile("a", re.I)),
    *(operator.itemgetter(1), operator.attrgetter("a"), functools.partial(int, base=2)),
    *(len, abs, str.upper, "a".upper, "b".upper, int.from_bytes, dict.fromkeys, np.sqrt, np.mean),
    *(os, math, int, float, list[int], KeyError("a"), KeyError("b")),
    *(some_function, [some_function], test_equal_values),
    *(np.float64(1), np.float32(1), np.int64(1), np.bool_(True), np.str_("1"), np.bytes_(b"1")),
    *(np.datetime64("2024"), np.datetime64("2024", "s"), np.timedelta64(1, "s")),
    *(np.longdouble(1), np.float64(-0.0), np.void(b"1")),
    *(np.dtype("f8"), np.dtype(">f8"), np.dtype([("a", "f8")])),
    *(np.zeros(0), np.zeros((0, 1)), np.zeros(1), np.zeros(2), np.zeros((1, 2)), np.zeros((2, 1))),
    *(np.zeros(2, "i8"), np.zeros(2, ">f8"), np.zeros(2, "M8[s]"), np.zeros(2, "m8[s]")),
    *(np.array(-0.0), np.array(0.0), np.array(["a"]), np.array([b"a"]), np.array(["a"], object)),
    *(np.array([(0, 0)], "i4,i4"), np.array([(0, 0)], [("f0", "i4"), ("f1", "u4")])),
    np.array([([1], 2)], [("a", object), ("b", "i4")]),
    *(np.random.default_rng(0), drawn(np.random.default_rng(0)), np.random.default_rng(1)),
]


@core
def test_different_values() -> None:
    digests: dict[bytes, Any] = {}
    for value in DIFFERENT:
        found = digests.setdefault(digest(value), value)
        assert found is value, (found, value)
        assert len(digest(value)) == 16


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, type by type and bit by bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        found = sorted(one, key=typed), sorted(other, key=typed)
        return same(*found) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, frozenset):
        return same(sorted(one, key=typed), sorted(other, key=typed))
    return bool(one == other)


def typed(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([0.0, -0.0, 1.0, math.nan]),
    st.text("ab", max_size=2),
    st.binary(max_size=2),
)
hashable = st.recursive(scalars, lambda inner: st.lists(inner, max_size=2).map(tuple), max_leaves=3)
values = st.recursive(
    st.one_of(scalars, st.frozensets(scalars.filter(lambda x: x == x), max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(values, values)
def test_digests_are_equal_when_values_are(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == same(one, other)
    assert digest([one, one]) == digest([one, pickle.loads(pickle.dumps(one))])
    assert digest([one]) != digest(one)


@settings(max_examples=100, deadline=None)
@given(
    arrays_of.arrays(
        st.one_of(
            arrays_of.scalar_dtypes(),
            arrays_of.array_dtypes(arrays_of.scalar_dtypes(), max_size=3, allow_subarrays=True),
        ),
        arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
def test_arrays_however_they_lie(array: Any) -> None:
    expected = digest(array)
    spread = np.zeros([2 * side for side in array.shape], array.dtype)[
        (..., *(slice(None, None, 2) for _ in array.shape))
    ]
    np.copyto(spread, array)
    for other in (array.copy(order="F"), spread, array[None][0, ...]):
        assert digest(other) == expected
    if array.ndim and len(array):
        assert digest(array[:-1]) != expected
        assert digest(array[None]) != expected


def test_what_is_between_the_fields_does_not_count() -> None:
    for dtype in (
        np.dtype([("a", "i1"), ("b", "f8")], align=True),
        np.dtype(np.longdouble),
        np.dtype(np.clongdouble),
    ):
        garbage = np.full(3 * dtype.itemsize, 171, "u1").view(dtype)
        zeros = np.zeros(3, dtype)
        for one in (garbage, zeros):
            if dtype.names:
                one["a"], one["b"] = 1, 2.0
            else:
                one[...] = 1
        assert digest(garbage) == digest(zeros) != digest(zeros[:2])


def test_large_arrays_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    whole = np.arange(2 * 30 * 7.0).reshape(2, 30, 7)
    views = [whole.copy(order="F"), np.repeat(whole, 2, 2)[:, :, ::2], np.flip(whole[::-1, ::-1])]
    long = np.array([1, 2, 3] * 50, np.longdouble)
    expected = digest(whole), digest(np.arange(500)), digest(long)
    for piece in (8, 100, 2000):
        monkeypatch.setattr(arrays, "_ITEMS", piece)
        assert {digest(view[:, :, ::1]) for view in views[:2]} == {expected[0]}
        assert digest(np.arange(1000)[::2] // 2) == digest(np.arange(1000)[:500:1]) == expected[1]
        assert digest(np.stack([np.arange(500)] * 2, axis=1)[:, 0]) == expected[1]
        assert digest(long) == digest(np.repeat(long, 2)[::2]) == expected[2]
    mapped = np.memmap(tmp_path / "mapped", whole.dtype, "w+", shape=whole.shape)
    mapped[...] = whole
    with pytest.raises(SerializationError, match="memory map that tasks can write to"):
        digest(mapped)
    mapped.flush()
    for mode in ("r", "c"):
        mapped = np.memmap(tmp_path / "mapped", whole.dtype, mode, shape=whole.shape)
        assert digest(mapped) == expected[0]
    del mapped


def test_strings_of_any_length_in_arrays() -> None:
    kinds = getattr(np, "dtypes", None)
    if not hasattr(kinds, "StringDType"):
        pytest.skip("numpy is older than 2")
    assert kinds is not None
    one, other = (np.array(["a", text], kinds.StringDType()) for text in ("b", "c"))
    assert digest(one) == digest(one[::-1][::-1].copy()) != digest(other)


def test_what_was_shared_counts_by_its_content() -> None:
    with share([np.arange(10), "a"]) as one, share([np.arange(10), "a"]) as other:
        with share([np.arange(11), "a"]) as third:
            assert digest(one) == digest(other) == digest(one) != digest(third)
    never = share(1)
    never.close()
    with pytest.raises(SerializationError, match="has been closed"):
        digest([never])


# --- in other processes ---------------------------------------------------------------------------

SCRIPT = """
    import collections, dataclasses, enum, functools, re, sys
    import numpy as np
    from parallel_core.journal.digest import digest, function_digest

    class Colour(enum.Enum):
        RED = "red"
        def loud(self):
            return self.value.upper()

    @dataclasses.dataclass
    class Point:
        x: int
        tags: set = dataclasses.field(default_factory=set)
        def norm(self):
            self.cached = scale * self.x
            return other(self)

    def other(point):
        class Local:
            size = 5
            def method(self):
                self.b, self.a, self.c, self.last = 1, 2, 3, 4
        return point.norm() if point.x in {"a", "b", "c", "d"} else Local()

    scale = {"one": 1, "two": frozenset("xyz")}
    words = set("the quick brown fox jumps over the lazy dog".split())
    circle = [words]
    circle.append({word: circle for word in words})
    values = [
        words, {word: len(word) for word in words}, {frozenset(word) for word in words},
        Point(1, words), Point, Colour.RED, Colour, [Colour], other, Point(2).norm, circle,
        collections.Counter(words), np.random.default_rng(0), re.compile("a"), re.sub,
        functools.partial(other, Point(2)), functools.lru_cache(other), lambda: (words, scale),
    ]
    for value in values:
        print(digest(value).hex(), function_digest(value).hex() if callable(value) else "")
"""


def output_of(script: pathlib.Path, seed: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(HOME), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    return done.stdout.splitlines()


@core
def test_other_processes_find_the_same(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    moved = tmp_path / "moved.py"
    moved.write_text("# another line\n" * 7 + textwrap.dedent(SCRIPT).replace("\n\n", "\n\n\n"))
    found = [output_of(script, "1"), output_of(script, "2"), output_of(moved, "3")]
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == len(found[0]) > 15


# --- circles and depth ----------------------------------------------------------------------------


def ring(*names: str) -> ForkServerChannel:
    links = [ForkServerChannel(name) for name in names]
    for link, following in zip(links, [*links[1:], links[0]], strict=True):
        link.others = [following]
    return links[0]


def test_circles() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert digest(endless) != digest([endless, 1])
    assert digest(ring("a", "b")) == digest(ring("a", "b"))
    found = {
        digest(ring(*names))
        for names in ("a", "ab", "ba", "abc", "acb", "aab", "aaab", "aba", "abb", "abbb")
    }
    assert len(found) == 10


def test_circles_through_sets_have_no_order() -> None:
    def family(names: str) -> ForkServerChannel:
        parent = ForkServerChannel("parent")
        parent.others = set()
        for name in names:
            child = ForkServerChannel(name)
            child.others = {parent}
            parent.others.add(child)
        return parent

    assert digest(family("abcdefgh")) == digest(family("hgfedcba"))
    assert digest(family("abcd")) != digest(family("abce"))


def test_many_paths_through_a_circle_are_no_more_work() -> None:
    links = [ForkServerChannel(str(i)) for i in range(40)]
    for link in links:
        link.others = list(links)
    assert digest(links) == digest(copy.deepcopy(links))
    links[7].others = links[:-1]
    assert digest(links) != digest(copy.deepcopy(links[:-1]))


def test_shared_parts_are_no_more_work() -> None:
    doubled: Any = [1]
    for _ in range(100):
        doubled = [doubled, doubled]
    assert digest(doubled) == digest(pickle.loads(pickle.dumps(doubled)))


class Endless:
    def __reduce__(self) -> Any:
        return Endless, (Endless(),)


def test_what_is_nested_too_deeply() -> None:
    deep: Any = ()
    for _ in range(10_000):
        deep = [deep]
    for value in (deep, Endless()):
        with pytest.raises(SerializationError, match="is nested too deeply"):
            digest(value)


# --- what has no digest ---------------------------------------------------------------------------


class Stubborn:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


def numbers() -> Iterator[int]:
    yield 1


def test_what_has_no_digest_is_named() -> None:
    lock = threading.Lock()
    cases: list[tuple[Any, str]] = [
        (lock, r"the object, <unlocked _thread.lock .* of type 'lock'"),
        ([1, {"a": (lock,)}], r"the object\[1\]\['a'\]\[0\], <unlocked"),
        ({1: Point(0, lock)}, r"the object\[1\]\.y, <unlocked"),
        (functools.partial(len, lock), r"the object.args\[0\]"),
        (numbers(), "'generator'"),
        (socket.socket, ""),
        (Stubborn(), "ValueError: not me"),
        (np.array([1, lock], object), "lock"),
    ]
    with open(__file__) as file, socket.socket() as connection:
        cases += [([file], r"the object\[0\], <_io.TextIOWrapper"), (connection, "'socket'")]
        for value, words in cases:
            if words:
                with pytest.raises(SerializationError, match=words):
                    digest(value)
    with pytest.raises(SerializationError, match=r"argument 'x'\[0\], .* from others in another"):
        digest([lock], "argument 'x'")


# --- functions ------------------------------------------------------------------------------------


class Modules:
    """Writes modules, and imports them anew each time."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def __call__(self, text: str, name: str = "written") -> Any:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)


@pytest.fixture
def modules(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Modules(tmp_path)
    for name in ("written", "helping"):
        sys.modules.pop(name, None)


PROGRAM = '''
import math
import threading
from helping import help_out

LIMIT = 3
TABLE = {"a": [1, 2]}
lock = threading.Lock()
unused = 1


class Base:
    factor = 2

    def scale(self, x):
        return self.factor * x


class Model(Base):
    def __init__(self):
        self.used = helper(1)


def helper(x):
    return deeper(x) if x else LIMIT


def deeper(x):
    """Return something."""
    return helper(x - 1) + TABLE["a"][0]


def work(x, y=(1, 2), *, z="z"):
    def inner(v):
        return [v + 1 for _ in range(3)]

    class Local:
        def method(self):
            self.b = self.a = 1

    with lock:
        return inner(helper(x)), Model().scale(y), math.sqrt(4), help_out(z), Local
'''
HELPING = "def help_out(x):\n    return x\n"


@core
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ('{"a": [1, 2]}', '{"a": [1, 3]}'),
        ("factor = 2", "factor = 3"),
        ("self.factor * x", "x * self.factor"),
        ("helper(1)", "helper(2)"),
        ("class Model(Base)", "class Model"),
        ("helper(x - 1)", "helper(x - 2)"),
        ("y=(1, 2)", "y=(1, 3)"),
        ('z="z"', 'z="y"'),
        ("work(x, y", "work(y, x"),
        ("v + 1", "v + 2"),
        ("v + 1", "v - 1"),
        ("range(3)", "range(4)"),
        ("math.sqrt(4)", "math.cos(4)"),
        ("import math", "import cmath as math"),
        ("from helping import help_out", "from helping import assist as help_out"),
        ("lock = threading.Lock()", "lock = threading.RLock()"),
        ("self.b = self.a = 1", "self.b = self.a = 2"),
    ],
)
def test_another_code(modules: Modules, old: str, new: str) -> None:
    modules(HELPING + "def assist(x):\n    return x\n", "helping")
    before = function_digest(modules(PROGRAM).work)
    assert old in PROGRAM
    assert function_digest(modules(PROGRAM.replace(old, new)).work) != before
    assert function_digest(modules(PROGRAM).work) == before


@core
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import math", "import os\n# a comment\n\n\nimport math"),
        ("def helper", "\n\n\ndef helper"),
        ("    with lock", "\n    # within\n    with lock"),
        ("unused = 1", "unused = 2"),
        ("def helper(x):", "def helper(x: 'int') -> 'int':"),
        ("class Base:\n", 'class Base:\n    """A class."""\n'),
        ("def inner", "\n\n    def inner"),
        ("    class Local", "\n\n\n    class Local"),
    ],
)
def test_the_same_code(modules: Modules, old: str, new: str) -> None:
    modules(HELPING, "helping")
    before = function_digest(modules(PROGRAM).work)
    assert old in PROGRAM
    assert function_digest(modules(PROGRAM.replace(old, new)).work) == before
    modules(HELPING.replace("return x", "return -x"), "helping")  # another module's own affair
    assert function_digest(modules(PROGRAM).work) == before


def test_code_that_python_has_made_faster() -> None:
    def loop(count: int) -> int:
        total = 0
        for i in range(count):
            total += i
        return total

    before = function_digest(loop)
    for _ in range(100):
        loop(100)
    assert function_digest(loop) == before


def adder(amount: Any) -> Callable[[Any], Any]:
    return lambda value: value + amount


def counter() -> Callable[[], int]:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


def factorial_in(factor: int) -> Callable[[int], int]:
    def factorial(n: int) -> int:
        return factor * n * factorial(n - 1) if n else 1

    return factorial


def test_closures() -> None:
    assert function_digest(adder(1)) == function_digest(adder(1))
    kinds = [adder(1), adder(2), adder(1.0), adder([1]), adder(adder(1)), adder(Point(1))]
    assert len({function_digest(kind) for kind in kinds}) == len(kinds)
    assert function_digest(adder(threading.Lock())) == function_digest(adder(threading.Lock()))
    assert function_digest(factorial_in(1)) == function_digest(factorial_in(1))
    assert function_digest(factorial_in(1)) != function_digest(factorial_in(2))
    step = counter()
    before = function_digest(step)
    step()
    assert function_digest(step) == before


class Scaler:
    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, value: Any) -> Any:
        return self.factor * value

    def scale(self, value: Any) -> Any:
        return self.factor * value

    @classmethod
    def make(cls, factor: Any) -> Scaler:
        return cls(factor)

    @staticmethod
    def twice(value: Any) -> Any:
        return 2 * value


def test_all_that_can_be_called() -> None:
    def callables() -> list[Any]:
        return [
            *(Scaler, Scaler(1), Scaler(2), Scaler(1).scale, Scaler(2).scale),
            *(Scaler.make, Scaler.twice, Scaler.scale),
            *(functools.partial(adder, 1), functools.partial(adder, amount=1)),
            *(functools.partial(Scaler(1), 1), functools.partial(Scaler(2), 1)),
            *(functools.lru_cache(adder), functools.lru_cache(counter), adder, counter),
            *(len, math.sqrt, np.sqrt, np.mean, [1].append, "a".join, "b".join, str.join, int),
            *(operator.itemgetter(1), operator.methodcaller("a", 1), functools.partial(pow, 2)),
            *(wrap_non_picklable_objects(adder(1)), wrap_non_picklable_objects(Scaler)),
            *(np.vectorize(adder(1)), functools.singledispatch(adder), Point, Colour),
        ]

    digests = [function_digest(function) for function in callables()]
    assert digests == [function_digest(function) for function in callables()]
    assert len(set(digests)) == len(digests)
    with pytest.raises(SerializationError, match=r"Scaler.scale.factor, <unlocked"):
        function_digest(Scaler(threading.Lock()).scale)


def test_the_code_of_a_callable_object_counts(modules: Modules) -> None:
    text = "class Thing:\n    def __call__(self):\n        return {}\n"
    assert function_digest(modules(text.format(1)).Thing()) != function_digest(
        modules(text.format(2)).Thing()
    )
    assert digest(modules(text.format(1)).Thing()) == digest(modules(text.format(2)).Thing())


def test_functions_as_values_count_by_their_code(modules: Modules) -> None:
    text = "def work(x):\n    return x + {}\n"
    one, other = (digest({"f": modules(text.format(i)).work}) for i in (1, 2))
    assert one != other


def test_caches_of_libraries_do_not_count() -> None:
    before = function_digest(re.sub)
    re.compile(f"never seen before {os.getpid()}")
    assert function_digest(re.sub) == before


# --- digests that are kept ------------------------------------------------------------------------

AT_FIRST = """
    SCALE = 1
    TABLE = {"a": [1]}
    WORDS = ("a", ["b"])

    def helper(x):
        return x * SCALE

    def unused():
        pass

    class Model:
        size = 1

        def method(self):
            return 1

    def work(x, y=[1], *, z={}):
        return helper(x), TABLE, WORDS, Model, len(y), later(x)
"""


@pytest.mark.parametrize(
    "change",
    [
        "module.SCALE = 2",
        "module.TABLE['a'].append(2)",
        "module.WORDS[1][0] = 'c'",
        "module.helper.__code__ = module.unused.__code__",
        "module.helper = module.unused",
        "module.Model.size = 2",
        "module.Model.more = 2",
        "module.Model.method = module.unused",
        "module.work.__defaults__[0].append(2)",
        "module.work.__defaults__ = ([2],)",
        "module.work.__kwdefaults__ = {'z': 1}",
        "module.work.__kwdefaults__['z']['a'] = 1",
        "module.work.attribute = 1",
        "module.later = module.unused",
        "module.len = max",
    ],
)
def test_a_kept_digest_is_made_anew_when_something_changes(modules: Modules, change: str) -> None:
    module = modules(AT_FIRST)
    digests = FunctionDigests()
    before = digests.find(module.work)
    assert before.holds()
    assert digests.find(module.work) is before
    exec(change, {"module": module, "max": max})
    assert not before.holds()
    after = digests.find(module.work)
    assert after.digest != before.digest
    assert after.holds()
    module.__dict__["elsewhere"] = 1
    assert after.holds()


def test_a_changed_cell_is_noticed() -> None:
    amount = 1

    def add(value: int) -> int:
        return value + amount

    digests = FunctionDigests()
    before = digests.find(add)
    amount = 2
    assert not before.holds()
    assert digests.find(add).digest != before.digest


def test_kept_digests_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = FunctionDigests()
    for function in (math.sqrt, np.sqrt, some_function, Scaler):
        before = digests.find(function)
        with monkeypatch.context() as patch:
            patch.delattr(digest_module, "Walk")
            assert digests.find(function) is before


def test_few_are_kept() -> None:
    digests = FunctionDigests()
    found = {digests.find(adder(i)).digest for i in range(1000)}
    assert len(found) == 1000
    assert len(digests._kept) <= 256


def test_pairs_of_functions_that_use_each_other(modules: Modules) -> None:
    text = """
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)
    """
    module = modules(text)
    one = function_digest(module.even), function_digest(module.odd)
    assert one[0] != one[1]
    both = digest([module.even, module.odd]), digest([module.odd, module.even])
    assert both[0] != both[1]
    module = modules(text)
    assert (function_digest(module.even), function_digest(module.odd)) == one
    assert len({*one, *map(function_digest, itertools.repeat(module.odd, 2))}) == 2
