"""Pulls tasks from the caller's iterable, and has each encoded before the next is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from operator import length_hint
from time import perf_counter
from types import GeneratorType
from typing import Any, NamedTuple

from parallel_core.dispatch.sizing import BatchSizer
from parallel_core.dispatch.task_queue import TaskQueue
from parallel_core.errors import SerializationError
from parallel_core.serialization.batch import HELD, Batch
from parallel_core.serialization.encoding import SMALL, BatchBuilder
from parallel_core.serialization.held import HeldBuilder
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.placeholders import KnownResult


class ResolvedTask(NamedTuple):
    """A task that no worker needs to run."""

    position: int
    task: Any  #: the delayed call, or a `KnownResult`
    error: SerializationError | None = None  #: why it cannot be handed to a worker


class _NotEncoded(Exception):
    """The next task of the iterable does not go into a batch."""

    def __init__(self, task: Any, error: SerializationError | None = None) -> None:
        self.task = task
        self.error = error


class TaskSource:
    """The caller's iterable; `live`: the queue behind it, if others add tasks to that."""

    def __init__(
        self,
        iterable: Iterable[Any],
        builder: BatchBuilder,
        sizer: BatchSizer,
        clock: Callable[[], float] = perf_counter,
        live: TaskQueue | None = None,
    ) -> None:
        self._iterator = iter(iterable)
        #: Whether the next task may be long in coming.
        self.may_block = not is_at_hand(iterable)
        self._live = live
        self._builder = builder
        self._sizer = sizer
        self._clock = clock
        self.resolved: deque[ResolvedTask] = deque()  #: pulled, for others to take from here
        self.position = 0  #: the number of tasks that were pulled
        self.seconds = 0.0  #: that pulling them took, encoding included
        self.exhausted = False

    def pull(self, most: int) -> Batch | None:
        """Return a batch of at most `most` tasks, or None if there is none to hand over.

        It ends early if the sizer says so, and before a task that is resolved already. Exceptions
        of the iterable are not caught.
        """
        builder = self._builder
        builder.begin(self.position)
        began = self._clock()
        if most == 1:
            return self._pull_one(began)
        try:
            if isinstance(builder, HeldBuilder):
                self._pull_held(builder, most, began)
            else:
                self._pull_several(builder, most, began)
        except _NotEncoded as ended:
            batch = self._finish(len(builder), began)
            self._resolve(ended)
            return batch
        return self._finish(len(builder), began)

    def _pull_one(self, began: float) -> Batch | None:
        for item in self._iterator:
            try:
                self._add(self._builder, item)
            except _NotEncoded as ended:
                self._resolve(ended)
                return None
            return self._finish(1, began)
        self._note_end()
        return None

    def _note_end(self) -> None:
        self.exhausted = self._live is None or self._live.is_over()
        if self.exhausted:
            self._builder.settle()

    def _finish(self, pulled: int, began: float) -> Batch | None:
        if not pulled:
            return None
        self.position += pulled
        seconds = self._clock() - began
        self.seconds += seconds
        self._sizer.pulled(pulled, self._builder.nbytes, seconds)
        return self._builder.finish(pulled)

    def _resolve(self, ended: _NotEncoded) -> None:
        self.resolved.append(ResolvedTask(self.position, ended.task, ended.error))
        self.position += 1

    def _add(self, builder: BatchBuilder, item: Any) -> None:
        """Encode a task of any form; raise `_NotEncoded` when there is nothing to hand over."""
        if type(item) is KnownResult:
            raise _NotEncoded(item)
        task = check_task(item, self.position + len(builder))
        try:
            builder.add(*task)
        except SerializationError as error:
            builder.drop_attempt()
            raise _NotEncoded(task, error) from None

    def _pull_several(self, builder: BatchBuilder, most: int, began: float) -> None:
        iterator, sizer, clock, small = self._iterator, self._sizer, self._clock, SMALL
        function, watch = builder.function, builder.watch
        arity, payload = builder.arity, builder.payload
        append = payload.append
        pulled = 0
        step = sizer.look_after(most, 0, 0, 0.0)
        while step:
            last = type(payload[-1]) if payload else int
            usual = last if last in small else int  # comparing is quicker than looking up
            for item in islice(iterator, step):
                try:
                    called, args, kwargs = item
                    if (
                        called is function
                        and (watch is None or watch())
                        and type(args) is tuple
                        and type(kwargs) is dict
                    ):
                        if kwargs:
                            pass
                        elif arity == 1:
                            (value,) = args
                            if type(value) is usual or type(value) in small:
                                append(value)
                                continue
                        elif arity == len(args) > 1 and small.issuperset(map(type, args)):
                            payload += args
                            continue
                        builder.add_arguments(args, kwargs)
                        arity, payload = builder.arity, builder.payload
                        append = payload.append
                        continue
                except SerializationError as error:
                    builder.drop_attempt()
                    raise _NotEncoded(item, error) from None
                except Exception:  # another form of task; `check_task` says if it is none at all
                    pass
                self._add(builder, item)
                function, watch = builder.function, builder.watch
                arity, payload = builder.arity, builder.payload
                append = payload.append
            pulled += step
            if len(builder) < pulled:
                self._note_end()
                return
            step = sizer.look_after(most, pulled, builder.nbytes, clock() - began)

    def _pull_held(self, builder: HeldBuilder, most: int, began: float) -> None:
        iterator, sizer, clock = self._iterator, self._sizer, self._clock
        function, arity, payload = builder.function, builder.arity, builder.payload
        append = payload.append
        pulled = 0
        step = sizer.look_after(most, 0, 0, 0.0)
        while step:
            for item in islice(iterator, step):
                try:
                    called, args, kwargs = item
                    if type(args) is tuple and type(kwargs) is dict:
                        if called is function and not kwargs and len(args) == arity:
                            if arity == 1:
                                append(args[0])
                            else:
                                payload += args or (None,)
                            continue
                        if arity == HELD and callable(called):
                            append(item)
                            continue
                except Exception:  # as above
                    pass
                self._add(builder, item)
                function, arity, payload = builder.function, builder.arity, builder.payload
                append = payload.append
            pulled += step
            if len(builder) < pulled:
                self._note_end()
                return
            step = sizer.look_after(most, pulled, 0, clock() - began)

    def close(self) -> Exception | None:
        """Let the caller's generator clean up; see `close_generator`."""
        return close_generator(self._iterator)


