"""Digests by which a task is known again in another program: of values and of functions.

A digest is the same for what is equal, type by type and bit by bit, in any process: it depends on
no hash seed, no identity, no order of a set. It does depend on Python's minor version where code
is concerned, because bytecode does.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Mapping
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from parallel_core.errors import SerializationError
from parallel_core.journal.functions import MISSING, Part
from parallel_core.journal.tokens import encode, hashed
from parallel_core.journal.values import Scope, Walk
from parallel_core.serialization.capture import BY_REFERENCE, SCALARS, refers_by_name
from parallel_core.serialization.pickling import parts_of
from parallel_core.serialization.wrapping import WrappedObject
from parallel_core.tasks.description import function_name, short_repr

_CACHED = 256  # functions whose digests are kept; a generator may yield a new lambda each time
_SHORT = 60  # bytes of values that are told in messages
_A_DAY = 86400.0
#: Values of these types do not change, or what they hold is looked at on its own account.
_SETTLED: tuple[Any, ...] = (
    *(*BY_REFERENCE, BuiltinFunctionType, CodeType, Enum, FunctionType, type, *SCALARS),
    *(staticmethod, classmethod, property, functools.cached_property),
)


def digest(obj: object, name: str = "the object") -> bytes:
    """Return 16 bytes that stand for the value of `obj`, here and in any other process.

    Functions count by their code, classes by their name or, where they go by value, by their code.
    A part that nothing tells from others in another process (a lock, an open file, a generator) is
    a `SerializationError`, which calls the whole `name`.

    >>> digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    try:
        return hashed(Walk().token(obj, Scope.ARGUMENT))
    except Exception as error:
        raise _explained(obj, name, error) from error


def function_digest(function: Callable[..., Any]) -> bytes:
    """Return 16 bytes that stand for what `function` does, as far as its code says.

    They change with its bytecode, its constants and defaults, its closure, and the functions, the
    classes and the plain values that it uses from its own module; not with its place in the file.
    What it uses from other modules counts by its name, and so does a function that was installed: a
    new version of a package does not make another one of it. Globals that it assigns, and what
    `functools.lru_cache` holds, do not count. Bytecode belongs to one minor version of Python.

    >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 1)
    True
    >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 2)
    False
    """
    return FunctionDigests().find(function).digest


class DigestedFunction(NamedTuple):
    """A function, and what tells it from others."""

    digest: bytes
    #: Says whether it still holds; None for what must be looked at each time: objects may change.
    unchanged: Callable[[], bool] | None
    #: What the function is made of: the name of each part, and text that changes with it.
    parts: Mapping[str, str]
    #: Parts that look as if they were made when the program started: times.
    fleeting: list[str]

    def holds(self) -> bool:
        """Whether nothing that is used has changed, as far as that can be told."""
        return self.unchanged is not None and self.unchanged()


class FunctionDigests:
    """The digests of functions, kept as long as nothing that they use has changed.

    The values of `own` globals, which an initializer sets in each worker, do not count.
    """

    def __init__(self, own: frozenset[str] = frozenset()) -> None:
        self._own = own
        self._kept: dict[int, tuple[object, DigestedFunction]] = {}

    def find(self, function: Any) -> DigestedFunction:
        """Return what is known of `function`."""
        kept = self._kept.get(id(function))
        if kept is not None and kept[1].holds():
            return kept[1]
        if isinstance(function, (FunctionType, type)):
            known = _Watch(self._own).look_at(function)
        elif refers_by_name(function) and not isinstance(function, functools._lru_cache_wrapper):
            known = DigestedFunction(digest(function), _always, {}, [])
        else:
            return self._of_object(function)
        self._kept[id(function)] = function, known
        if len(self._kept) > _CACHED:
            del self._kept[next(iter(self._kept))]
        return known

    def _of_object(self, function: Any) -> DigestedFunction:
        """Return what is known of an object: its code, and what that is bound to."""
        name = function_name(function)
        called: object
        if isinstance(function, WrappedObject):
            return self.find(function.wrapped)._replace(unchanged=None)
        if isinstance(function, MethodType):
            called, rest = function.__func__, function.__self__
        elif isinstance(function, functools.partial):
            called = function.func
            rest = (function.args, function.keywords, type(function))
        elif isinstance(function, functools._lru_cache_wrapper):
            called, rest = function.__wrapped__, None
        else:
            called, rest = type(function).__call__, function
            if not isinstance(called, FunctionType):
                return DigestedFunction(digest(function, name), None, {}, [])
        code, bound = self.find(called), digest(rest, name)
        whole = hashed(encode(type(function).__name__) + code.digest + bound)
        parts = {**code.parts, f"the object that {name} is bound to": bound.hex()}
        return DigestedFunction(whole, None, parts, code.fleeting)


