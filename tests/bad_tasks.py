"""Tasks, values and initializers that go wrong; imported by workers in no time."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any


def plus_one(x: Any) -> Any:
    return x + 1


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ArithmeticError("not me")


class DoesNotLoad:
    def __reduce__(self) -> Any:
        return fail_to_load, (os.getpid(),)


def fail_to_load(pid: int) -> Any:
    raise ArithmeticError("nor back")


def returns_unpicklable(i: int) -> Any:
    return Unpicklable() if i == 3 else i


def returns_nested(i: int) -> Any:
    return {"deep": [1, Holder(lock=threading.Lock())]} if i == 3 else i


def returns_what_does_not_load(i: int) -> Any:
    return DoesNotLoad() if i == 3 else i


def leaves(i: int, code: Any) -> int:
    if i == 3:
        sys.exit(code)
    return i


def raises(i: int, error: BaseException) -> int:
    if i == 3:
        raise error
    return i


def broken_initializer(*args: Any) -> None:
    raise FileNotFoundError(2, "no settings", "here.toml")


def leaving_initializer() -> None:
    sys.exit(4)


def needs_two(a: int, b: int) -> None:
    del a, b


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)
