"""What tasks print and log in workers of other engines: it travels with the batch's answers.

An engine may run tasks in threads of the caller's own process; then nothing has to travel. It may
run several batches at a time in threads of another process; so a context variable says whose text
it is.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from memmapping.forks import in_child
from parallel_core.output import pieces
from parallel_core.output.capture import current_sink, is_redirected, note_worker, redirected
from parallel_core.output.pieces import Piece, encode
from parallel_core.output.records import forget_handlers, handlers, pack_record, relay_records
from parallel_core.output.task_warnings import forget_warnings, relay_warnings

if TYPE_CHECKING:
    from logging import Handler, LogRecord

_MAX_NBYTES = 1 << 24  # of a batch; what is more goes to the worker's own streams
_MARK = os.urandom(8)
_KINDS = {"stdout": pieces.STDOUT, "stderr": pieces.STDERR}


def process_identity() -> tuple[int, bytes]:
    """Return what tells this process from all others, also on other machines."""
    return os.getpid(), _MARK


class StartedBy(enum.Enum):
    """Who has started a worker."""

    US = "us"  #: it is new, and all logging is the caller's
    ENGINE = "engine"  #: or the user, who may have set up logging there


class BatchOutput:
    """What one batch has printed and logged, as long as it is not too much."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._nbytes = 0

    def take(self, name: str, text: str) -> bool:
        """Take text."""
        return self.add(_KINDS[name], encode(text))

    def add(self, kind: int, data: bytes) -> bool:
        """Take a piece."""
        self._nbytes += len(data)
        if self._nbytes > _MAX_NBYTES:
            return False
        self.pieces.append((kind, data))
        return True


_started_by: StartedBy | None = None
_first = BatchOutput()  # of the initializer
_current: ContextVar[BatchOutput | None] = ContextVar("parallel_core_batch_output", default=None)
_at_work: list[BatchOutput] = []
_inherited: list[Handler] = []  # of the process that this one was forked from


@in_child
def _note_fork() -> None:
    _inherited[:] = handlers()
    _current.set(None)  # what a forked child gives to it is not read by anybody
    _at_work.clear()


def begin_output(started_by: StartedBy) -> None:
    """Note that this process is a worker; only the first call has an effect.

    Handlers that it has inherited from the caller are dropped: the caller's own get the records.
    """
    global _started_by
    if _started_by is None:
        _started_by = started_by
        note_worker()
        forget_handlers(_inherited if started_by is StartedBy.ENGINE else handlers())
        relay_records(_send_record)
        relay_warnings(_send_warning)


def _send_record(record: LogRecord, is_handled: bool) -> bool:
    output = _current.get()
    if output is None:
        output = _at_work[-1] if _at_work else None
    if output is None or (is_handled and _started_by is StartedBy.ENGINE):
        return False
    return output.add(pieces.RECORD, pack_record(record, is_handled))


def _send_warning(data: bytes) -> bool:
    """Send a warning, unless its text belongs where a task, or ``output=``, has sent all text."""
    sink = current_sink()
    return isinstance(sink, BatchOutput) and is_redirected() and sink.add(pieces.WARNING, data)


@contextmanager
def first_output() -> Iterator[None]:
    """Keep what is printed for the first batch."""
    with redirected(_first):
        yield


@contextmanager
def batch_output() -> Iterator[BatchOutput]:
    """Gather what is printed and logged in this context."""
    forget_warnings()
    output = BatchOutput()
    output.pieces += _first.pieces
    _first.pieces.clear()
    token = _current.set(output)
    _at_work.append(output)
    try:
        with redirected(output):
            yield output
    finally:
        _at_work.remove(output)
        _current.reset(token)
