"""What runs in a worker process: receive, run, answer, until told to leave or left alone.

An answer is sent while the parent reads it; when the parent rests, the next task runs meanwhile.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from parallel_core.context.batch_context import PickledContext, ReceivedBatchContext
from parallel_core.context.item import Place
from parallel_core.context.this_worker import ThisWorker, become_worker, globals_of
from parallel_core.output.connection import OutputWriter
from parallel_core.output.streams import send_output
from parallel_core.output.task_warnings import forget_warnings
from parallel_core.serialization.batch import run_length
from parallel_core.serialization.buffers import Buffer, Shelf, nbytes_of
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.workers import barrier
from parallel_core.workers.board import (
    FENCED,
    HAS_STATE,
    PAGE_SIZE,
    PHASE,
    SLOT,
    STARTED,
    STOP,
    Board,
    Fence,
    OutputNotice,
    Phase,
)
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.execute import Execution, TaskStopped
from parallel_core.workers.forks import cut_off_children
from parallel_core.workers.memory import MemoryWatch
from parallel_core.workers.messages import (
    Accept,
    Answer,
    Ask,
    Born,
    Descriptors,
    Expect,
    Expecting,
    Message,
    Offer,
    Printed,
    Ready,
    Release,
    Relocate,
    RunBatch,
    SetUp,
    Taken,
    Unusable,
    from_wire,
    to_wire,
)
from parallel_core.workers.passing import Receiver
from parallel_core.workers.recorder import Recorder
from parallel_core.workers.remote_memory import MIN_NBYTES, can_place
from parallel_core.workers.requests import run_request
from parallel_core.workers.results import Parcels
from parallel_core.workers.setup import ProcessState, StartSettings, apply, prepare
from parallel_core.workers.system import (
    arm_lifeline,
    die_with,
    handle_interrupts,
    leave_threads,
    write_stacks,
)


def main(
    connection: int, board: int, lifeline: int, output: int, told: ProcessState | None = None
) -> None:
    """Serve the parent at the other end of `connection`.

    Parameters
    ----------
    connection, board, lifeline, output : int
        Descriptors: a stream socket, the file of the status board, the read end of a pipe that
        the parent never writes to, a datagram socket for what tasks print.
    told : ProcessState, optional
        What this process has made so already, as the fork server that it was forked from.
    """
    for descriptor in (connection, board, lifeline, output):
        os.set_inheritable(descriptor, False)
    arm_lifeline(lifeline)
    page = Board(board)
    stop_if_wanted = functools.partial(_stop_if_wanted, page)
    handle_interrupts(stop_if_wanted)
    os.lseek(board, PAGE_SIZE, os.SEEK_SET)  # the stack follows the page
    write_stacks(board)
    channel = Receiver(socket.socket(fileno=connection))
    channel.set_send_patience(REST_SECONDS)
    writer = OutputWriter(socket.socket(fileno=output), OutputNotice(page, stop_if_wanted))
    cut_off_children(page, channel, writer)
    finish_lines = send_output(writer)
    try:
        server = Server(channel, page, told, finish_lines, writer)
        # A forked child has its parent's context of the fork; what is to hold of it is told.
        contextvars.Context().run(server.serve)
    except ChannelClosed:
        pass
    finally:
        writer.limit_waiting(LAST_SECONDS)
        channel.close()
        leave_threads()


def _stop_if_wanted(board: Board) -> None:
    """Raise `TaskStopped` if the parent wants the task stopped that this worker is on."""
    words = board.words
    if words[STOP] == words[STARTED] and words[PHASE] in (Phase.UNPICKLING, Phase.RUNNING):
        raise TaskStopped  # in another phase, a frame would be torn apart


def _mappings() -> Any:
    """Return what keeps memory maps open between two tasks, in a worker that has any."""
    references: Any = sys.modules.get("memmapping.references")
    return None if references is None else references.keeper


_FIRST_PATIENCE = 10.0  # seconds that a new worker waits for its first batch, at least
#: Seconds that what is printed at the end waits for a parent that reads it.
LAST_SECONDS = 0.5
#: Seconds after which a parent that has read nothing is doing something else.
REST_SECONDS = 0.1


_Reply = TypeVar("_Reply", Accept, Taken)


class Server:
    """The state of a worker between messages."""

    def __init__(
        self,
        channel: Receiver,
        board: Board,
        told: ProcessState | None,
        finish_lines: Callable[[], None],
        writer: OutputWriter,
    ) -> None:
        self._channel = channel
        self._writer = writer
        self._counts_output = False
        self._n_printed = 0
        self._finish_lines = finish_lines
        self._board = board
        self._memory = MemoryWatch(board)
        self._leaves = False
        self._recorder = Recorder()
        self._parcels = Parcels(self._send_parcel, Shelf())
        self._inbox: deque[Message] = deque()
        self._definitions: ReceivedDefinitions | None = None
        self._call = ""
        self._context: PickledContext | None = None
        self._refused = False
        self._told = told
        self._kept: frozenset[bytes] = frozenset()
        self._idle_seconds: float | None = None
        self._is_new = True
        self._is_fenced = False
        self._offers = 0
        self._parent = 0
        self._end_batch: Callable[[], None] | None = None
        self._worker = ThisWorker(0)
        become_worker(self._worker, self._note_state)

    @property
    def told(self) -> ProcessState | None:
        """What this process has made so."""
        return self._told

    def serve(self) -> None:
        """Handle messages until there is a reason to end."""
        inbox = self._inbox
        while True:
            while inbox:
                if not self._handle(inbox.popleft()):
                    self._drain()
                    return
            if self._refused:
                self._drain()
                return
            self._wait()

    def _handle(self, message: Message) -> bool:
        """Do what the parent wants; return whether to go on."""
        if isinstance(message, RunBatch):
            self._run(message)
            return not self._leaves
        if isinstance(message, SetUp):
            return self._set_up(message.state, message.start_settings)
        if isinstance(message, Expect):
            self._channel.expect()
            self._send(Expecting())
        elif isinstance(message, Descriptors):
            self._arrive(message.numbers)
        elif isinstance(message, Accept):
            pass  # of an offer that was not waited for any longer
        elif isinstance(message, Release):
            self._release(message)
        elif isinstance(message, Relocate):
            from memmapping.references import relocate

            relocate(message.places)
        elif isinstance(message, Ask):
            return self._do_request(message)
        else:
            return False
        return True

    def _wait(self) -> None:
        """Wait until the parent says something, or for so long that nobody needs this worker."""
        channel, inbox = self._channel, self._inbox
        while not inbox:
            if channel.pending:
                self._send_and_receive()
                continue
            received = channel.receive(wait=True)
            if received is not None:
                inbox.extend(map(from_wire, received))
                continue
            channel.refuse()  # whoever sends from now on is told, and takes another worker
            self._refused = True
            try:
                inbox.extend(map(from_wire, channel.receive() or ()))
            except ChannelClosed:
                pass
            return

    def _send_and_receive(self) -> None:
        """Wait until the parent reads on, or sends something."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN | select.POLLOUT)
        for _, event in poller.poll():
            if event & select.POLLOUT:
                self._channel.flush()
            if event & ~select.POLLOUT:
                self._inbox.extend(map(from_wire, self._channel.receive() or ()))

    def _drain(self) -> None:
        """Block until what was said is sent; the parent reads until the end."""
        poller = select.poll()
        poller.register(self._channel, select.POLLOUT)
        while self._channel.pending:
            poller.poll()
            self._channel.flush()

    def _run(self, batch: RunBatch) -> None:
        if not self._is_fenced and (not self._is_new or sum(map(run_length, batch.runs)) > 1):
            self._is_fenced = True
            self._board.words[FENCED] = Fence.JOINED if barrier.join() else Fence.REFUSED
            die_with(self._parent)  # not sooner: both need ctypes, which takes its time
        self._worker.id = self._board.words[SLOT]
        if self._is_new:
            self._is_new = False
            self._channel.set_patience(self._idle_seconds)
        if batch.call != self._call or self._definitions is None:
            if self._definitions is not None:
                self._definitions.close()
            self._definitions = ReceivedDefinitions(batch.call, globals_of(self._worker))
            self._call = batch.call
            forget_warnings()
        if batch.definitions or batch.forget:
            self._definitions.receive(batch.definitions or {}, batch.forget)
        if batch.context is not None:
            told = batch.context
            self._context = PickledContext(told, Place.WORKER) if told else None
        mappings = _mappings()
        if mappings is not None:
            mappings.begin()
        batch_context = None if self._context is None else ReceivedBatchContext(self._context)
        self._recorder.unpickled += self._channel.unpickling
        self._channel.unpickling = 0.0
        execution = Execution(
            batch,
            self._definitions,
            self._board,
            self._send,
            self._parcels,
            self._memory,
            batch_context,
            self._recorder,
        )
        try:
            contextvars.copy_context().run(execution.run)
        finally:
            if self._end_batch is not None:
                self._end_batch()
        self._leaves = execution.was_stopped

    def _do_request(self, ask: Ask) -> bool:
        """Make a call for the parent; return whether to go on: not after an init that failed."""
        self._worker.id = self._board.words[SLOT]
        reply = run_request(self._board, ask)
        self._send(reply)
        return not reply.text or ask.phase != Phase.INIT

    def _note_state(self) -> None:
        self._board.words[HAS_STATE] = 1

    def _arrive(self, numbers: list[Any]) -> None:
        """Take in descriptors for the next batch."""
        from parallel_core.serialization.open_files import arrive, end_batch

        arrive(numbers, self._channel.descriptors.popleft())
        self._end_batch = end_batch

    def _release(self, release: Release) -> None:
        """Let go of the arrays and functions of a call that has ended, and of shared objects.

        At the end of a session, let go of what tasks have kept, too.
        """
        if release.of_session:
            self._worker.state, self._worker.shared = {}, None
        if release.of_call:
            if self._definitions is not None:
                self._definitions.close()
                captured = self._definitions.captures_mutable_state
                self._definitions, self._call, self._context = None, "", None
                if captured:  # by functions that go by value, which are parts of cycles
                    gc.collect()
            mappings = _mappings()
            if mappings is not None:
                mappings.drop()
        sharing: Any = sys.modules.get("memmapping.sharing")
        if sharing is not None:
            for token in release.closed:
                sharing.forget(token)

    def _send(self, message: Message) -> None:
        """Send a message; wait while the parent reads it, but not for a parent that is at rest."""
        self._finish_output()
        channel = self._channel
        rests = channel.pending and not channel.has_room()
        if channel.send(to_wire(message)) and not rests:
            channel.flush_patiently()

    def _finish_output(self) -> None:
        """Have all output leave that belongs before what is sent next, and say how much it is."""
        self._finish_lines()
        if self._counts_output and self._n_printed != self._writer.n_sent:
            self._n_printed = self._writer.n_sent
            self._channel.send(to_wire(Printed(self._n_printed)))

    def _send_parcel(self, answer: Answer, buffers: list[Buffer]) -> None:
        """Send an answer with buffers likewise; what a resting parent leaves over is copied."""
        self._finish_output()
        channel = self._channel
        rests = channel.pending and not channel.has_room()
        nbytes = sum(nbytes_of(buffer.description) for buffer in buffers)
        if not rests and nbytes >= MIN_NBYTES and can_place():
            if self._is_taken(answer, buffers):
                return
            rests = True
        if channel.send_parcel(to_wire(answer), buffers) and (rests or channel.flush_patiently()):
            try:
                channel.own()
            except MemoryError:  # so the parent has to read it first
                self._drain()

    def _is_taken(self, answer: Answer, buffers: list[Buffer]) -> bool:
        """Offer an answer to the parent; return whether it has read the buffers where they are."""
        from parallel_core.workers.remote_memory import place

        channel = self._channel
        if channel.pending and channel.flush_patiently():
            return False
        self._offers += 1
        channel.send(to_wire(Offer(self._offers)))
        accept = self._await(Accept, REST_SECONDS)
        if accept is None or not accept.granted:
            return False
        channel.send(to_wire(place(answer, buffers)))
        self._drain()
        taken = self._await(Taken)
        return taken is not None and taken.is_read

    def _await(self, kind: type[_Reply], seconds: float | None = None) -> _Reply | None:
        """Return the reply of the parent to what was said last; None if it is long in coming."""
        channel = self._channel
        poller = select.poll()
        poller.register(channel, select.POLLIN)
        until = None if seconds is None else time.monotonic() + seconds
        reply: _Reply | None = None
        while reply is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            poller.poll(None if left is None else left * 1000)
            for message in map(from_wire, channel.receive() or ()):
                if isinstance(message, Accept) and message.number != self._offers:
                    continue  # of an offer that was not waited for any longer
                if isinstance(message, kind):
                    reply = message
                else:
                    self._inbox.append(message)
        return reply

    def _set_up(self, now: ProcessState, start_settings: StartSettings | None) -> bool:
        if start_settings is not None:
            self._channel.send(to_wire(Born()))
            self._parent = start_settings.parent
            self._counts_output = start_settings.counts_output
            self._kept = frozenset(os.fsencode(name) for name in start_settings.environment)
        apply(now, self._told, self._kept)
        self._told = now
        self._memory.most = now.max_memory
        self._memory.due = 0.0
        try:
            state = prepare(start_settings) if start_settings is not None else {}
        except BaseException as error:
            from parallel_core.serialization.failure import pack
            from parallel_core.serialization.pickling import dumps

            self._channel.send(to_wire(Unusable(*pack(error, dumps))))
            return False
        self._idle_seconds = now.idle_seconds
        if start_settings is None:
            self._channel.set_patience(now.idle_seconds)
        else:
            if now.idle_seconds is not None:  # the caller may need a while for the first batch
                self._channel.set_patience(max(now.idle_seconds, _FIRST_PATIENCE))
            globals_of(self._worker).update(state)
            self._memory.note()
            self._channel.send(to_wire(Ready()))
        return True
