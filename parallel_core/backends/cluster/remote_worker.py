"""The caller's handle on one worker that an agent has started, on this host or on another.

What the worker is at is known from a copy of its board, as new as what its agent has told last. It
is asked for that when somebody wants to know, and never while nobody does. Before a task is ended
for its time, the agent looks at the board itself.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from parallel_core.backends.cluster.control import (
    Allow,
    Assign,
    Cancel,
    Control,
    Ended,
    Kill,
    Rob,
    Robbed,
    Said,
    Status,
    Stop,
    Stopping,
    Trace,
    Traced,
)
from parallel_core.backends.cluster.held_channel import HeldChannel
from parallel_core.output.pieces import Piece, show
from parallel_core.serialization.batch import Batch
from parallel_core.workers.base_worker import BaseWorker
from parallel_core.workers.board import (
    FENCED,
    HAS_STATE,
    MEMORY,
    NO_LIMIT,
    PHASE,
    SINCE,
    SLOT,
    STARTED,
    Phase,
    PrivateBoard,
)
from parallel_core.workers.channel import ChannelClosed, frame_of
from parallel_core.workers.messages import Answer, Leave, Message, Offer, Placed, Printed, Relocate
from parallel_core.workers.messages import to_wire as wire_of
from parallel_core.workers.remote_memory import reply_to
from parallel_core.workers.sent import ExitInfo, SentBatch, Source, TimedOutTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from parallel_core.backends.cluster.agent_handle import AgentHandle
    from parallel_core.backends.cluster.sent_files import SentFiles

_STOP_SECONDS = 0.5  # between two looks at a task that its agent is ending
_LATE_SECONDS = 0.02  # until an agent has said whether a task is late
_LOOK_SECONDS = 1.0  # for an agent that is asked for what it must tell
_END_SECONDS = 1.0  # for an agent to say how a worker ended whose channel has ended


class RemoteWorker(BaseWorker):
    """One worker, with a channel of its own and an agent that it shares with others."""

    channel: HeldChannel

    def __init__(
        self,
        number: int,
        pid: int,
        agent: AgentHandle[RemoteWorker],
        channel: HeldChannel,
        files_of_agents: Callable[[], Iterable[SentFiles]],
    ) -> None:
        super().__init__(pid, channel, PrivateBoard())
        self.number = number  #: by which its agent knows it
        self.agent = agent
        self._files_of_agents = files_of_agents
        self._limit: int | None = NO_LIMIT  # on its board; None: not known
        self._is_robbed = False  # it was asked to give back what it has not started
        self._robbed: Robbed | None = None
        self._was_leaving = False
        self._held: deque[Message] = deque()  # said after output that has not come yet
        self._n_said = 0
        self._said: list[Piece] = []
        self._end: Ended | None = None
        self._answered_at = time.monotonic()
        self._seen_at = 0.0
        self._is_gone = False
        self._stack = ""

    def _tell_agent(self, message: Control) -> None:
        self.agent.send(message)

    # --- what it is told ---

    def take_slot(self, slot: int) -> None:
        """Be the worker of this number from now on."""
        self.slot = slot
        if self.board.words[SLOT] != slot:
            self.board.words[SLOT] = slot
            self._tell_agent(Assign(self.number, slot))
            self.channel.hold()

    def allow(self, lifespan: int | None) -> None:
        """Let it start tasks to the end of its life; only when everything was answered."""
        self.is_limited = self._is_robbed = False
        self._robbed = None
        limit = NO_LIMIT if lifespan is None else lifespan + self.taken_back
        if limit != self._limit:
            self._limit = limit
            self._tell_agent(Allow(self.number, limit))
            self.channel.hold()

    def cancel(self) -> None:
        """Have it start no further task."""
        self._limit = None
        self._tell_agent(Cancel(self.number))

    def steal(self, keep: int) -> list[Batch]:
        """Ask for all tasks but the next `keep` that it has not started; see `take_robbed`."""
        self.is_limited = self._is_robbed = True
        self._limit = None
        self._tell_agent(Rob(self.number, self.sent[0].base + 1, keep))
        return []

    def taken(self) -> list[Batch]:
        """Return what it has given back since it was asked for that."""
        robbed, self._robbed = self._robbed, None
        if robbed is None or not robbed.is_certain:
            return []
        taken = []
        for sent in self.sent:
            left = max(robbed.limit - sent.base, sent.answered)
            if left < sent.batch.size:
                taken.append(sent.batch.split_off(left))
        self.taken_back += sum(batch.size for batch in taken)
        return taken

    def stop_task(self, sent: SentBatch, index: int, limit: float) -> float:
        """Have its agent end a task that has run for over `limit` seconds, if it is still on it."""
        self._tell_agent(Stop(self.number, sent.base + index + 1, limit))
        if self.timed_out is None:
            self._was_leaving, self.leaving = self.leaving, True
        due = time.monotonic() + _LATE_SECONDS
        self.timed_out = TimedOutTask(sent, index, limit, [], due)
        return due

    def escalate(self, now: float) -> float:
        """Wait on: its agent does what is to be done about that task."""
        return now + _STOP_SECONDS

    def kill(self) -> None:
        """Have its agent end it now."""
        self._tell_agent(Kill(self.number))

    def ask_for_stack(self) -> bool:
        """Have its agent tell where in its code it is."""
        self._tell_agent(Trace(self.number))
        return True

    def take_stack(self) -> str:
        """Return where it was, since the last time."""
        stack, self._stack = self._stack, ""
        return stack

    def take_traced(self, traced: Traced) -> None:
        """Take in where in its code it is."""
        self._stack += traced.stack

    def leave(self) -> None:
        """Ask it to end by itself, after what it has."""
        with contextlib.suppress(ChannelClosed):
            self.send(Leave())

    def pass_descriptors(self) -> bool:
        """Do nothing: it is sent no descriptors."""
        return self.pending

    def _prepare(self, uses: list[Any]) -> None:
        self.board.words[HAS_STATE] = 1  # which it would tell too late
        if self.agent.is_here or not uses:
            return
        files = self.agent.files
        is_held = False

        def let_go() -> None:
            nonlocal is_held
            if is_held and not files.is_missing(places):
                is_held = False
                self.channel.let_go(self._relocation(files, places))
                self.agent.news.append((self, Source.CHANNEL, select.POLLOUT))

        places = files.provide(uses, self._files_of_agents(), let_go)
        if files.is_missing(places):
            is_held = True
            self.channel.hold()
        elif places:
            self.send(Relocate(list(files.relocated(places))))

    def _relocation(self, files: SentFiles, places: list[Any]) -> bytes:
        return frame_of(wire_of(Relocate(list(files.relocated(places)))))

    # --- what is known of it ---

    def see(self, status: Status) -> None:
        """Take in what its board says."""
        now = time.monotonic()
        words = self.board.words
        words[STARTED], words[PHASE] = status.started, status.phase
        words[MEMORY], words[FENCED] = status.memory, status.fence
        self.board.times[SINCE] = now - status.seconds
        self._seen_at = now

    def take_robbed(self, robbed: Robbed) -> None:
        """Take in what it has given back."""
        self.see(robbed.status)
        if self._is_robbed:
            self._robbed = robbed

    def take_stopping(self, stopping: Stopping) -> None:
        """Take in whether a task is being ended."""
        self.see(stopping.status)
        late = self.timed_out
        if stopping.is_late or late is None or stopping.task != late.sent.base + late.index + 1:
            return
        self.timed_out = None
        self.leaving = self._was_leaving

    def take_output(self, said: Said) -> None:
        """Take in what it has printed."""
        self._said += said.pieces
        self._n_said = said.n_sent

    def take_end(self, ended: Ended) -> None:
        """Take in how it ended; its channel tells that it did."""
        self.see(ended.status)
        self._end = ended

    def receive(self) -> list[Message] | None:
        """Return what it has said; None when there was nothing to read.

        What was said after output waits until that has come, by the agent.
        """
        if ready := self._take_held():
            return ready
        try:
            received = super().receive()
        except ChannelClosed:
            if not self._held:
                raise
            self.agent.wait(_END_SECONDS, lambda: self._end is not None)
            printed = [one.number for one in self._held if isinstance(one, Printed)]
            self._n_said = max(printed, default=self._n_said)  # no more output will come
            return self._take_held()
        if received is None:
            return None
        self._answered_at = time.monotonic()
        self._held += received
        return self._take_held()

    def _take_held(self) -> list[Message]:
        ready: list[Message] = []
        held = self._held
        while held:
            message = held[0]
            if isinstance(message, Printed):
                if message.number > self._n_said and not self.agent.has_left:
                    break
            else:
                ready.append(message)
            held.popleft()
        return ready

    @property
    def has_held(self) -> bool:
        """Whether it has said something that waited for output."""
        return bool(self._held)

    def read_memory(self, message: Offer | Placed) -> tuple[Answer | None, bool]:
        """Accept what it offers if this host has its memory, or read an answer that it has placed.

        Returns the answer, and whether something waits to be sent.
        """
        reply, answer = reply_to(self.pid, message, self.agent.permission)
        if not self.alive():
            return None, False  # what was read may be of another process
        try:
            return answer, self.send(reply)
        except ChannelClosed:
            return answer, False

    @property
    def has_output(self) -> bool:
        """Whether it has printed or logged something, since `read_output` was called."""
        return bool(self._said)

    def read_output(self) -> None:
        """Show what it has printed and logged; raises what that raises."""
        said, self._said = self._said, []
        if said:
            show(said, self.name)

    @property
    def memory(self) -> int:
        """How many bytes it held when it looked last; it is asked where that is limited."""
        if self.told is not None and self.told.max_memory is not None and self.alive():
            self.agent.look(_LOOK_SECONDS)
        return self.board.words[MEMORY]

    @property
    def is_on_request(self) -> bool:
        """Whether it was on what it was asked for when its agent looked last."""
        if self.requests and self._end is None:
            self.agent.is_fresh()
        return super().is_on_request

    def running(self) -> tuple[SentBatch, int, float, int] | None:
        """Return the batch and index of the task started last, since when, and the phase.

        Without news of its agent: of the first that it has not answered, since when it may run.
        """
        if self._end is not None:
            return super().running()
        if self.agent.has_left:
            return None  # nobody knows
        is_fresh = self.agent.is_fresh()
        found = super().running()
        if found is not None and (is_fresh or found[1] >= found[0].answered):
            return found
        if is_fresh or not self.sent:
            return found
        sent = self.sent[0]
        return sent, sent.answered, max(sent.at, self._answered_at), int(Phase.RUNNING)

    @property
    def is_fenced(self) -> bool:
        """Return false: what it has not started is known by an answer, of its agent at least."""
        return False

    @property
    def can_be_robbed(self) -> bool:
        """Whether it is known what it is at, so that it may be asked for tasks."""
        return not self.pending and self.ready and self.agent.is_fresh()

    # --- its end ---

    @property
    def ends_by_itself(self) -> bool:
        """Return false: its end is that of its channel."""
        return False

    @property
    def gone(self) -> bool:
        """Whether it was let go of."""
        return self._is_gone

    def alive(self) -> bool:
        """Whether it still runs, as far as is known."""
        return self._end is None and not self.agent.has_left

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until it is known how it has ended; return whether it is."""
        self.agent.wait(max(seconds, _END_SECONDS), lambda: self._end is not None)
        return not self.alive()

    def exit_info(self) -> ExitInfo:
        """Return what is known of its end, before it is let go of."""
        if self._end is not None:
            _, _, words, code, memory, stack = self._end
            words = self.ended_because or words
            return ExitInfo(f"{words} on {self.agent.node}", code, memory, stack)
        if self.agent.has_left:
            return ExitInfo(f"was lost with its engine's process on {self.agent.node}", None, 0, "")
        return ExitInfo(f"on {self.agent.node} closed its connection", None, 0, "")

    def abandon(self) -> None:
        """Close its channel and let go of it."""
        if self._is_gone:
            return
        self._is_gone = True
        self.agent.workers.pop(self.number, None)
        with contextlib.suppress(Exception):  # nobody waits for it who could be told
            self.read_output()
        self.sent.clear()
        self.requests.clear()
        self.channel.close()
