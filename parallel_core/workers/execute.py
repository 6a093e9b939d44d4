"""Running one batch in a worker: the hot loop.

Finished results leave every `FLUSH_SECONDS`, a failure at once. Each task starts with its number
and time on the board and a look at the limit. Results that cannot change ride in the answer as
they are; any other is pickled when its task returns, so that no later task can change it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from time import monotonic
from typing import Any

from parallel_core.errors import SerializationError
from parallel_core.tasks.batch import NO_TOKEN, Run
from parallel_core.tasks.capture import SCALARS
from parallel_core.tasks.definitions import ReceivedDefinitions
from parallel_core.tasks.description import describe_call
from parallel_core.tasks.encoding import is_scalar
from parallel_core.tasks.failure import pack
from parallel_core.tasks.pickling import explain
from parallel_core.workers.board import LIMIT, PHASE, SINCE, STARTED, Board, Phase
from parallel_core.workers.messages import ANSWER

FLUSH_SECONDS = 0.02

Send = Callable[[Any], None]
_CONTAINERS = frozenset({list, tuple, dict, set})
_IDLE, _UNPICKLING, _RUNNING, _PICKLING = map(int, Phase)


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
    """

    def __init__(
        self, number: int, base: int, definitions: ReceivedDefinitions, board: Board, send: Send
    ) -> None:
        self._number = number
        self._task = base
        self._definitions = definitions
        self._board = board
        self._send = send
        self._first = 0
        self._values: list[Any] = []
        self._pickled: list[int] = []
        self._flushed = monotonic()
        self._cut = False
        self._failed_call: str | None = None

    def run(self, runs: list[Run]) -> None:
        """Run the tasks until the end, a failure or the limit; answers go out through `send`."""
        failure = None
        base = self._task
        words = self._board.words
        self._board.times[SINCE] = self._flushed
        try:
            for run in runs:
                self._run(run)
                if self._cut:
                    break
        except BaseException as error:
            leg = int(words[PHASE])
            words[PHASE] = _PICKLING
            data, text = pack(error, self._definitions.dumps)
            failure = (max(self._task - base, 1) - 1, leg, data, text, self._failed_call)
            del error
        words[PHASE] = _PICKLING
        self._answer(True, failure)
        words[PHASE] = _IDLE

    def _run(self, run: Run) -> None:
        token, arity, payload = run
        if arity < 0:
            self._run_pickled(token, payload)
            return
        self._board.words[PHASE] = _UNPICKLING
        self._board.words[STARTED] = self._task + 1  # whose death it would be
        try:
            function = self._definitions.resolve(token)
        except BaseException:
            self._task += 1  # it is the first task of the run that cannot start
            raise
        argument_lists: Iterable[Any]
        if arity == 0:
            argument_lists = repeat((), len(payload))
        elif arity == 1:
            argument_lists = zip(payload)
        else:
            argument_lists = zip(*[iter(payload)] * arity, strict=True)
        if self._definitions.volatile:
            self._run_volatile(token, argument_lists)
        else:
            self._run_plain(function, argument_lists)

    def _run_plain(self, function: Callable[..., Any], argument_lists: Iterable[Any]) -> None:
        words, times, clock = self._board.words, self._board.times, monotonic
        values, scalars = self._values, SCALARS
        append = values.append
        task, flushed = self._task, self._flushed
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
                if now - flushed > FLUSH_SECONDS:
                    if values:
                        self._answer(False, None)
                        values = self._values
                        append = values.append
                    flushed = self._flushed = now
                value = function(*args)
                if type(value) in scalars:
                    append(value)
                else:
                    self._keep(value, function, args, {})
                    del value
                    words[PHASE] = _RUNNING
        except BaseException:
            self._failed_call = describe_call(function, args, {})
            raise
        finally:
            self._task = task

    def _run_pickled(self, token: int, payload: list[bytes]) -> None:
        """Run tasks whose arguments were pickled one by one."""
        words, times, clock, loads = self._board.words, self._board.times, monotonic, pickle.loads
        definitions = self._definitions
        task, flushed = self._task, self._flushed
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
                if now - flushed > FLUSH_SECONDS:
                    if self._values:
                        self._answer(False, None)
                    flushed = self._flushed = now
                if token == NO_TOKEN:
                    function, args, kwargs = loads(data)
                else:
                    function = definitions.resolve(token)
                    args, kwargs = loads(data)
                words[PHASE] = _RUNNING
                value = function(*args, **kwargs)
                self._keep(value, function, args, kwargs)
                function = args = kwargs = value = None  # gone before the next task begins
                if definitions.volatile:
                    definitions.restore()
        except BaseException:
            if args is not None and function is not None and words[PHASE] != _UNPICKLING:
                self._failed_call = describe_call(function, args, kwargs)
            raise
        finally:
            self._task = task

    def _run_volatile(self, token: int, argument_lists: Iterable[Any]) -> None:
        words = self._board.words
        for args in argument_lists:
            if not self._start():
                return
            words[PHASE] = _UNPICKLING
            function = self._definitions.resolve(token)
            words[PHASE] = _RUNNING
            try:
                self._keep(function(*args), function, args, {})
            except BaseException:
                self._failed_call = describe_call(function, args, {})
                raise
            del function
            self._definitions.restore()

    def _start(self) -> bool:
        now = monotonic()
        self._board.times[SINCE] = now
        self._task += 1
        self._board.words[STARTED] = self._task
        if self._task > self._board.words[LIMIT]:
            self._task -= 1
            self._cut = True
            return False
        if now - self._flushed > FLUSH_SECONDS:
            if self._values:
                self._answer(False, None)
            self._flushed = now
        return True

    def _keep(self, value: object, function: object, args: Any, kwargs: dict[str, Any]) -> None:
        """Put a result among those to be sent, as it is now."""
        kind = type(value)
        if kind in SCALARS or (kind not in _CONTAINERS and is_scalar(value)):
            self._values.append(value)
            return
        self._board.words[PHASE] = _PICKLING
        try:
            data = self._definitions.dumps(value)
        except Exception as error:
            call = describe_call(function, args, kwargs)
            raise explain(f"the result of {call}", value, "the result", error) from error
        self._pickled.append(len(self._values))
        self._values.append(data)

    def _answer(self, finished: bool, failure: Any) -> None:
        values, pickled = self._values, self._pickled
        marked: Any = None
        if pickled:
            marked = True if len(pickled) == len(values) else pickled
        seconds = monotonic() - self._flushed
        self._send((ANSWER, self._number, self._first, values, marked, seconds, finished, failure))
        self._first += len(values)
        self._values, self._pickled = [], []


def decode(values: list[Any], pickled: Any) -> Iterator[tuple[int, SerializationError]]:
    """Unpickle in place the values of an answer; yield the index of each that fails, and why."""
    indices = range(len(values)) if pickled is True else pickled
    for index in indices:
        try:
            values[index] = pickle.loads(values[index])
        except Exception as error:
            failed = SerializationError(
                f"the result does not unpickle in this process: {type(error).__name__}: {error}"
            )
            failed.__cause__ = error
            yield index, failed
