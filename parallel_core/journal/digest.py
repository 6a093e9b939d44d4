"""Digests by which a task is known again in another program: of values and of functions.

A digest is the same for what is equal, type by type and bit by bit, in any process: it depends on
no hash seed, no identity, no order of a set. It does depend on Python's minor version where code
is concerned, because bytecode does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from parallel_core.errors import SerializationError
from parallel_core.journal.forms import walk
from parallel_core.journal.functions import scope_of
from parallel_core.journal.graph import Node, NoDigest, Scope, encode, hashed
from parallel_core.journal.watching import Watch
from parallel_core.tasks.capture import refers_by_name
from parallel_core.tasks.description import function_name, short_repr
from parallel_core.tasks.pickling import parts_of
from parallel_core.tasks.wrapping import WrappedObject

_CACHED = 256  # functions whose digests are kept; a generator may yield a new lambda each time


def digest(obj: object, name: str = "the object") -> bytes:
    """Return 16 bytes that stand for the value of `obj`, here and in any other process.

    Parameters
    ----------
    obj : object
        Anything that could be pickled, and some things beyond: functions count by their code,
        classes by their name or, where they go by value, by their code.
    name : str
        What to call it in errors.

    Returns
    -------
    bytes
        The same for equal values, whatever parts they share and in whatever order dictionaries
        and sets hold them; another one for another value, type or dtype.

    Raises
    ------
    SerializationError
        When a part of it is nothing that could be told in another process: a lock, an open file,
        a generator. The message says which.

    Examples
    --------
    >>> digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    True
    >>> digest(1) == digest(1.0)
    False
    """
    try:
        return walk(obj, Scope.ARGUMENT)
    except NoDigest as error:
        raise _explained(error, name) from error.__cause__


def function_digest(function: Callable[..., Any]) -> bytes:
    """Return 16 bytes that stand for what `function` does, as far as its code says.

    They change with its bytecode, its constants and defaults, its closure, and the functions, the
    classes and the plain values that it uses from its own module; not with its place in the
    file. What it uses from other modules counts by its name, so a new version of a package does
    not make another function of it. Globals that it assigns, and what `functools.lru_cache`
    holds, do not count.

    Parameters
    ----------
    function : callable
        A function, or anything else that can be called.

    Returns
    -------
    bytes
        Comparable within one minor version of Python.

    Raises
    ------
    SerializationError
        When it is bound to an object without a digest.

    Examples
    --------
    >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 1)
    True
    >>> function_digest(lambda x: x + 1) == function_digest(lambda x: x + 2)
    False
    """
    return FunctionDigests().find(function)[0]


class FunctionDigests:
    """The digests of functions, kept as long as nothing that they use has changed.

    Parameters
    ----------
    own : frozenset of str
        Globals that an initializer sets in each worker, and that do not count.
    """

    def __init__(self, own: frozenset[str] = frozenset()) -> None:
        self._own = own
        self._kept: dict[int, tuple[object, bytes, Callable[[], bool]]] = {}

    def find(self, function: Any) -> tuple[bytes, Callable[[], bool] | None]:
        """Return the digest of `function`, and what says whether it still holds.

        The latter is None for what must be looked at each time: objects may change.
        """
        kept = self._kept.get(id(function))
        if kept is not None and kept[2]():
            return kept[1:]
        unchanged: Callable[[], bool]
        if isinstance(function, (FunctionType, type)):
            watch = Watch(walk, self._own)
            found, unchanged = _digest_of_code(function, watch), watch.unchanged
        elif refers_by_name(function) and not isinstance(function, functools._lru_cache_wrapper):
            found, unchanged = digest(function), _always
        else:
            return self._digest_of_object(function), None
        self._kept[id(function)] = function, found, unchanged
        if len(self._kept) > _CACHED:
            del self._kept[next(iter(self._kept))]
        return found, unchanged

    def _digest_of_object(self, function: Any) -> bytes:
        """Return the digest of what is called: its code, and what it is bound to."""
        name = function_name(function)
        called: object
        if isinstance(function, WrappedObject):
            return self.find(function.wrapped)[0]
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
                return digest(function, name)
        code, _ = self.find(called)
        return hashed(encode(type(function).__name__) + code + digest(rest, name))


def _always() -> bool:
    return True


def _digest_of_code(function: Any, watch: Watch) -> bytes:
    node = Node(function, scope_of(function, Scope.ARGUMENT))
    try:
        return walk(node, node.scope, watch)
    except NoDigest as error:
        raise _explained(error, function_name(function)) from error.__cause__


def _explained(error: NoDigest, name: str) -> SerializationError:
    """Return the error that names the part at fault as its owner would."""
    owner, path = error.path[0], name
    for part in error.path[1:]:
        for step, candidate in parts_of(owner):
            if candidate is part:
                owner, path = part, path + step
                break
    fault, cause = error.path[-1], error.__cause__
    return SerializationError(
        f"nothing tells {path}, {short_repr(fault)} of type {type(fault).__name__!r}, from others "
        f"in another process: {type(cause).__name__}: {cause}"
    )
