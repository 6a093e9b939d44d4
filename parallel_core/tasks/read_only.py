"""A note for who writes to an argument that is a read-only memory map."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from parallel_core.errors import add_note
from parallel_core.tasks.description import function_name
from parallel_core.tasks.pickling import parts_of

_DEPTH = 3
_MOST = 1000  # parts looked at


def note_read_only(error: BaseException, function: object, args: Any, kwargs: Any) -> None:
    """Have the error of a task that wrote to a read-only array say which it was and what to do."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(error, ValueError) or "read-only" not in str(error):
        return
    named = [*zip(_names(function, len(args)), args, strict=False), *kwargs.items()]
    places: list[tuple[str, object]] = [(f"argument {name!r}", value) for name, value in named]
    places.append(("the function", function))
    found = []
    for place, value in places:
        for path, part in _within(place, value, _DEPTH):
            if isinstance(part, numpy.memmap) and not part.flags.writeable:
                found.append(path)
                break
    if found:
        add_note(
            error,
            f"{' and '.join(found)} of {function_name(function)} "
            f"{'is a memory map' if len(found) == 1 else 'are memory maps'} that tasks share, "
            "opened with mmap_mode='r'. Parallel(mmap_mode='c') gives each task a private copy of "
            "what it writes, mmap_mode='r+' lets tasks see what others write, and "
            "max_nbytes=None sends every task its own array; or copy it within the task",
        )


def _names(function: Any, count: int) -> list[int | str]:
    """Return what the positional arguments are called, as far as that is known."""
    names: list[int | str] = list(range(count))
    code = getattr(function, "__code__", None)
    if code is not None:
        known = code.co_varnames[: code.co_argcount]
        names[: len(known)] = known[:count]
    return names


def _within(path: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Yield `value` and what it is made of, each with the words that lead to it."""
    yield path, value
    if depth:
        for number, (step, part) in enumerate(parts_of(value)):
            if number > _MOST:
                return
            yield from _within(path + step, part, depth - 1)
