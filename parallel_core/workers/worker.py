"""The parent's handle on one worker process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from parallel_core.output.connection import OutputReader
from parallel_core.output.pieces import show
from parallel_core.serialization.batch import Batch
from parallel_core.workers import barrier
from parallel_core.workers.base_worker import BaseWorker
from parallel_core.workers.board import FENCED, HAS_OUTPUT, NO_LIMIT, SLOT, Board, Fence
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.messages import Answer, Leave, Offer, Placed
from parallel_core.workers.passing import MOST, Sender
from parallel_core.workers.process import NOT_KNOWN, LastingProcess, Process, wait_for_exit
from parallel_core.workers.sent import ExitInfo, SentBatch, Source, TimedOutTask
from parallel_core.workers.setup import WorkerKey
from parallel_core.workers.stealing import steal_from
from parallel_core.workers.system import STACK_SIGNAL, open_pidfd, pin, signal_name

_ASKED_SECONDS = 0.5  # for a task that is to stop; `subprocess.run` takes half to end its child
#: For a worker that is to be killed, to write its stack.
STACK_SECONDS = 0.02


class Worker(BaseWorker):
    """The handle on one process: its channel, its board, its output and its lifeline."""

    def __init__(
        self,
        process: Process,
        channel: Sender,
        board: Board,
        lifeline: int,
        output: OutputReader,
    ) -> None:
        super().__init__(process.pid, channel, board)
        self.output = output
        self.process = process
        handed: int | None = getattr(process, "pidfd", None)  # by who can open it in safety
        self.pidfd = open_pidfd(process.pid) if handed is None else os.dup(handed)
        self.channel: Sender = channel
        self.key: WorkerKey | None = None  # of its kind, where slots have workers of their own
        self.unpinned: set[int] | None = None  # the CPUs that it had before it was pinned
        self.owner: Callable[[], object] | None = None  # returns the group that it is of, or was
        self._lifeline = lifeline  # the write end of the pipe whose closing kills it

    def pass_descriptors(self) -> bool:
        """Send what had to wait until it expects descriptors; return whether some still waits."""
        self.channel.let_pass()
        return self.channel.flush()

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

    def take_slot(self, slot: int) -> None:
        """Be the worker of this number from now on, under its own number if it has one."""
        self.slot = slot
        process = self.process
        self.board.words[SLOT] = process.worker_id if isinstance(process, LastingProcess) else slot

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

    def _prepare(self, uses: list[Any]) -> None:
        """Send the descriptors among what a batch uses, which is about to follow."""
        open_files: Any = sys.modules.get("parallel_core.serialization.open_files")
        if open_files is None:
            return
        held = open_files.crossing(uses)
        for first in range(0, len(held), MOST):
            self.channel.send_descriptors(held[first : first + MOST])

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

    def taken(self) -> list[Batch]:
        """Return nothing: what it gives back is known at once, or comes with its answer."""
        return []

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
        self.leaving = True
        due = self.ask_to_stop(sent.base + index + 1)
        self.timed_out = TimedOutTask(sent, index, limit, self.stop_steps(), due)
        return due

    def ask_to_stop(self, number: int) -> float:
        """Ask the task of that `number` to end; return when to take the first of `stop_steps`."""
        self.board.ask_to_stop(number)
        self._signal(signal.SIGINT)
        return time.monotonic() + _ASKED_SECONDS

    def stop_steps(self) -> list[Callable[[], object]]:
        """Return what is to be done about a task that does not end, the mildest first."""
        return [self.ask_for_stack, self.kill]

    def escalate(self, now: float) -> float:
        """Do more about the task that should end, when it is time; return when to do so again."""
        timed_out = self.timed_out
        assert timed_out is not None
        if now >= timed_out.due:
            if not timed_out.steps:
                return now + _ASKED_SECONDS  # it was killed, and its end will be seen
            timed_out.steps.popleft()()
            timed_out.due = now + STACK_SECONDS
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

    deadline = time.monotonic() + seconds
    poller = select.poll()
    poller.register(worker.pidfd, select.POLLIN)
    poller.poll(seconds * 1000)
    return wait_for_exit(worker.process, deadline - time.monotonic())
