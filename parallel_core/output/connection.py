"""The connection for what tasks print and log, between a worker and its parent.

::

    worker                                                          parent
    print ──▶ WorkerStream ─┐                                  ┌─▶ sys.stdout, sys.stderr
                            ├─▶ OutputWriter ═▶ OutputReader ──┤
    logging ──▶ Relay ──────┘        │                         └─▶ logging
                                     └─▶ the worker's board: it has output

Any thread prints, and so do finalizers and handlers of signals, in the midst of anything; and what
a handler raises comes out of anything. On the channel, a frame would have to be kept whole against
all that. Here each message is one system call on a socket that keeps messages whole (`SOCK_DGRAM`):
it is sent, or it is not, so there is no state to protect, and no lock.

The kernel holds as much as the socket's buffer does: at most 2 MiB, of which each message takes 768
bytes or more. When that is full, the thread that prints waits until the parent reads; the parent
reads whenever it waits for a worker. A task does not age while it waits so.

A worker notes on its board that it has sent something. The parent looks at that with every answer,
clears it, and reads; so what a task has printed is shown before its result is known, and workers
that print nothing cost a look at a word.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from parallel_core.output.pieces import PART, Piece

_BUFFER = 1 << 20  # as far as the system lets us
LONGEST = 1 << 15  # bytes in a message
_TURN = 1 << 22  # bytes that are read at a time; each message counts as the kernel counts it
_OVERHEAD = 768  # at least
_PART = struct.Struct("<QB?")  # of which piece, its kind, whether it is the last


class Notice(Protocol):
    """How a worker lets its parent know about its output."""

    def note_output(self) -> None:
        """Note that something was sent."""
        ...

    def wait_for_parent(self, send: Callable[[], bool]) -> bool:
        """Return what `send` returns, which waits; a task that runs does not age meanwhile."""
        ...


class OutputWriter:
    """The worker's end of a socket that keeps messages whole."""

    def __init__(self, sock: socket.socket, notice: Notice) -> None:
        self._numbers = itertools.count()
        self._sent = itertools.count(1)
        self.n_sent = 0  #: messages that were sent
        self.connect(sock, notice)

    def connect(self, sock: socket.socket, notice: Notice) -> None:
        """Send to `sock` from now on: to another parent, or to the same one anew."""
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket = sock
        self._notice = notice
        self.is_open = True

    def send(self, kind: int, data: bytes) -> bool:
        """Send a piece; wait for a parent that is at rest. False: nobody will read it."""
        if not self.is_open:
            return False
        if len(data) > LONGEST:
            return self._send_parts(kind, data)
        return self._send(bytes((kind,)) + data)

    def _send_parts(self, kind: int, data: bytes) -> bool:
        number = next(self._numbers)
        for start in range(0, len(data), LONGEST):
            part = data[start : start + LONGEST]
            head = _PART.pack(number, kind, start + LONGEST >= len(data))
            if not self._send(bytes((PART,)) + head + part):
                return False
        return True

    def _send(self, message: bytes) -> bool:
        try:
            self._socket.send(message, socket.MSG_DONTWAIT)
        except OSError as error:
            if not isinstance(error, BlockingIOError) and error.errno != errno.ENOBUFS:
                return False
            if not self._notice.wait_for_parent(lambda: self._send_blocking(message)):
                return False
        self.n_sent = next(self._sent)
        self._notice.note_output()
        return True

    def _send_blocking(self, message: bytes) -> bool:
        while True:
            try:
                self._socket.send(message)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # as some systems say that there is no room
                    return False
                time.sleep(0.001)
            else:
                return True

    def limit_waiting(self, seconds: float) -> None:
        """Wait no longer than `seconds` for the parent from now on, which may never read again."""
        whole = int(seconds)
        patience = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        with contextlib.suppress(OSError):  # a task has closed it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)

    def close(self) -> None:
        """Send nothing more, as a child of this process must not."""
        self.is_open = False
        self._socket.close()


class OutputReader:
    """The parent's end of a socket that keeps messages whole."""

    __slots__ = ("_buffer", "_parts", "_socket", "n_read")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(LONGEST + _PART.size + 1))
        self._parts: dict[int, list[bytes]] = {}
        self.n_read = 0  #: messages that were read

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def read(self) -> list[Piece]:
        """Return what has come, without waiting."""
        receive, buffer = self._socket.recv_into, self._buffer
        found: list[Piece] = []
        left = _TURN  # which is more than the kernel holds
        try:
            while left > 0:
                read = receive(buffer, 0, socket.MSG_DONTWAIT)
                left -= read + _OVERHEAD
                self.n_read += 1
                kind = buffer[0]
                data = bytes(buffer[1:read])
                if kind == PART:
                    self._join(data, found)
                else:
                    found.append((kind, data))
        except OSError:  # that was all
            pass
        return found

    def _join(self, data: bytes, found: list[Piece]) -> None:
        number, kind, is_last = _PART.unpack_from(data)
        parts = self._parts.setdefault(number, [])
        parts.append(data[_PART.size :])
        if is_last:
            del self._parts[number]
            found.append((kind, b"".join(parts)))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def output_pair() -> tuple[OutputReader, int]:
    """Return the parent's end of a new connection, and the descriptor to hand to the worker."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return OutputReader(ours), theirs.detach()
