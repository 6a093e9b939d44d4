"""Channels whose frames may have descriptors beside them: from a parent to its worker.

::

    parent                                                         worker
    Expect, the first time                     ──────────────▶     reads by recvmsg from now on
    what waits is let through                  ◀──────────────     Expecting
    Descriptors, and as many of these with
     its first byte; then RunBatch             ──────────────▶     `Receiver.descriptors`

The kernel ends a read at the bytes that descriptors came with, so one read gets those of one
message at most. A plain read would drop them; but never to read plainly would cost a warm call a
tenth of its time, so a worker does until it is told.
"""

from __future__ import annotations

import errno
import socket
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from parallel_core.workers.channel import Channel, ChannelClosed, frame_of
from parallel_core.workers.messages import Descriptors, Expect, to_wire

if TYPE_CHECKING:
    from parallel_core.serialization.open_files import Held

#: The kernel takes 253 with one message.
MOST = 64
_SPACE = socket.CMSG_SPACE(MOST * array("i").itemsize)
_FLAGS: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Sender(Channel):
    """The parent's end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._beside: deque[tuple[memoryview, list[Held]]] = deque()
        self._has_asked = False
        self._may_pass = False

    def send_descriptors(self, held: list[Held]) -> bool:
        """Send at most `MOST` descriptors; return whether something waits to be sent.

        They wait, with all that is sent after them, until the other end expects them: `let_pass`.
        """
        if not self._has_asked:
            self._has_asked = True
            self.send(to_wire(Expect()))
        message = Descriptors([one.number for one in held])
        piece = memoryview(frame_of(to_wire(message)))
        self._beside.append((piece, held))
        self._outbox.append(piece)
        return self.flush()

    def let_pass(self) -> None:
        """Note that the other end expects descriptors; what waits may be flushed."""
        self._may_pass = True

    def _next_pieces(self) -> tuple[list[memoryview], Any]:
        pieces, beside = super()._next_pieces()
        if self._beside:
            piece, held = self._beside[0]
            if pieces[0] is piece:
                if not self._may_pass:
                    return [], ()
                numbers = array("i", [one.descriptor for one in held])
                return [piece], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
            for index, other in enumerate(pieces):
                if other is piece:
                    return pieces[:index], beside
        return pieces, beside

    def _send_several(self, pieces: list[memoryview], flags: int, beside: Any = ()) -> int:
        try:
            sent = super()._send_several(pieces, flags, beside)
        except ChannelClosed as closed:
            why = closed.__cause__
            if isinstance(why, OSError) and why.errno == errno.ETOOMANYREFS:
                return 0  # until others have taken in what is on its way
            raise
        if beside and sent:
            self._beside.popleft()
        return sent

    def close(self) -> None:
        """Close the socket."""
        self._beside.clear()
        super().close()


class Receiver(Channel):
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.descriptors: deque[list[int]] = deque()  #: what came beside messages, in their order

    def expect(self) -> None:
        """Take in descriptors from now on."""
        self._receive_into = self._receive_with  # type: ignore[method-assign]  # plain until now

    def _receive_with(self, view: memoryview, flags: int) -> int:
        try:
            read, beside, told, _ = self._socket.recvmsg_into([view], _SPACE, flags | _FLAGS)
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError as error:  # reset by a peer that died with something unread
            raise ChannelClosed from error
        if beside or told & socket.MSG_CTRUNC:  # cut short: this process has too many open
            self.descriptors.append(_numbers(beside))
        if read == 0:
            raise ChannelClosed
        return read


def _numbers(beside: list[tuple[int, int, bytes]]) -> list[int]:
    numbers = array("i")
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)
