"""Results of a batch that wait to be sent: as they are, or pickled when their task has returned.

Results that cannot change ride in an answer as they are, and so does a copy of a short list. Any
other is pickled at once, so that no later task can change it. Larger ones are pickled around their
arrays and buffers: of middling size these are copied, to leave with others; large ones are sent
from where they lie, so they leave before the next task begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.serialization.buffers import Buffer, Shelf, nbytes_of
from parallel_core.serialization.capture import SCALARS
from parallel_core.serialization.encoding import SMALL, is_flat, is_scalar
from parallel_core.serialization.pickling import explain
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.serialization.results import BESIDE, LocalParcelPickler, ResultPickler
from parallel_core.workers.board import Phase
from parallel_core.workers.messages import Answer, FailureKind

FLUSH_SECONDS = 0.02

_CONTAINERS = frozenset({dict, set})


class BatchFailed(Exception):
    """What ends a batch, and the call, though no task has raised it."""

    def __init__(self, kind: FailureKind, error: BaseException, words: str) -> None:
        super().__init__(kind, error, words)
        self.kind = kind
        self.error = error
        self.words = words


class Parcels:
    """How answers with buffers leave."""

    __slots__ = ("is_together", "pickler", "send", "shelf")

    def __init__(
        self,
        send: Callable[[Answer, list[Buffer]], None],
        shelf: Shelf | None = None,
        pickler: type[ResultPickler] = LocalParcelPickler,
        is_together: bool = False,
    ) -> None:
        #: Takes each, and its buffers. They are views: when it returns, nothing that happens to the
        #: objects may change what it was given.
        self.send = send
        self.shelf = shelf  #: where smaller ones are kept until then
        self.pickler = pickler  #: leaves large parts of results where they lie
        self.is_together = is_together  #: all answers of a batch leave, or are lost, together


class Outgoing(NamedTuple):
    """What an answer has of results."""

    values: list[Any]
    pickled: list[int] | bool | None  #: see `messages.Answer`
    buffers: list[Buffer]
    tasks: int
    folded: int | None
    nbytes: int  #: of pickles and buffers, about


class Results:
    """The results that wait."""

    #: What the worker does while it takes in a result.
    phase = int(Phase.PICKLING)
    #: After how many seconds `flush` is due.
    flush_seconds = FLUSH_SECONDS
    #: Types whose values the hot loop appends to `values` itself, the latter if they are shorter
    #: than `BESIDE`.
    small: frozenset[object] = SMALL
    texts: frozenset[object] = SCALARS

    def __init__(self, definitions: ReceivedDefinitions, parcels: Parcels | None) -> None:
        self._definitions = definitions
        self._parcels = parcels
        self._pickler: ResultPickler | None = None
        self._pickled: list[int] = []
        self._buffers: list[Buffer] = []
        self.values: list[Any] = []

    def __len__(self) -> int:
        return len(self.values)

    def begin(self) -> None:
        """Prepare for the first result."""

    def keep(self, value: Any) -> bool:
        """Take in a result as it is now; return whether it should leave before the next task."""
        kind = type(value)
        is_text = False
        if kind is list or kind is tuple:
            if is_flat(value):
                self.values.append(value[:])
                return False
        elif kind not in _CONTAINERS and is_scalar(value):
            if not is_large(value):
                self.values.append(value)
                return False
            is_text = True
        return self._pickle(value, is_text)

    def explain(self, what: str, value: object, name: str, error: BaseException) -> Exception:
        """Return the error that says which part of a result does not pickle."""
        return explain(what, value, name, error, self._definitions.reduce)

    def flush(self) -> bool:
        """Return whether what there is should be sent now."""
        return bool(self.values)

    def take(self) -> Outgoing:
        """Return what is to be sent, and begin anew."""
        values, pickled, buffers = self.values, self._pickled, self._buffers
        self.values, self._pickled, self._buffers = [], [], []
        marked: list[int] | bool | None = None
        nbytes = 0
        if pickled:
            marked = True if len(pickled) == len(values) else pickled
            nbytes = sum(map(len, values if marked is True else [values[at] for at in pickled]))
            nbytes += sum(nbytes_of(buffer.description) for buffer in buffers)
        return Outgoing(values, marked, buffers, len(values), None, nbytes)

    def restart(self, position: int) -> None:
        """Note the position of the next task in the call."""

    def _pickle(self, value: Any, is_text: bool) -> bool:
        """Take in the pickle of `value`; return whether it is large."""
        pickler = self._pickler or self._make_pickler()
        pickled = pickler.dumps_flat(value) if is_text else pickler.dumps(value)
        self._pickled.append(len(self.values))
        if isinstance(pickled, bytes):
            self.values.append(pickled)
            return False
        self.values.append(pickled.entry)
        return self._add(pickled.buffers)

    def _make_pickler(self) -> ResultPickler:
        make = ResultPickler if self._parcels is None else self._parcels.pickler
        self._pickler = make(self._definitions.reduce)
        return self._pickler

    def _add(self, buffers: list[Buffer]) -> bool:
        """Keep buffers beside the results; return whether they are as they lie."""
        shelf = None if self._parcels is None else self._parcels.shelf
        copies = None if shelf is None else shelf.put(buffers)
        self._buffers += buffers if copies is None else copies
        return copies is None


def is_large(value: Any) -> bool:
    """Whether a scalar is text or bytes that are better sent from where they lie."""
    kind = type(value)
    return (kind is str or kind is bytes) and len(value) >= BESIDE