class _Watch:
    """Takes note of what a function or class uses; says later whether it has changed.

    What cannot change in place must be the same object; the rest must have the same token.
    """

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self._parts: list[Part] = []
        self._values: list[tuple[object, Scope, bytes]] = []
        self._told: dict[str, list[str]] = {}
        self._fleeting: list[str] = []

    def look_at(self, function: FunctionType | type) -> DigestedFunction:
        """Return what is known of `function`."""
        walk = Walk(self._own, self._note)
        token = walk.function(function)
        parts = {name: ", ".join(dict.fromkeys(texts)) for name, texts in self._told.items()}
        return DigestedFunction(hashed(token), self._unchanged, parts, self._fleeting)

    def _note(self, part: Part, token: bytes, scope: Scope) -> None:
        self._parts.append(part)
        value = part.value
        if not _cannot_change(value):
            self._values.append((value, scope, token))
        if isinstance(value, (FunctionType, type)):
            text = ""  # told by parts of their own
        elif type(value) in SCALARS and len(token) < _SHORT:
            text = short_repr(value)
        else:
            text = hashed(token).hex()
        self._told.setdefault(part.name, []).append(text)
        if is_fleeting(value):
            self._fleeting.append(f"{part.name} = {short_repr(value)}")

    def _unchanged(self) -> bool:
        for part in self._parts:
            if part.look() is not part.value:
                return False
        return all(
            Walk(self._own).token(value, scope) == token for value, scope, token in self._values
        )


def _cannot_change(value: object) -> bool:
    if isinstance(value, (tuple, frozenset)):
        return all(map(_cannot_change, value))
    return value is MISSING or isinstance(value, _SETTLED)


def is_fleeting(value: object) -> bool:
    """Whether `value` is a time of today or so, as a program takes one when it starts.

    >>> is_fleeting(time.time()), is_fleeting(3.14)
    (True, False)
    """
    datetime: Any = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.datetime):
        return bool(abs((datetime.datetime.now(value.tzinfo) - value).total_seconds()) < _A_DAY)
    if not isinstance(value, (int, float)) or not 0 < value < 1e19:
        return False
    seconds = value if value < 1e18 else value / 1e9  # of time_ns
    return abs(seconds - time.time()) < _A_DAY


def _always() -> bool:
    return True


def _explained(obj: object, name: str, error: Exception) -> SerializationError:
    """Return the error that names the part at fault as its owner would."""
    if isinstance(error, RecursionError):
        return SerializationError(f"{name} is nested too deeply to be told from others")
    fault, path = obj, name
    while True:
        for step, part in parts_of(fault):
            try:
                Walk().token(part, Scope.ARGUMENT)
            except Exception as same:
                if str(same) == str(error):
                    fault, path = part, path + step
                    break
        else:
            break
    return SerializationError(
        f"nothing tells {path}, {short_repr(fault)} of type {type(fault).__name__!r}, from others "
        f"in another process: {type(error).__name__}: {error}"
    )
