"""The rows of a journal: one for each result, pickled, and its checksum over everything in it.

Results are pickled for the next start of the program. Its ``__main__`` will be the same script, so
what stands there goes by name: a result comes back as an instance of the script's own class. What
has no name there goes by value, as to workers.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable
from types import FunctionType
from typing import Any

from parallel_core.serialization.pickling import PICKLING_ERRORS, PROTOCOL, dumps_by_value

# A row that is there already is damaged, or ours: a signal came between writing and noting that.
APPEND = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)"
DESCRIBE = "INSERT OR IGNORE INTO functions VALUES (?, ?)"

_MAX = 256  # read at a time
_SMALL = 4096  # bytes of a result that is read with the others

_READ = (
    "SELECT position, function, arguments, seed, checksum, "
    f"CASE WHEN length(value) <= {_SMALL} THEN value END "
    "FROM results WHERE position BETWEEN ? AND ?"
)

#: Digests of the function, of the arguments and of the seed; the checksum; the result, if small.
Row = tuple[bytes, bytes, bytes | None, int, bytes | None]


class Rows:
    """What the journal had when the call began, a few rows at a time."""

    def __init__(self, execute: Callable[..., list[Any]]) -> None:
        self._execute = execute
        ((last,),) = execute("SELECT max(position) FROM results")
        self.end: int = 0 if last is None else last + 1  #: from this position on there are none
        self._found: dict[int, Row] = {}
        self._found_up_to = 0

    def find(self, position: int) -> Row | None:
        """Return the row of `position`; asked for in ascending order."""
        if position >= self._found_up_to:
            self._found_up_to = position + _MAX
            rows = self._execute(_READ, position, self._found_up_to - 1)
            self._found = {row[0]: row[1:] for row in rows}
        return self._found.pop(position, None)

    def value(self, position: int) -> Any:
        """Return a result that was too large to be read with the others."""
        ((value,),) = self._execute("SELECT value FROM results WHERE position = ?", position)
        return value


def checksum_of(
    position: int, function: bytes, arguments: bytes, seed: bytes | None, data: bytes
) -> int:
    """Return the checksum of a row."""
    key = b"%d %b %b %b " % (position, function, arguments, seed or b"")
    return zlib.crc32(data, zlib.crc32(key))


def dumps_result(value: object) -> bytes:
    """Pickle a result."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except PICKLING_ERRORS:
        return dumps_by_value(value, _by_name)


def _by_name(obj: object) -> Any:
    """Reduce the script's classes and functions to their names; the rest goes by value."""
    if isinstance(obj, (type, FunctionType)) and obj.__module__ == "__main__":
        try:
            pickle.dumps(obj, PROTOCOL)
        except Exception:  # not to be found there: made within a function
            return NotImplemented
        return _in_script, (obj.__qualname__,)
    return NotImplemented


def _in_script(name: str) -> Any:
    import __main__

    found: Any = __main__
    for part in name.split("."):
        found = getattr(found, part)
    return found
