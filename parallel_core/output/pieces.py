"""Pieces of output on their way to the caller, and how they appear there.

They appear where a ``print`` at this moment would, in this thread: so in a notebook's cell, a block
of `contextlib.redirect_stdout`, what a test captures. Text travels as UTF-8 in which lone
surrogates are kept: what becomes of them is for the caller's stream to say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

#: One of the kinds below, and what belongs to it.
Piece = tuple[int, bytes]

STDOUT, STDERR = b"oe"  #: text
STDOUT_BYTES, STDERR_BYTES = b"OE"  #: what was written to the ``buffer`` of either
STDOUT_FLUSH, STDERR_FLUSH = b"fg"  #: nothing; the task has flushed
RECORD = b"r"[0]  #: of the module `logging`; see `records`
WARNING = b"w"[0]  #: of the module `warnings`; see `task_warnings`
PART = b"p"[0]  #: of a piece that is too long for one message; see `connection`

_STREAMS = {
    STDOUT: "stdout",
    STDOUT_BYTES: "stdout",
    STDOUT_FLUSH: "stdout",
    STDERR: "stderr",
    STDERR_BYTES: "stderr",
    STDERR_FLUSH: "stderr",
}


def encode(text: str) -> bytes:
    """Return the bytes of a text."""
    return text.encode("utf-8", "surrogatepass")


def show(pieces: Iterable[Piece], worker_name: str | None = None) -> None:
    """Show all `pieces` in their order; a worker that has a name gives it to its records.

    Raises the first of what the streams, or filters and handlers of the caller's, raise.
    """
    raised: list[Exception] = []
    for kind, several in groupby(pieces, itemgetter(0)):
        found = [data for _, data in several]
        if kind not in (RECORD, WARNING):
            found = [b"".join(found)]
        for data in found:
            try:
                _show(kind, data, worker_name)
            except Exception as error:
                raised.append(error)
    if raised:
        raise raised[0]


def _show(kind: int, data: bytes, worker_name: str | None) -> None:
    if kind == RECORD:
        from parallel_core.output.records import handle

        handle(data, worker_name)
        return
    if kind == WARNING:
        from parallel_core.output.task_warnings import warn_again

        warn_again(data)
        return
    stream: Any = getattr(sys, _STREAMS[kind], None)
    if stream is None:
        return
    if kind in (STDOUT, STDERR):
        _write(stream, data.decode("utf-8", "surrogatepass"))
    elif kind in (STDOUT_BYTES, STDERR_BYTES):
        _write_bytes(stream, data)
    else:
        stream.flush()


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # the task does not know the encoding of this stream
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _write_bytes(stream: Any, data: bytes) -> None:
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        _write(stream, data.decode("utf-8", "backslashreplace"))
        return
    stream.flush()
    buffer.write(data)
