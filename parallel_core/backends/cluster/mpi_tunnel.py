"""Links to ranks on other hosts: the messages that open and close tunnels, see `mpi_pump`."""

from __future__ import annotations

import os
import pickle
import queue
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from parallel_core.backends.cluster.mpi_links import Hello
from parallel_core.backends.cluster.mpi_pump import (
    BYE,
    HELLO,
    LEFT,
    OPEN,
    SIGNAL,
    Pump,
    Tunnel,
    tag_of,
)
from parallel_core.backends.cluster.mpi_serving import Start
from parallel_core.workers import remote_memory
from parallel_core.workers.board import FENCED, LIMIT, TAKEN_LIMIT, Board, Fence

if TYPE_CHECKING:
    from mpi4py import MPI

_FENCE_SECONDS, _LOOK_SECONDS = 0.02, 5e-5  # a thread gets the lock after 5 ms


class TunnelLink:
    """The end of a rank on another host than rank 0."""

    def __init__(self, comm: MPI.Intracomm, idle_seconds: float | None) -> None:
        check_threads()
        self._comm = comm
        self._idle_seconds = idle_seconds
        self._inbox: queue.SimpleQueue[Start | None] = queue.SimpleQueue()
        self._pump: Pump | None = None
        remote_memory.forbid()

    def send(self, hello: Hello) -> None:
        """Tell rank 0 who is here."""
        data = pickle.dumps(tuple(hello))
        self._comm.Send([data, _byte()], dest=0, tag=tag_of(HELLO))
        if not hello.complaint:
            self._pump = Pump(self._comm, self._take)

    def _take(self, rank: int, kind: int, data: bytes) -> None:
        """Take a message for no worker; in the thread, so that what follows finds its tunnel."""
        del rank
        if kind != OPEN:
            self._inbox.put(None)
            return
        assert self._pump is not None
        number, environment = pickle.loads(data)
        ours, connection = socket.socketpair()
        our_output, output = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        our_end, end = socket.socketpair()
        board, descriptor = Board.make()
        self._pump.add(Tunnel(0, number, False, ours, our_output, our_end, board))
        start = Start(connection.detach(), descriptor, output.detach(), end, environment)
        self._inbox.put(start)

    def receive(self) -> Start | None:
        """Wait for the next worker; None: there is none, or for a long time there was none."""
        assert self._pump is not None
        try:
            return self._inbox.get(timeout=self._idle_seconds)
        except queue.Empty:
            self._pump.send(0, LEFT)
            return None

    def close(self) -> None:
        """End the thread."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()


class TunnelRankLink:
    """The end of rank 0."""

    is_here = False

    def __init__(self, pump: Pump, rank: int, left: set[int]) -> None:
        self._pump = pump
        self._rank = rank
        self._left = left
        self._number = 0

    def start(
        self, descriptors: tuple[int, int, int, int], environment: tuple[tuple[str, str], ...]
    ) -> None:
        """Open a tunnel between these descriptors and such at the rank."""
        connection, board, output, end = descriptors
        page = Board(board)
        page.words[FENCED] = Fence.JOINED  # see `fence`
        channel, printed, ended = (
            socket.socket(fileno=os.dup(one)) for one in (connection, output, end)
        )
        self._number += 1
        opening = pickle.dumps((self._number, environment))
        self._pump.add(
            Tunnel(self._rank, self._number, True, channel, printed, ended, page), opening
        )

    def signal(self, number: int) -> None:
        """Have the rank send it to itself."""
        self._pump.send(self._rank, SIGNAL, self._number, str(number).encode())

    def fence(self, board: Board) -> bool:
        """Wait until the rank has told that it has taken in the limit, for a moment.

        The thread there sees what the worker has started after it has written the limit; both hold
        the interpreter's lock, which is the barrier.
        """
        self._pump.wake()
        until = time.monotonic() + _FENCE_SECONDS
        while board.words[TAKEN_LIMIT] != board.words[LIMIT]:
            if time.monotonic() > until:
                return False  # its answer will tell
            time.sleep(_LOOK_SECONDS)
        return True

    def has_ended(self) -> bool:
        """Whether MPI says so, or the rank has said that it leaves."""
        return self._rank in self._pump.gone or self._rank in self._left

    def goodbye(self) -> None:
        """Say it."""
        self._pump.send(self._rank, BYE)

    def close(self) -> None:
        """Do nothing: the thread is for all ranks, and ends with the last of them."""
        self._left.add(self._rank)
        _root.release(self._rank)


class _Root:
    """The pump of rank 0, while it has links to ranks on other hosts."""

    def __init__(self) -> None:
        self._pump: Pump | None = None
        self._left: set[int] = set()
        self._linked: set[int] = set()
        self._hellos: deque[bytes] = deque()  # that the thread has taken

    def next_hello(self, comm: MPI.Intracomm) -> bytes | None:
        """Return what the next rank has said, if one has."""
        from mpi4py import MPI

        if self._hellos:
            return self._hellos.popleft()
        status = MPI.Status()
        tag = tag_of(HELLO)
        message = None if self._pump else comm.Improbe(MPI.ANY_SOURCE, tag, status)
        if message is None:
            return None
        data = bytearray(status.Get_count(MPI.BYTE))
        message.Recv([data, MPI.BYTE])
        return bytes(data)

    def link(self, comm: MPI.Intracomm, rank: int) -> TunnelRankLink:
        """Return a new link to `rank`."""
        if self._pump is None:
            self._pump = Pump(comm, self._take)
        self._linked.add(rank)
        self._left.discard(rank)
        return TunnelRankLink(self._pump, rank, self._left)

    def _take(self, rank: int, kind: int, data: bytes) -> None:
        if kind == LEFT:
            self._left.add(rank)
        elif kind == HELLO:
            self._hellos.append(data)

    def release(self, rank: int) -> None:
        """Let go of the link to `rank`."""
        self._linked.discard(rank)
        if not self._linked and self._pump is not None:
            pump, self._pump = self._pump, None
            pump.stop()


_root = _Root()


def next_hello(comm: MPI.Intracomm) -> tuple[Hello, TunnelRankLink] | None:
    """Return what the next rank on another host has said, if one has, and the link to it."""
    data = _root.next_hello(comm)
    if data is None:
        return None
    hello = Hello(*pickle.loads(data))
    check_threads()
    return hello, _root.link(comm, hello.rank)


def check_threads() -> None:
    """Raise RuntimeError unless several threads may use MPI at the same time."""
    from mpi4py import MPI

    if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
        raise RuntimeError(
            "ranks on several hosts need an MPI library that lets several threads use it "
            "(MPI_THREAD_MULTIPLE), and this one, or mpi4py.rc.thread_level, does not"
        )


def _byte() -> Any:
    from mpi4py import MPI

    return MPI.BYTE
