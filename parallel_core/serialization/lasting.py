"""Functions that last: pickled once in the caller, loaded once in each worker, for all calls.

A function of a script or a notebook goes by value, and to pickle and load it takes longer than a
tiny call. Nearly all capture nothing that could change, so the next call would send the same bytes.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from operator import is_
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from parallel_core.serialization.capture import Capture

_MAX_KEPT = 64  # functions; a notebook makes ever new ones


class SentFunctions:
    """In the caller: the pickles of functions that last, each with what the function captured."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[ref[FunctionType], list[object], bytes]] = {}

    def find(self, function: FunctionType, capture: Capture) -> bytes | None:
        """Return the pickle of a function that captures what it did then."""
        known, captured, data = self._kept.get(id(function), (None, (), b""))
        if known is None or known() is not function:
            return None
        now = capture.contents()
        if len(now) != len(captured) or not all(map(is_, now, captured)):
            return None
        return data

    def keep(self, function: FunctionType, capture: Capture, data: bytes) -> None:
        """Keep a pickle for as long as the function lives."""
        kept, number = self._kept, id(function)
        if len(kept) >= _MAX_KEPT and number not in kept:
            kept.pop(next(iter(kept)), None)
        known = ref(function, lambda _: kept.pop(number, None))
        kept[number] = known, capture.contents(), data


class LoadedFunctions:
    """In a worker: functions that last, by their pickles."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def load(self, data: bytes) -> Any:
        """Return the function, unpickling it when it is new."""
        function = self._kept.get(data)
        if function is None or vars(function):  # a task has given it attributes
            function = self._kept[data] = pickle.loads(data)
            if len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return function


sent_functions = SentFunctions()
loaded_functions = LoadedFunctions()
