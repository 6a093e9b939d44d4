"""From any object to a token: plain values encoded, all else as a digest of what it is made of.

The order of sets and dictionaries does not count, nor does which parts are shared. What is no
builtin type is what its ``__reduce_ex__`` says, as for `copy` and `pickle`. An object within itself
is told by how far out it is.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from parallel_core.journal.functions import (
    MISSING,
    Part,
    class_parts,
    contents,
    function_parts,
    is_users,
)
from parallel_core.journal.tokens import (
    DIGEST,
    code_token,
    encode,
    hashed,
    token_of_missing,
    token_of_name,
    token_of_plain,
)
from parallel_core.serialization.capture import SCALARS
from parallel_core.serialization.pickling import goes_by_value
from parallel_core.serialization.wrapping import WrappedObject

_PROTOCOL = 4  # the one after it hands out buffers instead of bytes
_NOTHING = [None] * 4  # for what a reduction may leave out

#: Objects of these modules' types are plain values, too, when a function uses them as globals.
_PLAIN_MODULES = frozenset(
    {"collections", "datetime", "decimal", "fractions", "functools", "numpy", "operator"}
    | {"pathlib", "pathlib._local", "re", "uuid"}
)
_Cached = type(functools.lru_cache(repr))
#: Of objects of these types, the attributes are all that counts.
_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    functools.cached_property: ("attrname", "func"),
}
_shared: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


class Scope(IntEnum):
    """What an object belongs to, and so how much of it counts."""

    #: Arguments: everything counts, and what has no digest is an error.
    ARGUMENT = 0
    #: What a function going by value has captured: everything that has a digest counts.
    CAPTURED = 1
    #: Globals of a module that is imported: plain values count, of other objects their type.
    IMPORTED = 2


# Before what is digested; the encodings of others begin with no such byte.
_FLAT = b"\1"
_FLAT_PAIRS = b"\2"

Note = Callable[[Part, bytes, "Scope"], None]


class Walk:
    """Goes through an object's parts; `own` globals, which an initializer sets, do not count."""

    def __init__(self, own: frozenset[str] = frozenset(), note: Note | None = None) -> None:
        self._own = own
        self._note = note  # told of each part of functions and classes
        self._done: dict[tuple[int, Scope], bytes] = {}
        self._open: dict[tuple[int, Scope], int] = {}
        self._kept: list[object] = []  # keys are made of identities

    def token(self, obj: Any, scope: Scope) -> bytes:
        """Return the token of `obj`; raises what its ``__reduce_ex__`` raises."""
        kind = type(obj)
        if kind in SCALARS:
            return token_of_plain(obj)
        try:  # the quick way, for what is flat and not too large to be encoded in one go
            if kind is list or kind is tuple:
                if SCALARS.issuperset(map(type, obj)):
                    return DIGEST + hashed(_FLAT + encode(obj))
            elif kind is dict and SCALARS.issuperset(map(type, (*obj, *obj.values()))):
                return DIGEST + hashed(_FLAT_PAIRS + b"".join(sorted(map(encode, obj.items()))))
        except ValueError:
            pass
        if isinstance(obj, type) and not goes_by_value(obj):
            return token_of_name(obj)
        return self._once(obj, scope)

    def function(self, function: FunctionType | type) -> bytes:
        """Return the token of what is called: of a class, too, by what it is made of."""
        if not goes_by_value(function) and not is_users(function.__module__):
            return token_of_name(function)
        return self._once(function, Scope.IMPORTED)

    def _once(self, obj: Any, scope: Scope) -> bytes:
        key = id(obj), scope
        done = self._done.get(key)
        if done is not None:
            return done
        if key in self._open:
            return encode(("circle", self._open[key]))
        self._open[key] = len(self._open)
        try:
            found = self._done[key] = self._token(obj, type(obj), scope)
        finally:
            del self._open[key]
        self._kept.append(obj)
        return found

    def _token(self, obj: Any, kind: type, scope: Scope) -> bytes:
        if kind is list or kind is tuple:
            return self._node(kind.__name__, obj, scope)
        if kind is set or kind is frozenset:
            return _joined(kind.__name__, sorted(self.token(part, scope) for part in obj))
        if kind is dict or kind is MappingProxyType:
            return self._pairs(kind.__name__, obj.items(), scope)
        if kind is FunctionType:
            return self._of_function(obj, scope)
        if isinstance(obj, type):
            inner = Scope.CAPTURED if goes_by_value(obj) else Scope.IMPORTED
            return self._of_parts(obj, class_parts(obj), inner)
        if kind is CodeType:
            return code_token(obj)
        if kind is ModuleType:
            return encode(("module", obj.__name__))
        if kind in _ATTRIBUTES:
            parts = [getattr(obj, name) for name in _ATTRIBUTES[kind]]
            return self._node(kind.__name__, parts, scope)
        if kind is CellType:
            return self._node("cell", [contents(obj)], scope)
        if kind is _Cached:  # whatever is in the cache
            return self._node("cached", [obj.__wrapped__, obj.cache_parameters()], scope)
        if kind is bytearray or kind is memoryview:
            view = memoryview(obj)
            facts = view.format, view.shape, hashed(view.tobytes())
            return self._node(kind.__name__, [], scope, facts)
        if isinstance(obj, Enum):
            return self._node("enum", [kind, obj.value], scope, obj.name)
        if isinstance(obj, WrappedObject):
            return self._node("wrapped", [obj.wrapped], scope)
        sharing: Any = sys.modules.get("memmapping.sharing")
        if sharing is not None and isinstance(obj, sharing.Shared):
            return _of_shared(obj)
        numpy: Any = sys.modules.get("numpy")
        if hasattr(numpy, "ndarray"):
            if isinstance(obj, numpy.generic):
                return self._node("scalar", [numpy.asarray(obj)], scope)
            if kind is numpy.ndarray or kind is numpy.memmap:
                from parallel_core.journal.arrays import array_facts

                array_fact, parts = array_facts(obj)
                return self._node("array", parts, scope, array_fact)
            if kind is numpy.ma.MaskedArray:
                parts = [obj.data, numpy.ma.getmaskarray(obj), obj.fill_value, obj.hardmask]
                return self._node("masked", parts, scope)
        if scope is Scope.IMPORTED and not _is_plain(obj):
            return _opaque(obj)
        try:
            return self._reduced(obj, scope)
        except Exception:
            if scope is Scope.ARGUMENT:
                raise
            return _opaque(obj)

    def _node(self, kind: str, parts: Iterable[Any], scope: Scope, facts: Any = ()) -> bytes:
        return _joined(kind, [self.token(part, scope) for part in parts], facts)

    def _pairs(self, kind: str, pairs: Iterable[tuple[Any, Any]], scope: Scope) -> bytes:
        tokens = [self.token(key, scope) + self.token(value, scope) for key, value in pairs]
        return _joined(kind, sorted(tokens))

    def _of_function(self, function: FunctionType, scope: Scope) -> bytes:
        by_value = goes_by_value(function)
        if not by_value and not is_users(function.__module__):
            return token_of_name(function)
        inner = Scope.CAPTURED if by_value else Scope.IMPORTED
        return self._of_parts(function, function_parts(function, self._own), inner)

    def _of_parts(self, owner: Any, parts: Iterable[Part], scope: Scope) -> bytes:
        tokens = [encode(owner.__qualname__)]
        for part in parts:
            token = self._of_part(part, owner.__module__, scope)
            if self._note is not None:
                self._note(part, token, scope)
            tokens += encode(part.name), token
        return _joined(type(owner).__name__, tokens)

    def _of_part(self, part: Part, module: str | None, scope: Scope) -> bytes:
        value = part.value
        if value is MISSING:
            return token_of_missing(part.name.split("'")[1])
        if isinstance(value, (FunctionType, type)) and not goes_by_value(value):
            if value.__module__ != module or not is_users(module):
                return token_of_name(value)
            if isinstance(value, type):
                return self._once(value, scope)  # not by its name alone
        return self.token(value, scope)

    def _reduced(self, obj: Any, scope: Scope) -> bytes:
        reduce = copyreg.dispatch_table.get(type(obj))
        if isinstance(obj, BaseException):  # tblib, which dask brings, adds where it came from
            reduce = None
        reduced: Any = reduce(obj) if reduce is not None else obj.__reduce_ex__(_PROTOCOL)
        if isinstance(reduced, str):  # a global of that name
            return encode(("global", getattr(obj, "__module__", None), reduced))
        function, args, state, items, pairs, set_state = [*reduced, *_NOTHING][:6]
        if isinstance(obj, BaseException) and state == {}:  # attributes that were only looked at
            state = None
        if isinstance(obj, (set, frozenset)) and args and type(args[0]) is list:
            args = (frozenset(args[0]), *args[1:])
        tokens = [self._reference(function, scope), self.token(args, scope)]
        tokens += self.token(state, scope), self._reference(set_state, scope)
        if items is not None:
            tokens.append(self._node("items", items, scope))
        if pairs is not None:
            if isinstance(obj, OrderedDict):
                tokens.append(self._node("in order", pairs, scope))
            else:
                tokens.append(self._pairs("pairs", pairs, scope))
        return _joined("object", tokens)

    def _reference(self, obj: Any, scope: Scope) -> bytes:
        """Return the token of what makes an object: its name, where it has one."""
        if isinstance(obj, FunctionType) and not goes_by_value(obj):
            return token_of_name(obj)
        return self.token(obj, scope)


def _joined(kind: str, tokens: list[bytes], facts: Any = ()) -> bytes:
    return DIGEST + hashed(encode((kind, len(tokens), facts)) + b"".join(tokens))


def _opaque(obj: object) -> bytes:
    kind = type(obj)
    return encode(("some", kind.__module__, kind.__qualname__))


def _is_plain(obj: object) -> bool:
    kind = type(obj)
    return (
        kind.__module__ in _PLAIN_MODULES
        or isinstance(obj, tuple)
        or hasattr(kind, "__dataclass_fields__")
    )


def _of_shared(handle: Any) -> bytes:
    """Return the token of what was shared; it is read-only, so its token is made once."""
    found = _shared.get(handle)
    if found is None:
        found = _shared[handle] = encode(("shared",)) + Walk().token(handle.get(), Scope.ARGUMENT)
    return found
