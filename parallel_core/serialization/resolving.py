"""References to what a call has defined: what they unpickle to, in the parent and in workers."""

from __future__ import annotations

import io
import pickle
from _thread import get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from typing import Protocol

    from parallel_core.serialization.large import Reference

    class Received(Protocol):
        """What a worker was sent for a call; the caller's side has the same method."""

        def resolve(self, token: int) -> object:
            """Return the function or class."""


#: The definitions of calls of this process that may be referred to, by call.
defined: WeakValueDictionary[str, Received] = WeakValueDictionary()
#: What workers have received, by call and thread: an engine may have many.
received: dict[tuple[str, int], Received] = {}


def resolve(call: str, token: int) -> object:
    """Return the function or class `token` of `call`; what a reference unpickles to."""
    table = received.get((call, get_ident())) or defined.get(call)
    if table is None:
        raise LookupError(f"definition {token} belongs to call {call}, which has ended")
    return table.resolve(token)


class _ReferringUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, buffers: list[memoryview]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._loaded: dict[int, Any] = {}

    def persistent_load(self, reference: Reference) -> Any:
        call, token, place = reference
        if token not in self._loaded:
            self._loaded[token] = resolve(call, token)
        return self._loaded[token].values[place]


def loads_referring(data: bytes, buffers: list[memoryview] | None = None) -> Any:
    """Unpickle what may refer to large values (see `large`)."""
    return _ReferringUnpickler(data, buffers or []).load()
