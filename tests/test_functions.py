"""Functions from anywhere: closures, methods, scripts, notebooks, modules that were reloaded."""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import operator
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from programs import environment, kernel

from parallel_core import Parallel, delayed
from parallel_core.serialization.capture import Capture
from parallel_core.serialization.lasting import SentFunctions
from watching import LIMIT

pytestmark = pytest.mark.warm_workers


class Scripts:
    """Runs text as somebody's script; what it prints on stderr is a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str, *arguments: str) -> str:
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(text))
        return self.run([str(path), *arguments])

    def through_stdin(self, text: str) -> str:
        return self.run(["-"], textwrap.dedent(text))

    def run(self, arguments: list[str], given: str = "") -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture
def script(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder from which modules can be imported, and forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


_versions = itertools.count()


def write(path: Path, text: str) -> None:
    """Write a module, in a way that no earlier bytecode of it passes for current."""
    path.write_text(textwrap.dedent(text) + "\n" * next(_versions))
    importlib.invalidate_caches()


def imported(name: str) -> ModuleType:
    return importlib.import_module(name)


# --- functions that have no name in any module ----------------------------------------------------


@pytest.mark.core
def test_lambda() -> None:
    assert Parallel(2)(delayed(lambda x: x + 1)(x) for x in range(5)) == [1, 2, 3, 4, 5]


@pytest.mark.core
def test_closure_and_function_within_a_closure() -> None:
    def adder(n: int) -> Callable[[int], int]:
        def add(x: int) -> int:
            return inner(x)

        def inner(x: int) -> int:
            return x + n

        return add

    assert Parallel(2)(delayed(adder(n))(10) for n in range(6)) == [10 + n for n in range(6)]


@pytest.mark.core
def test_each_task_may_have_a_function_of_its_own() -> None:
    functions = [lambda x, n=n: (n, x) for n in range(700)]
    results = Parallel(2)(delayed(function)(-1) for function in functions)
    assert results == [(n, -1) for n in range(700)]


@pytest.mark.parametrize("batch_size", [1, 3, "auto", 1000])
def test_a_cell_is_read_when_the_task_is_yielded(batch_size: int | str) -> None:
    value: Any = 0

    def read() -> Any:
        return value

    def tasks() -> Any:
        nonlocal value
        for value in (0, 1, "two", None, [4], 1):  # noqa: B007 - `read` uses it
            yield delayed(read)()

    assert Parallel(2, batch_size=batch_size)(tasks()) == [0, 1, "two", None, [4], 1]


@pytest.mark.parametrize("batch_size", [1, 3, "auto", 1000])
def test_what_a_cell_holds_is_read_when_the_task_is_yielded(batch_size: int | str) -> None:
    held: list[int] = []

    def read() -> list[int]:
        return held

    def tasks() -> Any:
        for value in range(6):
            held.append(value)
            yield delayed(read)()

    expected = [list(range(n + 1)) for n in range(6)]
    assert Parallel(2, batch_size=batch_size)(tasks()) == expected


def test_recursive_closure() -> None:
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * factorial(n - 1)

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    assert Parallel(2)(delayed(factorial)(n) for n in range(6)) == [1, 1, 2, 6, 24, 120]
    assert Parallel(2)(delayed(even)(n) for n in range(4)) == [True, False, True, False]


def test_functions_of_the_standard_library_and_builtins() -> None:
    assert Parallel(2)(delayed(pow)(2, n) for n in range(4)) == [1, 2, 4, 8]
    assert Parallel(2)(delayed(operator.neg)(n) for n in range(3)) == [0, -1, -2]
    assert Parallel(2)(delayed(dict)(a=n) for n in range(2)) == [{"a": 0}, {"a": 1}]
    assert Parallel(2)(delayed(int.from_bytes)(b, "big") for b in (b"\1", b"\2")) == [1, 2]


@pytest.mark.core
def test_methods_of_builtin_values() -> None:
    text, numbers = "a-b-c", [3, 1, 2]
    assert Parallel(2)(delayed(text.split)(sep) for sep in "-b") == [
        ["a", "b", "c"],
        ["a-", "-c"],
    ]
    assert Parallel(2)(delayed(numbers.index)(n) for n in (1, 2)) == [1, 2]
    assert Parallel(2)(delayed(str.upper)(c) for c in "ab") == ["A", "B"]
    assert Parallel(2)(delayed("{}{}".format)(n, n) for n in range(2)) == ["00", "11"]
    assert Parallel(2)(delayed({1: "a"}.get)(n) for n in range(2)) == [None, "a"]


def test_a_method_of_a_value_that_the_generator_changes() -> None:
    items: list[int] = []

    def tasks() -> Any:
        for n in range(5):
            items.append(n)
            yield delayed(items.__len__)()

    assert Parallel(2, batch_size=1000)(tasks()) == [1, 2, 3, 4, 5]


@pytest.mark.core
def test_partials() -> None:
    power = functools.partial(pow, 2)
    shifted = functools.partial(lambda x, by, times=1: (x + by) * times, by=3, times=2)
    assert Parallel(2)(delayed(power)(n) for n in range(4)) == [1, 2, 4, 8]
    assert Parallel(2)(delayed(shifted)(n) for n in range(3)) == [6, 8, 10]
    twice = functools.partial(functools.partial(pow, 3), 2)
    assert Parallel(2)([delayed(twice)(), delayed(twice)(5)]) == [9, 4]


def test_a_partial_whose_argument_the_generator_changes() -> None:
    held: list[int] = []
    measure = functools.partial(lambda values: list(values), held)

    def tasks() -> Any:
        for n in range(4):
            held.append(n)
            yield delayed(measure)()

    assert Parallel(2, batch_size=1000)(tasks()) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_decorated_function_that_is_no_module_attribute() -> None:
    def twice(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return 2 * function(*args, **kwargs)

        return wrapper

    @twice
    def increment(x: int, by: int = 1) -> int:
        return x + by

    assert Parallel(2)(delayed(increment)(x) for x in range(3)) == [2, 4, 6]
    assert Parallel(2)(delayed(increment)(x, by=10) for x in range(3)) == [20, 22, 24]


def test_callable_object_and_methods_of_local_classes() -> None:
    class Scale:
        unit = 10

        class Inner:
            def give(self) -> str:
                return "inner"

        def __init__(self, factor: int) -> None:
            self.factor = factor

        def __call__(self, x: int) -> int:
            return self.factor * x

        def method(self, x: int) -> int:
            return self(x) + self.unit

        @staticmethod
        def static(x: int) -> int:
            return -x

        @classmethod
        def of_class(cls, x: int) -> int:
            return cls.unit + x

        @property
        def double(self) -> int:
            return 2 * self.factor

    scale = Scale(3)
    assert Parallel(2)(delayed(scale)(x) for x in range(3)) == [0, 3, 6]
    assert Parallel(2)(delayed(scale.method)(x) for x in range(3)) == [10, 13, 16]
    assert Parallel(2)(delayed(Scale.static)(x) for x in range(3)) == [0, -1, -2]
    assert Parallel(2)(delayed(Scale.of_class)(x) for x in range(3)) == [10, 11, 12]
    assert Parallel(2)(delayed(Scale.Inner().give)() for _ in range(2)) == ["inner"] * 2
    made = Parallel(2)(delayed(Scale)(x) for x in range(2))
    assert all(type(one) is Scale for one in made)
    assert [one.double for one in made] == [0, 2]
    assert type(Parallel(2)([delayed(Scale.Inner)()])[0]) is Scale.Inner


def test_super_and_inheritance_by_value() -> None:
    class Base:
        def value(self) -> int:
            return 1

    class Derived(Base):
        def value(self) -> int:
            return super().value() + 1

        def parent(self) -> Base:
            return Base()

    results = Parallel(2)(delayed(one.value)() for one in (Base(), Derived()))
    assert results == [1, 2]
    (back,) = Parallel(2)([delayed(Derived().parent)()])
    assert type(back) is Base


def test_classes_that_refer_to_each_other() -> None:
    class Left:
        def other(self) -> Any:
            return Right()

    class Right:
        def other(self) -> Any:
            return Left()

    results = Parallel(2)(delayed(one.other)() for one in (Left(), Right(), Left()))
    assert [type(one) for one in results] == [Right, Left, Right]
    results = Parallel(2)(delayed(lambda one: one.other().other())(one) for one in results)
    assert [type(one) for one in results] == [Right, Left, Right]


def test_numpy_ufuncs_and_functions() -> None:
    np = pytest.importorskip("numpy")
    assert Parallel(2)(delayed(np.add)(x, 1) for x in range(3)) == [1, 2, 3]
    assert Parallel(2)(delayed(np.add.reduce)([x, 1]) for x in range(3)) == [1, 2, 3]
    assert Parallel(2)(delayed(np.linalg.norm)([3.0, x]) for x in (4.0, 0.0)) == [5.0, 3.0]
    assert Parallel(2)(delayed(np.float64)(x) for x in ("1", "2")) == [1.0, 2.0]
    generator = np.vectorize(lambda x: x + 1)
    assert [list(r) for r in Parallel(2)(delayed(generator)([x]) for x in range(2))] == [[1], [2]]


# --- attributes of functions and classes that tasks use -------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_class_attribute_is_read_when_the_task_is_yielded(n_jobs: int) -> None:
    class Settings:
        level = 0

    def read() -> int:
        return Settings.level

    def tasks() -> Any:
        for Settings.level in range(5):
            yield delayed(read)()

    assert Parallel(n_jobs)(tasks()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_method_set_on_a_class_between_two_tasks(n_jobs: int) -> None:
    class Worker:
        def work(self) -> int:
            return 0

    def tasks() -> Any:
        yield delayed(Worker().work)()
        Worker.work = lambda self: 1  # type: ignore[method-assign]  # the point of the test
        yield delayed(Worker().work)()

    assert Parallel(n_jobs)(tasks()) == [0, 1]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_function_attribute_is_read_when_the_task_is_yielded(n_jobs: int) -> None:
    def read() -> int:
        return read.level  # type: ignore[attr-defined]  # the point of the test

    def tasks() -> Any:
        for read.level in range(5):  # type: ignore[attr-defined]  # as above
            yield delayed(read)()

    assert Parallel(n_jobs)(tasks()) == [0, 1, 2, 3, 4]


def test_a_class_attribute_that_a_task_rebinds_does_not_reach_the_next_task() -> None:
    class Counter:
        count = 0

    def count() -> int:
        Counter.count += 1
        return Counter.count

    assert Parallel(2, batch_size=10)(delayed(count)() for _ in range(20)) == [1] * 20
    assert Counter.count == 0


def test_a_mutable_class_attribute_does_not_reach_the_next_task() -> None:
    class Registry:
        seen: list[int] = []  # noqa: RUF012 - what people write

        def note(self, x: int) -> int:
            self.seen.append(x)
            return len(self.seen)

    registry = Registry()
    assert Parallel(2, batch_size=10)(delayed(registry.note)(x) for x in range(20)) == [1] * 20
    assert Registry.seen == []


def test_a_mutable_default_does_not_reach_the_next_task() -> None:
    def collect(x: int, into: list[int] = []) -> list[int]:  # noqa: B006 - what people write
        into.append(x)
        return into

    expected = [[x] for x in range(20)]
    assert Parallel(2, batch_size=10)(delayed(collect)(x) for x in range(20)) == expected


def test_a_cell_that_a_task_fills_does_not_reach_the_next_task() -> None:
    cache: dict[int, int] = {}

    def remember(x: int) -> int:
        cache[x] = x
        return len(cache)

    assert Parallel(2, batch_size=10)(delayed(remember)(x) for x in range(20)) == [1] * 20
    assert cache == {}


# --- scripts --------------------------------------------------------------------------------------

EVERYTHING = """
    import collections
    import dataclasses
    import enum
    import functools
    import sys
    import typing
    from parallel_core import Parallel, delayed

    SCALE = 3
    TABLE = {"one": 1}

    class Colour(enum.Enum):
        RED = 1
        BLUE = 2

    class Level(enum.IntEnum):
        LOW = 1

    class Flags(enum.Flag):
        A = enum.auto()
        B = enum.auto()

    Point = collections.namedtuple("Point", "x y")

    class Pair(typing.NamedTuple):
        left: int
        right: int = 0

    @dataclasses.dataclass
    class Record:
        n: int
        tags: list = dataclasses.field(default_factory=list)

    @dataclasses.dataclass(frozen=True)
    class Frozen:
        n: int

    class Outer:
        class Inner:
            class Innermost:
                def __init__(self, n):
                    self.n = n

                def bump(self):
                    return type(self)(self.n + 1)

    class Node:
        def __init__(self, depth):
            self.child = Node(depth - 1) if depth else None

        def depth(self):
            return 0 if self.child is None else 1 + self.child.depth()

        def __getstate__(self):
            return {"child": self.child}

    class Odd(ValueError):
        def __init__(self, n, why):
            super().__init__(f"{n}: {why}")
            self.n = n

    def twice(function):
        @functools.wraps(function)
        def wrapper(*args):
            return 2 * function(*args)
        return wrapper

    @twice
    def scaled(x):
        return SCALE * x

    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    def look(x):
        return TABLE["one"] + helper(x)

    def helper(x):
        return x

    def same(x):
        return x

    def is_red(colour):
        return colour is Colour.RED

    def other(colour):
        return Colour.BLUE if colour is Colour.RED else Colour.RED

    def record(n):
        return Record(n, [n])

    def grow(value):
        value.n += 1
        return value

    def refuse(n):
        raise Odd(n, "odd")

    def check(backend=None):
        options = dict(n_jobs=2, backend=backend)
        run = Parallel(**options)
        assert run(delayed(scaled)(x) for x in range(3)) == [0, 6, 12]
        assert run(delayed(factorial)(x) for x in range(5)) == [1, 1, 2, 6, 24]
        assert run(delayed(look)(x) for x in range(3)) == [1, 2, 3]
        assert run(delayed(lambda x: look(x) + SCALE)(x) for x in range(3)) == [4, 5, 6]
        assert run(delayed(is_red)(c) for c in Colour) == [True, False]
        for a, b in zip(run(delayed(other)(c) for c in Colour), (Colour.BLUE, Colour.RED)):
            assert a is b
        assert run([delayed(same)(Level.LOW)])[0] is Level.LOW
        assert run([delayed(same)(Flags.A | Flags.B)]) == [Flags.A | Flags.B]
        assert run([delayed(same)({Colour.RED: [Colour.BLUE]})]) == [{Colour.RED: [Colour.BLUE]}]
        points = run(delayed(Point)(x, y=2) for x in range(2))
        assert points == [Point(0, 2), Point(1, 2)] and type(points[0]) is Point
        pairs = run(delayed(same)(Pair(x)) for x in range(2))
        assert type(pairs[0]) is Pair and pairs[1].left == 1
        records = run(delayed(record)(x) for x in range(3))
        assert records == [Record(x, [x]) for x in range(3)]
        assert all(isinstance(one, Record) for one in records)
        assert run(delayed(grow)(one) for one in records) == [Record(x + 1, [x]) for x in range(3)]
        assert records[0].n == 0
        assert run([delayed(same)(Frozen(1))]) == [Frozen(1)]
        inner = run(delayed(Outer.Inner.Innermost(x).bump)() for x in range(2))
        assert [one.n for one in inner] == [1, 2]
        assert all(type(one) is Outer.Inner.Innermost for one in inner)
        (node,) = run([delayed(same)(Node(5))])
        assert type(node.child.child) is Node and node.depth() == 5
        try:
            run(delayed(refuse)(x) for x in (1, 2))
        except Odd as error:
            assert error.n in (1, 2) and str(error) == f"{error.n}: odd", error
        else:
            raise AssertionError("nothing raised")
