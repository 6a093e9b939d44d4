"""What functions and classes are made of: their code, and what they use, each by its name.

A function's code counts, and so does that of the functions and classes which it uses from its own
module, or which go by value; what it uses from other modules counts by its name, and so does a
function that was installed. File names, line numbers and annotations do not count, so a function
may move.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import EnumMeta
from types import CellType, FunctionType
from typing import Any, NamedTuple

from parallel_core.serialization.capture import cells_stored, names_loaded, names_stored

MISSING = object()

_NOT_CODE = frozenset(
    {
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__slotnames__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)


class Part(NamedTuple):
    """Something that a function or class is made of."""

    name: str  #: for messages
    value: object  #: `MISSING` where there is none
    look: Callable[[], object]  #: returns the value that it has now


def function_parts(function: FunctionType, own: frozenset[str]) -> Iterator[Part]:
    """Yield what `function` is made of, but for the globals that it, or the user, calls its own."""
    where = function.__qualname__
    code, namespace = function.__code__, function.__globals__
    for name, what in (
        ("__code__", "the code"),
        ("__defaults__", "the defaults"),
        ("__kwdefaults__", "the keyword defaults"),
    ):
        look = functools.partial(getattr, function, name)
        yield Part(f"{what} of {where}", look(), look)
    for name in sorted(names_loaded(code) - names_stored(code) - own):
        yield _item(f"the global {name!r}", namespace, name)
    kept = cells_stored(code)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in kept:
            look = functools.partial(contents, cell)
            yield Part(f"the variable {name!r} around {where}", look(), look)
    yield from _attributes(where, function.__dict__)


def class_parts(cls: type) -> Iterator[Part]:
    """Yield what `cls` is made of."""
    for number, base in enumerate(cls.__bases__):
        yield Part(
            f"base {number} of {cls.__qualname__}", base, functools.partial(_base, cls, number)
        )
    if not isinstance(cls, EnumMeta):
        yield from _attributes(cls.__qualname__, cls.__dict__)
        return
    members: Mapping[str, Any] = cls.__members__  # the rest of the namespace is the machinery's
    for name, member in members.items():
        look = functools.partial(getattr, member, "value")
        yield Part(f"the member {cls.__qualname__}.{name}", look(), look)
    for name, value in sorted(cls.__dict__.items()):
        if isinstance(value, FunctionType) and value.__module__ == cls.__module__:
            yield _item(f"the method {cls.__qualname__}.{name}", cls.__dict__, name)


def _base(cls: type, number: int) -> object:
    return cls.__bases__[number] if number < len(cls.__bases__) else MISSING


def _attributes(where: str, namespace: Mapping[str, Any]) -> Iterator[Part]:
    is_as_long = functools.partial(_has_length, namespace, len(namespace))
    yield Part(f"the attributes of {where}", True, is_as_long)  # for those that are added
    for name in sorted(namespace):
        if name not in _NOT_CODE:
            yield _item(f"the attribute {where}.{name}", namespace, name)


def _has_length(namespace: Mapping[str, Any], length: int) -> bool:
    return len(namespace) == length


def _item(words: str, namespace: Mapping[str, Any], name: str) -> Part:
    look = functools.partial(namespace.get, name, MISSING)
    return Part(words, look(), look)


def contents(cell: CellType) -> object:
    """Return what a cell holds, or `MISSING`."""
    try:
        value: object = cell.cell_contents
    except ValueError:
        return MISSING
    return value


@functools.cache
def is_users(module: str | None) -> bool:
    """Whether a module is somebody's own work: not Python's, not installed, and none of ours."""
    package = (module or "").partition(".")[0]
    path = getattr(sys.modules.get(module or ""), "__file__", None)
    if package in ("memmapping", "parallel_core") or not isinstance(path, str):
        return False
    if not {"site-packages", "dist-packages"}.isdisjoint(path.split(os.sep)):
        return False
    return not path.startswith(os.path.dirname(os.__file__) + os.sep)
