"""Where the output of workers appears: on what is ``sys.stdout``, ``sys.stderr`` and logging here.

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
    """Show `pieces` in their order; a worker that has a name gives it to its records.

    Raises what the stream, or a filter or handler of the caller's, raises.
    """
    for kind, several in groupby(pieces, itemgetter(0)):
        if kind == kinds.RECORD:
            from parallel_core.observe.records import hand_over

            for _, data in several:
                hand_over(data, worker_name)
            continue
        stream: Any = getattr(sys, _STREAMS[kind], None)
        if stream is None:
            continue
        if kind in (kinds.STDOUT, kinds.STDERR):
            _write(stream, decode(b"".join([data for _, data in several])))
        elif kind in (kinds.STDOUT_BYTES, kinds.STDERR_BYTES):
            _write_bytes(stream, b"".join([data for _, data in several]))
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
