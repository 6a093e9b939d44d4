"""The caller's handle on one agent, and on the files that its host has."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from parallel_core.backends.cluster.control import (
    Control,
    Done,
    Ended,
    Leave,
    Look,
    NotStarted,
    Robbed,
    Said,
    Seen,
    Started,
    Stopping,
    Stored,
    Traced,
    from_wire,
    to_wire,
)
from parallel_core.backends.cluster.greeting import expect_reading
from parallel_core.backends.cluster.sent_files import SentFiles
from parallel_core.serialization.buffers import Buffer
from parallel_core.workers.channel import Channel, ChannelClosed
from parallel_core.workers.remote_memory import Permission
from parallel_core.workers.sent import Source

if TYPE_CHECKING:
    from parallel_core.backends.cluster.control import Status
    from parallel_core.backends.cluster.held_channel import HeldChannel

_FRESH_SECONDS = 0.02  # for which it is known what workers are at


class Watched(Protocol):
    """A worker, as far as its agent has anything to tell of it; see `RemoteWorker`."""

    channel: HeldChannel

    def see(self, status: Status) -> None:
        """Take in what its board says."""

    def take_robbed(self, robbed: Robbed) -> None:
        """Take in what it has given back."""

    def take_stopping(self, stopping: Stopping) -> None:
        """Take in whether a task is being ended."""

    def take_output(self, said: Said) -> None:
        """Take in what it has printed."""

    def take_traced(self, traced: Traced) -> None:
        """Take in where in its code it is."""

    def take_end(self, ended: Ended) -> None:
        """Take in how it ended."""

    @property
    def has_held(self) -> bool:
        """Whether it has said something that waited for output."""


W = TypeVar("W", bound=Watched)


class AgentHandle(Generic[W]):
    """One agent, as the caller sees it."""

    def __init__(self, sock: socket.socket, facts: dict[str, Any], is_here: bool) -> None:
        expect_reading(sock)
        self.channel = Channel(sock)
        self.name: str = facts["agent"]
        self.node: str = facts["node"]
        self.host: str = facts["host"]
        self.path: list[str] = facts["path"]
        self.pid: int = facts["pid"]
        self.is_here = is_here  #: whether its processes can open our files and memory
        self.permission = Permission(is_here)
        self.workers: dict[int, W] = {}
        self.started: dict[int, int] = {}  #: process numbers of workers that have just started
        self.not_started: dict[int, str] = {}  #: why workers could not be started
        #: For who polls: workers, what there is to know of them, and events of their channels.
        self.news: deque[tuple[W, Source, int]] = deque()
        self.has_left = False
        self.seen_at = 0.0  #: when it told what its workers are at, `time.monotonic`
        self._looks = False
        self.files = SentFiles(self.host, self.node, self.send_with)  #: what its host has of ours

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self.channel.fileno()

    def send(self, message: Control) -> None:
        """Say something; an agent that has left is noticed when its connection is read."""
        try:
            self.channel.send(to_wire(message))
        except ChannelClosed:
            pass

    def send_with(self, message: Control, memory: memoryview | None = None) -> None:
        """Say something that has `memory` beside it, in the place of `HERE`."""
        if memory is None:
            self.send(message)
            return
        with contextlib.suppress(ChannelClosed):
            self.channel.send_parcel(to_wire(message), [Buffer(len(memory), [memory])])

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        try:
            self.channel.flush()
        except ChannelClosed:
            pass

    def receive(self) -> None:
        """Take in what it has said; what concerns workers goes into `news`."""
        try:
            while (received := self.channel.receive()) is not None:
                for fields in received:
                    self._take(from_wire(fields))
        except ChannelClosed:
            self._lose()

    def wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """Take in what it says until that is so, for at most so many seconds."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        while not (until() or self.has_left) and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                self.receive()

    def is_fresh(self) -> bool:
        """Whether it has just told what its workers are at; if not, it is asked."""
        if time.monotonic() - self.seen_at < _FRESH_SECONDS:
            return True
        if not self._looks:
            self._looks = True
            self.send(Look())
        return False

    def look(self, seconds: float) -> None:
        """Have it tell what its workers are at, and wait for that."""
        asked = time.monotonic()
        self._looks = True
        self.send(Look())
        self.wait(seconds, lambda: self.seen_at >= asked)

    def _take(self, message: Control) -> None:
        if isinstance(message, Seen):
            self._looks = False
            self.seen_at = time.monotonic()
            for number, status in message.statuses:
                if number in self.workers:
                    self.workers[number].see(status)
            return
        if isinstance(message, Started):
            self.started[message.number] = message.pid
            return
        if isinstance(message, NotStarted):
            self.not_started[message.number] = message.words
            return
        if isinstance(message, Stored):
            self.files.note(message)
            return
        assert isinstance(message, (Done, Robbed, Stopping, Said, Ended, Traced))
        worker = self.workers.get(message.number)
        if worker is None:
            return  # it was let go of
        if isinstance(message, Done):
            worker.channel.let_go()
            self.news.append((worker, Source.CHANNEL, select.POLLOUT))
        elif isinstance(message, Robbed):
            worker.take_robbed(message)
        elif isinstance(message, Stopping):
            worker.take_stopping(message)
        elif isinstance(message, Traced):
            worker.take_traced(message)
        elif isinstance(message, Said):
            worker.take_output(message)
            self.news.append((worker, Source.OUTPUT, select.POLLIN))
            if worker.has_held:
                self.news.append((worker, Source.CHANNEL, select.POLLIN))
        else:
            worker.take_end(message)

    def _lose(self) -> None:
        """Note that it has left, and its workers with it."""
        if self.has_left:
            return
        self.has_left = True
        for worker in self.workers.values():
            self.news.append((worker, Source.END, select.POLLIN))

    def leave(self) -> None:
        """Have it leave, with its workers."""
        self.send(Leave())
        self.has_left = True

    def close(self) -> None:
        """Close its connection."""
        self.files.forget()
        self.channel.close()
