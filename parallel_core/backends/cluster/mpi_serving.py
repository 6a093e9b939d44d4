"""What runs in every rank but rank 0: one worker after the other, in the process of the rank.

::

    rank 0                                         rank n
    Rank.start ── descriptors of a worker ──────▶  Link.receive, which sleeps until then
    Worker ◀───── channel, board, output ───────▶  RankServer.serve, until the worker is to leave
    RankProcess ◀──────── its end ───────────────  back to Link.receive

A rank cannot be started anew, so a worker that ends does not take its process along: what belongs
to the worker is closed, what belongs to the process (the streams, the handler of signals) stays
and serves the next worker. Tasks run in the main thread of the rank and may use MPI themselves.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from memmapping.forks import around_forks, in_child
from parallel_core import config
from parallel_core.output.connection import OutputWriter
from parallel_core.output.streams import send_output
from parallel_core.workers.board import PAGE_SIZE, PHASE, STARTED, STOP, Board, OutputNotice, Phase
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.execute import TaskStopped
from parallel_core.workers.forks import replace_by_private
from parallel_core.workers.main import LAST_SECONDS, REST_SECONDS, Server
from parallel_core.workers.passing import Receiver
from parallel_core.workers.setup import ProcessState
from parallel_core.workers.system import handle_interrupts, write_stacks

#: In the place of the number of a task that is to stop: whatever the worker is at, it is to end.
LET_GO = 1 << 62
#: What a worker sends before it closes its end of the socket that tells its end.
FAREWELL = b"."
_OF_TASKS = (Phase.UNPICKLING, Phase.RUNNING)
_OF_ALL = (*_OF_TASKS, Phase.LOADING, Phase.FOLDING, Phase.INIT, Phase.EXIT, Phase.REQUEST)


class Start(NamedTuple):
    """What a rank gets for a new worker."""

    connection: int  #: descriptor of the channel
    board: int  #: descriptor of the status board
    output: int  #: descriptor of the socket for what tasks print
    end: socket.socket  #: closed when the worker has ended
    environment: tuple[tuple[str, str], ...]  #: variables of this worker alone


class RankZeroGone(Exception):
    """Rank 0 has ended without a word."""


class Link(Protocol):
    """How rank 0 reaches a rank between two workers."""

    def receive(self) -> Start | None:
        """Wait for the next worker; None: there is none any more.

        Raises
        ------
        RankZeroGone
            When rank 0 has ended.
        """

    def close(self) -> None:
        """Let rank 0 know that this rank serves no longer."""


def serve(link: Link, environment: dict[bytes, bytes]) -> None:
    """Be the workers that rank 0 wants, one after the other.

    Parameters
    ----------
    link : Link
        How rank 0 tells.
    environment : dict
        The variables of rank 0. A variable that rank 0 changes later is changed here; what differs
        from the start, such as the number of the rank, stays as it is.
    """
    server = _server_of_process()
    server.begin(environment)
    try:
        while (start := link.receive()) is not None:
            server.serve(start)
    except RankZeroGone:
        os._exit(1)  # to wait for rank 0 at the end of MPI would be to wait for ever
    finally:
        link.close()
        server.end()


class RankServer:
    """The worker of this process, or what waits for the next one."""

    def __init__(self) -> None:
        self._told: ProcessState | None = None
        self._board: Board | None = None  # that of the worker, while there is one
        self._channel: Receiver | None = None
        self._writer: OutputWriter | None = None
        self._finish_lines: Callable[[], None] = lambda: None
        self._stack_file = -1
        around_forks(_import_for_children)
        in_child(self._cut_off)

    def begin(self, environment: dict[bytes, bytes]) -> None:
        """Prepare for workers of a rank 0 that has these variables."""
        if self._told is None:
            self._told = ProcessState(
                tuple(sys.path), None, tuple(sys.argv), None, 0, environment, None
            )
        self._handler = signal.getsignal(signal.SIGINT)
        handle_interrupts(self.stop_if_wanted)

    def end(self) -> None:
        """Let this process be as it was, as far as others use it."""
        config.enter_worker(0)
        with contextlib.suppress(TypeError, ValueError):  # set by C code; no main thread
            signal.signal(signal.SIGINT, self._handler)

    def serve(self, start: Start) -> None:
        """Be one worker, until it is to leave or rank 0 has let go of it."""
        before = {name: os.environ.get(name) for name, _ in start.environment}
        os.environ.update(start.environment)
        board = self._open_board(start.board)
        channel = Receiver(socket.socket(fileno=start.connection))
        channel.set_send_patience(REST_SECONDS)
        writer = self._open_output(start.output, OutputNotice(board, self.stop_if_wanted))
        server = Server(channel, board, self._told, self._finish_lines, writer)
        self._board, self._channel = board, channel
        try:
            contextvars.Context().run(server.serve)
        except (ChannelClosed, TaskStopped):
            pass
        except Exception:
            traceback.print_exc()
        finally:
            self._board = self._channel = None
            self._told = server.told
            writer.limit_waiting(LAST_SECONDS)
            with contextlib.suppress(Exception):  # nobody reads any more
                self._finish_lines()
            channel.close()
            writer.close()
            board.close()
            _forget_mappings()
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            with contextlib.suppress(OSError):
                start.end.send(FAREWELL)
            start.end.close()

    def _open_board(self, descriptor: int) -> Board:
        board = Board(descriptor)
        os.lseek(descriptor, PAGE_SIZE, os.SEEK_SET)  # the stack follows the page
        write_stacks(descriptor)
        before, self._stack_file = self._stack_file, descriptor
        if before >= 0:  # not sooner: a signal may come at any time
            os.close(before)
        return board

    def _open_output(self, descriptor: int, notice: OutputNotice) -> OutputWriter:
        output = socket.socket(fileno=descriptor)
        if self._writer is None:
            self._writer = OutputWriter(output, notice)
            self._finish_lines = send_output(self._writer)
        else:
            self._writer.connect(output, notice)
        return self._writer

    def stop_if_wanted(self) -> None:
        """Raise `TaskStopped` if rank 0 wants what runs now to stop; the handler of SIGINT."""
        board = self._board
        if board is None:
            return
        words = board.words
        stop, phase = words[STOP], words[PHASE]
        if phase in (_OF_ALL if stop == LET_GO else _OF_TASKS) and stop in (LET_GO, words[STARTED]):
            raise TaskStopped  # in another phase, a frame would be torn apart

    def _cut_off(self) -> None:
        """In a child that a task forks: what is the worker's is not the child's."""
        board, channel, writer = self._board, self._channel, self._writer
        if board is not None and channel is not None and writer is not None:
            channel.close()
            writer.close()
            replace_by_private(board)


_server: RankServer | None = None


def _server_of_process() -> RankServer:
    global _server
    if _server is None:
        _server = RankServer()
    return _server


def _import_for_children() -> None:
    import ctypes  # noqa: F401 - so that a child finds it imported


def _forget_mappings() -> None:
    """Let go of the arrays that the tasks of a worker had."""
    references: Any = sys.modules.get("memmapping.references")
    if references is not None:
        references.keeper.drop()
