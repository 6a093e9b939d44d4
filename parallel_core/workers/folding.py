"""Running one batch whose results are folded here, so that few of them have to cross.

What leaves with an answer is what came of exactly the tasks that it tells of. So a result counts
once, whatever becomes of this worker: a task whose part has not left is as one that was not run.
The fewer the answers, the more is folded before it leaves; so they are sent less often than
results are, and in a worker of another engine, which loses all or nothing, once a batch.

The time that folding takes is no task's: there is a phase for it, in which no time limit applies.
"""

from __future__ import annotations

import functools
import math
from _contextvars import Context, copy_context
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from memmapping.modules import loaded
from parallel_core.context.batch_context import BatchContext
from parallel_core.reduction.tree import BLOCK, Fold, FoldFailed
from parallel_core.serialization.batch import Run
from parallel_core.serialization.encoding import SMALL, is_scalar
from parallel_core.serialization.failure import pack
from parallel_core.serialization.memory import keep_freed
from parallel_core.serialization.opened import leave_opened
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.tasks.description import describe_call
from parallel_core.workers.board import LIMIT, PHASE, SINCE, STARTED, Board, Phase
from parallel_core.workers.execute import Execution, Parcels, Send, is_large
from parallel_core.workers.memory import MemoryWatch
from parallel_core.workers.messages import AfterFailure, FailureKind, TaskFailure

FOLD_SECONDS = 0.1

_IDLE, _RUNNING, _FOLDING = map(int, (Phase.IDLE, Phase.RUNNING, Phase.FOLDING))


@functools.cache
def _keep_freed() -> None:
    """Once in a process, when it has folded something large."""
    numpy = loaded("numpy")
    if numpy is not None:
        keep_freed(numpy)


class FoldingExecution(Execution):
    """One batch being run and folded.

    Parameters
    ----------
    token : int
        Of the function that folds.
    number, base, definitions, board, send, parcels, memory, start, batch context
        As for `Execution`.
    """

    def __init__(
        self,
        token: int,
        number: int,
        base: int,
        definitions: ReceivedDefinitions,
        board: Board,
        send: Send,
        parcels: Parcels | None = None,
        memory: MemoryWatch | None = None,
        start: int = 0,
        batch_context: BatchContext | None = None,
    ) -> None:
        super().__init__(
            number, base, definitions, board, send, parcels, memory, start, batch_context
        )
        self._token = token
        self._fold = self._make_fold(max)  # until it is known with what
        is_together = parcels is None or parcels.is_together
        self._seconds = math.inf if is_together else FOLD_SECONDS

    def run(
        self,
        runs: list[Run],
        after_failure: AfterFailure = AfterFailure.STOP,
        answers_each: bool = False,
    ) -> None:
        """Run and fold until the end or the limit; when the function raises, that is the end."""
        try:
            self._fold = self._make_fold(self._resolve())
            super().run(runs, after_failure, answers_each)
        except FoldFailed as failed:
            data, text = pack(failed.error, self._definitions.dumps)
            self._values, self._pickled, self._buffers = [], [], []
            failure = TaskFailure(0, FailureKind.FOLDING, data, text, failed.words)
            self._send_answer(True, failure, 0, 0)
            self._board.words[PHASE] = _IDLE

    def _make_fold(self, function: Callable[[Any, Any], Any]) -> Fold:
        return Fold(function, self._start_position)

    def _resolve(self) -> Callable[[Any, Any], Any]:
        try:
            resolve = self._definitions.resolve
            function: Callable[[Any, Any], Any] = copy_context().run(resolve, self._token)
            leave_opened()  # what it has captured is open for as long as it is there
        except BaseException as error:
            raise FoldFailed(error, "reduce does not unpickle in the worker") from error
        return function

    def _failure(self, error: BaseException) -> TaskFailure:
        if isinstance(error, FoldFailed):
            raise error
        return super()._failure(error)

    def _run_plain(
        self,
        function: Callable[..., Any],
        argument_lists: Iterable[Any],
        context: Context,
        base: Context,
    ) -> bool:
        words, times, clock = self._board.words, self._board.times, monotonic
        small, most, patience = SMALL, BLOCK, self._seconds
        fold = self._fold
        pending = fold.pending
        append = pending.append
        task, flushed = self._task, self._flushed
        call = self._bound(function)
        words[PHASE] = _RUNNING
        try:
            for args in argument_lists:
                times[SINCE] = now = clock()
                task += 1
                words[STARTED] = task
                if task > words[LIMIT]:
                    task -= 1
                    self._cut = True
                    break
                if now - flushed > patience:
                    flushed = self._flush(now)
                value = call(*args)
                if type(value) in small:
                    append(value)
                    if len(pending) >= most:
                        words[PHASE] = _FOLDING
                        fold.settle()
                        words[PHASE] = _RUNNING
                else:
                    words[PHASE] = _FOLDING
                    fold.append(value)
                    del value
                    words[PHASE] = _RUNNING
                try:
                    if context != base:
                        return True
                except Exception:  # values that cannot be compared are others
                    return True
            return False
        except BaseException:
            self._failed_call = describe_call(function, args, {})
            raise
        finally:
            self._task = task

    def _keep(self, value: object, function: object, args: Any, kwargs: dict[str, Any]) -> None:
        self._board.words[PHASE] = _FOLDING
        self._fold.append(value)

    def _flush(self, now: float) -> float:
        if now - self._flushed > self._seconds and len(self._fold):
            self._answer(False, None)
            self._board.times[SINCE] = monotonic()  # the next task begins now
        return self._flushed

    def _answer(self, finished: bool, failure: TaskFailure | None) -> None:
        words = self._board.words
        phase, words[PHASE] = words[PHASE], _FOLDING
        tasks = len(self._fold)
        for value in self._fold.take():
            self._pack(value, tasks)
        self._send_answer(finished, failure, tasks, tasks)
        self._fold.restart(self._start_position + self._first)
        words[PHASE] = phase

    def _pack(self, value: Any, tasks: int) -> None:
        """Put a folded value among those to be sent at once: nothing can change it until then."""
        is_flat = is_scalar(value)
        if is_flat and not is_large(value):
            self._values.append(value)
            return
        pickler = self._pickler or self._make_pickler()
        try:
            pickled = pickler.dumps_flat(value) if is_flat else pickler.dumps(value)
        except Exception as error:
            first = self._start_position + self._first
            what = f"what reduce made of tasks {first} to {first + tasks - 1} of the call"
            failed = self._explain(what, value, "the value", error)
            raise FoldFailed(failed, "it was to leave the worker that made it") from error
        self._pickled.append(len(self._values))
        if type(pickled) is bytes:
            self._values.append(pickled)
        else:
            parcel: Any = pickled
            self._values.append(parcel.entry)
            self._buffers += parcel.buffers
            _keep_freed()
