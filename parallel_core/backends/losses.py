"""What the end of a worker means for the tasks that it had.

One task may be to blame: the one that it was on, or the one that ran out of time. All others are
left over, to be run elsewhere. Where none had begun, a batch may lose two workers; then its first
task is to blame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memmapping.sizes import format_nbytes
from parallel_core.backends.base import Completion, Failure
from parallel_core.errors import RemoteTraceback
from parallel_core.serialization.batch import Batch
from parallel_core.workers.worker import ExitInfo, SentBatch, TimedOutTask

if TYPE_CHECKING:
    from parallel_core.errors import TaskTimeoutError, WorkerDiedError

_MOST_LOSSES = 2  # workers that may end with a batch before one of them began it


def given_back(
    sent: SentBatch, index: int | None, death: ExitInfo, timed_out: TimedOutTask | None = None
) -> Completion:
    """Return what is left over of a batch whose worker has ended, and who is to blame.

    Parameters
    ----------
    sent : SentBatch
        The batch.
    index : int or None
        The task that was running, if it was one of this batch.
    death : ExitInfo
        How the worker ended.
    timed-out task : TimedOutTask, optional
        Why we killed it; without `index`, none of this batch is to blame then.
    """
    batch, answered = sent.batch, sent.answered
    size = batch.size
    if index is None and timed_out is None and answered < size and batch.losses >= _MOST_LOSSES:
        index = answered
    completion = Completion(batch, batch.start + answered, [], 0.0, True)
    pieces = [(answered, size)]
    if index is not None and index < size:
        error: BaseException
        if timed_out is not None:
            error = _too_late(timed_out)
            if death.stack:
                error.__cause__ = RemoteTraceback(death.stack)
        else:
            what = batch.describe(index)
            words = f"a worker process {death.words} at {what}{_memory_words(death)}"
            error = died(words, batch.start + index, death)
        completion.first = batch.start + index
        completion.values = [None]
        completion.failures = [Failure(completion.first, error)]
        pieces = [(answered, index), (index + 1, size)]
    completion.unrun = [batch.part(low, high) for low, high in pieces if low < high]
    for part in completion.unrun:
        part.losses = batch.losses
    return completion


def returned(batch: Batch) -> Completion:
    """Return the end of a batch of which nothing was run."""
    return Completion(batch, batch.start, [], 0.0, True, unrun=[batch])


def note_timed_out(completion: Completion, timed_out: TimedOutTask, sent: SentBatch) -> None:
    """Where the task that was to stop has failed, say that it was for lack of time."""
    if timed_out.sent is not sent or not completion.failures:
        return
    position, error = completion.failures[-1]
    if position == sent.batch.start + timed_out.index:
        late = _too_late(timed_out)
        late.__cause__ = error.__cause__
        completion.failures = [*completion.failures[:-1], Failure(position, late)]


def _too_late(timed_out: TimedOutTask) -> TaskTimeoutError:
    from parallel_core.errors import TaskTimeoutError

    what = timed_out.sent.batch.describe(timed_out.index)
    return TaskTimeoutError(f"{what} has run for more than timeout={timed_out.limit:g} s")


def died(
    message: str, position: int | None = None, death: ExitInfo | None = None
) -> WorkerDiedError:
    """Return the error that says how a worker ended, and at which task."""
    from parallel_core.errors import WorkerDiedError

    error = WorkerDiedError(message)
    error.position = position
    if death is not None:
        error.exitcode, error.stack = death.exitcode, death.stack
        error.memory = death.memory or None
        if death.stack:
            error.__cause__ = RemoteTraceback(death.stack)
    return error


def _memory_words(death: ExitInfo) -> str:
    if not death.memory:
        return ""
    return f" (it held {format_nbytes(death.memory)} of memory)"
