"""A hint for who passes the same large object to task after task."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from parallel_core.errors import PerformanceWarning, warn_caller
from parallel_core.serialization.capture import SCALARS
from parallel_core.tasks.description import function_name

#: Pickled arguments of this size, in bytes, are worth a look.
LARGE = 1 << 18
_TIMES = 8
_IN_ALL = 32 << 20

_has_hinted = False


class RepeatedArguments:
    """Notices that one and the same object is pickled for every task."""

    def __init__(self) -> None:
        self._last: dict[int | str, object] = {}
        self._times = 0
        self._nbytes = 0
        #: Position or name of the argument that was the same most often, and the name of its type;
        #: how often it was pickled, with how many bytes in all.
        self.name: int | str = 0
        self.kind = ""
        self.times = self.nbytes = 0

    def note(self, function: object, args: Any, kwargs: Any, nbytes: int) -> None:
        """Note that the arguments of a task took `nbytes` to pickle; give the hint when due."""
        same = {
            place: value for place, value in _objects(args, kwargs) if self._is_same(place, value)
        }
        if not same:
            self._last = dict(_objects(args, kwargs))
            self._times, self._nbytes = 1, nbytes
            return
        self._last = same
        self._times += 1
        self._nbytes += nbytes
        if self._times > self.times:
            self.times, self.nbytes = self._times, self._nbytes
            if len(same) == 1 or self._times == _TIMES:
                self.name = next(iter(same)) if len(same) == 1 else _largest(same)[0]
                self.kind = type(same[self.name]).__name__
        if _has_hinted:
            return
        if self._times >= _TIMES and self._nbytes >= _IN_ALL:
            _hint(function, same, self._times)

    def _is_same(self, place: int | str, value: object) -> bool:
        return place in self._last and self._last[place] is value


def _objects(args: Any, kwargs: Any) -> Iterator[tuple[int | str, object]]:
    for place, value in (*enumerate(args), *kwargs.items()):
        if type(value) not in SCALARS or isinstance(value, (str, bytes)):
            yield place, value


def _largest(candidates: dict[int | str, object]) -> tuple[int | str, int]:
    """Return which of these objects has the largest pickle, and its size."""
    sizes = {}
    for place, value in candidates.items():
        try:
            sizes[place] = len(pickle.dumps(value, 5))
        except Exception:  # it needs more than the plain pickler
            sizes[place] = LARGE
    place = max(sizes, key=sizes.__getitem__)
    return place, sizes[place]


def _hint(function: object, candidates: dict[int | str, object], times: int) -> None:
    global _has_hinted
    place, size = _largest(candidates)
    if size < LARGE:
        return
    _has_hinted = True
    warn_caller(
        f"argument {place!r} of {function_name(function)}, a {type(candidates[place]).__name__} of "
        f"{size / 1e6:.1f} MB when pickled, is the same object in task after task, and was "
        f"sent {times} times already. Share it once: wrap it with memmapping.share(...) before the "
        "call, and pass what that returns instead",
        PerformanceWarning,
    )
