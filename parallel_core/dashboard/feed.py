"""What browsers are sent: a ring of updates by number, and snapshots for those that come late.

::

    calls ── ten times a second ──▶ tick ──▶ ring of updates ──▶ each browser, from where it is
                                                └─ too far behind, or new: a snapshot

An update is made once, however many browsers there are. What is new within a call is in it only
while a browser looks at that call.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator
from time import monotonic
from typing import NamedTuple

from parallel_core.dashboard.calls import State, WatchedCall
from parallel_core.dashboard.processes import Processes

TICK_SECONDS = 0.1
_USAGE_SECONDS = 1.0
_ALIVE_SECONDS = 10.0
_RING = 64
MOST_PAST = 100


class Update(NamedTuple):
    """What was new at one tick, in JSON."""

    number: int
    calls: str  #: a list of summaries
    gone: str  #: a list of calls that are not kept any more
    details: dict[int, str]  #: by call, where somebody looks at it


class Feed:
    """All calls, and what browsers are sent of them."""

    def __init__(self) -> None:
        self.calls: dict[int, WatchedCall] = {}
        self._ring: deque[Update] = deque(maxlen=_RING)
        self._number = 0
        self._gone: list[int] = []
        self._looked_at: Counter[int] = Counter()
        self._processes = Processes()
        self._look_again = 0.0
        self._bell = asyncio.Event()
        self.is_over = False  #: whether browsers are to go

    @property
    def browsers(self) -> int:
        """The number of browsers that follow."""
        return self._looked_at.total()

    def add(self, call: WatchedCall) -> None:
        """Show a call that has begun; the oldest that are over make room."""
        self.calls[call.number] = call
        past = [one for one in self.calls.values() if one.state is not State.RUNNING]
        for one in past[: max(len(past) - MOST_PAST, 0)]:
            del self.calls[one.number]
            self._gone.append(one.number)

    async def run(self) -> None:
        """Tick until the end."""
        while not self.is_over:
            self.tick()
            await asyncio.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """Have all browsers go."""
        self.is_over = True
        self._bell.set()

    def tick(self) -> None:
        """Make an update of what is new."""
        now = monotonic()
        running = [call for call in self.calls.values() if call.state is State.RUNNING]
        if self.browsers and now >= self._look_again:
            self._look_again = now + _USAGE_SECONDS
            usage = self._processes.look(pid for call in running for pid in call.pids())
            for call in running:
                call.note_usage(usage)
        details = {}
        for number, call in self.calls.items():
            if not call.has_changed:
                continue
            if self._looked_at[number]:
                details[number] = call.news()
            else:
                call.forget_news()
        changed = [call.summary(now) for call in self.calls.values() if call.has_changed]
        if not changed and not self._gone:
            return
        self._number += 1
        gone, self._gone = self._gone, []
        self._ring.append(Update(self._number, _json(changed), _json(gone), details))
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    def snapshot(self, number: int | None) -> str:
        """Return all there is, with the details of the call of that `number`."""
        now = monotonic()
        call = None if number is None else self.calls.get(number)
        changed = {one.number for one in self.calls.values() if one.has_changed}
        summaries = _json([one.summary(now) for one in self.calls.values()])
        for one in self.calls.values():
            one.has_changed = one.number in changed  # others have not seen that yet
        details = "null" if call is None else call.details()
        return f'{{"kind":"snapshot","clock":{now},"calls":{summaries},"details":{details}}}'

    async def follow(self, number: int | None) -> AsyncIterator[bytes]:
        """Yield events for one browser, which looks at the call of that `number`."""
        looks_at = -1 if number is None else number
        self._looked_at[looks_at] += 1
        try:
            self._look_again = 0.0
            seen = -1
            while not self.is_over:
                if self._number == seen:
                    bell = self._bell
                    try:
                        await asyncio.wait_for(bell.wait(), _ALIVE_SECONDS)
                    except TimeoutError:
                        yield b": alive\n\n"
                    continue
                if seen < 0 or self._ring[0].number > seen + 1:
                    self.tick()  # what is new until now is in the snapshot
                    seen = self._number
                    yield _event(self.snapshot(number))
                    continue
                missed = [update for update in self._ring if update.number > seen]
                seen = self._number
                now = monotonic()
                yield b"".join(_event(_as_json(update, looks_at, now)) for update in missed)
        finally:
            self._looked_at[looks_at] -= 1
            self._looked_at += Counter()  # forgets those that nobody looks at


def _as_json(update: Update, looks_at: int, now: float) -> str:
    details = update.details.get(looks_at, "null")
    return (
        f'{{"kind":"update","clock":{now},"calls":{update.calls},"gone":{update.gone},'
        f'"details":{details}}}'
    )


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
