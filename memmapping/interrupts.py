"""Steps that Ctrl-C must not come between."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` without enums, which take most time
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

from memmapping.forks import in_child

_CTRL_C = (int(signal.SIGINT),)
_ALL = tuple(map(int, signal.valid_signals()))


class HeldInterrupts:
    """A block in which Ctrl-C waits: what it interrupts would be lost half made.

    Python runs the handler of a signal between any two steps of the main thread, whichever thread
    the system gave the signal to, so masking it does not help. The handler is replaced for the time
    instead; no code of the user's may run in the block. A second Ctrl-C does not wait.
    """

    __slots__ = ("_came", "_handlers")
    _numbers: ClassVar[tuple[int, ...]] = _CTRL_C

    def __init__(self) -> None:
        self._came: list[tuple[int, FrameType | None]] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> HeldInterrupts:
        if threading.current_thread() is threading.main_thread():
            _holding.append(self)
            try:
                get = _signal.getsignal
                for number in self._numbers:
                    handler = get(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        _signal.signal(number, self._note)
            except BaseException:  # it came just before, or this interpreter has no signals
                self.put_back()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        handlers = self._handlers.copy()
        self.put_back()
        self._deliver(handlers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = any(number == came for came, _ in self._came)
        self._came.append((number, frame))
        if is_second and number in _CTRL_C and number in self._handlers:
            self._handlers[number](number, frame)

    def put_back(self) -> None:
        """Put the handlers back."""
        if self in _holding:
            _holding.remove(self)
        while self._handlers:
            _signal.signal(*self._handlers.popitem())

    def _deliver(self, handlers: dict[int, Any]) -> None:
        came = dict(reversed(self._came))
        while came:
            number, frame = came.popitem()
            try:
                handlers[number](number, frame)
            except BaseException:
                for other in came:  # each is heard, whatever the first one raises
                    signal.raise_signal(other)
                raise


class HeldSignals(HeldInterrupts):
    """A block in which every signal waits that has a handler, which may come back in here."""

    __slots__ = ()
    _numbers = _ALL


_holding: list[HeldInterrupts] = []


@in_child
def _put_back_in_child() -> None:
    for held in reversed(_holding):
        held.put_back()
