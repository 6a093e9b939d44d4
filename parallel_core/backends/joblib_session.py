"""The session over a backend by joblib's conventions."""

from __future__ import annotations

import functools
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import Backend, Completion, Failure, WorkerOptions
from parallel_core.backends.futures import FuturesSession
from parallel_core.backends.joblib_batch import BatchCall, TaskRun
from parallel_core.backends.joblib_engine import JoblibEngine, overrides
from parallel_core.backends.joblib_held import HeldCall, completion_of
from parallel_core.backends.joblib_job import Job, Unretrieved
from parallel_core.errors import BackendError, WorkerDiedError
from parallel_core.observe.pieces import Piece
from parallel_core.tasks.batch import HELD, NO_TOKEN, Batch
from parallel_core.tasks.description import function_name
from parallel_core.tasks.pickling import dumps
from parallel_core.workers.messages import OUTPUT

if TYPE_CHECKING:
    from parallel_core.tasks.folding import Folding

_LOOK_SECONDS = 0.01  # between looks at jobs that nobody tells of
_MOST_PARTS = 64  # of a batch, for engines that want its tasks one by one


class JoblibStyleSession(FuturesSession):
    """Batches as jobs of a backend by joblib's conventions; see `FuturesSession`."""

    _backend: JoblibEngine

    def __init__(
        self,
        backend: JoblibEngine,
        executor: Executor,
        n_jobs: int,
        level: int,
        options: WorkerOptions,
    ) -> None:
        super().__init__(backend, executor, n_jobs, level, options)
        self._raw = backend.backend
        self._jobs: dict[Future[Any], Job] = {}  # to be looked at
        self._nested: tuple[Backend | str, int | None] | None = None
        self._nested_data: bytes | None = None
        self.holds_tasks = backend.supports_sharedmem
        self._has_begun = False
        self._waiting: AbstractContextManager[Any] | None = None
        if overrides(self._raw, "compute_batch_size"):
            self.batch_size = backend.wanted_batch_size
        self._notes_batches = overrides(self._raw, "batch_completed")

    def begin(
        self, call: str, carry_on: bool, folding: Folding | None = None, context: bytes = b""
    ) -> None:
        """Start a call."""
        super().begin(call, carry_on, folding, context)
        nested = None
        if config.current_settings().values.get("nested") is None:  # the user's word goes first
            nested = self._backend.nested(self._level)
        self._nested = nested
        if not self.holds_tasks:
            self._nested_data = None if nested is None else dumps(nested)
        self._has_begun = True
        if hasattr(self._raw, "start_call"):
            self._raw.start_call()

    def end(self) -> None:
        """End a call."""
        super().end()
        self._stop_waiting()
        if self._has_begun:
            self._has_begun = False
            self._backend.tell_end("stop_call")

    def close(self) -> None:
        """End what is left of a call, and have the backend let go of what it took."""
        with ExitStack() as stack:
            stack.callback(self._backend.tell_end, "terminate")
            stack.callback(self.end)
            stack.callback(super().close)

    def wait(self, seconds: float | None) -> list[Completion]:
        """Wait for a job to be done."""
        if self._waiting is None and overrides(self._raw, "retrieval_context"):
            self._waiting = self._raw.retrieval_context()
            self._waiting.__enter__()
        self._look()
        if not self._jobs:
            return super().wait(seconds)
        until = None if seconds is None else self.clock() + seconds
        while True:
            left = _LOOK_SECONDS if until is None else until - self.clock()
            news = super().wait(max(0.0, min(left, _LOOK_SECONDS)))
            if news or left <= 0 or not self._jobs:
                return news
            self._look()

    def cancel(self) -> None:
        """End what is in flight, unless that has been done."""
        if self._is_aborted:
            self._in_flight.clear()
            self._news = []
        else:
            super().cancel()

    def _replace_engine(self) -> None:
        """Have its workers, all of which are stuck, ended; the call goes on with others."""
        self._stuck.clear()
        self._backend.tell_end("abort_everything", ensure_ready=True)

    def _look(self) -> None:
        for future, job in list(self._jobs.items()):
            if job.needs_looking:
                job.look()
            if future.done():
                del self._jobs[future]

    def _stop_waiting(self) -> None:
        context, self._waiting = self._waiting, None
        if context is not None:
            context.__exit__(None, None, None)

    def _submit(self, batch: Batch, data: bytes) -> Future[Any]:
        """Submit to the backend."""
        call: BatchCall | HeldCall
        if _is_held(batch):
            call = HeldCall(
                _name_of(batch), batch, self._level, self._carry_on, self._nested, self._context
            )
        else:
            run = TaskRun(_name_of(batch), self._nested_data)
            split = functools.partial(self._split, batch, self._call)
            call = BatchCall(run, data, batch.size, split)
        job = Job(self._backend)
        returned = self._backend.submit_call(call, job)
        if returned is None:
            if not job.future.done():
                raise self._backend.error("submit", "returned nothing; it must return the job")
        else:
            job.register(returned)
        if job.needs_looking:
            self._jobs[job.future] = job
        return job.future

    def _encode(self, batch: Batch) -> bytes:
        return b"" if _is_held(batch) else super()._encode(batch)

    def _split(self, batch: Batch, call: str) -> list[bytes]:
        """Return the parts of `batch`, encoded; any thread may ask, also when the call is over."""
        parts = [self._encode(batch.part(first, end)) for first, end in _parts(batch.size)]
        return parts if self._call == call else []

    def _take(self, future: Future[Any]) -> list[Completion]:
        entry = self._in_flight.get(future)
        if entry is not None and self._notes_batches:
            batch, since = entry
            self._raw.batch_completed(batch.size, self.clock() - since)
        return _merged(super()._take(future))

    def _answers(self, batch: Batch, out: Any) -> list[Any]:
        """Return the answers in what the batch returned: one pickle, or one for each part."""
        method = "retrieve_result_callback"
        if isinstance(out, Unretrieved):
            method, out = "retrieve_result", out.retrieve()
        held = _is_held(batch)
        parts = _parts(batch.size, batch.size if held else _MOST_PARTS)
        if not isinstance(out, (list, tuple)) or len(out) not in (1, len(parts)):
            got = f"{len(out)} results" if isinstance(out, (list, tuple)) else repr(out)
            raise self._backend.error(
                method,
                f"returned {got}, not the list that its batch of {batch.size} tasks returned",
            )
        if held:
            return [out]
        if len(out) == 1:
            return super()._answers(batch, out[0])
        answers: list[Any] = []
        output: list[Piece] = []
        for (first, end), data in zip(parts, out, strict=True):
            of_part = self._read_result(data)
            if of_part[0][0] == OUTPUT:
                output += of_part.pop(0)[1]
            answers += [_moved(answer, first, end == batch.size) for answer in of_part]
        return [(OUTPUT, output), *answers] if output else answers

    def _read(self, batch: Batch, answer: Any) -> Completion:
        return completion_of(batch, answer) if _is_held(batch) else super()._read(batch, answer)

    def _lost(self, batch: Batch, error: BaseException, index: int = 0) -> BaseException:
        """Return what to raise for a task of `batch` when the engine failed with `error`."""
        if isinstance(error, BackendError):
            return error
        what = batch.describe(index)
        reason = f"{type(error).__name__}: {error}"
        lost = WorkerDiedError(f"the engine {self._backend.name!r} lost {what}: {reason}")
        lost.position = batch.start + index
        lost.__cause__ = error
        return lost


