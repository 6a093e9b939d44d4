"""Running one batch in a worker: the hot loop.

Finished results leave every `FLUSH_SECONDS`, a failure at once; the batch ends with it, or goes on
with the next task, as the parent asked. Each task starts with its number and time on the board and
a look at the limit. Results that cannot change ride in the answer as
they are; any other is pickled when its task returns, so that no later task can change it. Larger
ones are pickled around their arrays and buffers: of middling size these are copied, to leave with
others; large ones are sent from where they lie, so they leave before the next task begins.
"""

from __future__ import annotations

from _contextvars import Context, copy_context
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import repeat
from time import monotonic
from typing import Any

from parallel_core.context.batch_context import BatchContext, ContextFailed
from parallel_core.errors import SerializationError
from parallel_core.serialization.batch import NO_TOKEN, Run, loads_task, run_length
from parallel_core.serialization.buffers import Buffer, Shelf
from parallel_core.serialization.capture import SCALARS
from parallel_core.serialization.encoding import SMALL, is_flat, is_scalar
from parallel_core.serialization.failure import pack
from parallel_core.serialization.opened import abandon_opened, close_opened, opened
from parallel_core.serialization.pickling import explain
from parallel_core.serialization.read_only import note_read_only
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.serialization.results import BESIDE, LocalParcelPickler, ResultPickler
from parallel_core.tasks.description import describe_call
from parallel_core.workers.board import LIMIT, PHASE, SINCE, STARTED, Board, Phase
from parallel_core.workers.forks import end_child, generation
from parallel_core.workers.memory import MemoryWatch
from parallel_core.workers.messages import (
    AfterFailure,
    Answer,
    FailureKind,
    TaskFailure,
)

FLUSH_SECONDS = 0.02

Send = Callable[[Answer], None]
_CONTAINERS = frozenset({list, tuple, dict, set})
_IDLE, _UNPICKLING, _RUNNING, _PICKLING, _SENDING, _LOADING, _, _CONTEXT, *_OTHERS = map(int, Phase)
#: What has failed when a task raises in a phase; else it is the task.
_KINDS = {
    _UNPICKLING: FailureKind.LOADING,
    _LOADING: FailureKind.LOADING,
    _PICKLING: FailureKind.RESULT,
}


class TaskStopped(KeyboardInterrupt):
    """Raised within a task that the parent wants to end, so that it can still clean up."""


class Parcels:
    """How answers with buffers leave.

    Parameters
    ----------
    send : callable
        Takes each, and its buffers. They are views: when it returns, nothing that happens to the
        objects may change what it was given.
    shelf : Shelf, optional
        Where smaller ones are kept until then.
    pickler : type
        What leaves large parts of results where they lie.
    is_together : bool
        Whether all answers of a batch leave together, or are lost together.
    """

    __slots__ = ("is_together", "pickler", "send", "shelf")

    def __init__(
        self,
        send: Callable[[Answer, list[Buffer]], None],
        shelf: Shelf | None = None,
        pickler: type[ResultPickler] = LocalParcelPickler,
        is_together: bool = False,
    ) -> None:
        self.is_together = is_together
        self.send = send
        self.shelf = shelf
        self.pickler = pickler


