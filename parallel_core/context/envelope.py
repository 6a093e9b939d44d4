"""All aspects of a call around the tasks of one batch, and how they travel."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parallel_core.context.aspect import Aspect, Part, Place
from parallel_core.errors import ContextError

if TYPE_CHECKING:
    from parallel_core.tasks.definitions import Definition, Definitions

_BORN = os.urandom(8)  # a process that was forked has the same, and another number


def _this_process() -> tuple[int, bytes]:
    return os.getpid(), _BORN


class ContextFailed(Exception):
    """Something that was to hold inside tasks could not be brought about, or not be ended.

    Parameters
    ----------
    error : BaseException
        What is to end the call.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Envelope:
    """Aspects around the tasks of one batch, in one thread.

    Parameters
    ----------
    aspects : sequence of Aspect
        Those that are needed here.
    """

    def __init__(self, aspects: Sequence[Aspect]) -> None:
        self._aspects = aspects
        self._begun: list[tuple[str, Part]] = []

    def begin(self, position: Callable[[], int]) -> None:
        """Begin the batch; `position` returns the position of the task that is running.

        Raises
        ------
        ContextFailed
            When that cannot be done; what was begun is ended.
        """
        for aspect in self._aspects:
            try:
                part = aspect.begin(position)
            except BaseException as error:
                self._abandon()
                raise failed(aspect.name, "could not be restored", error) from error
            if part is not None:
                self._begun.append((aspect.name, part))

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Return what is to be called instead of `function`, once a task from `position` on."""
        for _, part in reversed(self._begun):
            function = part.bind(function, position)
        return function

    def end(self) -> None:
        """End the batch, all of it; raise `ContextFailed` for the first that fails."""
        first: ContextFailed | None = None
        while self._begun:
            name, part = self._begun.pop()
            try:
                part.end()
            except BaseException as error:
                raised = failed(name, "could not be put back", error)
                raised.__cause__ = error
                first = first or raised
        if first is not None:
            raise first

    def _abandon(self) -> None:
        try:
            self.end()
        except ContextFailed:  # why it could not begin says more
            pass


def call_within(
    aspects: Sequence[Aspect],
    position: int,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Any:
    """Return what the task at `position` returns; it is run here, with all `aspects` around it."""
    envelope = Envelope(aspects)
    envelope.begin(lambda: position)
    try:
        return envelope.bind(function, position)(*args, **kwargs)
    finally:
        envelope.end()


def failed(name: str, what: str, error: BaseException) -> ContextFailed:
    """Return the failure of the context `name`, which raised `error`; an interrupt stays one."""
    if not isinstance(error, Exception):
        return ContextFailed(error)
    words = f"the context {name!r} {what} where tasks run: {type(error).__name__}: {error}"
    wrapped = ContextError(words)
    wrapped.__cause__ = error
    return ContextFailed(wrapped)


def aspects_for(aspects: Sequence[Aspect], place: Place) -> tuple[Aspect, ...]:
    """Return those of `aspects` that have anything to do there."""
    return tuple(aspect for aspect in aspects if place in aspect.places)


def seal(
    aspects: Sequence[Aspect], definitions: Definitions
) -> tuple[bytes, dict[int, Definition]]:
    """Return the pickle of `aspects`, and the definitions that every worker needs for it."""
    if not aspects:
        return b"", {}
    data, needed = definitions.dumps_apart((_this_process(), tuple(aspects)))
    return data, {definition.token: definition for definition in needed}


class Capsule:
    """What a worker was told of the context of a call.

    Parameters
    ----------
    data : bytes
        What `seal` returned.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._aspects: tuple[Aspect, ...] | None = None

    def open(self) -> tuple[Aspect, ...]:
        """Return the aspects that are needed here; unpickled once.

        Raises
        ------
        ContextFailed
            When they do not unpickle.
        """
        if self._aspects is None:
            try:
                origin, aspects = pickle.loads(self._data)
            except BaseException as error:
                raise failed("of the call", "does not unpickle", error) from error
            place = Place.THREAD if origin == _this_process() else Place.PROCESS
            self._aspects = aspects_for(aspects, place)
        return self._aspects


class SealedEnvelope(Envelope):
    """What is in a capsule, around the tasks of one batch.

    Parameters
    ----------
    capsule : Capsule
        It is opened when the batch begins.
    """

    def __init__(self, capsule: Capsule) -> None:
        super().__init__(())
        self._capsule = capsule

    def begin(self, position: Callable[[], int]) -> None:
        """As for any envelope; `ContextFailed` also when the capsule cannot be opened."""
        self._aspects = self._capsule.open()
        super().begin(position)
