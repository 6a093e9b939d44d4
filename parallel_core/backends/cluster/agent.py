"""The agent: a thread in a process of the engine that starts workers there and watches them.

::

    caller ═══ control ═══ Agent ─── board, output, pidfd, lifeline ─── worker
       ╚═══════════════════ channel (a connection of its own) ════════════╝

Workers are child processes like those of the local pool. They have a board, which the agent can
read while a task holds the interpreter's lock, and they die with the engine's process, by their
lifeline. They get their channel, a connection to the caller that has been greeted, as a descriptor.
The agent keeps it open until it has said how a worker ended: nothing that the worker had sent is
lost with it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from parallel_core.backends.cluster.control import (
    Allow,
    Assign,
    Cancel,
    Control,
    Done,
    Drop,
    Ended,
    Kill,
    Leave,
    Look,
    NotStarted,
    Piece,
    Rob,
    Robbed,
    Said,
    Seen,
    Start,
    Started,
    Status,
    Stop,
    Stopping,
    Store,
    Stored,
    Trace,
    Traced,
    from_wire,
    to_wire,
)
from parallel_core.backends.cluster.greeting import connect, host_identity, versions
from parallel_core.backends.cluster.stored_files import StoredFiles
from parallel_core.output.connection import output_pair
from parallel_core.workers import barrier
from parallel_core.workers.board import FENCED, LIMIT, MEMORY, SLOT, STARTED, Board, Fence, Phase
from parallel_core.workers.channel import Channel, ChannelClosed
from parallel_core.workers.passing import Sender
from parallel_core.workers.setup import WorkerKey
from parallel_core.workers.starting import start_interpreter, starts_held
from parallel_core.workers.worker import STACK_SECONDS, Worker, wait_for_end

_TIMED = (Phase.UNPICKLING, Phase.RUNNING, Phase.PICKLING)
_UNUSED_SECONDS = 5.0  # after which an agent leaves that has no worker
_DRAIN_SECONDS = 30.0  # for a caller that does not read to the end


class _Watched:
    """A worker that the agent has started."""

    def __init__(self, number: int, worker: Worker, sock: socket.socket) -> None:
        self.number = number
        self.worker = worker
        self.sock = sock  #: our copy of its channel, which we neither read nor write
        self.steps: list[Callable[[], object]] = []  #: to be taken, one after the other
        self.is_stopping = False  #: whether it was asked to end its task
        self.due = float("inf")  #: when to take the next one, `time.monotonic`

    def status(self) -> Status:
        """Return what its board says."""
        board = self.worker.board
        started, since, phase = board.running()
        seconds = max(time.monotonic() - since, 0.0) if since else 0.0
        return Status(started, int(phase), seconds, board.words[MEMORY], board.words[FENCED])


class Agent:
    """One agent, for the caller at the other end of the control connection."""

    def __init__(self, host: str, port: int, token: bytes, name: str) -> None:
        self._address = host, port
        self._token = token
        self._name = name
        facts = {
            "agent": name,
            "versions": versions(),
            "host": host_identity(),
            "node": socket.gethostname(),
            "pid": os.getpid(),
            "path": sys.path,
        }
        self._channel = Channel(connect(host, port, token, facts))
        self._workers: dict[int, _Watched] = {}
        self._by_descriptor: dict[int, tuple[_Watched, bool]] = {}
        self._poller = select.poll()
        self._poller.register(self._channel, select.POLLIN)
        self._listens = True
        self._files = StoredFiles()
        self._unused_since = time.monotonic()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Start: self._start,
            Allow: self._allow,
            Assign: self._assign,
            Rob: self._rob,
            Stop: self._stop,
            Look: self._look,
            Trace: self._trace,
            Cancel: self._cancel,
            Kill: self._kill,
            Store: self._store,
            Piece: self._take_piece,
            Drop: self._drop,
        }

    def serve(self) -> None:
        """Do what the caller says, until it leaves or nothing is left to do."""
        try:
            while self._is_wanted():
                for descriptor, event in self._poller.poll(self._patience() * 1000):
                    if descriptor == self._channel.fileno():
                        if event & select.POLLOUT and not self._channel.flush():
                            self._listen_to_output(True)
                        if event & ~select.POLLOUT and not self._obey():
                            return
                    elif descriptor in self._by_descriptor:
                        self._notice(*self._by_descriptor[descriptor])
                self._take_steps()
        except ChannelClosed:
            pass
        finally:
            self._close()

    def _is_wanted(self) -> bool:
        if self._workers:
            self._unused_since = time.monotonic()
        return time.monotonic() - self._unused_since < _UNUSED_SECONDS

    def _patience(self) -> float:
        due = min((one.due for one in self._workers.values()), default=float("inf"))
        return min(max(due - time.monotonic(), 0.0), _UNUSED_SECONDS)

    def _say(self, message: Control) -> None:
        if self._channel.send(to_wire(message)):
            self._listen_to_output(False)

    def _listen_to_output(self, wanted: bool) -> None:
        """Take output while the caller reads it; else whoever prints waits, as with a pipe."""
        if wanted == self._listens:
            return
        self._listens = wanted
        events = select.POLLIN if wanted else select.POLLIN | select.POLLOUT
        self._poller.modify(self._channel, events)
        for watched in self._workers.values():
            descriptor = watched.worker.output.fileno()
            if wanted:
                self._poller.register(descriptor, select.POLLIN)
            else:
                self._poller.unregister(descriptor)

    def _obey(self) -> bool:
        """Do what the caller has said; return whether to go on."""
        for fields in self._channel.receive() or ():
            message = from_wire(fields)
            if isinstance(message, Leave):
                return False
            self._handlers[type(message)](message)
        return True

    # --- starting ---

    def _start(self, start: Start) -> None:
        for number in start.numbers:
            try:
                watched = self._start_one(number)
            except Exception as error:
                self._say(NotStarted(number, f"{type(error).__name__}: {error}"))
                continue
            self._workers[number] = watched
            worker = watched.worker
            assert worker.pidfd is not None
            for descriptor, is_output in ((worker.pidfd, False), (worker.output.fileno(), True)):
                self._by_descriptor[descriptor] = watched, is_output
                if self._listens or not is_output:
                    self._poller.register(descriptor, select.POLLIN)
            self._say(Started(number, worker.pid))

    def _start_one(self, number: int) -> _Watched:
        facts = {"agent": self._name, "worker": number}
        sock = connect(*self._address, self._token, facts)
        opened: list[Callable[[], object]] = [sock.close]
        try:
            read_end, lifeline = os.pipe()
            opened += [lambda: os.close(read_end), lambda: os.close(lifeline)]
            output, their_output = output_pair()
            opened += [lambda: os.close(their_output), output.close]
            board, page = Board.make()
            opened += [lambda: os.close(page), board.close]
            with starts_held():
                descriptors = (sock.fileno(), page, read_end, their_output)
                process = start_interpreter("main", descriptors, WorkerKey("subprocess"))
            worker = Worker(process, Sender(sock.dup()), board, lifeline, output)
        except BaseException:
            for close in opened:
                close()
            raise
        worker.channel.close()
        for descriptor in (read_end, page, their_output):
            os.close(descriptor)
        if worker.pidfd is None:
            worker.end(0.0)
            sock.close()
            raise OSError("this system has no pidfd_open(2), by which the end of a worker is known")
        return _Watched(number, worker, sock)

    # --- limits ---

    def _allow(self, allow: Allow) -> None:
        watched = self._workers.get(allow.number)
        if watched is not None:
            watched.worker.board.allow(allow.up_to)
            self._say(Done(allow.number))

    def _assign(self, assign: Assign) -> None:
        watched = self._workers.get(assign.number)
        if watched is not None:
            watched.worker.board.words[SLOT] = assign.slot
            self._say(Done(assign.number))

    def _rob(self, rob: Rob) -> None:
        """Lower the limit; see `workers.stealing` for why no task runs twice."""
        watched = self._workers.get(rob.number)
        if watched is None:
            return
        words = watched.worker.board.words
        limit = min(words[LIMIT], max(words[STARTED], rob.first) + rob.keep)
        words[LIMIT] = limit
        is_certain = barrier.for_all() and words[FENCED] != Fence.REFUSED
        self._say(Robbed(rob.number, max(limit, words[STARTED]), is_certain, watched.status()))

    def _cancel(self, cancel: Cancel) -> None:
        watched = self._workers.get(cancel.number)
        if watched is not None:
            watched.worker.board.cancel()

    def _stop(self, stop: Stop) -> None:
        watched = self._workers.get(stop.number)
        if watched is None:
            return
        status = watched.status()
        is_it = status.started == stop.task and status.phase in _TIMED
        is_late = is_it and status.seconds > stop.limit
        self._say(Stopping(stop.number, stop.task, is_late, status))
        if is_late and not watched.is_stopping:
            watched.is_stopping = True
            watched.due = watched.worker.ask_to_stop(stop.task)
            watched.steps = watched.worker.stop_steps()

    def _take_steps(self) -> None:
        """Take the next step with each worker for which it is time."""
        now = time.monotonic()
        for watched in self._workers.values():
            if watched.due <= now:
                watched.due = float("inf")
                watched.steps.pop(0)()
                if watched.steps:
                    watched.due = now + STACK_SECONDS

    def _kill(self, kill: Kill) -> None:
        watched = self._workers.get(kill.number)
        if watched is not None:
            watched.worker.kill()

    # --- what workers do ---

    def _look(self, look: Look) -> None:
        del look
        self._say(Seen([(number, one.status()) for number, one in self._workers.items()]))

    def _trace(self, trace: Trace) -> None:
        watched = self._workers.get(trace.number)
        if watched is None or watched.steps:
            return  # it has ended, or is to end and writes its stack for that
        watched.worker.take_stack()  # what it has written before is no answer now
        if watched.worker.ask_for_stack():
            watched.steps = [lambda: self._tell_stack(watched)]
            watched.due = time.monotonic() + STACK_SECONDS

    def _tell_stack(self, watched: _Watched) -> None:
        self._say(Traced(watched.number, watched.worker.take_stack()))

    def _notice(self, watched: _Watched, is_output: bool) -> None:
        if is_output:
            self._pass_output(watched)
        else:
            self._tell_end(watched)

    def _pass_output(self, watched: _Watched) -> None:
        output = watched.worker.output
        before = output.n_read
        pieces = output.read()
        if output.n_read != before:
            self._say(Said(watched.number, pieces, output.n_read))

    def _tell_end(self, watched: _Watched) -> None:
        """Say how a worker has ended, and close its channel behind what it had sent."""
        self._pass_output(watched)
        worker = watched.worker
        wait_for_end(worker, 1.0)
        status, death = watched.status(), worker.exit_info()
        self._forget(watched)
        self._say(Ended(watched.number, status, *death))
        _finish(watched.sock)

    def _forget(self, watched: _Watched) -> None:
        del self._workers[watched.number]
        worker = watched.worker
        output = worker.output.fileno()
        for descriptor in (worker.pidfd, output):
            if descriptor is None or self._by_descriptor.pop(descriptor, None) is None:
                continue
            if self._listens or descriptor != output:
                self._poller.unregister(descriptor)
        worker.end(0.0)

    # --- files ---

    def _store(self, store: Store) -> None:
        stored = self._files.begin(store)
        if stored is not None:
            self._say(stored)

    def _take_piece(self, piece: Piece) -> None:
        stored: Stored | None = self._files.add(piece)
        if stored is not None:
            self._say(stored)

    def _drop(self, drop: Drop) -> None:
        del drop
        self._files.close()

    def _close(self) -> None:
        for watched in list(self._workers.values()):
            watched.worker.kill()
        for watched in list(self._workers.values()):
            self._forget(watched)
            watched.sock.close()
        self._files.close()
        self._channel.close()


def _finish(sock: socket.socket) -> None:
    """Have the caller find the end of a channel after what the worker had sent."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    # Closing it with something unread would cut off what is still on its way.
    threading.Thread(target=_drain, args=(sock,), daemon=True, name="parallel-core-end").start()


def _drain(sock: socket.socket) -> None:
    sock.settimeout(_DRAIN_SECONDS)
    try:
        while sock.recv(1 << 16):
            pass
    except OSError:
        pass
    sock.close()


def agent_order(host: str, port: int, token: bytes, name: str) -> bytes:
    """Return what `begin_agent` and `serve_agent` are to be given; nobody has to unpickle it."""
    order = {"host": host, "port": port, "token": base64.b64encode(token).decode(), "name": name}
    return json.dumps(order).encode()


def _agent_of(order: bytes) -> Agent:
    said = json.loads(order)
    return Agent(said["host"], said["port"], base64.b64decode(said["token"]), said["name"])


def begin_agent(order: bytes) -> int:
    """Start an agent as a thread of this process; return the number of the process.

    Raises
    ------
    OSError
        When the caller cannot be reached, or refuses this process.
    """
    agent = _agent_of(order)
    threading.Thread(target=agent.serve, daemon=True, name="parallel-core-agent").start()
    return os.getpid()


def serve_agent(order: bytes) -> None:
    """Be an agent, in this thread, until the caller leaves; raise OSError as `begin_agent` does."""
    _agent_of(order).serve()