class Execution:
    """One batch being run.

    Parameters
    ----------
    number, base : int
        Of the batch and of its first task, less one.
    definitions : ReceivedDefinitions
        Where its functions are.
    board : Board
        This worker's page, or a private one where nobody looks.
    send : callable
        Takes each answer.
    parcels : Parcels, optional
        Takes each answer that has buffers; without it there are none.
    memory : MemoryWatch, optional
        Looks at what this process holds, with each answer.
    start : int
        Position in the call of its first task.
    batch context : BatchContext, optional
        Surrounds the tasks.

    Attributes
    ----------
    was_stopped : bool
        Whether a task was interrupted because the parent wanted it to end.
    """

    def __init__(
        self,
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
        self.was_stopped = False
        self._start_position = start
        self._batch_context = batch_context
        self._memory = memory
        self._number = number
        self._base = self._task = base
        self._definitions = definitions
        self._board = board
        self._send = send
        self._parcels = parcels
        self._pickler: ResultPickler | None = None
        self._buffers: list[Buffer] = []
        self._runs: list[Run] = []
        self._first = 0
        self._values: list[Any] = []
        self._pickled: list[int] = []
        self._flushed = monotonic()
        self._cut = False
        self._flush_seconds = FLUSH_SECONDS
        self._failed_call: str | None = None
        self._notes: tuple[tuple[str, object], ...] = ()
        self._generation = generation()

    def run(
        self,
        runs: list[Run],
        after_failure: AfterFailure = AfterFailure.STOP,
        answers_each: bool = False,
    ) -> None:
        """Run the tasks until the end or the limit; answers go out through `send`."""
        if answers_each:
            self._flush_seconds = -1.0
        self._runs = runs
        self._board.times[SINCE] = self._flushed
        if self._batch_context is None:
            failure = self._run_all(runs, after_failure)
        else:
            failure = self._run_within(self._batch_context, runs, after_failure)
        self._definitions.look_at_large()
        self._answer(True, failure)
        self._board.words[PHASE] = _IDLE

    def position(self) -> int:
        """Return the position in the call of the task that is running."""
        return self._start_position + self._board.words[STARTED] - self._base - 1

    def _run_within(
        self, batch_context: BatchContext, runs: list[Run], after_failure: AfterFailure
    ) -> TaskFailure | None:
        """Do `_run_all` within the `batch context`."""
        words = self._board.words
        words[PHASE] = _CONTEXT
        try:
            batch_context.begin(self.position)
            try:
                return self._run_all(runs, after_failure)
            finally:
                words[PHASE] = _CONTEXT
                self._notes = batch_context.end()
        except ContextFailed as failed:
            data, text = pack(failed.error, self._definitions.dumps)
            words_for_it = "it was to hold inside the tasks of the call"
            return TaskFailure(0, FailureKind.CONTEXT, data, text, words_for_it)

    def _run_all(self, runs: list[Run], after_failure: AfterFailure) -> TaskFailure | None:
        """Run the tasks; return the failure of the last one, if it is one that ends the batch."""
        failure = None
        for run in runs:
            tasks = _tasks_of(run)
            while (failure := self._run(run, tasks)) is not None and after_failure:
                if self.was_stopped:
                    break
                self._answer(False, failure)
            if failure is not None or self._cut:
                break
        return failure

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is to be called for the tasks that follow, instead of `function`.

        There is none where all of these tasks were taken back.
        """
        if self._batch_context is None or function is None:
            return function
        return self._batch_context.bind(function, self._start_position + self._task - self._base)

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
            if arity < 0:
                self._isolate(self._run_pickled, token, tasks)
            elif self._definitions.captures_mutable_state:
                self._isolate(self._run_volatile, token, tasks)
            else:
                self._isolate(self._run_plain, function, tasks)
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
        return TaskFailure(max(self._task - self._base, 1) - 1, kind, data, text, call)

    def _run_plain(
        self,
        function: Callable[..., Any],
        argument_lists: Iterable[Any],
        context: Context,
        base: Context,
    ) -> bool:
        """Run tasks until a `context` is not like `base` any more; return whether that is so."""
        words, times, clock = self._board.words, self._board.times, monotonic
        values, small, scalars = self._values, SMALL, SCALARS
        append = values.append
        task, flushed, flush_seconds = self._task, self._flushed, self._flush_seconds
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
                if now - flushed > flush_seconds:
                    if values:
                        self._answer(False, None)
                        values = self._values
                        append = values.append
                    flushed = self._flushed = now
                value = call(*args)
                kind = type(value)
                if kind in small or (kind in scalars and len(value) < BESIDE):
                    append(value)
                else:
                    self._keep(value, function, args, {})
                    del value
                    if values is not self._values:  # it was large, and has left
                        values, flushed = self._values, self._flushed
                        append = values.append
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

    def _run_pickled(
        self, token: int, payload: Iterable[Any], context: Context, base: Context
    ) -> bool:
        """Run tasks whose arguments were pickled one by one; see `_run_plain`."""
        words, times, clock, loads = self._board.words, self._board.times, monotonic, loads_task
        definitions = self._definitions
        task, flushed, flush_seconds = self._task, self._flushed, self._flush_seconds
        call = self._apply
        function: Any = None
        args: Any = ()
        kwargs: Any = {}
        try:
            for data in payload:
                times[SINCE] = now = clock()
                words[PHASE] = _UNPICKLING
                task += 1
                words[STARTED] = task
                if task > words[LIMIT]:
                    task -= 1
                    self._cut = True
                    break
                if now - flushed > flush_seconds:
                    flushed = self._flush(now)
                if token == NO_TOKEN:
                    function, args, kwargs = loads(data)
                else:
                    function = definitions.resolve(token)
                    args, kwargs = loads(data)
                words[PHASE] = _RUNNING
                value = call(function, args, kwargs)
                if opened:
                    close_opened()
                self._keep(value, function, args, kwargs)
                function = args = kwargs = value = None  # gone before the next task begins
                flushed = self._flushed
                if definitions.captures_mutable_state:
                    definitions.restore()
                if _differ(context, base):
                    return True
            return False
        except BaseException as error:
            if args is not None and function is not None and words[PHASE] != _UNPICKLING:
                self._failed_call = describe_call(function, args, kwargs)
                note_read_only(error, function, args, kwargs)
            if opened:
                abandon_opened()
            raise
        finally:
            self._task = task

    def _run_volatile(
        self, token: int, argument_lists: Iterable[Any], context: Context, base: Context
    ) -> bool:
        words = self._board.words
        call = self._apply
        for args in argument_lists:
            if not self._start():
                return False
            words[PHASE] = _UNPICKLING
            function = self._definitions.resolve(token)
            words[PHASE] = _RUNNING
            try:
                value = call(function, args, {})
                if opened:
                    close_opened()
                self._keep(value, function, args, {})
            except BaseException as error:
                self._failed_call = describe_call(function, args, {})
                note_read_only(error, function, args, {})
                if opened:
                    abandon_opened()
                raise
            del function, value
            self._definitions.restore()
            if _differ(context, base):
                return True
        return False

    def _start(self) -> bool:
        now = monotonic()
        self._board.times[SINCE] = now
        self._task += 1
        self._board.words[STARTED] = self._task
        if self._task > self._board.words[LIMIT]:
            self._task -= 1
            self._cut = True
            return False
        if now - self._flushed > self._flush_seconds:
            self._flush(now)
        return True

    def _flush(self, now: float) -> float:
        """Send what is finished; return from when on the next answer is due."""
        if self._values:
            self._answer(False, None)
        self._flushed = now
        return now

    def _keep(self, value: object, function: object, args: Any, kwargs: dict[str, Any]) -> None:
        """Put a result among those to be sent, as it is now; a large one takes them all along."""
        kind = type(value)
        flat = kind in SCALARS or (kind not in _CONTAINERS and is_scalar(value))
        if flat and not is_large(value):
            self._values.append(value)
            return
        if (kind is list or kind is tuple) and is_flat(value):
            self._values.append(copy(value))
            return
        self._board.words[PHASE] = _PICKLING
        pickler = self._pickler or self._make_pickler()
        try:
            pickled = pickler.dumps_flat(value) if flat else pickler.dumps(value)
        except Exception as error:
            call = describe_call(function, args, kwargs)
            raise self._explain(f"the result of {call}", value, "the result", error) from error
        self._pickled.append(len(self._values))
        if type(pickled) is bytes:
            self._values.append(pickled)
        else:
            self._keep_parcel(pickled)

    def _explain(
        self, what: str, value: object, name: str, error: BaseException
    ) -> SerializationError:
        return explain(what, value, name, error, self._definitions.reduce)

    def _make_pickler(self) -> ResultPickler:
        make = ResultPickler if self._parcels is None else self._parcels.pickler
        self._pickler = make(self._definitions.reduce)
        return self._pickler

    def _keep_parcel(self, parcel: Any) -> None:
        assert self._parcels is not None
        self._values.append(parcel.entry)
        shelf = self._parcels.shelf
        copies = None if shelf is None else shelf.put(parcel.buffers)
        if copies is not None:
            self._buffers += copies
            return
        self._buffers += parcel.buffers
        tasks = sum(map(run_length, self._runs))
        if self._board.words[STARTED] < self._base + tasks:
            self._answer(False, None)  # after the last task, the end of the batch goes with it

    def _answer(self, finished: bool, failure: TaskFailure | None) -> None:
        self._send_answer(finished, failure, len(self._values), None)

    def _send_answer(
        self, finished: bool, failure: TaskFailure | None, tasks: int, folded: int | None
    ) -> None:
        """Send an answer about so many `tasks`, and a failure after them."""
        if generation() != self._generation:
            end_child()
        values, pickled, buffers = self._values, self._pickled, self._buffers
        marked: list[int] | bool | None = None
        if pickled:
            marked = True if len(pickled) == len(values) else pickled
        now = monotonic()
        seconds = now - self._flushed
        first = self._first
        self._flushed = now
        self._first += tasks + (failure is not None)
        self._values, self._pickled, self._buffers = [], [], []
        answer = Answer(
            self._number,
            first,
            values,
            marked,
            bool(buffers),
            seconds,
            finished,
            failure,
            folded,
            self._notes,
        )
        words = self._board.words
        phase, words[PHASE] = words[PHASE], _SENDING
        if self._memory is not None and now >= self._memory.due:
            self._memory.look(now)
        if self._parcels is not None and buffers:
            self._parcels.send(answer, buffers)
            if self._parcels.shelf is not None:
                self._parcels.shelf.clear()
        else:
            self._send(answer)
        words[PHASE] = phase


def _differ(context: Context, base: Context) -> bool:
    """Whether a task has set a variable; the hottest loops say so themselves."""
    try:
        return context != base
    except Exception:  # values that cannot be compared are others
        return True


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


def is_large(value: Any) -> bool:
    """Whether a scalar is text or bytes that are better sent from where they lie."""
    kind = type(value)
    return (kind is str or kind is bytes) and len(value) >= BESIDE
