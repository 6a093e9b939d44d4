"""Results that are folded here, so that few of them have to cross.

What leaves with an answer is what came of exactly the tasks that it tells of. So a result counts
once, whatever becomes of this worker: a task whose part has not left is as one that was not run.
The fewer the answers, the more is folded before it leaves; so they are sent less often than
results are, and in a worker of another engine, which loses all or nothing, once a batch.

The time that folding takes is no task's: there is a phase for it, in which no time limit applies.
Small results wait until `flush`, to be folded without a step of ours for each.
"""

from __future__ import annotations

import functools
from _contextvars import copy_context
from collections.abc import Callable
from time import monotonic
from typing import Any

from memmapping.modules import loaded
from parallel_core.reduction.tree import Fold, FoldFailed
from parallel_core.serialization.buffers import Buffer
from parallel_core.serialization.encoding import is_scalar
from parallel_core.serialization.memory import keep_freed
from parallel_core.serialization.opened import leave_opened
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.workers.board import Phase
from parallel_core.workers.messages import FailureKind
from parallel_core.workers.results import BatchFailed, Outgoing, Parcels, Results, is_large

FOLD_SECONDS = 0.1


@functools.cache
def _keep_freed() -> None:
    """Once in a process, when it has folded something large."""
    numpy = loaded("numpy")
    if numpy is not None:
        keep_freed(numpy)


class FoldingResults(Results):
    """Results that are folded by the function of a `token`, from position `start` on."""

    phase = int(Phase.FOLDING)
    flush_seconds = 5e-4  # what is folded then is still in the processor's cache
    texts = frozenset()

    def __init__(
        self,
        definitions: ReceivedDefinitions,
        parcels: Parcels | None,
        token: int,
        start: int,
    ) -> None:
        super().__init__(definitions, parcels)
        self._token = token
        self._position = start
        self._fold = Fold(max, start)  # until it is known with what
        self._is_together = parcels is None or parcels.is_together
        self._sent = monotonic()

    def __len__(self) -> int:
        return len(self._fold)

    def begin(self) -> None:
        """Have the function unpickled."""
        try:
            resolve = self._definitions.resolve
            function: Callable[[Any, Any], Any] = copy_context().run(resolve, self._token)
            leave_opened()  # what it has captured is open for as long as it is there
        except BaseException as error:
            words = "reduce does not unpickle in the worker"
            raise BatchFailed(FailureKind.FOLDING, error, words) from error
        self._fold = Fold(function, self._position)
        self.values = self._fold.pending

    def keep(self, value: Any) -> bool:
        """Fold a result."""
        try:
            self._fold.append(value)
        except FoldFailed as failed:
            raise _batch_failed(failed) from failed.error
        return False

    def flush(self) -> bool:
        """Fold what waits; return whether what there is should be sent now."""
        try:
            self._fold.settle()
        except FoldFailed as failed:
            raise _batch_failed(failed) from failed.error
        if self._is_together or monotonic() - self._sent <= FOLD_SECONDS:
            return False
        return bool(len(self._fold))

    def take(self) -> Outgoing:
        """Return what the results have come to."""
        tasks = len(self._fold)
        try:
            nodes = self._fold.take()
        except FoldFailed as failed:
            raise _batch_failed(failed) from failed.error
        self.values = []
        for value in nodes:
            self._pack(value, tasks)
        self._sent = monotonic()
        outgoing = super().take()._replace(tasks=tasks, folded=tasks)
        self.values = self._fold.pending
        return outgoing

    def restart(self, position: int) -> None:
        """Begin anew at `position`."""
        self._position = position
        self._fold.restart(position)

    def _pack(self, value: Any, tasks: int) -> None:
        """Put a folded value among those to be sent at once: nothing can change it until then."""
        is_flat = is_scalar(value)
        if is_flat and not is_large(value):
            self.values.append(value)
            return
        try:
            self._pickle(value, is_flat)
        except Exception as error:
            first, last = self._position, self._position + tasks - 1
            what = f"what reduce made of tasks {first} to {last} of the call"
            failed = self.explain(what, value, "the value", error)
            words = "it was to leave the worker that made it"
            raise BatchFailed(FailureKind.FOLDING, failed, words) from error

    def _add(self, buffers: list[Buffer]) -> bool:
        self._buffers += buffers
        _keep_freed()
        return False


def _batch_failed(failed: FoldFailed) -> BatchFailed:
    return BatchFailed(FailureKind.FOLDING, failed.error, failed.words)
