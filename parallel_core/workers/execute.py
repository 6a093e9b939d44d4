"""Running one batch in a worker: the hot loop.

Finished results leave every `FLUSH_SECONDS`, a failure at once; the batch ends with it, or goes on
with the next task, as the parent asked. Each task starts with its number and time on the board and
a look at the limit. One more comparison covers the time to send results and the time to note when
tasks began. What becomes of a result is for `Results` to say, what is measured for `Recorder`.
"""

from __future__ import annotations

from _contextvars import Context, copy_context
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from time import monotonic
from typing import Any

from parallel_core.context.batch_context import BatchContext, ContextFailed
from parallel_core.serialization.batch import NO_TOKEN, Run, loads_task, run_length
from parallel_core.serialization.failure import pack
from parallel_core.serialization.opened import abandon_opened, close_opened, opened
from parallel_core.serialization.read_only import note_read_only
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.serialization.results import BESIDE
from parallel_core.tasks.description import describe_call
from parallel_core.workers.board import LIMIT, PHASE, SINCE, STARTED, Board, Phase
from parallel_core.workers.forks import end_child, generation
from parallel_core.workers.memory import MemoryWatch
from parallel_core.workers.messages import (
    AfterFailure,
    Answer,
    FailureKind,
    RunBatch,
    TaskFailure,
)
from parallel_core.workers.recorder import MARK_SECONDS, Recorder
from parallel_core.workers.results import BatchFailed, Outgoing, Parcels, Results

Send = Callable[[Answer], None]
_IDLE, _UNPICKLING, _RUNNING, _PICKLING, _SENDING, _LOADING, _, _CONTEXT, *_OTHERS = map(int, Phase)
#: What has failed when a task raises in a phase; else it is the task.
_KINDS = {
    _UNPICKLING: FailureKind.LOADING,
    _LOADING: FailureKind.LOADING,
    _PICKLING: FailureKind.RESULT,
}


class TaskStopped(KeyboardInterrupt):
    """Raised within a task that the parent wants to end, so that it can still clean up."""


