"""Large results are read where a worker has them: one copy, where a socket takes two.

::

    worker                                            parent
    a large result ── Offer ────────────────────────▶ it reads now, and is allowed to?
                   ◀──────────────────── Accept ───── yes
    addresses ─────── Placed ───────────────────────▶ process_vm_readv into memory of its own
                   ◀──────────────────── Taken ────── the worker may go on

A parent that does not read at the moment accepts nothing. The worker then sends the bytes as it
sends smaller ones, and copies what waits, so that the next task can begin. Addresses are told only
to a parent that has accepted, and nothing is changed before it says that it has taken them.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from parallel_core.workers.channel import IncomingParcel, head_of
from parallel_core.workers.messages import (
    Accept,
    Answer,
    Message,
    Offer,
    Placed,
    Taken,
    from_wire,
    to_wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from parallel_core.serialization.buffers import Buffer

#: Bytes of an answer from which it is offered: below, the messages take as long as the second copy.
MIN_NBYTES = 1 << 21
_AT_ONCE = 1 << 26  # bytes for one system call: Ctrl-C is heard between two

#: Where some bytes are in a worker: address and length.
Piece = tuple[int, int]

_is_out_of_reach = False  # the parent is on another host


@cache
def _reader() -> Callable[[int, int, memoryview], int]:
    """Return what reads from process, address, into some memory, and returns how many bytes."""
    import ctypes

    class Vector(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    function = ctypes.CDLL(None, use_errno=True).process_vm_readv
    function.restype = ctypes.c_ssize_t
    pointer = ctypes.POINTER(Vector)
    count = ctypes.c_ulong
    function.argtypes = (ctypes.c_int, pointer, count, pointer, count, count)

    def read(pid: int, address: int, memory: memoryview) -> int:
        into = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        here, there = Vector(into, len(memory)), Vector(address, len(memory))
        done: int = function(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return done

    return read


def place(answer: Answer, buffers: list[Buffer]) -> Placed:
    """Return what tells the parent where the buffers of an answer are."""
    views = ([view for view in buffer.views if len(view)] for buffer in buffers)
    pieces = [[(_address_of(view), len(view)) for view in several] for several in views if several]
    return Placed(head_of(to_wire(answer), buffers), pieces)


class Permission:
    """Whether this process may read the memory of some others, until the system has refused."""

    def __init__(self, is_granted: bool = True) -> None:
        self.is_granted = is_granted

    def note(self, error: OSError) -> None:
        """Note why memory could not be read."""
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            self.is_granted = False


#: For the workers of the local pool.
of_own_workers = Permission()


def reply_to(
    pid: int, message: Offer | Placed, permission: Permission = of_own_workers
) -> tuple[Message, Answer | None]:
    """Return what to reply to a worker, the process `pid`, and the answer that was read there."""
    if isinstance(message, Offer):
        return Accept(message.number, permission.is_granted), None
    try:
        return Taken(True), _read_answer(pid, message)
    except OSError as error:  # not allowed here; or the worker is ending, as will be seen
        permission.note(error)
        return Taken(False), None


def _read_answer(pid: int, placed: Placed) -> Answer:
    parcel = IncomingParcel(memoryview(placed.head))
    for memory, pieces in zip(parcel.unfilled, placed.pieces, strict=True):
        if not isinstance(memory, int):  # else there is no room for it, as the message then says
            read_memory(pid, pieces, memory)
    answer = from_wire(parcel.message())
    assert isinstance(answer, Answer)
    return answer


def can_place() -> bool:
    """Whether the parent can be told where the bytes of any buffer are."""
    return (
        not _is_out_of_reach and "numpy" in sys.modules
    )  # `ctypes` can tell it only of what may be written to


def forbid() -> None:
    """Note that the parent is on another host."""
    global _is_out_of_reach
    _is_out_of_reach = True


def _address_of(memory: memoryview) -> int:
    array = sys.modules["numpy"].frombuffer(memory, "B")
    address: int = array.__array_interface__["data"][0]
    return address


def read_memory(pid: int, pieces: list[Piece], memory: memoryview) -> None:
    """Fill `memory` with the `pieces` of a process, one after the other.

    Raises `OSError` when the system refuses, or the process has nothing there any more.
    """
    try:
        read = _reader()
        for address, length in pieces:
            while length:
                done = read(pid, address, memory[: min(length, _AT_ONCE)])
                address, length, memory = address + done, length - done, memory[done:]
    except AttributeError as error:  # the C library has no such function
        raise OSError(errno.ENOSYS, "process_vm_readv is missing") from error
