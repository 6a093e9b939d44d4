"""Whole messages, with descriptors beside them, between this process and a fork server of its.

Small, rare, one at a time: not the channel of `workers.channel`, which is none of these.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<I")
_MOST_DESCRIPTORS = 8
_FLAGS: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

#: To the fork server: (PREPARE, state, kept, modules, idle seconds),
#: (FORK, numbers of the streams that come along, idle seconds), (OUTCOME, pid).
PREPARE, FORK, OUTCOME = range(3)
#: From it: (IMPORTING, module), then (FAILED, module, data, text), (THREADS, module) or (READY,);
#: (BORN, pid) or (REFUSED, errno, text); (ENDED, exit code, bytes) or (RUNNING,).
IMPORTING, FAILED, THREADS, READY, BORN, REFUSED, ENDED, RUNNING = range(10, 18)


class ForkServerClosed(OSError):
    """The other end is gone, or says nothing for too long."""


class ForkServerChannel:
    """One end."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def set_patience(self, seconds: float | None) -> None:
        """Have whatever takes longer than so many seconds fail."""
        self._socket.settimeout(seconds)

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Send `message`; the other end gets duplicates of `descriptors`."""
        data = pickle.dumps(message)
        frame = _HEADER.pack(len(data)) + data
        try:
            sent = socket.send_fds(self._socket, [frame], descriptors) if descriptors else 0
            self._socket.sendall(frame[sent:])
        except OSError as error:
            raise ForkServerClosed(str(error)) from error

    def receive(self) -> tuple[Any, list[int]]:
        """Return a message, and the descriptors that came with it.

        Raises
        ------
        ForkServerClosed
            At the end.
        """
        descriptors: list[int] = []
        try:
            header, descriptors, _, _ = socket.recv_fds(
                self._socket, _HEADER.size, _MOST_DESCRIPTORS, _FLAGS
            )
            header += self._read(_HEADER.size - len(header))
            return pickle.loads(self._read(*_HEADER.unpack(header))), descriptors
        except OSError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            raise ForkServerClosed(str(error)) from error

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ForkServerClosed("the other end is closed")
            data += piece
        return data

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
