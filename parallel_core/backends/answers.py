"""From a worker's answer to a completion, whichever way the answer came."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from parallel_core.backends.completion import Completion, Failure
from parallel_core.backends.losses import note_timed_out
from parallel_core.backends.worker_handle import WorkerHandle
from parallel_core.errors import SerializationError
from parallel_core.observe.events import TaskTimes
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.failure import unpack
from parallel_core.serialization.results import unpack as unpack_parcel
from parallel_core.workers.messages import AfterFailure, Answer, FailureKind, TaskFailure, Unusable
from parallel_core.workers.preload import NotPreloaded


def read_answer(batch: Batch, answer: Answer) -> Completion:
    """Unpickle the results in `answer`, each for itself.

    Where what results were folded to does not unpickle, none of it can be used.
    """
    start, values, folded = batch.start + answer.first, answer.values, answer.folded
    failures: list[Failure] = []
    completion = Completion(batch, start, values, answer.seconds, answer.finished, failures)
    completion.folded = folded
    completion.notes = answer.notes
    completion.times = TaskTimes(*answer.times)
    if answer.pickled is not None:
        for index, error in decode(answer):
            values[index] = None
            if folded is None:
                error.add_note(batch.describe(answer.first + index))
                failures.append(Failure(start + index, error))
            else:
                last = start + folded - 1
                error.add_note(f"it is what reduce made of tasks {start} to {last} of the call")
                completion.fatal = error
    failure = answer.failure
    if failure is None:
        return completion
    if failure.kind in (FailureKind.CONTEXT, FailureKind.FOLDING):
        completion.fatal = unpack(failure.data, failure.text, failure.call or "")
    elif failure.task >= answer.first + completion.tasks:  # else its result came after all
        failures.append(Failure(batch.start + failure.task, _task_error(batch, failure)))
        if folded is None:
            values.append(None)
    return completion


def take_answer(worker: WorkerHandle, answer: Answer, after_failure: AfterFailure) -> Completion:
    """Read an answer to the first of the batches that `worker` has; note how far it is with it.

    A finished batch is the worker's no longer. What it was to run of that and has not is left over.
    """
    sent = worker.sent[0]
    batch = sent.batch
    assert sent.number == answer.number, "answers come in the order of the batches"
    completion = read_answer(batch, answer)
    completion.worker = worker.slot
    sent.answered = completion.first - batch.start + completion.tasks
    if worker.timed_out is not None:
        note_timed_out(completion, worker.timed_out, sent)
    if completion.finished:
        carries_on = after_failure is AfterFailure.CARRY_ON or not completion.failures
        if carries_on and sent.answered < batch.size:
            completion.unrun = [batch.part(sent.answered, batch.size)]
        worker.sent.popleft()
        worker.has_answered = True
        if worker.is_limited:
            worker.taken_back += batch.size - sent.answered
    return completion


def initializer_error(unusable: Unusable) -> BaseException:
    """Return what to raise when the initializer, or a module of `preload`, raised in a worker."""
    from parallel_core.errors import InitializerError

    original = unpack(unusable.data, unusable.text, "raised by the initializer of a worker")
    if isinstance(original, NotPreloaded):
        return original.error()
    error = InitializerError(
        f"the initializer raised in a worker: {type(original).__name__}: {original}"
    )
    error.__cause__ = original
    return error


def _task_error(batch: Batch, failure: TaskFailure) -> BaseException:
    what = batch.describe(failure.task, failure.call)
    error = unpack(failure.data, failure.text, what)
    if failure.kind is not FailureKind.LOADING:
        return error
    reason = f"{type(error).__name__}: {error}"
    failed = SerializationError(
        f"{what}: its function or arguments do not unpickle in the worker: {reason}"
    )
    failed.__cause__ = error
    return failed


def decode(answer: Answer) -> Iterator[tuple[int, Exception]]:
    """Unpickle in place the values of `answer`; yield the index of each that fails, and why."""
    values = answer.values
    indices = range(len(values)) if answer.pickled is True else answer.pickled or ()
    loads: Callable[[Any], Any] = _loads_with_buffers if answer.has_buffers else pickle.loads
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
