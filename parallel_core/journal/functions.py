"""What functions and classes are made of: their code, and what they use.

A function's code counts wherever it comes from, and so does that of the functions and classes
which it uses from the same module, or which go by value; what it uses from other modules counts
by its name. File names, line numbers and annotations do not count, so a function may move.
"""

from __future__ import annotations

import builtins
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from enum import Enum, EnumMeta
from types import CodeType, FunctionType, ModuleType
from typing import Any

from parallel_core.journal.graph import (
    Form,
    Node,
    Scope,
    Token,
    encode,
    hashed,
    token_of_plain,
)
from parallel_core.journal.watching import MISSING, Watch, contents
from parallel_core.tasks.capture import SCALARS, cells_stored, names_loaded, names_stored
from parallel_core.tasks.pickling import goes_by_value

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
#: Names to which the body of a class assigns what is no code: a line number, and a tuple of which
#: Python 3.13.0 leaves the order to chance.
_STORED_BY_COMPILER = frozenset({"__firstlineno__", "__static_attributes__"})

_codes: dict[CodeType, bytes] = {}
_OURS = ("memmapping", "parallel_core")


class Origin(Enum):
    """Where a module comes from."""

    USER = "being worked on"
    INSTALLED = "came by an installer"
    GIVEN = "Python's, whose version the journal has; or ours, which only calls"


