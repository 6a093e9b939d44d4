"""What any object is made of.

Builtin types have forms of their own, in which nothing depends on the order of sets and
dictionaries. Everything else is what its ``__reduce_ex__`` says, as for `copy` and `pickle`.
"""

from __future__ import annotations

import copyreg
import functools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any
from weakref import WeakKeyDictionary

from parallel_core.journal.functions import (
    class_form,
    code_digest,
    function_form,
    named,
    reference,
    scope_of,
)
from parallel_core.journal.graph import (
    Form,
    Node,
    Order,
    Scope,
    Token,
    Walk,
    encode,
    hashed,
    token_of_flat,
    token_of_flat_pairs,
    token_of_plain,
)
from parallel_core.journal.watching import Watch, contents
from parallel_core.tasks.capture import SCALARS
from parallel_core.tasks.pickling import goes_by_value
from parallel_core.tasks.wrapping import WrappedObject

_INSTALLED = Scope.INSTALLED
_NOTHING = [None] * 4  # for what a reduction may leave out
_PROTOCOL = 4  # the one after it hands out buffers instead of bytes

#: Objects of these modules' types are plain values, too, when a function uses them as globals.
_PLAIN_MODULES = frozenset(
    {"collections", "datetime", "decimal", "fractions", "functools", "numpy", "operator"}
    | {"pathlib", "pathlib._local", "re", "uuid"}
)
_IMMUTABLE: tuple[Any, ...] = (tuple, frozenset, range, slice, Enum, re.Pattern, *SCALARS)
_DESCRIPTORS = (
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)

_shared: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()


