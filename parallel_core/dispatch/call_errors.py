"""What an exception that ends a call carries: the results that had arrived, and the failed task."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from typing import Any

from parallel_core.context.batch_context import call_within
from parallel_core.context.item import ContextItem
from parallel_core.serialization.batch import Batch, Call
from parallel_core.serialization.definitions import Definitions
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.placeholders import Placeholder

Chunk = tuple[int, list[Any]]


class PartialResults(Mapping[int, Any]):
    """The results of a call that did not come to its end, by position."""

    def __init__(self, chunks: list[Chunk] | None = None) -> None:
        self._chunks = chunks or []  # consecutive results, in the order of their positions
        self._firsts = [first for first, _ in self._chunks]
        self._count: int | None = None

    def __getitem__(self, position: int) -> Any:
        index = bisect_right(self._firsts, position) - 1
        if index >= 0:
            first, values = self._chunks[index]
            if position - first < len(values):
                value = values[position - first]
                if type(value) is not Placeholder:
                    return value
        raise KeyError(position)

    def __iter__(self) -> Iterator[int]:
        for first, values in self._chunks:
            for position, value in enumerate(values, first):
                if type(value) is not Placeholder:
                    yield position

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count

    def __reduce__(self) -> Any:
        return PartialResults, ()  # an exception on its way to another process leaves them here

    def __repr__(self) -> str:
        return f"<{len(self)} results that had arrived>"


class Replay:
    """Runs a failed task again, in this process and thread, for a debugger."""

    def __init__(
        self,
        words: str,
        call: Callable[[], Call] | None = None,
        position: int = 0,
        items: Sequence[ContextItem] = (),
    ) -> None:
        self._words = words  # for the task
        self._call = call  # returns the function and the arguments, as they were at the yield
        self._position = position
        self._items = items

    def __call__(self) -> Any:
        """Return what the task returns; raise what it raises."""
        if self._call is None:
            raise RuntimeError(f"{self._words}: it was part of a call in another process")
        function, args, kwargs = self._call()
        if not self._items:
            return function(*args, **kwargs)
        context = copy_context()
        return context.run(call_within, self._items, self._position, function, args, kwargs, [])

    def __reduce__(self) -> Any:
        return Replay, (self._words,)

    def __repr__(self) -> str:
        return f"<replay of {self._words}>"


def replay_task(position: int, task: Call, items: Sequence[ContextItem] = ()) -> Replay:
    """Return the replay of a task whose arguments are the caller's own."""
    words = describe_task(position, describe_call(*task))
    return Replay(words, lambda: task, position, items)


def replay_from(
    batch: Batch, index: int, definitions: Definitions, items: Sequence[ContextItem] = ()
) -> Replay:
    """Return the replay of a task whose arguments were pickled."""

    def call(_alive: Definitions = definitions) -> Call:  # what its pickle refers to
        return batch.call(index)

    return Replay(batch.describe(index), call, batch.start + index, items)


def attach(error: BaseException, results: PartialResults, replay: Replay | None) -> None:
    """Give `error` the attributes ``results`` and ``replay``, unless it has such of its own."""
    for name, value, kind in (("results", results, PartialResults), ("replay", replay, Replay)):
        try:
            present = getattr(error, name, None)
            if present is None or isinstance(present, kind):
                setattr(error, name, value)
        except Exception:  # an exception class may refuse; then it goes without
            continue
