"""What a parent knows of a worker and says to it, wherever the worker runs.

`Worker` adds what belongs to a process on this machine. A worker of an engine has a board of its
own elsewhere; here is a copy of it, as new as what came last.
"""

from __future__ import annotations

import itertools
import select
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definition, SentDefinition
from parallel_core.workers.board import HAS_STATE, MEMORY, PHASE, SINCE, STARTED, Board
from parallel_core.workers.channel import Channel
from parallel_core.workers.messages import (
    AfterFailure,
    Ask,
    Message,
    Release,
    RunBatch,
    SetUp,
    from_wire,
    to_wire,
)
from parallel_core.workers.requests import Request
from parallel_core.workers.sent import SentBatch, TimedOutTask
from parallel_core.workers.setup import ProcessState, StartSettings, own_authkey

if TYPE_CHECKING:
    from parallel_core.reduction.tree import Folding

_LARGE = 1 << 16  # bytes of a definition that a worker should not hold between two calls
_KNOWN = 64  # definitions that a worker is trusted to keep between batches
_numbers = itertools.count(1)


class BaseWorker:
    """The handle on one worker: its channel, and its board or a copy of that."""

    def __init__(self, pid: int, channel: Channel, board: Board) -> None:
        self.name = f"parallel-core-{next(_numbers)}"  # for people; it has it for life
        self.pid = pid
        self.channel = channel
        self.board = board
        self.sent: deque[SentBatch] = deque()
        self.slot = 0  # its place in the session that has leased it
        self.is_set_up = False  # for the tasks of this session
        self.requests: deque[Request] = deque()  # not answered, in their order
        self.ready = False
        self.has_answered = False  # in this call: so a batch may wait behind the one it has
        self.timed_out: TimedOutTask | None = None
        self.ended_because: str | None = None  # in words, where somebody has asked for its end
        self.leaving = False  # it gets no further batch, and is replaced when it has none
        self.is_limited = False  # it gets no further batch before it has answered what it has
        self.taken_back = 0  # tasks that it was sent and never had to start
        self.told: ProcessState | None = None
        self.holds_memory = False  # arrays of a call, or large functions
        self.to_forget: deque[str] = deque()  # shared objects that were closed while it was leased
        self._batches = 0
        self._tasks = 0
        self._call = ""
        self._known: dict[int, None] = {}
        self._context = b""  # the pickled context that it was told

    def send(self, message: Message) -> bool:
        """Send `message`; return whether some of it still waits to be sent."""
        return self.channel.send(to_wire(message))

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return self.channel.pending

    def flush(self) -> bool:
        """Send what waits, as far as there is room; return whether some of it still waits."""
        return self.channel.flush()

    def receive(self) -> list[Message] | None:
        """Return what it has said; None when there was nothing to read."""
        received = self.channel.receive()
        return None if received is None else list(map(from_wire, received))

    def has_input(self, seconds: float) -> bool:
        """Wait for at most so many seconds; return whether there is something to receive."""
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def tell(self, now: ProcessState, start_settings: StartSettings | None = None) -> None:
        """Send what the worker should know about the caller's process, if that is news."""
        if now != self.told:
            self.send(SetUp(now, start_settings))
            self.told = now

    def tell_authkey(self) -> None:
        """Send what this process proves itself by to others of multiprocessing."""
        from multiprocessing.process import current_process

        assert self.told is not None
        self.tell(self.told._replace(authkey=bytes(current_process().authkey)))

    @property
    def is_busy(self) -> bool:
        """Whether there is something that it has not answered."""
        return bool(self.sent or self.requests)

    def ask(self, request: Request) -> bool:
        """Send `request`; return whether some of it still waits to be sent."""
        self.holds_memory = True
        self.requests.append(request)
        return self.send(Ask(int(request.phase), request.data))

    @property
    def is_on_request(self) -> bool:
        """Whether it was on what it was asked for when it wrote to its board last."""
        return bool(self.requests) and self.board.words[PHASE] == self.requests[0].phase

    @property
    def since(self) -> float:
        """When what it is on began, `time.monotonic`."""
        return self.board.times[SINCE]

    def release_memory(self, of_session: bool = False) -> None:
        """Have the worker let go of what belongs to a call, or a session, that has ended."""
        if self.holds_memory:
            self._call, self._known, self._context = "", {}, b""
        if of_session:
            of_session = self.is_set_up or bool(self.board.words[HAS_STATE])
            self.is_set_up, self.board.words[HAS_STATE] = False, 0
        self._release(self.holds_memory, of_session)
        self.holds_memory = False

    def forget_closed(self) -> None:
        """Have the worker let go of shared objects that are gone."""
        self._release(of_call=False)

    def _release(self, of_call: bool, of_session: bool = False) -> None:
        if of_call or of_session or self.to_forget:
            closed = [self.to_forget.popleft() for _ in range(len(self.to_forget))]
            self.send(Release(of_call, closed, of_session))

    def submit(
        self,
        batch: Batch,
        call: str,
        after_failure: AfterFailure = AfterFailure.STOP,
        answers_each: bool = False,
        folding: Folding | None = None,
        context: bytes = b"",
    ) -> bool:
        """Send `batch` of `call`, with the definitions that the worker does not have yet.

        The `context` goes along if it is not what the worker was told last.

        Returns whether some of it still waits to be sent.
        """
        self.forget_closed()
        if "multiprocessing.managers" in sys.modules and self.told is not None:
            self.tell(self.told._replace(authkey=own_authkey()))  # a task may have a proxy
        if call != self._call:
            self._call = call
            self._known = {}
        new: dict[int, SentDefinition] | None = None
        forget: tuple[int, ...] = ()
        known = self._known
        for token, definition in batch.definitions.items():
            if token not in known:
                new = new or {}
                new[token] = definition.sent()
                known[token] = None
                if len(definition.data) > _LARGE or definition.uses:
                    self.holds_memory = True
        if batch.uses:
            self.holds_memory = True
            self._prepare(batch.uses)
        told: bytes | None = None
        if context != self._context:
            self._context = told = context
            if len(context) > _LARGE:
                self.holds_memory = True
        if len(known) > _KNOWN:
            forget = self._forget(batch.definitions)
        sent = SentBatch(batch, self._batches, self._tasks)
        self._batches += 1
        self._tasks += batch.size
        self.sent.append(sent)
        return self.send(
            RunBatch(
                sent.number,
                call,
                sent.base,
                batch.runs,
                new,
                forget,
                after_failure.value,
                answers_each,
                None if folding is None else folding.token,
                batch.start,
                told,
            )
        )

    def _prepare(self, uses: list[Any]) -> None:
        """Send what the batch that is about to follow uses, besides its bytes."""

    def _forget(self, needed: dict[int, Definition]) -> tuple[int, ...]:
        spare = [token for token in self._known if token not in needed]
        forgotten = tuple(spare[: max(0, len(self._known) - _KNOWN)])
        for token in forgotten:
            del self._known[token]
        return forgotten

    def running(self) -> tuple[SentBatch, int, float, int] | None:
        """Return the batch and index of the task started last, since when, and the phase."""
        number, since, phase = self.board.running()
        for sent in self.sent:
            if sent.base < number <= sent.base + sent.batch.size:
                return sent, number - sent.base - 1, since, phase
        return None

    @property
    def has_begun(self) -> bool:
        """Whether it has started a task of what it was sent and has not answered."""
        return self.board.words[STARTED] > self.sent[0].base

    @property
    def next_kept(self) -> int:
        """Number of the last task that nobody may take: it has started it, or will.

        Could one be taken that is about to start, idle workers would pass it around for ever, each
        losing it while it reads it.
        """
        return max(self.board.words[STARTED], self.sent[0].base + 1)

    def waiting(self, now: float) -> tuple[int, float]:
        """Return how many tasks wait here, and for how long the one before them has run."""
        kept, since = self.next_kept, self.board.times[SINCE]
        waiting = 0
        for sent in self.sent:
            end = sent.base + sent.batch.size
            waiting += end - min(max(kept, sent.base), end)
        return waiting, now - max(since, self.sent[0].at)

    @property
    def tasks(self) -> int:
        """How many tasks it was sent for good, in its whole life."""
        return self._tasks - self.taken_back

    @property
    def memory(self) -> int:
        """How many bytes it held when it looked last; 0 if it never did."""
        return self.board.words[MEMORY]
