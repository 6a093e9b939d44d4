"""From a worker's answer to a completion, whichever way the answer came."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from parallel_core.backends.base import Completion, Failure
from parallel_core.errors import SerializationError, add_note
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.failure import unpack
from parallel_core.serialization.results import unpack as unpack_parcel
from parallel_core.workers.board import Phase
from parallel_core.workers.messages import PARCEL_ANSWER
from parallel_core.workers.preload import NotPreloaded


def read_answer(batch: Batch, answer: Any) -> Completion:
    """Unpickle the results in `answer` (see `workers.messages`), each for itself."""
    kind, _, first, values, pickled, seconds, finished, failure, folded = answer
    if folded is not None:
        return _read_folded(batch, answer)
    start = batch.start
    failures: list[Failure] = []
    if pickled is not None:
        loads = _loads_with_buffers if kind == PARCEL_ANSWER else pickle.loads
        for index, error in decode(values, pickled, loads):
            values[index] = None
            add_note(error, batch.describe(first + index))
            failures.append(Failure(start + first + index, error))
    fatal = None
    if failure is not None and failure[1] == Phase.CONTEXT:
        fatal = unpack(*failure[2:])
    elif failure is not None and failure[0] >= first + len(
        values
    ):  # else its result came after all
        failures.append(Failure(start + failure[0], _task_error(batch, *failure)))
        values.append(None)
    completion = Completion(batch, start + first, values, seconds, finished, failures)
    completion.fatal = fatal
    return completion


def _read_folded(batch: Batch, answer: Any) -> Completion:
    """Unpickle what results were folded to; where that does not work, none of it can be used."""
    kind, _, first, values, pickled, seconds, finished, failure, folded = answer
    start = batch.start + first
    completion = Completion(batch, start, values, seconds, finished)
    completion.folded = folded
    if pickled is not None:
        loads = _loads_with_buffers if kind == PARCEL_ANSWER else pickle.loads
        for _, error in decode(values, pickled, loads):
            last = start + folded - 1
            add_note(error, f"it is what reduce made of tasks {start} to {last} of the call")
            completion.fatal = error
    if failure is None:
        return completion
    index, leg, data, text, words = failure
    if leg in (Phase.FOLDING, Phase.CONTEXT):
        completion.fatal = unpack(data, text, words)
    elif index >= first + folded:  # else its result came after all
        failed = Failure(batch.start + index, _task_error(batch, *failure))
        completion.failures = [failed]
    return completion


def initializer_error(data: bytes, text: str) -> BaseException:
    """Return what to raise when the initializer, or a module of `preload`, raised in a worker."""
    from parallel_core.errors import InitializerError

    original = unpack(data, text, "raised by the initializer of a worker")
    if isinstance(original, NotPreloaded):
        return original.error()
    error = InitializerError(
        f"the initializer raised in a worker: {type(original).__name__}: {original}"
    )
    error.__cause__ = original
    return error


def _task_error(
    batch: Batch, index: int, leg: int, data: bytes, text: str, call: str | None
) -> BaseException:
    what = batch.describe(index, call)
    error = unpack(data, text, what)
    if leg not in (Phase.LOADING, Phase.UNPICKLING):
        return error
    reason = f"{type(error).__name__}: {error}"
    failed = SerializationError(
        f"{what}: its function or arguments do not unpickle in the worker: {reason}"
    )
    failed.__cause__ = error
    return failed


def decode(
    values: list[Any], pickled: Any, loads: Callable[[Any], Any] = pickle.loads
) -> Iterator[tuple[int, Exception]]:
    """Unpickle in place the values of an answer; yield the index of each that fails, and why.

    Parameters
    ----------
    values, pickled
        As in the answer; see `workers.messages`.
    loads : callable
        Unpickles one; `_loads_with_buffers` for the answers that have some.
    """
    indices = range(len(values)) if pickled is True else pickled
    for index in indices:
        try:
            values[index] = loads(values[index])
        except MemoryError as error:
            failed: Exception = MemoryError(
                f"the result does not fit into the memory of this process: {error}"
            )
            failed.__cause__ = error
            yield index, failed
        except Exception as error:
            failed = SerializationError(
                f"the result does not unpickle in this process: {type(error).__name__}: {error}"
            )
            failed.__cause__ = error
            yield index, failed


def _loads_with_buffers(pickled: Any) -> Any:
    """Unpickle one value of an answer that came with buffers."""
    return pickle.loads(pickled) if type(pickled) is bytes else unpack_parcel(pickled)
