"""Context variables known again in another process.

`pickle` refuses a `contextvars.ContextVar`, since two of one name are two variables. One that
stands in a module is found there. Any other, of ``__main__``, a notebook or a class, gets a token,
by which every process that hears of it keeps one variable of its own.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
from collections.abc import Iterator
from contextvars import Context, ContextVar
from importlib import import_module
from typing import Any

from parallel_core.serialization.pickling import REDUCERS, dumps, modules_by_value

#: How a variable is told: module and attribute, or None; else token, name, and pickled default.
Identity = tuple[str | None, str, str, bytes | None]

_numbers = itertools.count(1)
_places: dict[ContextVar[Any], tuple[str, str]] = {}
_tokens: dict[ContextVar[Any], str] = {}
_by_token: dict[str, ContextVar[Any]] = {}


def identity_of(variable: ContextVar[Any]) -> Identity:
    """Return what `variable_of` finds the same variable by, in this and in other processes."""
    place = _place_of(variable)
    if place is not None:
        return (*place, variable.name, None)
    token = _tokens.get(variable)
    if token is None:
        token = f"{os.getpid()}.{os.urandom(4).hex()}.{next(_numbers)}"
        _tokens[variable] = token
        _by_token[token] = variable
    return None, token, variable.name, _pickled_default(variable)


def variable_of(identity: Identity) -> ContextVar[Any]:
    """Return the variable of this process that `identity` stands for; made, if need be.

    Raises
    ------
    LookupError
        When it should be in a module, and is not there.
    """
    module, where, name, default = identity
    if module is not None:
        try:
            found = getattr(import_module(module), where, None)
        except Exception as error:
            raise LookupError(f"{module} cannot be imported here: {error}") from error
        if not isinstance(found, ContextVar):
            raise LookupError(f"{module}.{where} is no context variable here")
        return found
    known = _by_token.get(where)
    if known is None:
        known = _made(name, default)
        known = _by_token.setdefault(where, known)
        _tokens[known] = where
    return known


def reduce_variable(variable: Any) -> Any:
    """Return how a variable is pickled, for ``reducer_override``."""
    return variable_of, (identity_of(variable),)


def _made(name: str, default: bytes | None) -> ContextVar[Any]:
    if default is not None:
        try:
            return ContextVar(name, default=pickle.loads(default))  # noqa: B039
        except Exception:  # its class is not here; then it has none
            pass
    return ContextVar(name)


def _pickled_default(variable: ContextVar[Any]) -> bytes | None:
    try:
        return dumps(Context().run(variable.get))  # where nothing is set
    except Exception:  # there is none, or it does not pickle
        return None


def _place_of(variable: ContextVar[Any]) -> tuple[str, str] | None:
    """Return the module that has the variable, and under which name."""
    place = _places.get(variable)
    if place is None and variable not in _tokens:
        _places.update(_all_places())
        place = _places.get(variable)
    if place is not None and getattr(sys.modules.get(place[0]), place[1], None) is variable:
        return place
    return None


def _all_places() -> Iterator[tuple[ContextVar[Any], tuple[str, str]]]:
    """Yield every variable that stands in a module which other processes can import."""
    by_value = modules_by_value()
    for name, module in list(sys.modules.items()):
        if name == "__main__" or name in by_value:
            continue
        spec = getattr(module, "__spec__", None)
        if spec is None:  # made by hand, so nobody else can import it
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if type(value) is ContextVar:
                yield value, (name, attribute)


REDUCERS[ContextVar] = reduce_variable
