"""What ``sys.stdout`` and ``sys.stderr`` are in a worker of ours: text that goes to the caller.

Whole lines leave at once; what has no end of line yet leaves when it is flushed, and before an
answer. What C code and other programs write goes to the descriptors 1 and 2, as ever, and so does
what a child writes that a task forks.
"""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from memmapping.forks import in_child
from parallel_core.output import pieces
from parallel_core.output.capture import note_worker
from parallel_core.output.connection import OutputWriter
from parallel_core.output.pieces import encode
from parallel_core.output.records import pack_record, relay_records
from parallel_core.output.task_warnings import relay_warnings

if TYPE_CHECKING:
    from logging import LogRecord

_SLICE = 1 << 13  # characters at a time: no more bytes than one message has
_MAX_PARTS = 1 << 10  # of a line that does not end


class WorkerStream(io.TextIOBase):
    """A text file, ``"stdout"`` or ``"stderr"``, whose other end is the caller's."""

    def __init__(self, writer: OutputWriter, name: str) -> None:
        is_out = name == "stdout"
        self._writer = writer
        self._kind = pieces.STDOUT if is_out else pieces.STDERR
        self._flush_kind = pieces.STDOUT_FLUSH if is_out else pieces.STDERR_FLUSH
        self._descriptor = 1 if is_out else 2
        self._parts: dict[int, deque[str]] = {}  # of each thread: no other writes into its lines
        self._is_flushed = True
        original: Any = getattr(sys, f"__{name}__", None)
        self._encoding = getattr(original, "encoding", None) or "utf-8"
        self._errors = getattr(original, "errors", None) or "backslashreplace"
        self._buffer = _Bytes(self, pieces.STDOUT_BYTES if is_out else pieces.STDERR_BYTES)
        self.name = f"<{name}>"
        self.mode = "w"
        self.line_buffering = True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        """That of the descriptor's own file; the text goes to the caller as it is."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        """How the descriptor's own file handles characters that it cannot encode."""
        return self._errors

    @property
    def buffer(self) -> _Bytes:
        """A file of bytes."""
        return self._buffer

    def writable(self) -> bool:
        """Return true."""
        return True

    def fileno(self) -> int:
        """Return the descriptor behind the original stream, which other programs can write to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether that is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def reconfigure(self, **options: Any) -> None:
        """Do nothing: lines leave at once, and the encoding is the caller's business."""

    def write(self, text: str) -> int:
        """Write `text`; up to its last line it leaves now."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        parts = self._parts.get(get_ident())
        if parts is None:
            parts = self._parts.setdefault(get_ident(), deque())
        parts.append(text)
        if "\n" in text or "\r" in text or len(parts) > _MAX_PARTS or len(text) > _SLICE:
            self._send(parts)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]  # bytes, too
        """Write them one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what was written, and have the caller's stream flushed."""
        self.finish_lines()
        if not self._is_flushed:
            self._is_flushed = True
            self._writer.send(self._flush_kind, b"")

    def finish_lines(self) -> None:
        """Send what was written, whatever thread it was."""
        for thread, parts in list(self._parts.items()):
            if parts:
                self._send(parts)
            elif len(self._parts) > _MAX_PARTS and thread not in sys._current_frames():
                del self._parts[thread]

    def send_bytes(self, kind: int, data: bytes) -> None:
        """Send `data`, after what this thread has written before."""
        parts = self._parts.get(get_ident())
        if parts:
            self._send(parts)
        self._deliver(kind, data)

    def forget(self) -> None:
        """In a forked child: what was not sent is not its own."""
        self._parts.clear()

    def _send(self, parts: deque[str]) -> None:
        text = ""
        try:
            while True:
                text += parts.popleft()
        except IndexError:
            pass
        for start in range(0, len(text), _SLICE):
            self._deliver(self._kind, encode(text[start : start + _SLICE]))

    def _deliver(self, kind: int, data: bytes) -> None:
        self._is_flushed = False
        if not self._writer.send(kind, data):
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]


class _Bytes(io.BufferedIOBase):
    """The bytes behind a `WorkerStream`: they leave at once."""

    def __init__(self, stream: WorkerStream, kind: int) -> None:
        self._stream = stream
        self._kind = kind

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: Any) -> int:
        whole = bytes(data)
        if whole:
            self._stream.send_bytes(self._kind, whole)
        return len(whole)

    def flush(self) -> None:
        if not self._stream.closed:
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: it goes with its stream."""


def send_output(writer: OutputWriter) -> Callable[[], None]:
    """Have this process, a worker, print, log and warn through `writer`.

    Return what sends the lines that have no end yet.
    """
    note_worker()
    out, err = WorkerStream(writer, "stdout"), WorkerStream(writer, "stderr")
    sys.stdout, sys.stderr = out, err
    in_child(out.forget)
    in_child(err.forget)

    def finish_lines() -> None:
        out.finish_lines()
        err.finish_lines()

    def send_record(record: LogRecord, is_handled: bool) -> bool:
        return writer.send(pieces.RECORD, pack_record(record, is_handled))

    def send_warning(data: bytes) -> bool:
        # Not where a task, or output=, has sent all text elsewhere: there belongs its text, too.
        return type(sys.stderr) is WorkerStream and writer.send(pieces.WARNING, data)

    relay_records(send_record)
    relay_warnings(send_warning)
    return finish_lines
