"""Large values that functions and objects hold: each worker of a call loads them once.

::

    what is captured, or ──▶ parts_over ──▶ LargeValues ── a definition, once ──▶ LoadedValues
    the object of a method                       ▲                                     ▲
                                                 │ is it there?                        │ its value
    the rest, pickled around them ───────────────┴── instead: (call, token, place) ────┘

To restore such a value for every task, and to compare it after each, takes longer than most tasks.
So it is the one thing that tasks of a call share by themselves; a worker looks from time to time
whether one has changed it, and warns. What is smaller belongs to the task, as ever.

The caller may change such a value between two tasks. A change of its length is seen at once. For
others it is pickled again and compared, which may take a tenth of the time that the call takes: all
tasks that were not looked at are covered by the next look, and if that finds a change, nobody knows
which of them should have had it, so the call ends with an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from time import monotonic
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from parallel_core.errors import ChangedValueError

#: From this size of its pickle on, in bytes, a value is large.
LARGE_VALUE = 1 << 20

_CALLER_SHARE = 0.1  # of the time of the call, for looking at values in the caller
_WORKER_SHARE = 0.05  # likewise, in each worker
_FIRST_LOOKS = 2  # are free: who changes a value from task to task does so from the beginning
_BY_NAME = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, Enum)

Reference = tuple[str, int, int]
Dumps = Callable[[object], bytes]


class SharedPart(Exception):
    """An argument is a part of a large value: they have to be pickled together."""


class Indivisible(Exception):
    """A large value cannot outlast a task: it holds an open file."""


class LargeValues:
    """Values that tasks refer to, in the caller."""

    def __init__(self, call: str, token: int, parts: list[tuple[str, object]]) -> None:
        self._call = call  #: name the definition that workers get
        self.token = token  #: name the definition that workers get
        distinct = {id(value): (name, value) for name, value in reversed(parts)}
        self._names = [name for name, _ in distinct.values()]
        self._values = [value for _, value in distinct.values()]
        self._places = {id(value): place for place, value in enumerate(self._values)}
        self._within: dict[int, object] = {}  # objects that are equal to nothing but themselves
        self._known: frozenset[int] = frozenset()  # their numbers, once the values are sealed
        self._is_sealed = False
        self.loading = LoadingValues(self._names, self._values)
        self._dumps: Callable[[], bytes] = bytes
        self._data = b""
        self._lengths: list[int] = []
        self._made = self._spent = 0.0
        self._looks = 0
        self._is_due = False
        self._is_stale = False
        self._has_passed = False  # a task without a look
        self._error: ChangedValueError | None = None

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, number: object) -> bool:
        return number in self._places

    @property
    def data(self) -> bytes:
        """Their pickle."""
        return self._data

    def note(self, obj: object) -> None:
        """Note an object that pickling meets within the values."""
        by_identity = type(obj).__eq__ is object.__eq__ and not isinstance(obj, _BY_NAME)
        if by_identity and not self._is_sealed:
            self._within[id(obj)] = obj  # kept, so that its number stays its own

    def refer(self, obj: object) -> Reference | None:
        """Return what stands for `obj` in a pickle, if it is one of the values.

        An object that is a part of one becomes one of them. Once the values have been sent, that
        is too late.

        Raises
        ------
        SharedPart
            When it is too late.
        """
        place = self._places.get(id(obj))
        if place is None:
            if id(obj) in self._known:
                raise SharedPart
            if id(obj) not in self._within:
                return None
            place = self._places[id(obj)] = len(self._values)
            self._values.append(obj)
            self._names.append(f"an object within {self._names[0]}")
        return self._call, self.token, place

    def seal(self, data: bytes, dumps: Callable[[], bytes]) -> None:
        """Begin to watch the values, which `dumps` pickles, to `data` as they are now."""
        self._is_sealed = True
        self._known, self._within = frozenset(self._within), {}
        self._data = data
        self._dumps = dumps
        self._lengths = self._count()
        self._made = monotonic()

    def is_unchanged(self) -> bool:
        """Whether the values are what they were, for the next task.

        Raises
        ------
        ChangedValueError
            When one has changed, and tasks may have gone without it.
        """
        if self._error is not None:
            raise self._error
        if self._is_stale or self._count() != self._lengths:
            self._is_stale = True
            return False
        allowed = _CALLER_SHARE * (monotonic() - self._made)
        if self._is_due or self._looks < _FIRST_LOOKS or self._spent <= allowed:
            return self._look()
        self._has_passed = True
        return True

    def expect_change(self) -> None:
        """Look at the values for the next task: the caller has had time to change them."""
        self._is_due = True

    def settle(self) -> None:
        """Look at the values, unless the last task was looked at.

        Raises
        ------
        ChangedValueError
            When one has changed.
        """
        if self._has_passed and not self._is_stale:
            self._look()

    def _look(self) -> bool:
        began = monotonic()
        try:
            is_same = self._dumps() == self._data
        except Exception:  # it has got something that does not pickle
            is_same = False
        self._spent += monotonic() - began
        self._looks += 1
        self._is_stale = not is_same
        if not is_same and self._has_passed:
            self._error = ChangedValueError(
                f"{_listed(self._names)} changed in place while tasks that use it were handed out, "
                "and it is too large to be compared for each of them. Bind the name to a new "
                "object when it changes, or pass to each task what differs as an argument"
            )
            raise self._error
        self._has_passed = self._is_due = False
        return is_same

    def _count(self) -> list[int]:
        return [len(v) if isinstance(v, (dict, list, set)) else 0 for v in self._values]


class LoadingValues:
    """Large values on their way to workers."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: list[str], values: list[object]) -> None:
        self._names = names
        self._values = values

    def __reduce__(self) -> tuple[Any, ...]:
        return LoadedValues, (self._names, self._values)


