"""Frames over one socket, the same on both ends; sending never blocks, receiving only on request.

A frame is its length (8 bytes, little endian) and a pickle. What the socket does not take at
once waits in `_outbox`; whoever polls the descriptor asks for POLLOUT while `pending` is true.
That is why a parent which sends a big batch to a worker that is sending a big result does not
wait for it: both go on reading.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections import deque
from typing import Any

_HEADER = struct.Struct("<Q")
_CHUNK = 1 << 18


class ChannelClosed(Exception):
    """The other end is gone, and everything that it had sent has been read."""


class Channel:
    """One end of the connection between a parent and a worker.

    Parameters
    ----------
    sock : socket.socket
        A connected stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)  # each call says whether it waits
        self._socket = sock
        self._outbox: deque[memoryview] = deque()
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: memoryview | None = None
        self._large_filled = 0

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outbox)

    def send(self, message: Any) -> bool:
        """Send `message`, or as much of it as the socket takes now; return whether some waits.

        Raises
        ------
        ChannelClosed
            When the other end no longer reads.
        """
        data = pickle.dumps(message, 5)
        header = _HEADER.pack(len(data))
        if self._outbox:
            self._outbox.append(memoryview(header + data))
            return self.flush()
        if len(data) < 65536:
            frame = header + data
            sent = self._send(frame)
            if sent == len(frame):
                return False
            self._outbox.append(memoryview(frame)[sent:])
            return True
        self._outbox.append(memoryview(header))
        self._outbox.append(memoryview(data))
        return self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it; return whether some still waits."""
        while self._outbox:
            head = self._outbox[0]
            sent = self._send(head)
            if sent < len(head):
                self._outbox[0] = head[sent:]
                if sent == 0:
                    return True
            else:
                self._outbox.popleft()
        return False

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ChannelClosed from error

    def set_patience(self, seconds: float | None) -> None:
        """Let `receive` wait for at most `seconds`; None: for ever."""
        whole = 0 if seconds is None else int(seconds)
        rest = 0 if seconds is None else max(int((seconds - whole) * 1e6), 0 if whole else 1)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", whole, rest)
        )

    def receive(self, wait: bool = False) -> list[Any] | None:
        """Read what is there, and return the messages that are complete; None if nothing is there.

        Parameters
        ----------
        wait : bool, default False
            Wait until there is something, or patience ends.

        Raises
        ------
        ChannelClosed
            At the end, when there is nothing more to read.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        if self._large is not None:
            return self._receive_large(flags)
        read = self._receive_into(self._view[self._filled :] if self._filled else self._view, flags)
        if read < 0:
            return None
        filled = self._filled + read
        position = 0
        messages: list[Any] = []
        while filled - position >= 8:
            (length,) = _HEADER.unpack_from(self._buffer, position)
            end = position + 8 + length
            if end > filled:
                if 8 + length > _CHUNK:
                    self._begin_large(length, position + 8, filled)
                    self._filled = 0
                    return messages
                break
            messages.append(pickle.loads(self._view[position + 8 : end]))
            position = end
        if position and filled > position:
            self._buffer[: filled - position] = self._buffer[position:filled]
        self._filled = filled - position
        return messages

    def _begin_large(self, length: int, start: int, end: int) -> None:
        self._large = memoryview(bytearray(length))
        self._large_filled = end - start
        self._large[: end - start] = self._view[start:end]

    def _receive_large(self, flags: int) -> list[Any] | None:
        large = self._large
        assert large is not None
        while self._large_filled < len(large):
            read = self._receive_into(large[self._large_filled :], flags)
            if read < 0:
                return None
            self._large_filled += read
        self._large = None
        return [pickle.loads(large)]

    def _receive_into(self, view: memoryview, flags: int) -> int:
        try:
            read = self._socket.recv_into(view, 0, flags)
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError as error:  # reset by a peer that died with something unread
            raise ChannelClosed from error
        if read == 0:
            raise ChannelClosed
        return read

    def has_something(self) -> bool:
        """Whether the other end has said something that is not read yet."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def refuse(self) -> None:
        """Tell the other end that nothing sent from now on will be read."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket."""
        self._outbox.clear()
        self._socket.close()
