"""All context items of a call around the tasks of one batch, and how they travel."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.errors import ContextError

if TYPE_CHECKING:
    from parallel_core.serialization.definitions import Definition, Definitions

_BORN = os.urandom(8)  # a process that was forked has the same, and another number


def _this_process() -> tuple[int, bytes]:
    return os.getpid(), _BORN


class ContextFailed(Exception):
    """A context item could not be set up around tasks, or put back: `error` ends the call."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class BatchContext:
    """Context items around the tasks of one batch, in one thread."""

    def __init__(self, items: Sequence[ContextItem], place: Place) -> None:
        self._items = items
        self._place = place
        self._begun: list[tuple[str, Part]] = []

    def begin(self, position: Callable[[], int]) -> None:
        """Begin the batch; `position` returns the position of the task that is running.

        Where that fails, what was begun is ended, and `ContextFailed` says so.
        """
        for item in self._items:
            try:
                part = item.begin(position, self._place)
            except BaseException as error:
                self._abandon()
                raise failed(item.name, "could not be restored", error) from error
            if part is not None:
                self._begun.append((item.name, part))

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return what is to be called instead of `function`, once a task from `position` on."""
        for _, part in reversed(self._begun):
            function = part.bind(function, position)
        return function

    def end(self) -> tuple[tuple[str, object], ...]:
        """End the batch, all of it; return what items learned, each with the name of the item.

        Raises `ContextFailed` for the first that fails.
        """
        first: ContextFailed | None = None
        notes: tuple[tuple[str, object], ...] = ()
        while self._begun:
            name, part = self._begun.pop()
            try:
                note = part.end()
            except BaseException as error:
                first = first or failed(name, "could not be put back", error)
            else:
                if note is not None:
                    notes = ((name, note), *notes)
        if first is not None:
            raise first
        return notes

    def _abandon(self) -> None:
        try:
            self.end()
        except ContextFailed:  # why it could not begin says more
            pass


def failed(name: str, what: str, error: BaseException) -> ContextFailed:
    """Return the failure of the context `name`, which raised `error`; an interrupt stays one."""
    if not isinstance(error, (Exception, SystemExit)):
        return ContextFailed(error)
    words = error if isinstance(error, ContextError) else f"{type(error).__name__}: {error}"
    wrapped = ContextError(f"the context {name!r} {what} where tasks run: {words}")
    wrapped.__cause__ = error
    return ContextFailed(wrapped)


def items_for(items: Sequence[ContextItem], place: Place) -> tuple[ContextItem, ...]:
    """Return those of `context items` that have anything to do there."""
    return tuple(item for item in items if place in item.places)


def call_within(
    items: Sequence[ContextItem],
    position: int,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    notes: list[tuple[str, object]],
) -> Any:
    """Return what the task at `position` returns; it runs here, within all `items`.

    What these learn is added to `notes`.
    """
    batch_context = BatchContext(items, Place.CALLER)
    batch_context.begin(lambda: position)
    try:
        return batch_context.bind(function, position)(*args, **kwargs)
    finally:
        notes += batch_context.end()


_sealed: dict[int, tuple[ContextItem, bytes]] = {}
_KEPT = 16


def pickle_context(
    items: Sequence[ContextItem], definitions: Definitions
) -> tuple[bytes, dict[int, Definition]]:
    """Return the pickles of context items, and the definitions that every worker needs for them.

    Items that are given again for the next call are not pickled again. One that does not pickle is
    a `ContextError`.
    """
    sealed: list[bytes] = []
    needed: dict[int, Definition] = {}

    def dumps(obj: object) -> bytes:
        data, requires = definitions.dumps_apart(obj)
        needed.update((definition.token, definition) for definition in requires)
        return data

    for item in items:
        kept = _sealed.get(id(item))
        if kept is not None and kept[0] is item:
            sealed.append(kept[1])
            continue
        before = len(needed)
        try:
            packed = item.packed(dumps)
            data = None if packed is None else dumps(packed)
        except ContextError:  # which part it is
            raise
        except Exception as error:
            raise ContextError(
                f"the context {item.name!r} has a state that does not pickle, so it cannot be "
                f"restored in another process: {type(error).__name__}: {error}"
            ) from error
        if data is None:
            continue
        sealed.append(data)
        if item.is_kept and len(needed) == before:  # others may be large, and come but once
            _sealed[id(item)] = item, data
            if len(_sealed) > _KEPT:
                _sealed.pop(next(iter(_sealed)), None)
    return (pickle.dumps((_this_process(), sealed), 5) if sealed else b""), needed


class PickledContext:
    """What a worker was told of the context of a call."""

    def __init__(self, data: bytes, place: Place) -> None:
        self._data = data
        self._place = place
        self._items: tuple[ContextItem, ...] | None = None

    def open(self) -> tuple[tuple[ContextItem, ...], Place]:
        """Return the context items that are needed here, unpickled once; and where that is.

        `ContextFailed` says that they do not unpickle.
        """
        if self._items is None:
            try:
                origin, sealed = pickle.loads(self._data)
                items = [pickle.loads(data) for data in sealed]
            except BaseException as error:
                raise failed("of the call", "does not unpickle", error) from error
            if origin == _this_process():
                self._place = Place.THREAD
            self._items = items_for(items, self._place)
        return self._items, self._place


class ReceivedBatchContext(BatchContext):
    """What is in a pickled context, around the tasks of one batch."""

    def __init__(self, pickled_context: PickledContext) -> None:
        super().__init__((), Place.WORKER)
        self._pickled_context = pickled_context

    def begin(self, position: Callable[[], int]) -> None:
        """As for any batch context; raise `ContextFailed` if the pickle cannot be opened."""
        self._items, self._place = self._pickled_context.open()
        super().begin(position)