class LoadedValues:
    """The same in a worker, where all tasks of a call get the same objects."""

    def __init__(self, names: list[str], values: list[object]) -> None:
        self.values = values
        self._names = names  #: the words for them
        self._dumps: Callable[[object], int] | None = None
        self._before: list[int] = []
        self._made = self._spent = 0.0

    def watch(self, digest: Callable[[object], int]) -> None:
        """Note what the values are now; `digest` tells one state of a value from another."""
        self._made = monotonic()
        self._dumps = digest
        self._before = self._digests()

    def look(self) -> None:
        """Warn if a task has changed one of the values, where it is time for a look."""
        if self._dumps is None or self._spent > _WORKER_SHARE * (monotonic() - self._made):
            return
        began = monotonic()
        after = self._digests()
        self._spent += monotonic() - began
        changed = [
            name
            for name, old, new in zip(self._names, self._before, after, strict=False)
            if old != new
        ]
        if not changed:
            return
        self._dumps = None
        message = (
            f"a task has changed {_listed(changed)} in place. It is so large that each worker "
            "loads it once for all its tasks of a call, so later tasks there see the change, and "
            "others do not. Copy it in the task before changing it, or return the changes"
        )
        try:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        except RuntimeWarning as error:  # no task's: it is raised where the warning is given again
            warnings.showwarning(error, RuntimeWarning, __file__, 1)

    def _digests(self) -> list[int]:
        assert self._dumps is not None
        try:
            return [self._dumps(value) for value in self.values]
        except Exception:  # what it holds in a worker does not pickle there
            self._dumps = None
            return []


def parts_over(
    name: str, value: object, dumps: Dumps, seen: set[int] | None = None
) -> Iterator[tuple[str, object]]:
    """Yield the smallest parts of `value`, which is large, that are large themselves.

    Only attributes count as parts; what a list or a dict holds goes with it.
    """
    seen = {id(value)} if seen is None else seen
    attributes = getattr(value, "__dict__", None)
    found = False
    if type(attributes) is dict and not isinstance(value, (type, FunctionType, ModuleType)):
        for key, part in attributes.items():
            if _is_large(part, dumps):
                found = True
                if id(part) not in seen:
                    seen.add(id(part))
                    yield from parts_over(f"{name}.{key}", part, dumps, seen)
    if not found:
        yield name, value


def _is_large(value: object, dumps: Dumps) -> bool:
    if type(value) in (int, float, bool, complex, type(None)):
        return False
    return len(dumps(value)) >= LARGE_VALUE


def _listed(names: list[str]) -> str:
    return " or ".join(names[:3])