def _parts(size: int, most: int = _MOST_PARTS) -> list[tuple[int, int]]:
    """Return where the parts of a batch begin and end that goes to the engine in parts."""
    number = min(size, most)
    return [(index * size // number, (index + 1) * size // number) for index in range(number)]


def _moved(answer: Any, first_of_part: int, is_last: bool) -> Any:
    """Return the answer about a part of a batch as one about the batch."""
    kind, number, first, values, pickled, seconds, finished, failure, folded = answer
    if failure is not None:
        failure = (failure[0] + first_of_part, *failure[1:])
    finished = finished and is_last
    return kind, number, first + first_of_part, values, pickled, seconds, finished, failure, folded


def _merged(news: list[Completion]) -> list[Completion]:
    """Return completions that follow each other as one: whoever sizes batches goes by batches."""
    first = news[0] if news else None
    if first is None or len(news) == 1 or first.folded is not None:
        return news
    values: list[Any] = []
    failures: list[Failure] = []
    for completion in news:
        if completion.broken is not None or completion.first != first.first + len(values):
            return news  # a part ended with a failure; so will the call
        values += completion.values
        failures += completion.failures
    seconds = sum(completion.seconds for completion in news)
    merged = Completion(first.batch, first.first, values, seconds, news[-1].finished, failures)
    merged.nbytes = sum(completion.nbytes for completion in news)
    return [merged]


def _is_held(batch: Batch) -> bool:
    return batch.runs[0][1] == HELD


def _name_of(batch: Batch) -> str:
    token, arity, payload = batch.runs[0]
    if arity == HELD:
        return function_name(payload[0][0])
    return "tasks" if token == NO_TOKEN else function_name(batch.definitions[token].obj)