class _Pairs:
    """What ``__reduce_ex__`` says that a dictionary of some other type holds."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        self.pairs = pairs


def walk(obj: object, scope: Scope, watch: Watch | None = None) -> bytes:
    """Return the digest of `obj`; `watch` is told what the functions in it use.

    Raises
    ------
    NoDigest
        When it has a part without.
    """

    def form(part: Any, part_scope: Scope) -> Form | bytes:
        if isinstance(part, FunctionType):
            return function_form(part, part_scope, watch)
        if isinstance(part, type):
            return class_form(part, part_scope, watch)
        return form_of(part, part_scope)

    return Walk(look, form).digest(obj, scope)


def look(part: Any, scope: Scope) -> bytes | Node:
    """Return the token of a part that is a leaf, and any other as a node."""
    kind = type(part)
    if kind in SCALARS:
        return token_of_plain(part)
    if kind is list or kind is tuple:
        if SCALARS.issuperset(map(type, part)) and (kind is tuple or scope is not _INSTALLED):
            try:
                return token_of_flat(part)
            except ValueError:  # too large to be encoded in one go
                pass
    elif kind is dict:
        if (
            SCALARS.issuperset(map(type, part))
            and SCALARS.issuperset(map(type, part.values()))
            and scope is not _INSTALLED
        ):
            try:
                return token_of_flat_pairs(part)
            except ValueError:
                pass
    elif kind is Token:
        token: bytes = part.data
        return token
    elif kind is Node:
        node: Node = part
        return node
    elif kind is FunctionType:
        return Node(part, scope_of(part, scope))
    elif isinstance(part, type):
        return Node(part, scope_of(part, scope)) if goes_by_value(part) else named(part).data
    elif kind is ModuleType:
        return encode(("module", part.__name__))
    elif kind is CodeType:
        return code_digest(part)
    return Node(part, scope)


def form_of(obj: Any, scope: Scope) -> Form | bytes:
    """Return what `obj` is made of, or its token."""
    known = _FORMS.get(type(obj))
    is_fixed = known is not None and not isinstance(obj, _MUTABLE)
    if scope is _INSTALLED and not is_fixed and not isinstance(obj, _IMMUTABLE):
        return _opaque(obj)
    if known is not None:
        return known(obj)
    special = _special_form(obj)
    if special is not None:
        return special
    if scope >= Scope.IMPORTED and not _is_plain(obj):
        return _opaque(obj)
    try:
        return _reduced(obj)
    except Exception:
        if scope is Scope.ARGUMENT:
            raise
        return _opaque(obj)


def _opaque(obj: object) -> bytes:
    kind = type(obj)
    return encode(("some", kind.__module__, kind.__qualname__))


def _is_plain(obj: object) -> bool:
    kind = type(obj)
    return (
        kind.__module__ in _PLAIN_MODULES
        or isinstance(obj, (tuple, _Pairs))
        or hasattr(kind, "__dataclass_fields__")
    )


def _special_form(obj: Any) -> Form | bytes | None:
    numpy: Any = sys.modules.get("numpy")
    if hasattr(numpy, "ndarray") and isinstance(obj, (numpy.ndarray, numpy.generic)):
        from parallel_core.journal.arrays import array_form, masked_form, scalar_form

        if isinstance(obj, numpy.generic):
            return scalar_form(obj)
        if type(obj) is numpy.ndarray or type(obj) is numpy.memmap:
            return array_form(obj)
        if type(obj) is numpy.ma.MaskedArray:
            return masked_form(obj)
        return _reduced(obj)
    if isinstance(obj, Enum):
        return Form("enum", (obj.name,), [type(obj), obj.value])
    if isinstance(obj, (set, frozenset)) and _reduces_as_set(type(obj)):
        state = obj.__reduce_ex__(_PROTOCOL)[2]
        return Form("set", (), [reference(type(obj)), frozenset(obj), state])
    if isinstance(obj, WrappedObject):
        return Form("wrapped", (), [obj.wrapped])
    sharing: Any = sys.modules.get("memmapping.sharing")
    if sharing is not None and isinstance(obj, sharing.Shared):
        return _shared_token(obj)
    return None


def _reduces_as_set(kind: type) -> bool:
    reduce: Any = kind.__reduce__
    return reduce in (set.__reduce__, frozenset.__reduce__)


def _shared_token(handle: Any) -> bytes:
    """Return the token of what was shared; it is read-only, so its digest is made once."""
    found = _shared.get(handle)
    if found is None:
        found = _shared[handle] = encode(("shared",)) + walk(handle.get(), Scope.ARGUMENT)
    return found


def _reduced(obj: Any) -> Form:
    kind = type(obj)
    reduce = copyreg.dispatch_table.get(kind)
    if isinstance(obj, BaseException):  # tblib, which dask brings, adds where it has come from
        reduce = None
    reduced: Any = reduce(obj) if reduce is not None else obj.__reduce_ex__(_PROTOCOL)
    if isinstance(reduced, str):  # a global of that name
        return Form("global", (getattr(obj, "__module__", None), reduced))
    function, args, state, items, pairs, set_state = [*reduced, *_NOTHING][:6]
    if isinstance(obj, BaseException) and state == {}:  # whose attributes were only looked at
        state = None
    if items is not None:
        items = list(items)
    if pairs is not None:
        pairs = list(pairs) if isinstance(obj, OrderedDict) else _Pairs(list(pairs))
    parts = [reference(function), args, state, items, pairs, reference(set_state)]
    return Form("object", (), parts)


def _buffer_form(buffer: Any) -> Form:
    view = memoryview(buffer)
    digest = hashed(view if view.c_contiguous else view.tobytes())  # type: ignore[arg-type]
    return Form(type(buffer).__name__, (view.format, view.shape, digest))


def _sequence_form(values: Any) -> Form:
    return Form(type(values).__name__, (), list(values))


def _set_form(values: Any) -> Form:
    return Form(type(values).__name__, (), list(values), Order.ANY)


def _mapping_form(mapping: Any) -> Form:
    parts = [part for pair in mapping.items() for part in pair]
    return Form(type(mapping).__name__, (), parts, Order.PAIRS)


def _pairs_form(held: _Pairs) -> Form:
    return Form("pairs", (), [part for pair in held.pairs for part in pair], Order.PAIRS)


def _descriptor_form(descriptor: Any) -> Form:
    return Form(
        type(descriptor).__name__, (descriptor.__name__,), [reference(descriptor.__objclass__)]
    )


def _builtin_form(function: Any) -> Form:
    owner = function.__self__
    if owner is None or isinstance(owner, ModuleType):
        module = function.__module__ if owner is None else owner.__name__
        return Form("builtin", (module, function.__qualname__))
    return Form("builtin", (function.__name__,), [owner])


def _method_form(method: Any) -> Form:
    return Form("method", (), [method.__func__, method.__self__])


def _wrapped_form(wrapper: Any) -> Form:
    return Form(type(wrapper).__name__, (), [wrapper.__func__])


def _property_form(wrapper: Any) -> Form:
    return Form("property", (), [wrapper.fget, wrapper.fset, wrapper.fdel])


def _cached_property_form(wrapper: Any) -> Form:
    return Form("cached property", (wrapper.attrname,), [wrapper.func])


def _cached_form(wrapper: Any) -> Form:
    """Return the form of a function with a cache, whatever is in that."""
    return Form("cached", (), [wrapper.__wrapped__, wrapper.cache_parameters()])


def _singleton_form(obj: object) -> Form:
    return Form("constant", (repr(obj),))


_MUTABLE = (bytearray, memoryview, list, set, dict, MappingProxyType, CellType)

_FORMS: dict[type, Callable[[Any], Form]] = {
    tuple: _sequence_form,
    list: _sequence_form,
    type({}.keys()): _sequence_form,
    type({}.values()): _sequence_form,
    type({}.items()): _sequence_form,
    set: _set_form,
    frozenset: _set_form,
    dict: _mapping_form,
    MappingProxyType: _mapping_form,
    _Pairs: _pairs_form,
    slice: lambda obj: Form("slice", (), [obj.start, obj.stop, obj.step]),
    range: lambda obj: Form("range", (), [obj.start, obj.stop, obj.step]),
    type(...): _singleton_form,
    type(NotImplemented): _singleton_form,
    bytearray: _buffer_form,
    memoryview: _buffer_form,
    CellType: lambda cell: Form("cell", (), [contents(cell)]),
    BuiltinFunctionType: _builtin_form,
    MethodWrapperType: _builtin_form,
    MethodType: _method_form,
    property: _property_form,
    staticmethod: _wrapped_form,
    classmethod: _wrapped_form,
    functools.cached_property: _cached_property_form,
    type(functools.lru_cache(repr)): _cached_form,
    **dict.fromkeys(_DESCRIPTORS, _descriptor_form),
}
