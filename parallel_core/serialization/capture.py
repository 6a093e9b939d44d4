"""What a function or class that goes by value holds, and whether that has changed.

A function of ``__main__`` is pickled once a call, with the globals and closure cells that it
uses. They belong to the task like its arguments do: when one of them changes between two tasks,
the second must see the change and the first must not. So each is *watched*: that it is still
the same object, which settles it for what cannot change (numbers, strings, modules, imported
functions), and for the rest that it still pickles to the same bytes. So are the attributes of
functions and classes that go by value.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Container, Iterator, Mapping
from contextvars import ContextVar
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from parallel_core.serialization.large import LARGE_VALUE, parts_over
from parallel_core.serialization.pickling import goes_by_value

#: Values of these types cannot change: they ride in a batch as they are.
SCALARS = frozenset({int, float, bool, complex, str, bytes, type(None)})

_MISSING = object()
#: Values of these types go to a worker by name, or as they are compiled: they do not change.
BY_REFERENCE = (
    ModuleType,
    MethodDescriptorType,
    WrapperDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    re.Pattern,
    ContextVar,
)
_NAMESPACES = frozenset({"eval", "exec", "globals", "vars"})  # by which globals can be set
_MACHINERY = frozenset(
    {
        "__annotations__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__module__",
        "__weakref__",
        "_abc_impl",
    }
)

Dumps = Callable[[object], bytes]


class Capture:
    """Everything that some functions and classes going by value refer to."""

    __slots__ = (
        "_apart",
        "_attributes",
        "_cells",
        "_dumps",
        "_functions",
        "_globals",
        "_own",
        "_seen",
        "_sizes",
        "_values",
    )

    def __init__(
        self,
        obj: object,
        dumps: Dumps,
        own: frozenset[str] = frozenset(),
        apart: Container[int] = (),
    ) -> None:
        self._dumps = dumps  #: pickles a value that can change, for comparison
        #: Globals that are state of the worker by the user's own word, and not watched.
        self._own = own
        self._apart = apart  #: objects that are not watched here, by their `id`
        self._seen: set[int] = set()
        self._globals: list[tuple[Mapping[str, Any], str, object]] = []
        self._cells: list[tuple[Any, object]] = []
        self._attributes: list[tuple[Mapping[str, Any], str, object]] = []
        self._functions: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []  # for attributes that are added
        self._values: list[tuple[object, bytes, str]] = []  # with the words for it
        self._follow(obj)

    @property
    def captures_mutable_state(self) -> bool:
        """Whether a task could change what is captured without a ``global`` statement.

        Attributes that a function without any gives itself count as its own word, too.
        """
        return bool(self._values or self._attributes)

    @property
    def lasts(self) -> bool:
        """Whether it is one function that captured nothing, and keeps nothing, that can change."""
        if len(self._functions) != 1 or len(self._sizes) != 1 or self._cells:
            return False
        code = self._functions[0][1]
        if self.captures_mutable_state or names_stored(code) or cells_stored(code):
            return False
        return _NAMESPACES.isdisjoint(names_loaded(code))

    def contents(self) -> list[object]:
        """Return what a function that lasts is made of; the same again if nothing has changed."""
        ((_, code, defaults, named),) = self._functions
        found = [code, defaults, named]
        for _, name, value in self._globals:
            found += name, value
        return found

    def watch(self) -> Callable[[], bool]:
        """Return what says whether everything captured is as it was; it is called at every task."""
        several = len(self._functions) != 1 or len(self._sizes) != 1
        if self._cells or self._values or self._attributes or several:
            return self._unchanged
        if self._functions[0][2] is not None or self._functions[0][3] is not None:
            return self._unchanged
        ((added, _),) = self._sizes  # the attributes of the function itself: none so far
        if not self._globals:
            return lambda: not added
        if len(self._globals) == 1:
            ((namespace, only, expected),) = self._globals
            return lambda: namespace.get(only, _MISSING) is expected and not added
        return self._unchanged

    def unchanged_by_task(self) -> bool:
        """Whether a task left everything as it was, but for what it declared ``global``."""
        for namespace, name, value in self._attributes:
            if namespace.get(name, _MISSING) is not value:
                return False
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return False
        values = self._values
        return not values or all(self._dumps(value) == data for value, data, _ in values)

    def large_parts(self) -> list[tuple[str, object]]:
        """Return what is large of the values that can change, each with the words for it."""
        return [
            part
            for value, data, words in self._values
            if len(data) >= LARGE_VALUE
            for part in parts_over(words, value, self._dumps)
        ]

    def _unchanged(self) -> bool:
        for namespace, name, value in self._globals:
            if namespace.get(name, _MISSING) is not value:
                return False
        for cell, value in self._cells:
            if _contents(cell) is not value:
                return False
        for function, code, defaults, named in self._functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not named
            ):
                return False
        return self.unchanged_by_task()

    def _follow(self, obj: object) -> None:
        if id(obj) in self._seen:
            return
        self._seen.add(id(obj))
        if isinstance(obj, FunctionType):
            self._follow_function(obj)
        elif isinstance(obj, type):
            self._follow_class(obj)

    def _follow_function(self, function: FunctionType) -> None:
        code = function.__code__
        self._functions.append((function, code, function.__defaults__, function.__kwdefaults__))
        for name in names_loaded(code) - (self._own | names_stored(code)):
            value = function.__globals__.get(name, _MISSING)
            if value is _MISSING and hasattr(builtins, name):
                continue
            self._globals.append((function.__globals__, name, value))
            self._settle(value, f"the global {name!r}")
        kept = cells_stored(code)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if name not in kept:
                value = _contents(cell)
                self._cells.append((cell, value))
                self._settle(value, f"the variable {name!r}")
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self._settle(value, f"a default of {function.__qualname__}")
        self._follow_attributes(function.__dict__)

    def _follow_class(self, cls: type) -> None:
        from enum import EnumMeta

        if isinstance(cls, EnumMeta):
            return
        for base in cls.__bases__:
            self._settle(base, f"a base of {cls.__qualname__}")
        self._follow_attributes(cls.__dict__)

    def _follow_attributes(self, namespace: Mapping[str, Any]) -> None:
        self._sizes.append((namespace, len(namespace)))
        for name, value in namespace.items():
            if name not in _MACHINERY:
                self._attributes.append((namespace, name, value))
                self._settle(value, f"the attribute {name!r}")

    def _settle(self, value: object, words: str) -> None:
        """Follow `value`, or note its bytes when it can change in place."""
        if value is _MISSING or type(value) in SCALARS or isinstance(value, BY_REFERENCE):
            return
        if isinstance(value, (FunctionType, type)):
            if goes_by_value(value):
                self._follow(value)
        elif isinstance(value, (tuple, frozenset)):
            for item in value:
                self._settle(item, words)
        elif isinstance(value, (staticmethod, classmethod)):
            self._settle(value.__func__, words)
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                self._settle(part, words)
        elif not refers_by_name(value) and id(value) not in self._seen:
            self._seen.add(id(value))
            if id(value) not in self._apart:
                self._values.append((value, self._dumps(value), words))


def refers_by_name(value: object) -> bool:
    """Whether `value` pickles as a name that a worker can import, and so cannot differ there."""
    if isinstance(value, BuiltinFunctionType):
        return isinstance(value.__self__, (ModuleType, type)) or value.__self__ is None
    kind = type(value)
    if kind.__module__ == "logging" and kind.__name__ in ("Logger", "RootLogger"):
        return True
    if kind.__name__ in ("ufunc", "_ArrayFunctionDispatcher", "_lru_cache_wrapper"):
        return not goes_by_value(value)
    return False


def _contents(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


_names: dict[CodeType, tuple[frozenset[str], frozenset[str], frozenset[str]]] = {}


def _scan(code: CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the globals that `code` loads and stores, and the outer variables that it stores."""
    found = _names.get(code)
    if found is None:
        loaded, stored, cells = set(), set(), set()
        for opname, name in _instructions(code):
            if opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                loaded.add(name)
            elif opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                stored.add(name)
            elif opname in ("STORE_DEREF", "DELETE_DEREF") and name in code.co_freevars:
                cells.add(name)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                inner_loaded, inner_stored, inner_cells = _scan(constant)
                loaded |= inner_loaded
                stored |= inner_stored
                cells |= inner_cells
        found = frozenset(loaded), frozenset(stored), frozenset(cells)
        if len(_names) > 1000:
            _names.clear()
        _names[code] = found
    return found


def _instructions(code: CodeType) -> Iterator[tuple[str, str]]:
    import dis

    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, str):
            yield instruction.opname, instruction.argval


def names_loaded(code: CodeType) -> frozenset[str]:
    """Return the names of the globals that `code`, or a function within it, reads."""
    return _scan(code)[0]


def names_stored(code: CodeType) -> frozenset[str]:
    """Return the globals that `code` assigns by a ``global`` statement: state by its own word."""
    return _scan(code)[1]


def cells_stored(code: CodeType) -> frozenset[str]:
    """Return the outer variables that `code` assigns by a ``nonlocal`` statement."""
    return _scan(code)[2]


def stored_globals(function: object) -> frozenset[str]:
    """Return the globals that an initializer sets, when it goes by value to workers."""
    if isinstance(function, FunctionType) and goes_by_value(function):
        return names_stored(function.__code__)
    return frozenset()
