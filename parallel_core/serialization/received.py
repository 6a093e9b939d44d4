"""The functions and classes of one call, by number, in a worker; see `definitions`."""

from __future__ import annotations

import itertools
import pickle
import sys
from _thread import get_ident
from time import monotonic
from types import FunctionType
from typing import Any

from parallel_core.serialization.capture import Capture
from parallel_core.serialization.definitions import SentDefinition
from parallel_core.serialization.large import LoadedValues
from parallel_core.serialization.lasting import loaded_functions
from parallel_core.serialization.opened import is_open_file, refuse_result
from parallel_core.serialization.pickling import (
    MAIN,
    PICKLING_ERRORS,
    PROTOCOL,
    TaskPickler,
    dumps,
    dumps_by_value,
    dumps_referring,
    goes_by_value,
    keep_within,
    needs_value,
)
from parallel_core.serialization.resolving import loads_referring, received, resolve


def _dumps_received(value: object) -> bytes:
    """Pickle what a function captured, in a worker, to see whether a task has changed it.

    An array that tasks cannot change, or share by the user's word, counts by its name. To compare
    another large one would take longer than to have it anew: it always counts as changed. So does a
    file, which is closed after each task.
    """
    if "numpy" not in sys.modules:
        return dumps(value, _reduce_received)
    try:
        data = TaskPickler(_reduce_received, keep_within).dumps(value)
        if not needs_value(data):
            return data
    except PICKLING_ERRORS:
        pass
    return dumps_by_value(value, _reduce_received)


def _digest(value: object) -> int:
    """Return a number that tells one state of a large value from another."""
    data = TaskPickler(_reduce_compared, keep_within).dumps(value)
    return hash(data)


def _reduce_compared(obj: Any) -> Any:
    if isinstance(obj, (type, FunctionType)):  # they may not have a name here
        return str, (str(id(obj)),)
    if "numpy" not in sys.modules:
        return NotImplemented
    from memmapping.references import reduce_if_mapped

    return reduce_if_mapped(obj)


_LARGE_CAPTURE = 1 << 20
_changes = itertools.count()


def _reduce_received(obj: Any) -> Any:
    if is_open_file(obj):
        return str, (f"changed {next(_changes)}",)
    if "numpy" not in sys.modules:
        return NotImplemented
    from memmapping.references import reduce_if_mapped

    reduced = reduce_if_mapped(obj)
    numpy: Any = sys.modules["numpy"]
    is_large = isinstance(obj, numpy.ndarray) and obj.nbytes >= _LARGE_CAPTURE
    if reduced is NotImplemented and is_large and not obj.dtype.hasobject:
        return str, (f"changed {next(_changes)}",)
    return reduced


class ReceivedDefinitions:
    """What a worker was sent for one call."""

    def __init__(self, call: str, state: dict[str, Any]) -> None:
        self._call = call  #: the name of the call, as in `Definitions`
        #: Globals that the initializer set in this worker; functions that go by value see them.
        self._state = state
        self._received: dict[int, SentDefinition] = {}
        self._loaded: dict[int, object] = {}
        self._captures: dict[int, Capture] = {}
        self.captures_mutable_state = False
        self._tokens: dict[int, int] = {}
        self._large: dict[int, LoadedValues] = {}
        self._places: dict[int, tuple[int, int]] = {}  # of large values, by `id`
        self._thread = get_ident()
        self.seconds = 0.0  #: that unpickling took, since somebody has set it to 0
        received[call, self._thread] = self

    def close(self) -> None:
        """Be looked up no longer: the call has ended, or another one has begun."""
        received.pop((self._call, self._thread), None)

    def receive(self, sent: dict[int, SentDefinition], forget: tuple[int, ...]) -> None:
        """Take in definitions by token, and drop others."""
        for token in forget:
            self._received.pop(token, None)
            self._drop(token)
        self._received.update(sent)

    def resolve(self, token: int) -> Any:
        """Return the function or class, unpickling it on first use."""
        try:
            return self._loaded[token]
        except KeyError:
            pass
        data, captures_mutable_state, lasts = self._received[token]
        before, began = self.seconds, monotonic()
        try:
            obj = loaded_functions.load(data) if lasts else loads_referring(data)
        finally:  # it may have resolved others within
            self.seconds = before + monotonic() - began
        if type(obj) is LoadedValues:
            self._take_large(token, obj)
        elif self._state and goes_by_value(obj):
            self._give_state(obj)
        self._loaded[token] = obj
        if isinstance(obj, type):
            self._tokens[id(obj)] = token
        if captures_mutable_state:
            own = frozenset(self._state)
            self._captures[token] = Capture(obj, self._dumps_captured, own, self._places)
            self.captures_mutable_state = True
        return obj

    def _take_large(self, token: int, loaded: LoadedValues) -> None:
        loaded.watch(_digest)
        self._large[token] = loaded
        for place, value in enumerate(loaded.values):
            self._places[id(value)] = token, place

    def _dumps_captured(self, value: object) -> bytes:
        if self._places:
            return dumps_referring(value, lambda obj: self._places.get(id(obj)), _reduce_received)
        return _dumps_received(value)

    def look_at_large(self) -> None:
        """Warn of large values that tasks have changed, as far as there is time for a look."""
        for loaded in self._large.values():
            loaded.look()

    def _give_state(self, obj: object) -> None:
        """Let `obj`, or the methods of a class, see the globals that the initializer set."""
        parts = vars(obj).values() if isinstance(obj, type) else (obj,)
        for part in parts:
            inner = getattr(part, "__func__", None) or getattr(part, "fget", None) or part
            if isinstance(inner, FunctionType):
                inner.__globals__.update(self._state)

    def restore(self) -> None:
        """After a task: forget the loaded form of what it changed."""
        for token, capture in list(self._captures.items()):
            if not capture.unchanged_by_task():
                self._drop(token)

    def dumps(self, obj: object) -> bytes:
        """Pickle what goes back but results; classes that came from the caller are references."""
        try:
            data = pickle.dumps(obj, PROTOCOL)
        except PICKLING_ERRORS:
            return dumps_by_value(obj, self.reduce)
        return data if MAIN not in data else dumps_by_value(obj, self.reduce)

    def reduce(self, obj: object) -> Any:
        """Return how a class that came from the caller is pickled, for ``reducer_override``."""
        if isinstance(obj, type):
            token = self._tokens.get(id(obj))
            if token is not None:
                return resolve, (self._call, token)
        elif is_open_file(obj):
            refuse_result(obj)
        return NotImplemented

    def _drop(self, token: int) -> None:
        obj = self._loaded.pop(token, None)
        if type(obj) is LoadedValues:
            del self._large[token]
            for value in obj.values:
                self._places.pop(id(value), None)
        self._captures.pop(token, None)
        self._tokens.pop(id(obj), None)
