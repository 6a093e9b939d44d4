"""Which kind of `Execution` a batch gets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from parallel_core.context.batch_context import BatchContext
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.workers.board import Board
from parallel_core.workers.execute import Execution, Parcels, Send
from parallel_core.workers.memory import MemoryWatch
from parallel_core.workers.messages import RunBatch


def execution_of(
    batch: RunBatch,
    definitions: ReceivedDefinitions,
    board: Board,
    send: Send,
    parcels: Parcels,
    memory: MemoryWatch | None = None,
    batch_context: BatchContext | None = None,
) -> Execution:
    """Return what runs `batch`, and folds its results if so asked."""
    make: Callable[..., Execution] = Execution
    if batch.folding is not None:
        from parallel_core.workers.folding import FoldingExecution

        make = partial(FoldingExecution, batch.folding)
    return make(
        batch.number,
        batch.base,
        definitions,
        board,
        send,
        parcels,
        memory,
        batch.start,
        batch_context,
    )
