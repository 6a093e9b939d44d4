"""A note for who writes to an argument that is a read-only memory map."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from memmapping.modules import loaded
from parallel_core.serialization.pickling import parts_of
from parallel_core.tasks.description import function_name

_DEPTH = 3
_MOST = 1000  # parts looked at


def note_read_only(error: BaseException, function: object, args: Any, kwargs: Any) -> None:
    """Have the error of a task that wrote to a read-only array say which it was and what to do."""
    if not isinstance(error, ValueError) or "read-only" not in str(error):
        return
    try:
        where = " or ".join(_suspects(function, args, kwargs))
    except Exception:  # of an argument that does not like to be looked at
        return
    if where:
        error.add_note(
            f"{where} of {function_name(function)} is, or holds, a memory map that tasks share "
            "and may only read. If it is an array that Parallel put there (see max_nbytes): "
            "mmap_mode='c' gives each task a private copy of what it writes, mmap_mode='r+' lets "
            "tasks see what others write. Else, or just for one line: copy it within the task",
        )


def _suspects(function: object, args: Any, kwargs: Any) -> Iterator[str]:
    numpy = loaded("numpy")
    if numpy is None:
        return
    named = [*zip(_names(function, len(args)), args, strict=False), *kwargs.items()]
    places: list[tuple[str, object]] = [(f"argument {name!r}", value) for name, value in named]
    places.append(("something captured", function))
    nothing = True
    for place, value in places:
        for part in _within(value, _DEPTH):
            if isinstance(part, numpy.memmap) and not part.flags.writeable:
                nothing = False
                yield place
                break
    references = loaded("memmapping.references")
    if nothing and references is not None and references.keeper.has_read_only():
        yield "an argument"


def _names(function: Any, count: int) -> list[int | str]:
    """Return what the positional arguments are called, as far as that is known."""
    names: list[int | str] = list(range(count))
    code = getattr(function, "__code__", None)
    if code is not None:
        known = code.co_varnames[: code.co_argcount]
        names[: len(known)] = known[:count]
    return names


def _within(value: object, depth: int) -> Iterator[object]:
    """Yield `value` and what it is made of."""
    yield value
    if depth:
        for _, part in islice(parts_of(value), _MOST):
            yield from _within(part, depth - 1)
