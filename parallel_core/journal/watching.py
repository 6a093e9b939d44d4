"""Whether what a function uses is still as it was when its digest was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
)
from typing import Any

from parallel_core.journal.graph import Scope
from parallel_core.tasks.capture import BY_REFERENCE, SCALARS

MISSING = object()

_SETTLED = (
    *BY_REFERENCE,
    FunctionType,  # followed, and watched on its own account
    type,
    BuiltinFunctionType,
    Enum,
)

Digest = Callable[[object, Scope], bytes]


class Watch:
    """Takes note of what functions and classes use; says later whether it has changed.

    What cannot change in place must be the same object; the rest must have the same digest.

    Parameters
    ----------
    digest : callable
        Returns the digest of a value in a scope.
    own : frozenset of str
        Globals that are state of each worker by the user's own word, and do not count.
    """

    __slots__ = ("_cells", "_digest", "_functions", "_names", "_sizes", "_values", "own")

    def __init__(self, digest: Digest, own: frozenset[str] = frozenset()) -> None:
        self._digest = digest
        self.own = own
        self._functions: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self._names: list[tuple[Mapping[str, Any], str, object]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._values: dict[tuple[int, Scope], tuple[object, bytes]] = {}

    def note_function(self, function: FunctionType) -> None:
        """Note the code and the defaults of `function`."""
        self._functions.append(
            (function, function.__code__, function.__defaults__, function.__kwdefaults__)
        )

    def note_name(self, namespace: Mapping[str, Any], name: str, value: object) -> None:
        """Note what `name` stands for; `MISSING`: for nothing."""
        self._names.append((namespace, name, value))

    def note_size(self, namespace: Mapping[str, Any]) -> None:
        """Note how many names there are."""
        self._sizes.append((namespace, len(namespace)))

    def note_cell(self, cell: CellType, value: object) -> None:
        """Note the value of a variable of an enclosing function."""
        self._cells.append((cell, value))

    def note_value(self, value: object, scope: Scope) -> None:
        """Note the content of `value`, if it can change."""
        if type(value) in SCALARS or isinstance(value, _SETTLED) or value is MISSING:
            return
        if isinstance(value, (tuple, frozenset)):
            for item in value:
                self.note_value(item, scope)
        elif (id(value), scope) not in self._values:
            self._values[id(value), scope] = value, self._digest(value, scope)

    def unchanged(self) -> bool:
        """Whether all is as it was."""
        for function, code, defaults, named in self._functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not named
            ):
                return False
        for namespace, name, value in self._names:
            if namespace.get(name, MISSING) is not value:
                return False
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return False
        for cell, value in self._cells:
            if contents(cell) is not value:
                return False
        if not self._values:
            return True
        return all(
            self._digest(value, scope) == digest
            for (_, scope), (value, digest) in self._values.items()
        )


def contents(cell: CellType) -> object:
    """Return what a cell holds, or `MISSING`."""
    try:
        value: object = cell.cell_contents
    except ValueError:
        return MISSING
    return value
