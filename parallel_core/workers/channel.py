"""Frames over one socket, the same on both ends; sending never blocks unless it is asked to.

::

    small    length (8 bytes, little endian)       pickle of the message
    parcel   length of the head, and bit 63 set    head                     buffer  buffer  ...

The head is a pickle of what memory each buffer wants (see `serialization.buffers`) and of the
pickle of the message, in which each `HERE` stands for one of them. Buffers are sent from
where they lie, and received into memory that is allocated once: it is what the message then has in
those places. One that cannot be allocated is read all the same, and the
message has the exception in its place.

What the socket does not take at once waits in `_outbox`; whoever polls the descriptor asks for
POLLOUT while `pending` is true. That is why a parent which sends a big batch to a worker that is
sending a big result does not wait for it: both go on reading. Buffers that wait are views, so
their owner calls `own` before what they show may change.
"""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import struct
from collections import deque
from itertools import islice
from time import monotonic
from typing import Any

from parallel_core.serialization.buffers import Buffer, Description, allocate, nbytes_of

_HEADER = struct.Struct("<Q")
_HAS_BUFFERS = 1 << 63
_CHUNK = 1 << 18
_NARROW = 1 << 12  # read first where buffers are expected: they should not land in the chunk
_TURN = 1 << 22  # bytes that `receive` reads at most before others have theirs read
_AT_ONCE = 64  # pieces for one system call
_SOCKET_BUFFER = 1 << 20  # as far as the system lets us; less means more turns for a large frame


class ChannelClosed(Exception):
    """The other end is gone, and everything that it had sent has been read."""


class _Incoming:
    """What is received straight into memory of its own: here a frame too large for the chunk."""

    __slots__ = ("objects", "unfilled")

    def __init__(self, *descriptions: Description) -> None:
        #: What the memory belongs to, or the exception that says why there is none.
        self.objects: list[Any] = []
        #: The memory that is still to be filled; a number: so many bytes are to be dropped.
        self.unfilled: deque[memoryview | int] = deque()
        for description in descriptions:
            nbytes = nbytes_of(description)
            memory: memoryview | int = nbytes
            try:
                received, memory = allocate(description)
            except Exception as error:  # the bytes come nevertheless
                received = error.with_traceback(None)
            self.objects.append(received)
            if nbytes:
                self.unfilled.append(memory)

    def fill(self, data: memoryview) -> int:
        """Take what has come already; return how much of it was meant for this memory."""
        position = 0
        while position < len(data) and self.unfilled:
            memory = self.unfilled[0]
            wanted = memory if isinstance(memory, int) else len(memory)
            piece = data[position : position + wanted]
            if not isinstance(memory, int):
                memory[: len(piece)] = piece
            self.advance(len(piece))
            position += len(piece)
        return position

    def advance(self, nbytes: int) -> None:
        """Note that so much of the first memory is filled."""
        memory = self.unfilled.popleft()
        if isinstance(memory, int):
            if nbytes < memory:
                self.unfilled.appendleft(memory - nbytes)
        elif nbytes < len(memory):
            self.unfilled.appendleft(memory[nbytes:])

    def message(self) -> Any:
        """Return the message, when everything is there."""
        return pickle.loads(self._whole())

    def _whole(self) -> Any:
        (memory,) = self.objects
        if isinstance(memory, BaseException):
            raise memory
        return memory


class _IncomingHead(_Incoming):
    """The head of a parcel, too large for the chunk itself."""

    __slots__ = ()

    def parcel(self) -> IncomingParcel:
        return IncomingParcel(self._whole())


class IncomingParcel(_Incoming):
    """The buffers of a parcel."""

    __slots__ = ("_pickle",)

    def __init__(self, head: memoryview) -> None:
        descriptions, self._pickle = pickle.loads(head)
        super().__init__(*descriptions)

    def message(self) -> Any:
        """Return the message, when everything is there."""
        return pickle.loads(self._pickle, buffers=self.objects)


def head_of(message: Any, buffers: list[Buffer]) -> bytes:
    """Return the head of a parcel: what memory its buffers want, and the pickle around them."""
    data = pickle.dumps(message, 5, buffer_callback=_is_in_band)
    return pickle.dumps(([buffer.description for buffer in buffers], data), 5)


def frame_of(message: Any) -> bytes:
    """Return `message` as a small frame."""
    data = pickle.dumps(message, 5)
    return _HEADER.pack(len(data)) + data


