"""What a loop and those that work for it count in one call, for its record.

::

    TaskSource: pulling and encoding ─┐
    BatchBuilder: encoding, sharing ──┼─▶ Tally ──▶ CallRecord
    Session: reading, starts, deaths ─┘

They count whether anybody asks or not; it is put together when a call ends, or for a report in the
middle of it. A session may be that of several calls, so what it had counted before is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel_core.backends.base import Session
    from parallel_core.dispatch.limits import Limits
    from parallel_core.dispatch.source import TaskSource
    from parallel_core.insights.record import CallRecord
    from parallel_core.serialization.encoding import BatchBuilder


class Tally:
    """Where the numbers of one call are."""

    __slots__ = ("_builder", "_deaths", "_limits", "_n_workers", "_reading", "_session", "_source")

    def __init__(
        self, session: Session, source: TaskSource, builder: BatchBuilder, limits: Limits
    ) -> None:
        self._session = session
        self._source = source
        self._builder = builder
        self._limits = limits
        self._n_workers = session.n_workers
        self._reading = session.reading_seconds  # before this call
        self._deaths = len(session.deaths)  # likewise

    def sum_up(self, record: CallRecord) -> None:
        """Put the numbers, as they are now, into the record."""
        session, builder = self._session, self._builder
        record.encoding = builder.seconds
        record.pulling = max(self._source.seconds - builder.seconds, 0.0)
        record.reading = session.reading_seconds - self._reading
        record.waiting = max(record.polling - record.reading, 0.0)
        record.n_workers = self._n_workers
        record.shared_nbytes = builder.shared_nbytes
        gate = self._limits.gate
        if gate is not None:
            from parallel_core.dispatch.memory import MemoryGate

            if isinstance(gate, MemoryGate):
                record.held_back = gate.seconds
        if builder.repeats.times:
            record.note_repeated(builder.repeats)
        if session.ready_at:
            record.ready_at = dict(session.ready_at)
        if session.deaths:
            record.note_deaths(session.deaths[self._deaths :])
