"""Words for a task: its function, and its arguments shortened to fit a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST_ARGUMENT = 80
_MOST_ARGUMENTS = 8


def short_repr(value: object, longest: int = _LONGEST_ARGUMENT) -> str:
    """Return ``repr(value)`` on one line, shortened; never raises, never prints a whole array."""
    kind = type(value)
    try:
        text = _repr(value, kind.__name__, longest)
    except Exception as error:
        return f"<{kind.__name__}, whose repr raised {type(error).__name__}>"
    text = " ".join(text.split())
    if len(text) > longest:
        head = (2 * longest) // 3
        text = f"{text[:head]}...{text[head + 3 - longest :]}"
    return text


def _repr(value: object, kind: str, longest: int) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        size = "x".join(str(side) for side in shape)
        return f"<{kind} {size} {value.dtype}>"
    if isinstance(value, (str, bytes, bytearray)) and len(value) > 4 * longest:
        value = value[: 4 * longest]
    elif isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) > longest:
        return f"<{kind} of {len(value)} items>"
    return repr(value)


def function_name(function: object) -> str:
    """Return the name under which a reader knows `function`; never raises."""
    try:
        return _function_name(function)
    except Exception:
        return f"<{type(function).__name__}>"


def _function_name(function: object) -> str:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if not isinstance(name, str):
        inner = getattr(function, "func", None)  # functools.partial and its kin
        return f"partial({function_name(inner)})" if callable(inner) else short_repr(function)
    module = getattr(function, "__module__", None)
    if not isinstance(module, str) or module in ("__main__", "builtins"):
        return name
    return f"{module}.{name}"


def describe_call(function: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the call as its author would write it, shortened.

    >>> describe_call(pow, (2, 5), {"mod": 7})
    'pow(2, 5, mod=7)'
    """
    shown = [short_repr(value) for value in args]
    shown += [f"{name}={short_repr(value)}" for name, value in kwargs.items()]
    if len(shown) > _MOST_ARGUMENTS:
        shown = [*shown[:_MOST_ARGUMENTS], f"... {len(shown) - _MOST_ARGUMENTS} more"]
    return f"{function_name(function)}({', '.join(shown)})"


def describe_task(position: int, call: str) -> str:
    """Return how a task is named in every message: its position, then its call."""
    return f"task {position} of the call: {call}"