class Execution:
    """A batch being run. `send` takes each answer, `parcels` each that has buffers.

    Its functions are in `definitions`; `board` is the page of this worker, or a private one where
    nobody looks. `memory` looks at what this process holds, with each answer. `batch_context`
    surrounds the tasks. The `recorder` is that of this worker, if it has one of its own.
    """

    def __init__(
        self,
        batch: RunBatch,
        definitions: ReceivedDefinitions,
        board: Board,
        send: Send,
        parcels: Parcels | None = None,
        memory: MemoryWatch | None = None,
        batch_context: BatchContext | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        #: Whether a task was interrupted because the parent wanted it to end.
        self.was_stopped = False
        self._batch = batch
        self._definitions = definitions
        self._board = board
        self._send = send
        self._parcels = parcels
        self._memory = memory
        self._batch_context = batch_context
        self._recorder = Recorder() if recorder is None else recorder
        self._results = _results_of(batch, definitions, parcels)
        self._task = batch.base  # number of the one that was started last
        self._first = 0  # index of the first that was not answered
        self._flushed = monotonic()
        self._answered = self._recorder.begin(self._flushed, batch.base)
        self._flush_seconds = seconds = -1.0 if batch.answers_each else self._results.flush_seconds
        self._pause = seconds if seconds < MARK_SECONDS else MARK_SECONDS
        self._due = self._flushed + self._pause  # when to `_mark`
        self._is_cut = False
        self._failed_call: str | None = None
        self._notes: tuple[tuple[str, object], ...] = ()
        self._generation = generation()

    def run(self) -> None:
        """Run the tasks until the end or the limit; answers go out through `send`."""
        self._board.times[SINCE] = self._flushed
        try:
            self._results.begin()
            failure = self._run_all() if self._batch_context is None else self._run_within()
            self._definitions.look_at_large()
            self._answer(True, failure)
        except BatchFailed as failed:
            self._send_answer(True, self._no_task(failed), Outgoing([], None, [], 0, 0, 0))
        self._board.words[PHASE] = _IDLE

    def position(self) -> int:
        """Return the position in the call of the task that is running."""
        return self._batch.start + self._board.words[STARTED] - self._batch.base - 1

    def _run_within(self) -> TaskFailure | None:
        """Do `_run_all` within the batch context."""
        assert self._batch_context is not None
        words = self._board.words
        words[PHASE] = _CONTEXT
        try:
            self._batch_context.begin(self.position)
            try:
                return self._run_all()
            finally:
                words[PHASE] = _CONTEXT
                self._notes = self._batch_context.end()
        except ContextFailed as failed:
            what = "it was to hold inside the tasks of the call"
            return self._no_task(BatchFailed(FailureKind.CONTEXT, failed.error, what))

    def _no_task(self, failed: BatchFailed) -> TaskFailure:
        data, text = pack(failed.error, self._definitions.dumps)
        return TaskFailure(0, failed.kind, data, text, failed.words)

    def _run_all(self) -> TaskFailure | None:
        """Run the tasks; return the failure of the last one, if it is one that ends the batch."""
        failure = None
        carries_on = self._batch.after_failure == AfterFailure.CARRY_ON
        for run in self._batch.runs:
            tasks = _tasks_of(run)
            while (failure := self._run(run, tasks)) is not None and carries_on:
                if self.was_stopped:
                    break
                self._answer(False, failure)
            if failure is not None or self._is_cut:
                break
        return failure

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is to be called for the tasks that follow, instead of `function`.

        There is none where all of these tasks were taken back.
        """
        if self._batch_context is None or function is None:
            return function
        position = self._batch.start + self._task - self._batch.base
        return self._batch_context.bind(function, position)

    def _apply(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call `function`, or what is to be called instead of it."""
        if self._batch_context is not None:
            function = self._batch_context.bind(function, self.position())
        return function(*args, **kwargs)

    def _run(self, run: Run, tasks: Iterator[Any]) -> TaskFailure | None:
        """Run what is left of the `tasks` of `run`, or up to one that fails; return its failure."""
        token, arity, _ = run
        try:
            function: Any = None if token == NO_TOKEN else self._load(token, tasks)
            if arity < 0 or self._definitions.captures_mutable_state:
                self._isolate(self._run_general, run, tasks)
            else:
                self._isolate(self._run_plain, function, tasks)
        except BatchFailed:
            raise
        except BaseException as error:
            return self._failure(error)
        return None

    def _isolate(self, loop: Callable[..., bool], what: Any, tasks: Iterator[Any]) -> None:
        """Run `tasks` in a `loop`, so that none sees what one before it has set in its context.

        A copy of the context for each would take longer than a look at whether it is as it was.
        """
        base = copy_context()
        while True:
            context = base.copy()
            if not context.run(loop, what, tasks, context, base):
                return

    def _load(self, token: int, tasks: Iterator[Any]) -> Any:
        """Return the function of the `tasks`; the first of them fails if it cannot be had."""
        words = self._board.words
        words[PHASE] = _LOADING
        words[STARTED] = self._task + 1  # whose death it would be
        if self._task >= words[LIMIT]:
            return None
        try:
            # Modules that it imports may set variables, which were to hold in this batch alone.
            return copy_context().run(self._definitions.resolve, token)
        except BaseException:
            if next(tasks, None) is None:
                return None  # it was needed for none
            self._task += 1
            raise

    def _failure(self, error: BaseException) -> TaskFailure:
        """Return what an answer says of the task that has just raised `error`."""
        if generation() != self._generation:
            end_child(error)
        words = self._board.words
        kind = _KINDS.get(int(words[PHASE]), FailureKind.TASK)
        words[PHASE] = _PICKLING
        self.was_stopped = isinstance(error, TaskStopped)
        call, self._failed_call = self._failed_call, None
        data, text = pack(error, self._definitions.dumps)
        del error
        if self._definitions.captures_mutable_state:
            self._definitions.restore()
        return TaskFailure(max(self._task - self._batch.base, 1) - 1, kind, data, text, call)

    def _run_plain(
        self,
        function: Callable[..., Any],
        argument_lists: Iterable[Any],
        context: Context,
        base: Context,
    ) -> bool:
        """Run tasks until a `context` is not like `base` any more; return whether that is so."""
        words, times, clock = self._board.words, self._board.times, monotonic
        results = self._results
        small, texts, values = results.small, results.texts, results.values
        append, keep, keeping = values.append, self._keeper(), results.phase
        task, due, now = self._task, self._due, times[SINCE]
        call = self._bound(function)
        words[PHASE] = _RUNNING
        try:
            for args in argument_lists:
                since = now
                times[SINCE] = now = clock()
                task += 1
                words[STARTED] = task
                if task > words[LIMIT]:
                    task -= 1
                    self._cut(task, since, now)
                    break
                if now > due:
                    now, due = self._mark(task, since, now)
                    values, keep = results.values, self._keeper()
                    append = values.append
                value = call(*args)
                kind = type(value)
                if kind in small or (kind in texts and len(value) < BESIDE):
                    append(value)
                else:
                    words[PHASE] = keeping
                    if keep(value):
                        self._send_large()
                        values, due = results.values, self._due
                        append = values.append
                    del value
                    words[PHASE] = _RUNNING
                try:
                    if context != base:
                        return True
                except Exception:  # values that cannot be compared are others
                    return True
            return False
        except BaseException as error:
            self._failed_call = describe_call(function, args, {})
            if words[PHASE] == keeping:
                self._explain(error, value)
            raise
        finally:
            self._task = task

    def _run_general(self, run: Run, items: Iterable[Any], context: Context, base: Context) -> bool:
        """Run tasks as `_run_plain` does; their arguments may be pickles, their function new."""
        token, arity, _ = run
        words, times, clock, loads = self._board.words, self._board.times, monotonic, self._loader()
        definitions = self._definitions
        task, due, now = self._task, self._due, times[SINCE]
        keep, keeping = self._keeper(), self._results.phase
        call = self._apply
        function: Any = None
        args: Any = ()
        kwargs: Any = {}
        value: Any = None
        try:
            for item in items:
                since = now
                times[SINCE] = now = clock()
                words[PHASE] = _UNPICKLING
                task += 1
                words[STARTED] = task
                if task > words[LIMIT]:
                    task -= 1
                    self._cut(task, since, now)
                    break
                if now > due:
                    now, due = self._mark(task, since, now)
                    loads, keep = self._loader(), self._keeper()
                if token == NO_TOKEN:
                    function, args, kwargs = loads(item)
                elif arity < 0:
                    function = definitions.resolve(token)
                    args, kwargs = loads(item)
                else:
                    function = definitions.resolve(token)
                    args, kwargs = item, {}
                words[PHASE] = _RUNNING
                value = call(function, args, kwargs)
                if opened:
                    close_opened()
                words[PHASE] = keeping
                if keep(value):
                    self._send_large()
                function = args = kwargs = value = None  # gone before the next task begins
                due = self._due
                if definitions.captures_mutable_state:
                    definitions.restore()
                try:
                    if context != base:
                        return True
                except Exception:  # values that cannot be compared are others
                    return True
            return False
        except BaseException as error:
            if args is not None and function is not None and words[PHASE] != _UNPICKLING:
                self._failed_call = describe_call(function, args, kwargs)
                note_read_only(error, function, args, kwargs)
            if opened:
                abandon_opened()
            if words[PHASE] == keeping:
                self._explain(error, value)
            raise
        finally:
            self._task = task

    def _mark(self, task: int, since: float, now: float) -> tuple[float, float]:
        """Note that `task` begins now; before it, send what is finished, if it is worth it.

        The task before it began at `since`. Returns when `task` begins, and when this is due again.
        """
        recorder, index = self._recorder, self._index(task)
        if now - since >= MARK_SECONDS:
            recorder.add(index - 1, since)
        recorder.end_interval(now, task)
        if now - self._flushed > self._flush_seconds:
            now, index = self._flush(), self._index(task)
        recorder.add(index, now)
        self._due = now + self._pause
        return now, self._due

    def _cut(self, task: int, since: float, now: float) -> None:
        """End the batch after `task`, which began at `since`: others were taken back."""
        self._is_cut = True
        if now - since >= MARK_SECONDS:
            self._recorder.add(self._index(task), since)

    def _index(self, task: int) -> int:
        """Return the index of a task in the next answer, by its number."""
        return task - 1 - self._batch.base - self._first

    def _loader(self) -> Callable[[Any], Any]:
        """Return what unpickles the arguments of the next tasks: measured, or not."""
        return self._load_timed if self._recorder.is_timing else loads_task

    def _keeper(self) -> Callable[[Any], bool]:
        """Return what takes in the results of the next tasks, likewise."""
        return self._keep_timed if self._recorder.is_timing else self._results.keep

    def _load_timed(self, item: Any) -> Any:
        began = monotonic()
        loaded = loads_task(item)
        self._recorder.unpickling += monotonic() - began
        return loaded

    def _keep_timed(self, value: Any) -> bool:
        began = monotonic()
        is_large = self._results.keep(value)
        self._recorder.pickling += monotonic() - began
        return is_large

    def _flush(self) -> float:
        """Send what is finished, if it is worth it; return when that was, for the next time."""
        words = self._board.words
        phase, words[PHASE] = words[PHASE], self._results.phase
        if self._results.flush():
            self._answer(False, None)
        words[PHASE] = phase
        self._board.times[SINCE] = self._flushed = monotonic()  # the next task begins now
        return self._flushed

    def _explain(self, error: BaseException, value: object) -> None:
        """Raise what says why the result of a task does not pickle, if that is it."""
        if isinstance(error, Exception) and not isinstance(error, BatchFailed):
            what = f"the result of {self._failed_call}"
            raise self._results.explain(what, value, "the result", error) from error

    def _send_large(self) -> None:
        """Send a large result with all before it; after the last task the end goes with it."""
        tasks = sum(map(run_length, self._batch.runs))
        if self._board.words[STARTED] < self._batch.base + tasks:
            self._answer(False, None)

    def _answer(self, finished: bool, failure: TaskFailure | None) -> None:
        words = self._board.words
        phase, words[PHASE] = words[PHASE], self._results.phase
        self._send_answer(finished, failure, self._results.take())
        self._results.restart(self._batch.start + self._first)
        words[PHASE] = phase

    def _send_answer(self, finished: bool, failure: TaskFailure | None, outgoing: Outgoing) -> None:
        """Send an answer about these results, and a failure after them."""
        if generation() != self._generation:
            end_child()
        values, pickled, buffers, tasks, folded, nbytes = outgoing
        now, recorder, started = monotonic(), self._recorder, self._board.words[STARTED]
        since = self._board.times[SINCE]
        if now - since >= MARK_SECONDS:
            index = self._index(started)
            if index < tasks + (failure is not None):
                recorder.add(index, since)
        if self._definitions.seconds:
            recorder.loading += self._definitions.seconds
            self._definitions.seconds = 0.0
        answer = Answer(
            self._batch.number,
            self._first,
            values,
            pickled,
            bool(buffers),
            now - self._answered,
            finished,
            failure,
            folded,
            self._notes,
            recorder.take(now, started, nbytes),
        )
        self._first += tasks + (failure is not None)
        self._flushed = self._answered = now
        self._due = now + self._pause
        self._board.words[PHASE] = _SENDING
        if self._memory is not None and now >= self._memory.due:
            self._memory.look(now)
        if self._parcels is not None and buffers:
            self._parcels.send(answer, buffers)
            if self._parcels.shelf is not None:
                self._parcels.shelf.clear()
        else:
            self._send(answer)
        recorder.resume(now)


def _results_of(
    batch: RunBatch, definitions: ReceivedDefinitions, parcels: Parcels | None
) -> Results:
    if batch.folding is None:
        return Results(definitions, parcels)
    from parallel_core.workers.folding import FoldingResults

    return FoldingResults(definitions, parcels, batch.folding, batch.start)


def _tasks_of(run: Run) -> Iterator[Any]:
    """Return the arguments of each task of `run`: a tuple, or a pickle."""
    _, arity, payload = run
    if arity < 0:
        return iter(payload)
    if arity == 0:
        return repeat((), len(payload))
    if arity == 1:
        return zip(payload)
    return zip(*[iter(payload)] * arity, strict=True)
