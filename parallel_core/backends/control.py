"""What a dashboard can do with single workers of a session.

::

    dashboard ──▶ Reporter ──▶ ProcessControl ──▶ Worker: a signal, its board, its end
                          └──▶ ThreadControl ───▶ the stacks of this process
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import FrameType

ENDED = "was ended from the dashboard"


class Controllable(Protocol):
    """A worker process whose stack can be read, and that can be ended."""

    ended_because: str | None

    def ask_for_stack(self) -> bool:
        """Have it write its stack on its board."""

    def take_stack(self) -> str:
        """Return what it has written since the last time."""

    def kill(self) -> None:
        """End it now."""


class ProcessControl:
    """Controls worker processes; `find` returns the one of a slot."""

    def __init__(self, find: Callable[[int], Any]) -> None:
        self._find = find

    def _worker(self, slot: int) -> Controllable | None:
        """Return the worker of `slot`, if there is one and it can do all this."""
        worker = self._find(slot)
        return worker if hasattr(worker, "ended_because") else None

    def ask_for_stack(self, slot: int) -> bool:
        """Have a worker write its stack; return whether it can."""
        worker = self._worker(slot)
        if worker is None:
            return False
        worker.take_stack()  # what was asked for before is no answer now
        return worker.ask_for_stack()

    def stack_of(self, slot: int) -> str:
        """Return what it has written since; empty if nothing."""
        worker = self._worker(slot)
        return "" if worker is None else worker.take_stack()

    def end_worker(self, slot: int) -> bool:
        """End a worker; its task fails."""
        worker = self._worker(slot)
        if worker is None:
            return False
        worker.ended_because = ENDED
        worker.kill()
        return True


class _Thread(Protocol):
    slot: int
    thread_id: int


class ThreadControl:
    """Controls threads of this process: their stacks can be read, and they cannot be ended."""

    def __init__(self, threads: Callable[[], Iterable[_Thread]]) -> None:
        self._threads = threads

    def _frame(self, slot: int) -> FrameType | None:
        for thread in list(self._threads()):
            if thread.slot == slot:
                return sys._current_frames().get(thread.thread_id)
        return None

    def ask_for_stack(self, slot: int) -> bool:
        """Return whether the thread runs."""
        return self._frame(slot) is not None

    def stack_of(self, slot: int) -> str:
        """Return where the thread is."""
        import traceback

        frame = self._frame(slot)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    def end_worker(self, slot: int) -> bool:
        """Do nothing: no thread can be ended from outside."""
        return False