"""


@pytest.mark.core
def test_a_script_without_a_guard(script: Scripts) -> None:
    assert script(EVERYTHING + "\n    check()\n    print('good')") == "good\n"


@pytest.mark.core
def test_a_script_through_standard_input(script: Scripts) -> None:
    assert script.through_stdin(EVERYTHING + "\n    check()\n    print('good')") == "good\n"


def test_a_script_given_on_the_command_line(script: Scripts) -> None:
    text = """
        from parallel_core import Parallel, delayed
        f = lambda x: x + offset
        offset = 5
        print(Parallel(2)(delayed(f)(x) for x in range(3)))
    """
    assert script.run(["-c", textwrap.dedent(text)]) == "[5, 6, 7]\n"


def test_a_module_run_as_a_script(script: Scripts) -> None:
    package = script.folder / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("def double(x):\n    return 2 * x\n")
    (package / "run.py").write_text(
        textwrap.dedent("""
            from parallel_core import Parallel, delayed
            from .other import double

            def f(x):
                return double(x) + 1

            print(Parallel(2)(delayed(f)(x) for x in range(3)))
        """)
    )
    assert script.run(["-m", "package.run"]) == "[1, 3, 5]\n"


def test_workers_of_a_strict_interpreter_say_nothing(script: Scripts) -> None:
    (script.folder / "strict.py").write_text(
        "from parallel_core import Parallel, delayed\n"
        "print(Parallel(2)(delayed(lambda x: -x)(x) for x in range(3)))\n"
    )
    assert script.run(["-X", "dev", "-W", "error", "strict.py"]) == "[0, -1, -2]\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_script_with_a_guard_and_a_context(script: Scripts, method: str) -> None:
    text = (
        EVERYTHING
        + f"""
    if __name__ == "__main__":
        import multiprocessing
        check(multiprocessing.get_context({method!r}))
        print("good")
    """
    )
    assert script(text) == "good\n"


def test_a_script_with_loky(script: Scripts) -> None:
    text = (
        EVERYTHING
        + """
    if __name__ == "__main__":
        check("loky")
        print("good")
    """
    )
    assert script(text) == "good\n"


def test_a_script_that_chooses_multiprocessing_through_standard_input(script: Scripts) -> None:
    text = EVERYTHING + "\n    check('multiprocessing')\n    print('good')"
    assert script.through_stdin(text) == "good\n"


@pytest.mark.parametrize(
    "name", ["functools.lru_cache", "functools.cache", "functools.lru_cache()"]
)
def test_a_cached_function_of_a_script(script: Scripts, name: str) -> None:
    text = f"""
        import functools
        from parallel_core import Parallel, delayed

        @{name}
        def square(x):
            return x * x

        def use(x):
            return square(x) + 1

        print(Parallel(2)(delayed(use)(x) for x in range(3)))
        print(Parallel(2)(delayed(square)(x) for x in range(3)))
    """
    assert script(text) == "[1, 2, 5]\n[0, 1, 4]\n"


def test_slots_of_a_script(script: Scripts) -> None:
    text = """
        import dataclasses
        from parallel_core import Parallel, delayed

        @dataclasses.dataclass(slots=True)
        class Record:
            n: int

        @dataclasses.dataclass(slots=True, frozen=True)
        class Frozen:
            n: int

        class Plain:
            __slots__ = ("n",)

            def __init__(self, n):
                self.n = n

        class Derived(Plain):
            __slots__ = ("m",)

        def grow(value):
            return type(value)(value.n + 1)

        for cls in (Record, Frozen, Plain, Derived):
            (back,) = Parallel(2)([delayed(grow)(cls(1))])
            assert type(back) is cls and back.n == 2
        (strict,) = Parallel(2)([delayed(hasattr)(Plain(1), "__dict__")])
        assert not strict
    """
    script(text)


def test_cached_properties_of_a_script(script: Scripts) -> None:
    text = """
        import functools
        from parallel_core import Parallel, delayed

        class Square:
            def __init__(self, side):
                self.side = side

            @functools.cached_property
            def double(self):
                return 2 * self.side

            def use(self):
                return self.double, self.double

        squares = Parallel(2)(delayed(Square)(x) for x in (1, 2))
        assert [square.double for square in squares] == [2, 4]
        assert Parallel(2)(delayed(square.use)() for square in squares) == [(2, 2), (4, 4)]
    """
    script(text)


def test_abstract_classes_of_a_script(script: Scripts) -> None:
    text = """
        import abc
        from parallel_core import Parallel, delayed

        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...

        class Square(Shape):
            def __init__(self, side):
                self.side = side

            def area(self):
                return self.side ** 2

        squares = Parallel(2)(delayed(Square)(x) for x in (1, 2))
        print(Parallel(2)(delayed(square.area)() for square in squares))
        print([isinstance(square, Shape) for square in squares])
    """
    assert script(text) == "[1, 4]\n[True, True]\n"


@pytest.mark.core
@pytest.mark.parametrize("batch_size", ["1", "3", "'auto'", "1000"])
def test_globals_of_a_script_are_read_when_the_task_is_yielded(
    script: Scripts, batch_size: str
) -> None:
    text = f"""
        from parallel_core import Parallel, delayed

        number, table, items = 0, {{}}, []

        class Config:
            def __init__(self):
                self.value = -1

        config = Config()

        def read():
            return number, dict(table), list(items), config.value

        def deep():
            return (lambda: [helper() for _ in range(1)])()

        def helper():
            return number

        def tasks(function):
            global number
            for number in range(4):
                table[number] = number
                items.append(number)
                config.value = number
                yield delayed(function)()

        for n_jobs in (1, 2, 3):
            table.clear()
            items.clear()
            got = Parallel(n_jobs, batch_size={batch_size})(tasks(read))
            want = [
                (n, {{k: k for k in range(n + 1)}}, list(range(n + 1)), n) for n in range(4)
            ]
            assert got == want, got
            got = Parallel(n_jobs, batch_size={batch_size})(tasks(deep))
            assert got == [[0], [1], [2], [3]], got
        number = "changed"
        assert Parallel(2)([delayed(helper)()]) == ["changed"]

        def helper():
            return "another function of that name"

        assert Parallel(2)([delayed(deep)()]) == [["another function of that name"]]
    """
    script(text)


def test_tasks_cannot_talk_through_globals_of_a_script(script: Scripts) -> None:
    text = """
        import collections
        from parallel_core import Parallel, delayed

        table, items, counts, nested = {}, [], collections.Counter(), ([],)

        class Box:
            def __init__(self):
                self.content = []

        box = Box()

        def mutate(x):
            table[x] = x
            items.append(x)
            counts["tasks"] += 1
            nested[0].append(x)
            box.content.append(x)
            return len(table), len(items), counts["tasks"], len(nested[0]), len(box.content)

        for n_jobs in (2, 3):
            for batch_size in (1, 4, 1000, "auto"):
                for argument in (1, [1]):
                    got = Parallel(n_jobs, batch_size=batch_size)(
                        delayed(mutate)(1 if argument == 1 else (1, 2)) for x in range(12)
                    )
                    assert got == [(1, 1, 1, 1, 1)] * 12, got
        assert not (table or items or counts or nested[0] or box.content)
    """
    script(text)


def test_a_worker_keeps_globals_assigned_by_a_global_statement(script: Scripts) -> None:
    text = """
        from parallel_core import Parallel, delayed

        model = None

        def load(value):
            global model
            model = value

        def use(x):
            return model + x

        run = Parallel(2, initializer=load, initargs=(10,))
        assert run(delayed(use)(x) for x in range(4)) == [10, 11, 12, 13]
        assert run(delayed(use)(x) for x in range(4)) == [10, 11, 12, 13]
        assert model is None
    """
    script(text)


def test_a_function_and_a_class_defined_again_between_two_calls(script: Scripts) -> None:
    text = """
        from parallel_core import Parallel, delayed

        for version in (1, 2, 3):
            class Thing:
                number = version

                def get(self):
                    return self.number, helper()

            def helper():
                return 10 * Thing.number

            def f(thing):
                assert isinstance(thing, Thing)
                return thing.get(), Thing()

            (values, thing), = Parallel(2)([delayed(f)(Thing())])
            assert values == (version, 10 * version), values
            assert type(thing) is Thing
    """
    script(text)


def test_an_instance_of_an_older_class_of_that_name(script: Scripts) -> None:
    text = """
        from parallel_core import Parallel, delayed

        def make(version):
            class Thing:
                number = version
            return Thing

        Old, New = make("old"), make("new")

        def f(a, b):
            return a.number, b.number, type(a) is type(b), a, b

        for first, second in ((Old, New), (New, Old)):
            (one, other, alike, a, b), = Parallel(2)([delayed(f)(first(), second())])
            assert (one, other, alike) == (first.number, second.number, False)
            assert type(a) is first and type(b) is second
    """
    script(text)


def test_a_script_that_imports_a_module_beside_it(script: Scripts) -> None:
    (script.folder / "beside.py").write_text(
        "class Thing:\n    pass\ndef f(x):\n    return x, Thing()\n"
    )
    text = """
        import beside
        from parallel_core import Parallel, delayed
        results = Parallel(2)(delayed(beside.f)(x) for x in range(2))
        assert [x for x, _ in results] == [0, 1]
        assert all(type(thing) is beside.Thing for _, thing in results)
    """
    script(text)


def test_names_that_the_worker_has_in_its_own_main(script: Scripts) -> None:
    text = """
        from parallel_core import Parallel, delayed

        class boot:
            def __init__(self, n):
                self.n = n

        def main(x):
            return boot(x)

        back = Parallel(2)(delayed(main)(x) for x in range(3))
        assert [one.n for one in back] == [0, 1, 2]
        assert all(type(one) is boot for one in back)
    """
    script(text)


# --- a notebook -----------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_cells_of_a_notebook(tmp_path: Path) -> None:
    cells = [
        "from parallel_core import Parallel, delayed\nimport dataclasses",
        "offset = 1\ndef f(x):\n    return x + offset",
        "print(Parallel(2)(delayed(f)(x) for x in range(3)))",
        "offset = 10\nprint(Parallel(2)(delayed(f)(x) for x in range(3)))",
        "def f(x):\n    return -x",
        "print(Parallel(2)(delayed(f)(x) for x in range(3)))",
        "@dataclasses.dataclass\nclass Thing:\n    n: int",
        "things = Parallel(2)(delayed(Thing)(x) for x in range(2))\n"
        "print(things, type(things[0]) is Thing)",
        "run = Parallel(2, return_as='generator')\n"
        "print(list(run(delayed(lambda t: t.n)(t) for t in things)))",
        "def g():\n    raise KeyError('from a cell')",
        "try:\n    Parallel(2)([delayed(g)()])\n"
        "except KeyError as error:\n    print(error, 'in g' in str(error.__cause__))",
    ]
    output: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            output.append(content["text"])
        elif message["msg_type"] == "error":
            output.append("\n".join(content["traceback"]))

    with kernel(tmp_path) as execute:
        for cell in cells:
            execute(cell, hear)
    assert "".join(output).splitlines() == [
        "[1, 2, 3]",
        "[10, 11, 12]",
        "[0, -1, -2]",
        "[Thing(n=0), Thing(n=1)] True",
        "[0, 1]",
        "'from a cell' True",
    ]


# --- modules that were edited ---------------------------------------------------------------------


@pytest.mark.core
def test_a_reloaded_module_is_not_run_in_its_old_form(on_path: Path) -> None:
    write(on_path / "edited.py", "def f(x):\n    return x, 'first'")
    module: Any = imported("edited")
    assert Parallel(2)(delayed(module.f)(x) for x in range(4)) == [(x, "first") for x in range(4)]
    write(on_path / "edited.py", "def f(x):\n    return x, 'second form'")
    importlib.reload(module)
    expected = [(x, "second form") for x in range(4)]
    assert Parallel(2)(delayed(module.f)(x) for x in range(4)) == expected


def test_a_module_imported_again_is_not_run_in_its_old_form(on_path: Path) -> None:
    form = "class Thing:\n    form = {!r}\ndef f():\n    return Thing()"
    write(on_path / "again.py", form.format("first"))
    module: Any = imported("again")
    old = module.f
    assert Parallel(2)([delayed(old)()])[0].form == "first"
    write(on_path / "again.py", form.format("second form"))
    del sys.modules["again"]
    new: Any = imported("again")
    (thing,) = Parallel(2)([delayed(new.f)()])
    assert thing.form == "second form"
    assert type(thing) is new.Thing
    assert Parallel(2)([delayed(lambda: old().form)()]) == ["first"]


def test_a_module_used_by_the_edited_one_and_by_arguments(on_path: Path) -> None:
    form = "class Thing:\n    def form(self):\n        return {!r}"
    write(on_path / "below.py", form.format("first"))
    write(on_path / "above.py", "import below\ndef f(thing):\n    return thing.form()")
    above: Any = imported("above")
    assert Parallel(2)([delayed(above.f)(above.below.Thing())]) == ["first"]
    write(on_path / "below.py", form.format("the second form"))
    importlib.reload(above.below)
    assert Parallel(2)([delayed(above.f)(above.below.Thing())]) == ["the second form"]


@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_a_module_reloaded_within_a_with_block(on_path: Path, backend: str) -> None:
    write(on_path / "within.py", "def f():\n    return 'first'")
    module: Any = imported("within")
    with Parallel(2, backend=backend) as parallel:
        assert parallel([delayed(module.f)()] * 4) == ["first"] * 4
        write(on_path / "within.py", "def f():\n    return 'the second form'")
        importlib.reload(module)
        assert parallel([delayed(module.f)()] * 4) == ["the second form"] * 4


def test_a_new_module_does_not_cost_the_warm_workers(on_path: Path) -> None:
    write(on_path / "early.py", "import os\ndef f():\n    return os.getpid()")
    module: Any = imported("early")
    before = set(Parallel(2)([delayed(module.f)()] * 8))
    write(on_path / "late.py", "import os\ndef f():\n    return os.getpid()")
    after = set(Parallel(2)([delayed(imported("late").f)()] * 8))
    assert before & after


def test_functions_of_modules_registered_by_value(
    on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    write(
        on_path / "registered.py",
        "offset = 1\nclass Thing:\n    pass\ndef f(x):\n    return x + offset\n"
        "def g(thing):\n    return isinstance(thing, Thing), thing",
    )
    module: Any = imported("registered")
    assert Parallel(2)(delayed(module.f)(x) for x in range(3)) == [1, 2, 3]
    cloudpickle.register_pickle_by_value(module)
    try:
        monkeypatch.setattr(module, "offset", 100)
        assert Parallel(2)(delayed(module.f)(x) for x in range(3)) == [100, 101, 102]
        (found,) = Parallel(2)([delayed(module.g)(module.Thing())])
        assert found[0] is True
        assert type(found[1]) is module.Thing
        (called,) = Parallel(2)([delayed(lambda function: function(1))(module.f)])
        assert called == 101
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert Parallel(2)(delayed(module.f)(x) for x in range(3)) == [1, 2, 3]


def test_a_module_without_a_file_registered_by_value() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    module = ModuleType("made_up")
    exec("y = 5\ndef f(x):\n    return x + y\nclass Thing:\n    pass", module.__dict__)
    sys.modules["made_up"] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        assert Parallel(2)(delayed(module.f)(x) for x in range(3)) == [5, 6, 7]
        (thing,) = Parallel(2)([delayed(module.Thing)()])
        assert type(thing) is module.Thing
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["made_up"]


def test_a_function_whose_name_in_its_module_is_another_function(on_path: Path) -> None:
    write(
        on_path / "shadowed.py",
        "import functools\n"
        "def deco(f):\n"
        "    @functools.wraps(f)\n"
        "    def inner(x):\n"
        "        return ('decorated', f(x))\n"
        "    return inner\n"
        "@deco\n"
        "def f(x):\n"
        "    return x\n",
    )
    module: Any = imported("shadowed")
    assert Parallel(2)([delayed(module.f)(1)]) == [("decorated", 1)]
    assert Parallel(2)([delayed(module.f.__wrapped__)(1)]) == [1]


# --- functions that workers keep from one call to the next ----------------------------------------


def in_main(source: str, **names: Any) -> dict[str, Any]:
    """Return the globals of `source` as a script that was run: its functions go by value."""
    namespace = {"__name__": "__main__", "__builtins__": __builtins__, **names}
    exec(compile(source, "script", "exec", dont_inherit=True), namespace)
    return namespace


def of_one_worker(function: Callable[..., Any], calls: int = 3) -> list[Any]:
    """Return the results of one task in each of some calls, all in one worker."""
    parallel = Parallel(1, backend="processes", timeout=LIMIT)
    return [parallel([delayed(function)(0)])[0] for _ in range(calls)]


def test_a_function_is_loaded_once_a_worker() -> None:
    source = "import os, sys\ndef code(_): return os.getpid(), id(sys._getframe().f_code)"
    found = set(of_one_worker(in_main(source)["code"], calls=5))
    assert len({pid for pid, _ in found}) == len(found) <= 2


def test_a_function_that_has_changed_is_sent_again() -> None:
    names = in_main("def scale(x, by=1): return x * factor * by", factor=2)
    scale = names["scale"]

    def scaled() -> list[int]:
        return Parallel(2)(delayed(scale)(n) for n in (1, 2, 3))

    assert scaled() == scaled() == [2, 4, 6]
    names["factor"] = 3
    assert scaled() == [3, 6, 9]
    scale.__defaults__ = (10,)
    assert scaled() == [30, 60, 90]
    scale.__code__ = (lambda x, by=1: -x).__code__
    assert scaled() == [-1, -2, -3]
    del names["factor"]
    assert scaled() == [-1, -2, -3]


CHANGING = """
def stored(_):
    global count
    count += 1
    return count
