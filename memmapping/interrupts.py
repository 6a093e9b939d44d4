"""Steps that Ctrl-C must not come between."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class HeldInterrupts:
    """A block in which Ctrl-C waits: what it interrupts would be lost half made.

    Python runs the handler of a signal between any two steps of the main thread, whichever thread
    the system gave the signal to, so masking it does not help. The handler is replaced for the time
    instead; no code of the user's may run in the block. A second Ctrl-C does not wait.
    """

    __slots__ = ("_came", "_handler")

    def __init__(self) -> None:
        self._came: list[tuple[int, FrameType | None]] = []
        self._handler: Any = None

    def __enter__(self) -> HeldInterrupts:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            try:
                signal.signal(signal.SIGINT, self._note)
            except ValueError:  # a main thread, but not of the main interpreter
                return self
            self._handler = handler
            _holding.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        handler = self._handler
        self.put_back()
        if self._came:
            handler(*self._came[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append((number, frame))
        if len(self._came) > 1:
            self._handler(number, frame)

    def put_back(self) -> None:
        """Put the handler back."""
        handler, self._handler = self._handler, None
        if handler is not None:
            _holding.remove(self)
            signal.signal(signal.SIGINT, handler)


_holding: list[HeldInterrupts] = []


def _put_back_in_child() -> None:
    for held in reversed(_holding):
        held.put_back()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_put_back_in_child)
