"""Open files and sockets: which objects they are, and those that the running task was given.

What there is to do about them is in `open_files`, which is imported when there is one.
"""

from __future__ import annotations

import pickle
import sys
from _io import BytesIO, StringIO, _IOBase
from _socket import socket
from _thread import get_ident
from typing import Any

from parallel_core.tasks.description import short_repr

_OPEN = (_IOBase, socket)
_BY_NAME = {("tempfile", "_TemporaryFileWrapper"), ("multiprocessing.connection", "Connection")}
_IN_MEMORY = (BytesIO, StringIO)
_STANDARD = ("stdin", "stdout", "stderr")

#: What the tasks that run were given, by thread. Empty means that there is nothing to close.
opened: dict[int, list[Any]] = {}


def is_open_file(obj: object) -> bool:
    """Whether `obj` stands for something that the operating system has open."""
    if isinstance(obj, _OPEN):
        return not isinstance(obj, _IN_MEMORY)
    kind = type(obj)
    return (kind.__module__, kind.__name__) in _BY_NAME


def standard_name(obj: object) -> str | None:
    """Return the name in `sys` of a standard stream, else None."""
    for name in _STANDARD:
        if obj is getattr(sys, name, None) or obj is getattr(sys, f"__{name}__", None):
            return name
    return None


def name_of(obj: Any) -> str:
    """Return the words for an open file in messages, with its name in full."""
    name = getattr(obj, "name", None)
    return short_repr(obj) if name is None else f"the file {name!r}"


def note(file: Any) -> Any:
    """Return `file`, which is to be closed when the task of this thread is done."""
    opened.setdefault(get_ident(), []).append(file)
    return file


def close_opened() -> None:
    """Flush and close what the task of this thread was given.

    Raises
    ------
    OSError
        When something of what it wrote could not be written: that is the task's failure.
    """
    failed: Exception | None = None
    for file in opened.pop(get_ident(), ()):
        try:
            file.close()
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed


def abandon_opened() -> None:
    """Close what a task was given that has failed by itself."""
    try:
        close_opened()
    except Exception:
        pass


def leave_opened() -> None:
    """Let what was opened in this thread be closed by whoever has it."""
    opened.pop(get_ident(), None)


def refuse_result(obj: Any) -> None:
    """Raise PicklingError, which says what to return instead of an open file."""
    if standard_name(obj) is None:
        raise pickle.PicklingError(
            f"{name_of(obj)} is open in the worker alone; return what was read from it, or its name"
        )