def by_name(_):
    globals()["count"] = globals().get("count", 0) + 1
    return count
def attribute(_):
    attribute.calls = getattr(attribute, "calls", 0) + 1
    return attribute.calls
def default(_, seen=[]):
    seen.append(1)
    return len(seen)
"""


@pytest.mark.parametrize("name", ["stored", "by_name", "attribute", "default"])
def test_what_a_task_changes_does_not_reach_the_next_call(name: str) -> None:
    assert of_one_worker(in_main(CHANGING, count=0)[name]) == [1, 1, 1]


def test_a_function_whose_annotation_is_a_class_of_the_script() -> None:
    source = (
        "class Item: pass\ndef made(x: Item) -> Item: return type(x).__name__, made.__annotations__"
    )
    names = in_main(source)
    for _ in range(3):
        ((name, hints),) = Parallel(2)([delayed(names["made"])(names["Item"]())])
        assert name == "Item" and hints["x"] is names["Item"]


def test_functions_that_are_gone_are_kept_no_longer() -> None:
    sent = SentFunctions()
    names = [in_main("def shift(x): return x + by", by=n) for n in range(100)]
    functions = [each["shift"] for each in names]
    captures = [Capture(function, pickle.dumps) for function in functions]
    for function, capture in zip(functions, captures, strict=True):
        sent.keep(function, capture, b"data")
    assert sent.find(functions[0], captures[0]) is None
    assert sent.find(functions[-1], captures[-1]) == b"data"
    assert 0 < len(sent._kept) <= 64
    del functions, function, captures, capture, names
    gc.collect()
    assert not sent._kept
