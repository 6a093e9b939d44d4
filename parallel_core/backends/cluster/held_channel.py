"""Channels in which frames wait for something that is said over another connection.

A limit or a slot is written on the board of a worker by its agent, so it takes another way than
the batch that it is meant for. What is sent after `hold` waits until `let_go`: the agent has
answered.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from parallel_core.workers.channel import Channel


class HeldChannel(Channel):
    """The caller's end of the channel of a worker elsewhere."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self._marks: deque[memoryview] = deque()

    def hold(self) -> None:
        """Let nothing leave that is sent after this, for now."""
        mark = memoryview(bytes(1))  # never sent: `_next_pieces` ends before it
        self._marks.append(mark)
        self._outbox.append(mark)

    @property
    def is_held(self) -> bool:
        """Whether something is to be waited for."""
        return bool(self._marks)

    def let_go(self, frame: bytes = b"") -> None:
        """Let what waits for the first `hold` leave, after `frame`."""
        mark = self._marks.popleft()
        for index, piece in enumerate(self._outbox):
            if piece is mark:
                if frame:
                    self._outbox[index] = memoryview(frame)
                else:
                    del self._outbox[index]
                return

    def _next_pieces(self) -> tuple[list[memoryview], Any]:
        pieces, beside = super()._next_pieces()
        if self._marks:
            first = self._marks[0]
            for index, piece in enumerate(pieces):
                if piece is first:
                    return pieces[:index], beside
        return pieces, beside
