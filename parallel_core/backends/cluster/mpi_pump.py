"""Workers on hosts that rank 0 cannot reach otherwise: their bytes, in messages of MPI.

::

    rank 0                                                   rank n
    Worker ◀─ socket pair ─▶ Tunnel ◀═ messages ═▶ Tunnel ◀─ socket pair ─▶ RankServer
              board ───────▶  LIMIT, STOP, SLOT  ──────────▶ board
              board ◀─────── STARTED, PHASE, ... ◀────────── board

Both ends keep what they have on one host: a channel, a board, a socket for output. A thread in each
process, the `Pump`, carries their bytes to the other end and keeps the boards alike. It waits for
the sockets by poll, and looks for messages with naps in between: MPI has nothing to wait on that
does not take a whole core. Right after something has come, it looks without a nap.

Messages between two ranks come in the order in which they were sent. So what belongs before a frame
leaves before it: what tasks have printed, the state of the worker, a limit that was raised.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel_core.workers.bell import Bell
from parallel_core.workers.board import (
    HAS_OUTPUT,
    HAS_STATE,
    LIMIT,
    MEMORY,
    PHASE,
    SINCE,
    SLOT,
    STARTED,
    STOP,
    TAKEN_LIMIT,
    Board,
)

if TYPE_CHECKING:
    from mpi4py import MPI

#: Kinds of messages. The tag of one is its kind, and `KINDS` times the number of the worker.
HELLO, OPEN, DATA, OUTPUT, LIMITS, STATE, SIGNAL, CLOSE, END, BYE, LEFT = range(11)
KINDS = 16
_NUMBERS = 1024  # of workers of a rank, until numbers come again

_CHUNK = 1 << 20  # bytes that are read from a socket at a time
_MOST_SENDING = 8  # messages on their way to a rank
_MOST_WAITING = 1 << 24  # bytes that wait for a socket, before no more are taken
_YIELD_SECONDS = 2e-4  # without a nap, after something has come
_FIRST_NAP, _LONGEST_NAP = 5e-5, 1e-3
_STATE_SECONDS = 5e-3  # between two messages of the state alone
_STATE = struct.Struct("<QdQQQ?")
_LIMITS = struct.Struct("<QQQ")


def tag_of(kind: int, number: int = 0) -> int:
    """Return the tag of messages of this kind for the worker of that number."""
    return kind + KINDS * (number % _NUMBERS)


class Tunnel:
    """One end of the connection of one worker. `is_root` says that it is the end of rank 0."""

    def __init__(
        self,
        peer: int,
        number: int,
        is_root: bool,
        connection: socket.socket,
        output: socket.socket,
        end: socket.socket,
        board: Board,
    ) -> None:
        self.peer = peer
        self.number = number
        self.is_root = is_root
        self.connection = connection
        self.output = output
        self.end = end
        self.board = board
        self.waiting: deque[memoryview] = deque()  # for the connection
        self.printed: deque[bytes] = deque()  # for the socket of output
        self.is_read = True  #: whether more may come from the connection
        self.has_end = False  #: whether the worker has ended, at the other end
        for one in (connection, output, end):
            one.setblocking(False)
        self._told: tuple[Any, ...] = ()
        self._due = 0.0

    @property
    def n_waiting(self) -> int:
        """How many bytes wait for a socket here."""
        return sum(map(len, self.waiting)) + sum(map(len, self.printed))

    def news_of_board(self, now: float, is_urgent: bool) -> tuple[int, bytes] | None:
        """Return the kind and the bytes of a message that makes the other board as this one."""
        words = self.board.words
        if self.is_root:
            limits = words[LIMIT], words[STOP], words[SLOT]
            if limits == self._told:
                return None
            self._told = limits
            return LIMITS, _LIMITS.pack(*limits)
        state = words[LIMIT], words[PHASE], words[MEMORY], words[STARTED]
        is_new = state != self._told or words[HAS_STATE]
        if not is_new or (now < self._due and not is_urgent):
            return None
        self._told, self._due = state, now + _STATE_SECONDS
        has_state, words[HAS_STATE] = bool(words[HAS_STATE]), 0
        age = max(0.0, now - self.board.times[SINCE])
        limit, phase, memory, started = state
        return STATE, _STATE.pack(started, age, phase, memory, limit, has_state)

    def take_board(self, kind: int, data: bytes) -> None:
        """Make the board as the other one was."""
        words = self.board.words
        if kind == LIMITS:
            words[LIMIT], words[STOP], words[SLOT] = _LIMITS.unpack(data)
            return
        started, age, phase, memory, limit, has_state = _STATE.unpack(data)
        self.board.times[SINCE] = time.monotonic() - age
        words[PHASE], words[MEMORY], words[STARTED] = phase, memory, started
        words[TAKEN_LIMIT] = limit
        if has_state:
            words[HAS_STATE] = 1

    def write(self) -> bool:
        """Give the sockets what waits for them; return whether anything went."""
        moved = False
        while self.printed:
            try:
                self.output.send(self.printed[0])
            except (BlockingIOError, InterruptedError):
                return moved  # what follows belongs after it
            except OSError:
                self.printed.clear()
                break
            self.printed.popleft()
            self.board.words[HAS_OUTPUT] = 1
            moved = True
        while self.waiting:
            try:
                sent = self.connection.send(self.waiting[0])
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # nobody reads it any more
                self.waiting.clear()
                break
            moved = True
            if sent == len(self.waiting[0]):
                self.waiting.popleft()
            else:
                self.waiting[0] = self.waiting[0][sent:]
        return moved

    def read_output(self) -> list[bytes]:
        """Return what tasks have printed since the last time."""
        found: list[bytes] = []
        with contextlib.suppress(OSError):  # that was all
            while piece := self.output.recv(1 << 16):
                found.append(piece)
        return found

    def close(self, farewell: bytes = b"") -> None:
        """Close all sockets, and say `farewell` before."""
        for one in (self.connection, self.output):
            one.close()
        with contextlib.suppress(OSError):
            self.end.send(farewell)
        self.end.close()
        self.board.close()


class Pump:
    """The thread that carries bytes between sockets and messages, for all tunnels of a process.

    It calls `take` with every message that is for no tunnel: peer, kind and bytes.
    """

    def __init__(self, comm: MPI.Intracomm, take: Callable[[int, int, bytes], None]) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = comm
        self._take = take
        self._is_root = comm.Get_rank() == 0
        self._tunnels: dict[tuple[int, int], Tunnel] = {}
        self._sending: dict[int, deque[tuple[MPI.Request, Any]]] = {}
        self._to_send: deque[tuple[int, int, bytes]] = deque()  # by other threads: peer, tag, bytes
        self._new: deque[tuple[Tunnel, bytes | None]] = deque()
        self._bell = Bell()
        self._scratch = memoryview(bytearray(_CHUNK))
        self._is_over = False
        self.gone: set[int] = set()  #: ranks that MPI cannot reach
        self._thread = threading.Thread(target=self._run, daemon=True, name="parallel-core-mpi")
        self._thread.start()

    def add(self, tunnel: Tunnel, opening: bytes | None = None) -> None:
        """Carry the bytes of `tunnel` from now on, after an `opening` for the other end."""
        self._new.append((tunnel, opening))
        self._bell.ring()

    def send(self, peer: int, kind: int, number: int = 0, data: bytes = b"") -> None:
        """Send a message; any thread may call this."""
        self._to_send.append((peer, tag_of(kind, number), data))
        self._bell.ring()

    def wake(self) -> None:
        """Have the thread look at the boards."""
        self._bell.ring()

    def stop(self) -> None:
        """Send what is to be sent, and end the thread."""
        self._is_over = True
        self._bell.ring()
        self._thread.join(10.0)
        self._bell.close()

    # --- in the thread ---

    def _run(self) -> None:
        nap, until = _FIRST_NAP, 0.0
        while not (self._is_over and not self._to_send and not any(self._sending.values())):
            moved = self._turn()
            now = time.monotonic()
            if moved:
                nap, until = _FIRST_NAP, now + _YIELD_SECONDS
            elif now < until:
                os.sched_yield()
            else:
                self._wait(nap)
                nap = min(2 * nap, _LONGEST_NAP)
        for tunnel in self._tunnels.values():
            tunnel.close()

    def _turn(self) -> bool:
        """Carry what there is; return whether there was anything."""
        while self._new:
            tunnel, opening = self._new.popleft()
            if opening is not None:
                self._isend(tunnel.peer, tag_of(OPEN), opening)
            self._tunnels[tunnel.peer, tunnel.number % _NUMBERS] = tunnel
        moved = False
        if self._to_send:  # a signal finds what it is to stop on the board
            for tunnel in self._tunnels.values():
                self._tell_board(tunnel, True)
        while self._to_send:
            self._isend(*self._to_send.popleft())
            moved = True
        moved |= self._receive()
        for tunnel in list(self._tunnels.values()):
            moved |= tunnel.write()
            moved |= self._read(tunnel)
            if tunnel.has_end and not tunnel.n_waiting:
                self._close(tunnel, b".")
        for sending in self._sending.values():
            while sending and sending[0][0].Test():
                sending.popleft()
        return moved

    def _wait(self, seconds: float) -> None:
        """Nap, but not longer than until a socket has something."""
        if seconds < _LONGEST_NAP:
            time.sleep(seconds)
            return
        poller = select.poll()
        poller.register(self._bell.descriptor, select.POLLIN)
        for tunnel in self._tunnels.values():
            if self._may_read(tunnel):
                poller.register(tunnel.connection, select.POLLIN)
            if not tunnel.is_root:
                poller.register(tunnel.output, select.POLLIN)
                poller.register(tunnel.end, select.POLLIN)
        poller.poll(max(1, int(seconds * 1000)))
        self._bell.clear()

    def _may_read(self, tunnel: Tunnel) -> bool:
        return tunnel.is_read and len(self._sending.get(tunnel.peer, ())) < _MOST_SENDING

    def _read(self, tunnel: Tunnel) -> bool:
        """Send what the sockets of `tunnel` have, and what is new on its board."""
        data, has_ended = b"", False
        if not tunnel.is_root:
            has_ended = _is_closed(tunnel.end)
        if self._may_read(tunnel):
            try:
                read = tunnel.connection.recv_into(self._scratch)
                data = bytes(self._scratch[:read])
                if not read:
                    tunnel.is_read = False
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:  # reset
                tunnel.is_read = False
            if not tunnel.is_read and tunnel.is_root:
                self._isend(tunnel.peer, tag_of(CLOSE, tunnel.number), b"")
        printed = [] if tunnel.is_root else tunnel.read_output()
        for piece in printed:
            self._isend(tunnel.peer, tag_of(OUTPUT, tunnel.number), piece)
        self._tell_board(tunnel, bool(data))
        if data:
            self._isend(tunnel.peer, tag_of(DATA, tunnel.number), data)
        elif has_ended and not tunnel.is_read:
            self._isend(tunnel.peer, tag_of(END, tunnel.number), b"")
            self._close(tunnel)
        return bool(data or printed or has_ended)

    def _tell_board(self, tunnel: Tunnel, is_urgent: bool) -> None:
        news = tunnel.news_of_board(time.monotonic(), is_urgent)
        if news is not None:
            self._isend(tunnel.peer, tag_of(news[0], tunnel.number), news[1])

    def _isend(self, peer: int, tag: int, data: bytes) -> None:
        try:
            request = self._comm.Isend([data, self._mpi.BYTE], dest=peer, tag=tag)
        except self._mpi.Exception:
            self._lose(peer)
            return
        self._sending.setdefault(peer, deque()).append((request, data))

    def _receive(self) -> bool:
        """Take in messages, but none for sockets that are full; return whether there were any."""
        full = {one.peer for one in self._tunnels.values() if one.n_waiting > _MOST_WAITING}
        if not full:
            return self._receive_from(self._mpi.ANY_SOURCE)
        peers = {one.peer for one in self._tunnels.values()} - full
        return sum(map(self._receive_from, peers)) > 0  # of each, and not up to the first

    def _receive_from(self, peer: int) -> bool:
        status = self._mpi.Status()
        message = self._comm.Improbe(peer, self._mpi.ANY_TAG, status)
        if message is None:
            return False
        data = bytearray(status.Get_count(self._mpi.BYTE))
        message.Recv([data, self._mpi.BYTE])
        number, kind = divmod(status.Get_tag(), KINDS)
        tunnel = self._tunnels.get((status.Get_source(), number))
        if kind in (HELLO, OPEN, BYE, LEFT):
            self._take(status.Get_source(), kind, bytes(data))
        elif tunnel is None:
            pass  # of a worker that has ended
        elif kind == DATA:
            tunnel.waiting.append(memoryview(data))
        elif kind == OUTPUT:
            tunnel.printed.append(bytes(data))
        elif kind in (LIMITS, STATE):
            tunnel.take_board(kind, bytes(data))
            if kind == LIMITS:
                self._tell_board(tunnel, True)
        elif kind == SIGNAL:
            signal.pthread_kill(threading.main_thread().ident or 0, int(data))
        elif kind == CLOSE:
            with contextlib.suppress(OSError):
                tunnel.connection.shutdown(socket.SHUT_RDWR)
        elif kind == END:
            tunnel.has_end = True
        return True

    def _lose(self, peer: int) -> None:
        """Note that a rank cannot be reached: its worker has ended without a word."""
        self.gone.add(peer)
        self._sending.pop(peer, None)
        for tunnel in [one for one in self._tunnels.values() if one.peer == peer]:
            self._close(tunnel)

    def _close(self, tunnel: Tunnel, farewell: bytes = b"") -> None:
        self._tunnels.pop((tunnel.peer, tunnel.number % _NUMBERS), None)
        tunnel.close(farewell)


def _is_closed(end: socket.socket) -> bool:
    poller = select.poll()
    poller.register(end, 0)
    return bool(poller.poll(0))
