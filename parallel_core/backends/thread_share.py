"""What one thread has of a batch: tasks that it takes from the left, and others from the right."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

from parallel_core.serialization.batch import HELD, NO_TOKEN, Batch, Call


class Form(NamedTuple):
    """What the items in the deque of a share are."""

    #: Of all the tasks, whose arguments they are; None: they are whole tasks.
    function: Callable[..., Any] | None = None
    is_single: bool = False  #: whether each is the one argument of a task

    def whole(self, item: Any) -> Call:
        """Return the task that `item` stands for."""
        if self.function is None:
            task: Call = item
            return task
        return self.function, (item,) if self.is_single else item, {}


class BatchInWork:
    """A batch, and how many shares of it are not finished."""

    __slots__ = ("batch", "n_open")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.n_open = 0


class Share:
    """Consecutive tasks of a batch."""

    __slots__ = ("end", "form", "slot", "tasks", "work")

    def __init__(
        self,
        work: BatchInWork,
        form: Form,
        tasks: deque[Any],
        end: int,
        slot: int | None = None,
    ) -> None:
        self.slot = slot  #: which thread they are for, if only that one may have them
        self.work = work  #: the batch
        self.form = form  #: of its tasks
        self.tasks = tasks  #: those that no thread has begun
        self.end = end  #: position after the last of them

    def split(self, keep: int) -> Share | None:
        """Take away all but the next `keep`; only one thread at a time may ask for it."""
        taken: deque[Any] = deque()
        try:
            for _ in range(len(self.tasks) - keep):
                taken.appendleft(self.tasks.pop())
        except IndexError:  # its thread was quicker
            pass
        end, self.end = self.end, self.end - len(taken)
        return Share(self.work, self.form, taken, end, self.slot) if taken else None


_WHOLE = Form()


def share_of(batch: Batch, slot: int | None = None) -> Share:
    """Return all of `batch`, with as few objects as will do; it may be for one thread alone."""
    token, arity, payload = batch.runs[0]
    form, items = _WHOLE, payload
    if len(batch.runs) > 1:
        items = list(_whole_tasks(batch))
    elif token != NO_TOKEN:
        function: Any = batch.definitions[token].obj
        form = Form(function, arity == 1)
        if arity != 1:
            items = list(_arguments(arity, payload))
    return Share(BatchInWork(batch), form, deque(items), batch.start + batch.size, slot)


def _whole_tasks(batch: Batch) -> Iterator[Call]:
    for token, arity, payload in batch.runs:
        if arity == HELD:
            yield from payload
        else:
            function: Any = batch.definitions[token].obj
            for args in _arguments(arity, payload):
                yield function, args, {}


def _arguments(arity: int, payload: list[Any]) -> Iterable[tuple[Any, ...]]:
    if arity == 0:
        return repeat((), len(payload))
    return zip(*[iter(payload)] * arity, strict=True)
