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
        of_kind = _OF_KIND.get(kind)
        if of_kind is not None:
            return of_kind(self, obj, scope)
        if isinstance(obj, type):
            inner = Scope.CAPTURED if goes_by_value(obj) else Scope.IMPORTED
            return self._of_parts(obj, class_parts(obj), inner)
        if isinstance(obj, Enum):
            return self._node("enum", [type(obj), obj.value], scope, obj.name)
        numpy: Any = sys.modules.get("numpy")
        if hasattr(numpy, "ndarray"):
            if isinstance(obj, numpy.generic):
                return self._node("scalar", [numpy.asarray(obj)], scope)
            if kind is numpy.ndarray or kind is numpy.memmap:
                from parallel_core.journal.arrays import array_facts

                facts, parts = array_facts(obj)
                return self._node("array", parts, scope, facts)
            if kind is numpy.ma.MaskedArray:
                parts = [obj.data, numpy.ma.getmaskarray(obj), obj.fill_value, obj.hardmask]
                return self._node("masked", parts, scope)
        sharing: Any = sys.modules.get("memmapping.sharing")
        if sharing is not None and isinstance(obj, sharing.Shared):
            return _of_shared(obj)
        if isinstance(obj, WrappedObject):
            return self._node("wrapped", [obj.wrapped], scope)
        if scope is Scope.IMPORTED and not _is_plain(obj):
            return _opaque(obj)
        try:
            return self._reduced(obj, scope)
        except Exception:
            if scope is Scope.ARGUMENT:
                raise
            return _opaque(obj)

    def _node(self, kind: str, parts: Iterable[Any], scope: Scope, facts: Any = ()) -> bytes:
        tokens = [self.token(part, scope) for part in parts]
        return DIGEST + hashed(_joined(kind, tokens, facts))

    def _of_sequence(self, values: Any, scope: Scope) -> bytes:
        return self._node(type(values).__name__, values, scope)

    def _of_set(self, values: Any, scope: Scope) -> bytes:
        tokens = sorted(self.token(value, scope) for value in values)
        return DIGEST + hashed(_joined(type(values).__name__, tokens))

    def _of_mapping(self, mapping: Any, scope: Scope) -> bytes:
        return self._of_pairs(type(mapping).__name__, mapping.items(), scope)

    def _of_pairs(self, kind: str, pairs: Iterable[tuple[Any, Any]], scope: Scope) -> bytes:
        tokens = sorted(self.token(key, scope) + self.token(value, scope) for key, value in pairs)
        return DIGEST + hashed(_joined(kind, tokens))

    def _of_buffer(self, buffer: Any, scope: Scope) -> bytes:
        view = memoryview(buffer)
        facts = view.format, view.shape, hashed(view.tobytes())
        return self._node(type(buffer).__name__, [], scope, facts)

    def _of_cached(self, wrapper: Any, scope: Scope) -> bytes:
        """Return the token of a function with a cache, whatever is in that."""
        return self._node("cached", [wrapper.__wrapped__, wrapper.cache_parameters()], scope)

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
        return DIGEST + hashed(_joined(type(owner).__name__, tokens))

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
        if pairs is not None and isinstance(obj, OrderedDict):
            tokens.append(self._node("in order", pairs, scope))
        elif pairs is not None:
            tokens.append(self._of_pairs("pairs", pairs, scope))
        return DIGEST + hashed(_joined("object", tokens))

    def _reference(self, obj: Any, scope: Scope) -> bytes:
        """Return the token of what makes an object: its name, where it has one."""
        if isinstance(obj, FunctionType) and not goes_by_value(obj):
            return token_of_name(obj)
        return self.token(obj, scope)


def _joined(kind: str, tokens: Iterable[bytes], facts: Any = ()) -> bytes:
    tokens = list(tokens)
    return encode((kind, len(tokens), facts)) + b"".join(tokens)


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


def _of_attributes(*names: str) -> Callable[[Walk, Any, Scope], bytes]:
    """Return what makes the token of an object of which these attributes are all that counts."""

    def of_kind(walk: Walk, obj: Any, scope: Scope) -> bytes:
        values = [getattr(obj, name) for name in names]
        return walk._node(type(obj).__name__, values, scope)

    return of_kind


_OF_KIND: dict[type, Callable[[Walk, Any, Scope], bytes]] = {
    tuple: Walk._of_sequence,
    list: Walk._of_sequence,
    set: Walk._of_set,
    frozenset: Walk._of_set,
    dict: Walk._of_mapping,
    MappingProxyType: Walk._of_mapping,
    bytearray: Walk._of_buffer,
    memoryview: Walk._of_buffer,
    FunctionType: Walk._of_function,
    CodeType: lambda walk, code, scope: code_token(code),
    ModuleType: lambda walk, module, scope: encode(("module", module.__name__)),
    CellType: lambda walk, cell, scope: walk._node("cell", [contents(cell)], scope),
    property: _of_attributes("fget", "fset", "fdel"),
    staticmethod: _of_attributes("__func__"),
    classmethod: _of_attributes("__func__"),
    functools.cached_property: _of_attributes("attrname", "func"),
    type(functools.lru_cache(repr)): Walk._of_cached,
}
