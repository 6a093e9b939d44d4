"""The rows of a journal: one for each result, and its checksum over everything in it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

# A row that is there already is damaged, or ours: a signal came between writing and noting that.
APPEND = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)"
DESCRIBE = "INSERT OR IGNORE INTO functions VALUES (?, ?)"

_MOST = 256  # read at a time
_SMALL = 4096  # bytes of a result that is read with the others

_READ = (
    "SELECT position, function, arguments, seed, checksum, "
    f"CASE WHEN length(value) <= {_SMALL} THEN value END "
    "FROM results WHERE position BETWEEN ? AND ?"
)

#: Digests of the function, of the arguments and of the seed; the checksum; the result, if small.
Row = tuple[bytes, bytes, bytes | None, int, bytes | None]


class Rows:
    """What the journal had when the call began, a few rows at a time.

    Parameters
    ----------
    execute : callable
        Returns what a statement finds.

    Attributes
    ----------
    end : int
        From this position on there are none.
    """

    def __init__(self, execute: Callable[..., list[Any]]) -> None:
        self._execute = execute
        ((last,),) = execute("SELECT max(position) FROM results")
        self.end: int = 0 if last is None else last + 1
        self._found: dict[int, Row] = {}
        self._found_up_to = 0

    def find(self, position: int) -> Row | None:
        """Return the row of `position`; asked for in ascending order."""
        if position >= self._found_up_to:
            self._found_up_to = position + _MOST
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
