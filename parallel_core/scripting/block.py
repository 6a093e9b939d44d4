"""A block of code that is given as text, run in a worker: it imports no more than it needs."""

from __future__ import annotations

import functools
from types import CodeType
from typing import Any

#: The name of the file in tracebacks.
FILE = "<cmd of parallelcmd>"


def run_block(text: str, returnval: str, /, **variables: Any) -> Any:
    """Run the code in `text` with `variables`; return the variable `returnval`."""
    namespace = {"__name__": "__parallelcmd__", **variables}
    try:
        exec(compiled(text), namespace)
    except Exception as error:
        _note_line(error, text)
        raise
    if returnval not in namespace:
        raise NameError(f"cmd has not set {returnval!r}, which is to be returned, in this job")
    return namespace[returnval]


@functools.lru_cache(maxsize=16)
def compiled(text: str) -> CodeType:
    """Return the code of `text`, compiled once in each process; raise SyntaxError."""
    return compile(text, FILE, "exec", dont_inherit=True)


def _note_line(error: Exception, text: str) -> None:
    """Name the line of `text` in which `error` was raised, or called what raised it."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is not None:
        error.add_note(f"in line {line} of cmd: {text.splitlines()[line - 1].strip()}")