def named(obj: Any) -> Token:
    """Return the token of what can be imported under its name."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", "")
    return Token(encode(("name", getattr(obj, "__module__", None), name)))


def reference(obj: Any) -> Any:
    """Return a part for `obj` that is its name, where it has one, and else itself."""
    if isinstance(obj, (FunctionType, type)) and not goes_by_value(obj):
        return named(obj)
    return obj


def scope_of(obj: Any, around: Scope) -> Scope:
    """Return the scope of what the function or class `obj` uses."""
    if goes_by_value(obj):
        return max(around, Scope.CAPTURED)
    return Scope.IMPORTED if _origin(obj.__module__) is Origin.USER else Scope.INSTALLED


@functools.cache
def _origin(module: str | None) -> Origin:
    module_name = module or ""
    path = getattr(sys.modules.get(module_name), "__file__", None)
    package = module_name.partition(".")[0]
    if package in _OURS:
        return Origin.GIVEN
    if not isinstance(path, str):
        return Origin.GIVEN if package in sys.stdlib_module_names else Origin.INSTALLED
    if not {"site-packages", "dist-packages"}.isdisjoint(path.split(os.sep)):
        return Origin.INSTALLED
    return Origin.GIVEN if path.startswith(os.path.dirname(os.__file__) + os.sep) else Origin.USER


def function_form(function: FunctionType, scope: Scope, watch: Watch | None) -> Form:
    """Return what a function is made of; `scope` is that of what it uses."""
    code = function.__code__
    parts: list[Any] = [Token(code_digest(code))]
    note = _Notes(function.__module__, scope, watch, parts)
    if watch is not None:
        watch.note_function(function)
    for value in function.__defaults__ or ():
        note.value(value)
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        note.named_value(name, value)
    own = names_stored(code) if watch is None else names_stored(code) | watch.own
    for name in sorted(names_loaded(code) - own):
        note.global_value(function.__globals__, name)
    kept = cells_stored(code)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if name not in kept:
            value = contents(cell)
            if watch is not None:
                watch.note_cell(cell, value)
            note.named_value(name, value)
    note.attributes(function.__dict__)
    return Form("function", (), parts)


def class_form(cls: type, scope: Scope, watch: Watch | None) -> Form:
    """Return what a class is made of; `scope` is that of what its methods use."""
    parts: list[Any] = []
    note = _Notes(cls.__module__, scope, watch, parts)
    note.value(type(cls))
    for base in cls.__bases__:
        note.value(base)
    if isinstance(cls, EnumMeta):  # the rest of its namespace is the machinery's
        members: Mapping[str, Any] = cls.__members__
        for name, member in members.items():
            note.named_value(name, member.value)
        for name, value in sorted(vars(cls).items()):
            if isinstance(value, FunctionType) and value.__module__ == cls.__module__:
                note.named_value(name, value)
    else:
        note.attributes(cls.__dict__)
    return Form("class", (cls.__qualname__,), parts)


class _Notes:
    """Gathers what a function or class uses as parts of it, and has it watched.

    Parameters
    ----------
    module : str or None
        Its own.
    scope : Scope
        That of what it uses.
    watch : Watch or None
        Told of everything.
    parts : list
        Where to put them.
    """

    def __init__(
        self, module: str | None, scope: Scope, watch: Watch | None, parts: list[Any]
    ) -> None:
        self._module = module
        self._scope = scope
        self._watch = watch
        self._parts = parts

    def value(self, value: object) -> None:
        """Take in a value."""
        if self._watch is not None:
            self._watch.note_value(value, self._scope)
        self._parts.append(self._part(value))

    def named_value(self, name: str, value: object) -> None:
        """Take in a value with its name."""
        self._parts.append(Token(encode(name)))
        self.value(value)

    def global_value(self, namespace: Mapping[str, Any], name: str) -> None:
        """Take in what a global stands for; for builtins, that is their name."""
        value = namespace.get(name, MISSING)
        if self._watch is not None:
            self._watch.note_name(namespace, name, value)
        if value is MISSING and hasattr(builtins, name):
            self._parts.append(Token(encode(("builtin", name))))
        else:
            self.named_value(name, value)

    def attributes(self, namespace: Mapping[str, Any]) -> None:
        """Take in the attributes of a function or class."""
        if self._watch is not None:
            self._watch.note_size(namespace)
        for name, value in sorted(namespace.items()):
            if name not in _NOT_CODE:
                if self._watch is not None:
                    self._watch.note_name(namespace, name, value)
                self.named_value(name, value)

    def _part(self, value: object) -> object:
        if value is MISSING:
            return Token(encode(("missing",)))
        if isinstance(value, (FunctionType, type)):
            module = value.__module__
            is_own = module == self._module and _origin(module) is not Origin.GIVEN
            if is_own or goes_by_value(value):
                return Node(value, scope_of(value, self._scope))
            return named(value)
        if isinstance(value, ModuleType):
            return Token(encode(("module", value.__name__)))
        return value


def code_digest(code: CodeType) -> bytes:
    """Return the token of compiled code, wherever it stands."""
    found = _codes.get(code)
    if found is None:
        if _STORED_BY_COMPILER.isdisjoint(code.co_names):
            steps = encode(code.co_code)
            constants = b"".join(map(_constant, code.co_consts))
        else:
            steps = b"".join(_steps(code))
            constants = b""
        facts = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
            getattr(code, "co_exceptiontable", b""),  # since Python 3.11
            len(code.co_consts),
        )
        found = encode(("code",)) + hashed(b"".join((encode(facts), steps, constants)))
        if len(_codes) > 1000:
            _codes.clear()
        _codes[code] = found
    return found


def _steps(code: CodeType) -> Iterator[bytes]:
    """Yield the instructions of a class's body, but for those that store what is no code."""
    import dis

    held = b""
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("STORE") and instruction.argval in _STORED_BY_COMPILER:
            held = b""
            continue
        yield held
        held = encode(instruction.opname)
        if instruction.opname in ("LOAD_CONST", "RETURN_CONST"):
            held += _constant(instruction.argval)
        else:
            held += encode(instruction.arg)
    yield held


def _constant(value: object) -> bytes:
    if type(value) in SCALARS:
        return token_of_plain(value)
    if isinstance(value, CodeType):
        return code_digest(value)
    if isinstance(value, (tuple, frozenset)):
        tokens = list(map(_constant, value))
        if isinstance(value, frozenset):
            tokens.sort()
        return encode((type(value).__name__, len(value))) + b"".join(tokens)
    return encode(("constant", type(value).__name__, repr(value)))  # an ellipsis, a slice