class Channel:
    """One end of the connection between a parent and a worker."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)  # each call says whether it waits
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._socket = sock
        self._outbox: deque[memoryview] = deque()
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._narrow = self._view[:_NARROW]
        self._window = self._view
        self._filled = 0
        self._incoming: _Incoming | None = None
        #: Seconds that it has taken to unpickle messages, but for small ones.
        self.unpickling = 0.0

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

    def send_parcel(self, message: Any, buffers: list[Buffer]) -> bool:
        """Send `message`, in which `HERE` stands for each of `buffers`, as `send` does.

        What waits is not copied: see `own`.
        """
        head = head_of(message, buffers)
        self._outbox.append(memoryview(_HEADER.pack(len(head) | _HAS_BUFFERS) + head))
        for buffer in buffers:
            self._outbox.extend(buffer.views)
        return self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it; return whether some still waits."""
        return self._flush(socket.MSG_DONTWAIT)

    def flush_patiently(self) -> bool:
        """Send what waits while the other end reads on; return whether some still waits.

        That is so when there was no room for as long as `set_send_patience` says.
        """
        return self._flush(0)

    def _flush(self, flags: int) -> bool:
        outbox = self._outbox
        while outbox:
            pieces, beside = self._next_pieces()
            if not pieces:
                return False  # there is no use in waiting for room
            offered = sum(map(len, pieces))
            sent = self._send_several(pieces, flags, beside)
            is_full = sent < offered
            while outbox and sent >= len(outbox[0]):
                sent -= len(outbox.popleft())
            if is_full:
                outbox[0] = outbox[0][sent:]
                return True
        return False

    def _send(self, data: bytes) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ChannelClosed from error

    def _next_pieces(self) -> tuple[list[memoryview], Any]:
        """Return what to send by one system call, if anything may go, and what goes beside it."""
        return list(islice(self._outbox, _AT_ONCE)), ()

    def _send_several(self, pieces: list[memoryview], flags: int, beside: Any = ()) -> int:
        try:
            return self._socket.sendmsg(pieces, beside, flags)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ChannelClosed from error

    def own(self) -> None:
        """Copy what waits to be sent and belongs to somebody else."""
        outbox = self._outbox
        for index in range(len(outbox)):
            if type(outbox[index].obj) is not bytes:
                outbox[index] = memoryview(bytes(outbox[index]))

    def set_patience(self, seconds: float | None) -> None:
        """Let `receive` wait for at most `seconds`; None: for ever."""
        self._set_timeout(socket.SO_RCVTIMEO, seconds)

    def set_send_patience(self, seconds: float | None) -> None:
        """Let `flush_patiently` wait for room for at most `seconds`; None: for ever."""
        self._set_timeout(socket.SO_SNDTIMEO, seconds)

    def _set_timeout(self, option: int, seconds: float | None) -> None:
        whole = 0 if seconds is None else int(seconds)
        rest = 0 if seconds is None else max(int((seconds - whole) * 1e6), 0 if whole else 1)
        self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, rest))

    def receive(self, wait: bool = False) -> list[Any] | None:
        """Read what is there, and return the messages that are complete; None if nothing is there.

        Of a large frame it reads a part, and returns an empty list, so that a parent gets round to
        all of its workers.

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
        incoming = self._incoming
        if incoming is not None:
            return self._receive_incoming(incoming, flags)
        read = self._receive_into(
            self._view[self._filled :] if self._filled else self._window, flags
        )
        if read < 0:
            return None
        filled = self._filled + read
        position = 0
        messages: list[Any] = []
        while filled - position >= 8:
            (length,) = _HEADER.unpack_from(self._buffer, position)
            end = position + 8 + length
            if end > filled:  # as it is for every parcel, by bit 63
                begun = self._begin(length, position, filled, messages)
                if begun == position:
                    break
                position = begun
                continue
            if length < _NARROW:
                messages.append(pickle.loads(self._view[position + 8 : end]))
            else:
                began = monotonic()
                messages.append(pickle.loads(self._view[position + 8 : end]))
                self.unpickling += monotonic() - began
            position = end
        if position and filled > position:
            self._buffer[: filled - position] = self._buffer[position:filled]
        self._filled = filled - position
        if self._incoming is not None and not messages:  # the rest may be there as well
            return self._receive_incoming(self._incoming, socket.MSG_DONTWAIT) or messages
        return messages

    def _begin(self, length: int, position: int, filled: int, messages: list[Any]) -> int:
        """Begin a frame that is a parcel, or not there in full; return up to where it is taken.

        That is `position` again for one that the chunk has room for: the rest comes there, too.
        """
        is_parcel = length >= _HAS_BUFFERS
        length &= _HAS_BUFFERS - 1
        start, end = position + 8, position + 8 + length
        incoming: _Incoming
        if end <= filled:
            incoming = IncomingParcel(self._view[start:end])
            start = end
        elif 8 + length <= _CHUNK:
            self._window = self._view
            return position
        else:
            incoming = _IncomingHead(length) if is_parcel else _Incoming(length)
        start += incoming.fill(self._view[start:filled])
        if incoming.unfilled:
            self._incoming = incoming
        else:
            messages += self._finish(incoming)
        return start

    def _receive_incoming(self, incoming: _Incoming, flags: int) -> list[Any] | None:
        left = _TURN
        unfilled = incoming.unfilled
        while unfilled:
            memory = unfilled[0]
            view = self._view[:memory] if isinstance(memory, int) else memory[:left]
            read = self._receive_into(view, flags)
            if read < 0:
                return None if left == _TURN else []
            incoming.advance(read)
            left -= read
            if unfilled and (read < len(view) or left <= 0):  # that was all, or enough for once
                return []
        return self._finish(incoming)

    def _finish(self, incoming: _Incoming) -> list[Any]:
        self._incoming = None
        if isinstance(incoming, _IncomingHead):
            incoming = incoming.parcel()
            if incoming.unfilled:
                self._incoming = incoming
                return []
        if isinstance(incoming, IncomingParcel):
            self._window = self._narrow
        began = monotonic()
        message = incoming.message()
        self.unpickling += monotonic() - began
        return [message]

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

    def has_room(self) -> bool:
        """Whether the other end has made room for more."""
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        return bool(poller.poll(0))

    def refuse(self) -> None:
        """Tell the other end that nothing sent from now on will be read."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket."""
        self._outbox.clear()
        self._incoming = None
        with contextlib.suppress(OSError):  # a task has closed it
            self._socket.close()


def _is_in_band(buffer: pickle.PickleBuffer) -> bool:
    """Say of every buffer in a message that it is not."""
    del buffer
    return False
