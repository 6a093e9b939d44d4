"""What the end of a worker means for the tasks that it had.

One task may be to blame: the one that it was on, or the one that ran out of time. All others are
left over, to be run elsewhere. Where none had begun, a batch may lose two workers; then its first
task is to blame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memmapping.sizes import format_nbytes
from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.worker_handle import WorkerHandle
from parallel_core.errors import RemoteTraceback, warn_caller
from parallel_core.serialization.batch import Batch
from parallel_core.workers.board import Phase
from parallel_core.workers.sent import ExitInfo, SentBatch, TimedOutTask

if TYPE_CHECKING:
    from parallel_core.errors import TaskTimeoutError, WorkerDiedError

#: In these, the death of a worker is the task's.
_BLAMED = (Phase.LOADING, Phase.UNPICKLING, Phase.RUNNING, Phase.PICKLING)
_MAX_FAILED_STARTS = 2  # for each job
_MAX_LOSSES = 2  # workers that may end with a batch before one of them began it


def lost_batches(worker: WorkerHandle, death: ExitInfo) -> list[Completion]:
    """Return what becomes of the batches of a worker that has ended."""
    running, timed_out = worker.running(), worker.timed_out
    found = []
    for number, sent in enumerate(worker.sent):
        if not worker.ready:
            found.append(returned(sent.batch))
        elif timed_out is not None:  # it was us who killed it; what it was on then is innocent
            is_late = timed_out.sent is sent and timed_out.index >= sent.answered
            found.append(given_back(sent, timed_out.index if is_late else None, death, timed_out))
        elif running is not None and running[0] is sent and running[3] in _BLAMED:
            found.append(given_back(sent, max(running[1], sent.answered), death))
        else:
            if number == 0:  # it was to begin next, so it may have been its frame
                sent.batch.losses += 1
            found.append(given_back(sent, None, death))
        found[-1].worker = worker.slot
    return found


class FailedStarts:
    """Workers that ended before they were ready, all in a row."""

    def __init__(self, n_jobs: int) -> None:
        self._n_jobs = n_jobs
        self.count = 0

    def note(self, death: ExitInfo, n_left: int, has_ready: bool) -> BaseException | None:
        """Note one; return the error that ends the call, if there is nobody left to go on.

        `n_left` workers are left, of whom one at least may be ready. After several in a row, the
        call goes on with them.
        """
        self.count += 1
        if not self.are_too_many:
            return None
        words = f"a worker process {death.words} before it was ready to work"
        if has_ready:
            goes_on = f"the call goes on with {n_left} of {self._n_jobs} workers"
            attempts = f"and so did those before it, {self.count} in a row"
            warn_caller(f"{words}, {attempts}; {goes_on}", RuntimeWarning)
        return None if n_left else died(words, death=death)

    @property
    def are_too_many(self) -> bool:
        """Whether no more is to be started."""
        return self.count >= _MAX_FAILED_STARTS * self._n_jobs


def given_back(
    sent: SentBatch, index: int | None, death: ExitInfo, timed_out: TimedOutTask | None = None
) -> Completion:
    """Return what is left over of a batch whose worker has ended, and who is to blame.

    That is the task at `index`, if the worker was on one of this batch; with `timed_out`, because
    we killed it for that.
    """
    batch, answered = sent.batch, sent.answered
    size = batch.size
    if index is None and timed_out is None and answered < size and batch.losses >= _MAX_LOSSES:
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