def is_at_hand(iterable: object) -> bool:
    """Whether no code of the caller's runs when `iterable` is iterated over, and none waits."""
    return type(iterable) in (list, tuple) or getattr(iterable, "is_at_hand", False) is True


def known_length(iterable: object) -> int | None:
    """Return how many items `iterable` says it has; None where it does not say."""
    if isinstance(iterable, GeneratorType):
        return None
    try:
        length = length_hint(iterable, -1)
    except Exception:  # a length that is wrong is no reason to end a call
        return None
    return length if length >= 0 else None


def expected_length(tasks: object) -> int | None:
    """Return how many tasks there will be; None where that cannot be known beforehand.

    Unlike `known_length`, for people: a generator expression with one ``for`` and no ``if`` yields
    as many tasks as what it goes through has items.
    """
    if not isinstance(tasks, GeneratorType):
        return known_length(tasks)
    code, frame = tasks.gi_code, tasks.gi_frame
    if code.co_name != "<genexpr>" or frame is None:
        return None
    from opcode import opname

    names = [opname[number] for number in code.co_code[::2]]
    if names.count("FOR_ITER") != 1 or any("_IF_" in name for name in names):
        return None
    items = frame.f_locals.get(".0")
    return None if items is None or isinstance(items, GeneratorType) else known_length(items)


def close_generator(iterator: object) -> Exception | None:
    """Close `iterator` if it is a generator, as leaving a ``for`` loop over it would in time.

    What it raises then is returned: something else has ended the call.
    """
    if isinstance(iterator, GeneratorType):
        try:
            iterator.close()
        except Exception as error:  # or it is being executed, by another thread or further up
            return error
    return None
