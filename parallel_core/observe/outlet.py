"""Where the output of workers appears: on ``sys.stdout``, ``sys.stderr``, in logging and warnings.

It goes where a ``print`` at this moment would go, in this thread: so into a notebook's cell, a
block of `contextlib.redirect_stdout`, what a test captures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

from parallel_core.observe import pieces as kinds
from parallel_core.observe.pieces import Piece, decode

_STREAMS = {
    kinds.STDOUT: "stdout",
    kinds.STDOUT_BYTES: "stdout",
    kinds.STDOUT_FLUSH: "stdout",
    kinds.STDERR: "stderr",
    kinds.STDERR_BYTES: "stderr",
    kinds.STDERR_FLUSH: "stderr",
}


def show(pieces: Iterable[Piece], worker_name: str | None = None) -> None:
    """Show all `pieces` in their order; a worker that has a name gives it to its records.

    Raises the first of what the streams, or filters and handlers of the caller's, raise.
    """
    raised: list[Exception] = []
    for kind, several in groupby(pieces, itemgetter(0)):
        found = [data for _, data in several]
        if kind not in (kinds.RECORD, kinds.WARNING):
            found = [b"".join(found)]
        for data in found:
            try:
                _show(kind, data, worker_name)
            except Exception as error:
                raised.append(error)
    if raised:
        raise raised[0]


def _show(kind: int, data: bytes, worker_name: str | None) -> None:
    if kind == kinds.RECORD:
        from parallel_core.observe.records import hand_over

        hand_over(data, worker_name)
        return
    if kind == kinds.WARNING:
        from parallel_core.observe.warned import warn_again

        warn_again(data)
        return
    stream: Any = getattr(sys, _STREAMS[kind], None)
    if stream is None:
        return
    if kind in (kinds.STDOUT, kinds.STDERR):
        _write(stream, decode(data))
    elif kind in (kinds.STDOUT_BYTES, kinds.STDERR_BYTES):
        _write_bytes(stream, data)
    else:
        stream.flush()


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # the task did not know for what it writes
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _write_bytes(stream: Any, data: bytes) -> None:
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        _write(stream, data.decode("utf-8", "backslashreplace"))
        return
    stream.flush()
    buffer.write(data)
