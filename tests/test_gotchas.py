"""What is said to go wrong in parallel Python, one by one; see `doc/howto/gotchas.md`.

Others have files of their own: open files and sockets `test_open_files`, Ctrl-C `test_interrupts`,
exceptions of every kind `test_errors`, functions of every kind `test_functions`.
"""

from __future__ import annotations

import functools
import operator
from itertools import starmap
from pathlib import Path

import programs
import pytest

from parallel_core import Parallel, delayed


def test_the_worked_example_of_a_script_without_a_guard(tmp_path: Path) -> None:
    text = """
        from functools import partial

        def worker_fn(changing_stuff, const_value):
            a, b = changing_stuff
            return (a + b) * const_value

        avalues = range(20)
        bvalues = range(100, 120)
        const = 100
        expected = [(a + b) * const for a, b in zip(avalues, bvalues)]

        fn = partial(worker_fn, const_value=const)
        print(Parallel(2)(delayed(fn)(pair) for pair in zip(avalues, bvalues)) == expected)

        # None of the five steps is needed.
        def combine(a, b):
            return (a + b) * const

        print(Parallel(2)(delayed(combine)(a, b) for a, b in zip(avalues, bvalues)) == expected)
    """
    assert programs.run(tmp_path, text) == "True\nTrue\n"


def test_methods_of_classes_of_a_script(tmp_path: Path) -> None:
    text = """
        class Model:
            scale = 10

            def __init__(self, offset):
                self.offset = offset
                self.calls = 0

            def predict(self, x):
                self.calls += 1
                return self.scale * x + self.offset, self.calls

            @classmethod
            def scaled(cls, x):
                return cls.scale * x

            @staticmethod
            def squared(x):
                return x * x

            def __call__(self, x):
                return self.predict(x)[0]

        class Slotted(Model):
            __slots__ = ("extra",)

            def __init__(self, offset, extra):
                super().__init__(offset)
                self.extra = extra

            def predict(self, x):
                return super().predict(x)[0] + self.extra

        model, slotted = Model(1), Slotted(1, 100)
        with Parallel(2) as parallel:
            print(parallel(delayed(model.predict)(x) for x in range(3)), model.calls)
            model.offset = 5
            print(parallel(delayed(model.predict)(x) for x in range(3)))
            print(parallel(delayed(slotted.predict)(x) for x in range(3)))
            print(parallel(delayed(call)(4) for call in (Model.scaled, model.squared, model)))
            print(parallel([delayed(Model.predict)(model, 1), delayed(str.upper)("a")]))
            print(type(parallel([delayed(Model)(7)])[0]) is Model)
    """
    assert programs.run(tmp_path, text).splitlines() == [
        "[(1, 1), (11, 1), (21, 1)] 0",
        "[(5, 1), (15, 1), (25, 1)]",
        "[101, 111, 121]",
        "[40, 16, 45]",
        "[(15, 1), 'A']",
        "True",
    ]


class TooCold(Exception):
    def __init__(self, place: str, degrees: float) -> None:
        super().__init__(f"{degrees} in {place}")
        self.place = place
        self.degrees = degrees


def measure(place: str, degrees: float) -> float:
    if degrees < 0:
        raise TooCold(place, degrees)
    return degrees


@pytest.mark.core
def test_exceptions_are_caught_as_in_a_loop() -> None:
    places = [("here", 20.0), ("there", -3.0)]
    with pytest.raises(TooCold) as in_a_loop:
        list(starmap(measure, places))
    with pytest.raises(TooCold) as in_parallel:
        Parallel(2)(delayed(measure)(*place) for place in places)
    assert in_parallel.value.args == in_a_loop.value.args
    assert vars(in_parallel.value).items() >= vars(in_a_loop.value).items()
    assert "raise TooCold" in str(in_parallel.value.__cause__)
    returned = Parallel(2, on_error="return")(delayed(measure)(*place) for place in places)
    assert returned[0] == 20.0
    assert isinstance(returned[1], TooCold)


def test_partials_of_anything() -> None:
    add = functools.partial(lambda a, b, c=0: (a, b, c), 1)
    nested = functools.partial(functools.partial(add, 2), c=3)
    by_object = functools.partial(Multiplier(3).times, again=2)
    with Parallel(2) as parallel:
        assert parallel([delayed(add)(2), delayed(add)(2, c=4)]) == [(1, 2, 0), (1, 2, 4)]
        assert parallel([delayed(nested)(), delayed(nested)(c=9)]) == [(1, 2, 3), (1, 2, 9)]
        assert parallel(delayed(by_object)(x) for x in range(3)) == [0, 6, 12]
        assert parallel(delayed(functools.partial(pow, x))(2) for x in range(3)) == [0, 1, 4]


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, x: int, again: int = 1) -> int:
        return x * self.factor * again


def test_several_arguments_that_vary() -> None:
    pairs = list(zip(range(5), range(100, 105), strict=True))
    named = [{"base": "11", "to": 2}, {"base": "11", "to": 16}]
    with Parallel(2) as parallel:
        assert parallel(delayed(operator.add)(a, b) for a, b in pairs) == [a + b for a, b in pairs]
        assert parallel(delayed(operator.add)(*pair) for pair in pairs) == [a + b for a, b in pairs]
        assert parallel(delayed(parse)(**options) for options in named) == [3, 17]
        assert parallel(
            delayed(parse)(text, to=base) for text in ("1", "10") for base in (2, 8)
        ) == [1, 1, 2, 8]


def parse(base: str, to: int) -> int:
    return int(base, to)
