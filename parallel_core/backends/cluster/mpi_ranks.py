"""The ranks that rank 0 gives work to, as starts of workers for the pool.

::

    WorkerPool.replace ──▶ Ranks.spawn ──▶ a free Rank ──▶ RankProcess, the `Process` of a Worker

A rank has one worker at a time. It is free when that has ended: because it was idle for long, was
to be replaced, or was let go of with a task that did not end when it was asked to. There is no way
to start more ranks than the launcher has started, so workers of other kinds that are idle leave
where a worker is wanted and no rank is free.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from typing import Protocol

from memmapping.forks import in_child
from parallel_core.backends.cluster.mpi_links import GOODBYE, START
from parallel_core.backends.cluster.mpi_serving import LET_GO
from parallel_core.workers import barrier
from parallel_core.workers.board import STOP, Board
from parallel_core.workers.forkserver_channel import ForkServerChannel, ForkServerClosed
from parallel_core.workers.pool import worker_pool
from parallel_core.workers.process import NOT_KNOWN, LastingProcess, Process
from parallel_core.workers.setup import WorkerKey
from parallel_core.workers.system import open_pidfd

#: How workers in ranks are started, in their `WorkerKey`.
START_METHOD = "mpi"
_PATIENCE = 1.0  # seconds for a rank that was let go of to become free
_LAST_SECONDS = 0.5  # for what ranks are still at when rank 0 ends


class RankLink(Protocol):
    """The end of rank 0 of the link to a rank."""

    is_here: bool  #: whether the rank is on the host of rank 0

    def start(
        self, descriptors: tuple[int, int, int, int], environment: tuple[tuple[str, str], ...]
    ) -> None:
        """Give the rank the ends of a worker: channel, board, output, and what tells its end."""

    def signal(self, number: int) -> None:
        """Send a signal to the process of the rank."""

    def fence(self, board: Board) -> bool:
        """Have a limit on the board taken in; return whether it was."""

    def has_ended(self) -> bool:
        """Whether the process of the rank has ended."""

    def goodbye(self) -> None:
        """Tell the rank that there is no more to do."""

    def close(self) -> None:
        """Close this end."""


class SocketRankLink:
    """To a rank on the host of rank 0."""

    is_here = True

    def __init__(self, channel: ForkServerChannel, pid: int) -> None:
        self._channel = channel
        self._pid = pid
        self._pidfd = open_pidfd(pid)

    def start(
        self, descriptors: tuple[int, int, int, int], environment: tuple[tuple[str, str], ...]
    ) -> None:
        """Send the descriptors."""
        self._channel.send((START, environment), descriptors)
        self._channel.receive()

    def signal(self, number: int) -> None:
        """Send it by the kernel."""
        if self._pidfd is not None:
            signal.pidfd_send_signal(self._pidfd, number)
        else:
            os.kill(self._pid, number)

    def fence(self, board: Board) -> bool:
        """Have a barrier: the board is the same."""
        del board
        return barrier.for_all()

    def has_ended(self) -> bool:
        """Whether it has, by its pidfd; else by the end of the link."""
        poller = select.poll()
        watched = self._channel.fileno() if self._pidfd is None else self._pidfd
        if watched < 0:
            return True
        poller.register(watched, select.POLLIN)
        return bool(poller.poll(0))

    def goodbye(self) -> None:
        """Say it, to a rank that may have gone."""
        with contextlib.suppress(ForkServerClosed):
            self._channel.send((GOODBYE,))

    def close(self) -> None:
        """Close the socket and the pidfd."""
        self._channel.close()
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)


class Rank:
    """One of the ranks that work."""

    def __init__(self, number: int, pid: int, host: str, link: RankLink) -> None:
        self.number = number
        self.pid = pid
        self.host = host
        self.link = link
        self.is_gone = False  #: whether it serves no longer
        self._worker: RankProcess | None = None

    @property
    def words(self) -> str:
        """Return what to call it in messages."""
        return f"rank {self.number}, process {self.pid} on {self.host}"

    def is_free(self) -> bool:
        """Whether it waits for a worker, or is about to."""
        if not self.is_gone and self.link.has_ended():
            self.is_gone = True
        if self._worker is not None and self._worker.has_left():
            self._forget_worker()
        return self._worker is None and not self.is_gone

    def start(self, descriptors: tuple[int, int, int, int], key: WorkerKey) -> RankProcess:
        """Have it become a worker with the descriptors that any worker gets."""
        connection, board, _, output = descriptors
        ours, theirs = socket.socketpair()
        try:
            self.link.start((connection, board, output, theirs.fileno()), key.environment)
        except ForkServerClosed:
            self.is_gone = True
            ours.close()
            raise
        finally:
            theirs.close()
        self._worker = RankProcess(self, ours, Board(board))
        return self._worker

    def wait(self, seconds: float) -> None:
        """Wait until its worker has ended, but not for longer."""
        if self._worker is not None:
            self._worker.has_left(seconds)

    def close(self) -> None:
        """Close all that this process has of it."""
        self.is_gone = True
        self.link.close()
        self._forget_worker()

    def _forget_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


class RankProcess(LastingProcess):
    """One worker of a rank, with the manners of `subprocess.Popen`."""

    def __init__(self, rank: Rank, end: socket.socket, board: Board) -> None:
        self.pid = rank.pid
        self.worker_id = rank.number
        self.pidfd = end.fileno()
        self._rank = rank
        self._end = end
        self._board = board

    def poll(self) -> int | None:
        """Return 0 for a worker that has said farewell, or `NOT_KNOWN`; None while it is there."""
        if self.returncode is None:
            try:
                farewell = self._end.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:  # reset, or this is a forked child
                farewell = b""
            self._end_with(0 if farewell else NOT_KNOWN)
            if not farewell:
                self.exit_words = f"({self._rank.words}) has ended"
        return self.returncode

    def _end_with(self, code: int) -> None:
        self.returncode = code
        self._board.close()

    def has_left(self, seconds: float = 0.0) -> bool:
        """Whether the rank has done with it, at the latest after so many seconds."""
        poller = select.poll()
        poller.register(self._end, 0)  # it hangs up, which is always told
        if not poller.poll(max(0.0, seconds) * 1000):
            return False
        self.poll()
        return True

    def close(self) -> None:
        """Close what tells its end, which is known or does not matter any more."""
        self.poll()
        self._end.close()

    def kill(self) -> None:
        """Let go of the worker: interrupt its task, and wait for it no longer."""
        if self.poll() is not None:
            return
        self._board.cancel()
        self._board.words[STOP] = LET_GO
        self.signal(signal.SIGINT)
        self.exit_words = f"({self._rank.words}) was let go of"
        self._end_with(NOT_KNOWN)
        self._end.shutdown(socket.SHUT_RD)  # so that it turns readable

    def fence(self) -> bool:
        """Have a limit taken in by the rank."""
        return self.returncode is None and self._rank.link.fence(self._board)

    def signal(self, number: int) -> None:
        """Send a signal to the rank, if the worker is still there."""
        if self.poll() is None:
            with contextlib.suppress(OSError):  # it has just ended
                self._rank.link.signal(number)


class Ranks:
    """All ranks but this one, which is rank 0."""

    def __init__(self, ranks: list[Rank]) -> None:
        self.all = sorted(ranks, key=lambda rank: rank.number)
        self._lock = threading.Lock()
        #: Whether all are on the host of rank 0.
        self.are_here = all(rank.link.is_here for rank in ranks)
        #: How many are on the host that has most of them.
        self.n_on_one_host = max(Counter(rank.host for rank in ranks).values(), default=0)

    @property
    def present(self) -> list[Rank]:
        """Return those that still serve."""
        return [rank for rank in self.all if not rank.is_gone and not rank.link.has_ended()]

    def spawn(self, descriptors: tuple[int, int, int, int], key: WorkerKey) -> Process:
        """Have a free rank become a worker; a `Spawn`.

        Raises
        ------
        OSError
            When no rank is free.
        """
        with self._lock:
            while True:
                try:
                    return self._free_rank().start(descriptors, key)
                except ForkServerClosed:
                    continue  # this one has gone

    def _free_rank(self) -> Rank:
        free = [rank for rank in self.all if rank.is_free()]
        if not free:
            worker_pool().end_idle(START_METHOD)
            until = time.monotonic() + _PATIENCE
            while not (free := [rank for rank in self.all if rank.is_free()]):
                busy = [rank for rank in self.all if not rank.is_gone]
                left = until - time.monotonic()
                if not busy or left <= 0:
                    raise OSError(_none_free(self.all, busy))
                busy[0].wait(min(left, 0.02))
        return free[0]

    def goodbye(self) -> list[Rank]:
        """Let all ranks end; return those that do not, as they are on something."""
        worker_pool().end_idle(START_METHOD)
        until = time.monotonic() + _LAST_SECONDS
        for rank in self.all:
            while not rank.is_free() and not rank.is_gone and time.monotonic() < until:
                rank.wait(0.02)
        stuck = [rank for rank in self.all if not rank.is_free()]
        for rank in self.all:
            rank.link.goodbye()
            rank.close()
        return stuck

    def forget(self) -> None:
        """In a forked child: they are not its own."""
        for rank in self.all:
            rank.close()


def _none_free(ranks: list[Rank], busy: list[Rank]) -> str:
    if not busy:
        return f"all {len(ranks)} ranks have ended, and a launcher starts no others"
    return (
        "no rank is free: other calls have them, or they are on tasks that did not end when they "
        f"were asked to ({'; '.join(rank.words for rank in busy)})"
    )


_ranks: Ranks | None = None


def known_ranks() -> Ranks | None:
    """Return the ranks that this process gives work to, if it is rank 0 and has met them."""
    return _ranks


def note_ranks(ranks: Ranks | None) -> None:
    """Note which ranks this process gives work to."""
    global _ranks
    _ranks = ranks


@in_child
def _forget_in_child() -> None:
    global _ranks
    if _ranks is not None:
        _ranks.forget()
        _ranks = None
