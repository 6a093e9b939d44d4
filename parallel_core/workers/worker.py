"""The parent's handle on one worker process."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel_core.output.connection import OutputReader
from parallel_core.output.pieces import show
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definition, SentDefinition
from parallel_core.workers import barrier
from parallel_core.workers.board import (
    FENCED,
    HAS_OUTPUT,
    HAS_STATE,
    MEMORY,
    NO_LIMIT,
    PHASE,
    SINCE,
    SLOT,
    STARTED,
    Board,
    Fence,
)
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.messages import (
    AfterFailure,
    Answer,
    Ask,
    Leave,
    Message,
    Offer,
    Placed,
    Release,
    RunBatch,
    SetUp,
    from_wire,
    to_wire,
)
from parallel_core.workers.passing import MOST, Sender
from parallel_core.workers.process import NOT_KNOWN, LastingProcess, Process, wait_for_exit
from parallel_core.workers.requests import Request
from parallel_core.workers.sent import ExitInfo, SentBatch, Source, TimedOutTask
from parallel_core.workers.setup import ProcessState, StartSettings, WorkerKey, own_authkey
from parallel_core.workers.stealing import steal_from
from parallel_core.workers.system import STACK_SIGNAL, open_pidfd, pin, signal_name

if TYPE_CHECKING:
    from parallel_core.reduction.tree import Folding

_LARGE = 1 << 16  # bytes of a definition that a worker should not hold between two calls
_ASKED_SECONDS = (
    0.5  # for a task that is to stop; `subprocess.run` takes half of it to end its child
)
_STACK_SECONDS = 0.02  # for a worker that is to be killed, to write its stack
_numbers = itertools.count(1)
_KNOWN = 64  # definitions that a worker is trusted to keep between batches


class Worker:
    """The handle on one process: its channel, its board, its output and its lifeline."""

    def __init__(
        self,
        process: Process,
        channel: Sender,
        board: Board,
        lifeline: int,
        output: OutputReader,
    ) -> None:
        self.name = f"parallel-core-{next(_numbers)}"  # for people; it has it for life
        self.output = output
        self.process = process
        self.pid = process.pid
        handed: int | None = getattr(process, "pidfd", None)  # by who can open it in safety
        self.pidfd = open_pidfd(process.pid) if handed is None else os.dup(handed)
        self.channel = channel
        self.board = board
        self.sent: deque[SentBatch] = deque()
        self.slot = 0  # its place in the session that has leased it
        self.key: WorkerKey | None = None  # of its kind, where slots have workers of their own
        self.is_set_up = False  # for the tasks of this session
        self.requests: deque[Request] = deque()  # not answered, in their order
        self.unpinned: set[int] | None = None  # the CPUs that it had before it was pinned
        self.ready = False
        self.has_answered = False  # in this call: so a batch may wait behind the one it has
        self.timed_out: TimedOutTask | None = None
        self.ended_because: str | None = None  # in words, where somebody has asked for its end
        self.leaving = False  # it gets no further batch, and is replaced when it has none
        self.is_limited = False  # it gets no further batch before it has answered what it has
        self.taken_back = 0  # tasks that it was sent and never had to start
        self.told: ProcessState | None = None
        self.holds_memory = False  # arrays of a call, or large functions
        self.owner: Callable[[], object] | None = None  # returns the group that it is of, or was
        self.to_forget: deque[str] = deque()  # shared objects that were closed while it was leased
        self._lifeline = lifeline  # the write end of the pipe whose closing kills it
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

    def pass_descriptors(self) -> bool:
        """Send what had to wait until it expects descriptors; return whether some still waits."""
        self.channel.let_pass()
        return self.channel.flush()

    def has_input(self, seconds: float) -> bool:
        """Wait for at most so many seconds; return whether there is something to receive."""
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def read_memory(self, message: Offer | Placed) -> tuple[Answer | None, bool]:
        """Accept what it offers, or read an answer that it has placed.

        Returns the answer, and whether something waits to be sent.
        """
        from parallel_core.workers.remote_memory import reply_to

        reply, answer = reply_to(self.pid, message)
        if not self.alive():
            return None, False  # what was read may be of another process
        try:
            return answer, self.send(reply)
        except ChannelClosed:
            return answer, False

    def descriptors(self) -> dict[int, Source]:
        """Return what to wait for, and what each is."""
        found = {self.channel.fileno(): Source.CHANNEL, self.output.fileno(): Source.OUTPUT}
        if self.pidfd is not None:
            found[self.pidfd] = Source.END
        return found

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

    def take_slot(self, slot: int) -> None:
        """Be the worker of this number from now on, under its own number if it has one."""
        self.slot = slot
        process = self.process
        self.board.words[SLOT] = process.worker_id if isinstance(process, LastingProcess) else slot

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

    def pin(self, cpus: tuple[int, ...]) -> None:
        """Let it run on `cpus` alone."""
        if self.unpinned is None:
            self.unpinned = os.sched_getaffinity(self.pid)
        pin(self.pid, cpus)

    def unpin(self) -> None:
        """Let it run where it could before."""
        before, self.unpinned = self.unpinned, None
        if before is not None:
            with contextlib.suppress(OSError):  # it has just ended
                pin(self.pid, tuple(before))

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
            self._pass_descriptors(batch.uses)
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

    def _pass_descriptors(self, uses: list[Any]) -> None:
        """Send the descriptors among what a batch uses, which is about to follow."""
        open_files: Any = sys.modules.get("parallel_core.serialization.open_files")
        if open_files is None:
            return
        held = open_files.crossing(uses)
        for first in range(0, len(held), MOST):
            self.channel.send_descriptors(held[first : first + MOST])

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
    def is_fenced(self) -> bool:
        """Whether what it has not started can be known without its answer."""
        return self.board.words[FENCED] != Fence.REFUSED and barrier.is_available()

    @property
    def can_be_robbed(self) -> bool:
        """Whether tasks that it has not started can be taken back at once."""
        return not self.pending and (self.is_fenced or self.has_begun)

    def steal(self, keep: int) -> list[Batch]:
        """Take back all tasks but the next `keep` that it has not started."""
        if isinstance(self.process, LastingProcess):
            return steal_from(self, keep, self.process.fence)
        return steal_from(self, keep)

    def cancel(self) -> None:
        """Have it start no further task."""
        self.board.cancel()

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until the process has ended; return whether it has."""
        return wait_for_end(self, seconds)

    def allow(self, lifespan: int | None) -> None:
        """Let it start tasks to the end of its life; only when everything was answered."""
        self.is_limited = False
        self.board.allow(NO_LIMIT if lifespan is None else lifespan + self.taken_back)

    @property
    def tasks(self) -> int:
        """How many tasks it was sent for good, in its whole life."""
        return self._tasks - self.taken_back

    @property
    def memory(self) -> int:
        """How many bytes it held when it looked last; 0 if it never did."""
        return self.board.words[MEMORY]

    @property
    def has_output(self) -> bool:
        """Whether it has printed or logged something, since `read_output` was called."""
        return bool(self.board.words[HAS_OUTPUT])

    def read_output(self) -> None:
        """Show what it has printed and logged; raises what that raises."""
        self.board.words[HAS_OUTPUT] = 0  # what comes from here on sets it again
        said = self.output.read()
        if said:
            show(said, self.name)

    def stop_task(self, sent: SentBatch, index: int, limit: float) -> float:
        """Ask a task to end that has run for over `limit` seconds; return when to `escalate` it."""
        number = sent.base + index + 1
        self.leaving = True
        self.board.ask_to_stop(number)
        self._signal(signal.SIGINT)
        steps: list[Callable[[], object]] = [self.ask_for_stack, self.kill]
        due = time.monotonic() + _ASKED_SECONDS
        self.timed_out = TimedOutTask(sent, index, limit, steps, due)
        return due

    def escalate(self, now: float) -> float:
        """Do more about the task that should end, when it is time; return when to do so again."""
        timed_out = self.timed_out
        assert timed_out is not None
        if now >= timed_out.due:
            if not timed_out.steps:
                return now + _ASKED_SECONDS  # it was killed, and its end will be seen
            timed_out.steps.popleft()()
            timed_out.due = now + _STACK_SECONDS
        return timed_out.due

    def ask_for_stack(self) -> bool:
        """Have the worker write its stack on its board; return whether it can."""
        if STACK_SIGNAL:
            self._signal(STACK_SIGNAL)
        return bool(STACK_SIGNAL)

    def take_stack(self) -> str:
        """Return what it has written on its board since the last time."""
        return self.board.take_stack()

    def _signal(self, number: int) -> None:
        try:
            if isinstance(self.process, LastingProcess):
                self.process.signal(number)
            elif self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.alive():
                os.kill(self.pid, number)
        except OSError:
            pass  # it has just ended

    def ends(self) -> tuple[int, int, int]:
        """Return our ends of the channel, of the lifeline and of the output."""
        return self.channel.fileno(), self._lifeline, self.output.fileno()

    @property
    def ends_by_itself(self) -> bool:
        """Whether there is something to wait for that tells its end."""
        return self.pidfd is not None

    @property
    def gone(self) -> bool:
        """Whether it was let go of, as it is when this process ends."""
        return self._lifeline < 0

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def leave(self) -> None:
        """Ask the worker to end by itself; `end` makes sure of it."""
        try:
            self.send(Leave())
        except ChannelClosed:
            pass

    def kill(self) -> None:
        """Have the kernel end it now."""
        try:
            self.process.kill()
        except OSError:
            pass

    def end(self, seconds: float = 1.0) -> None:
        """Wait for the leaving process, at most `seconds`; then kill it, and let go of it."""
        if not wait_for_end(self, seconds):
            self.kill()
            wait_for_end(self, 1.0)
        if not self.gone:
            with contextlib.suppress(Exception):  # nobody waits for it who could be told
                self.read_output()
        self.abandon()

    def abandon(self) -> None:
        """Close all descriptors; a process that still runs is killed by its lifeline."""
        if self._lifeline < 0:
            return
        self.sent.clear()
        self.requests.clear()
        self.channel.close()
        self.output.close()
        self.board.close()
        lifeline, self._lifeline = self._lifeline, -1
        os.close(lifeline)
        if self.pidfd is not None:
            pidfd, self.pidfd = self.pidfd, None
            os.close(pidfd)

    def disown(self) -> None:
        """In a forked child of the parent: the process is not ours to wait for."""
        self.process.returncode = 0  # so that its destructor does not complain either
        self.abandon()

    def exit_info(self) -> ExitInfo:
        """Return what is known of its end, before it is let go of."""
        code = self.process.poll()
        memory = max(getattr(self.process, "peak_memory", 0), self.memory)
        known = None if code == NOT_KNOWN else code
        return ExitInfo(self.exit_reason(), known, memory, self.board.stack())

    def exit_reason(self) -> str:
        """Return in words how the process ended."""
        code = self.process.poll()
        if self.ended_because:
            return self.ended_because
        if isinstance(self.process, LastingProcess) and self.process.exit_words:
            return self.process.exit_words
        if code is None:
            return "closed its connection, as tasks do that close all descriptors,"
        if code == NOT_KNOWN:
            return (
                "ended, nobody knows how: the fork server that it was forked from had ended before"
            )
        if code >= 0:
            return f"ended with exit code {code}"
        hint = ", often the kernel's out-of-memory killer" if -code == signal.SIGKILL else ""
        return f"was killed by {signal_name(-code)}{hint}"


def wait_for_end(worker: Worker, seconds: float) -> bool:
    """Wait until the process has ended; return whether it has."""
    if worker.pidfd is None:
        return wait_for_exit(worker.process, seconds)
    import select

    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(worker.pidfd, select.POLLIN)
    poller.poll(seconds * 1000)
    return wait_for_exit(worker.process, deadline - time.monotonic())
