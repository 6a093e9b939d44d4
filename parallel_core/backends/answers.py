"""From a worker's answer to a completion, whichever way the answer came."""

from __future__ import annotations

from typing import Any

from parallel_core.backends.base import Completion, Failure
from parallel_core.errors import SerializationError, add_note
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.failure import unpack
from parallel_core.workers.board import Phase
from parallel_core.workers.execute import decode


def read_answer(batch: Batch, answer: Any) -> Completion:
    """Unpickle the results in `answer` (see `workers.messages`); a failure ends them."""
    _, _, first, values, pickled, seconds, finished, failure = answer
    start = batch.start
    failed: Failure | None = None
    if pickled is not None:
        for index, error in decode(values, pickled):
            add_note(error, batch.describe(first + index))
            failed = Failure(start + first + index, error)
            break
    if failure is not None and failed is None:
        index, leg, data, text = failure
        failed = Failure(start + index, _task_error(batch, index, leg, data, text))
    if failed is not None:
        del values[failed.position - start - first :]
    return Completion(batch, start + first, values, seconds, finished, failed)


def _task_error(batch: Batch, index: int, leg: int, data: bytes, text: str) -> BaseException:
    what = batch.describe(index)
    error = unpack(data, text, what)
    if leg != Phase.UNPICKLING:
        return error
    failed = SerializationError(
        f"{what}: its function or arguments do not unpickle in the worker: "
        f"{type(error).__name__}: {error}"
    )
    failed.__cause__ = error
    return failed
