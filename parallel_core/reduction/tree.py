"""Folding results with a function of two, so that the order of arrival does not show.

Addition of floats is not associative to the last bit, so what is added to what must not depend on
which worker had which tasks. In order, all fold along one binary tree over the positions:

::

    level 2    0..3                             node (level, index) covers the positions
    level 1    0..1      2..3      4..5          from index << level
    level 0    0    1    2    3    4    5    6   up to (index + 1) << level

A `Fold` is given the values of consecutive positions and is left with the largest nodes within
them: at most two for each level, whose places follow from the range alone. A `FoldTree` is
given such nodes in any order, and joins two as soon as they are siblings. At the end the number of
positions is rounded up to a power of two, with nothing in the places that have no task; nothing
with a value is the value. So is a task that was skipped: nothing, in its place.
"""

from __future__ import annotations

import enum
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from parallel_core.serialization.encoding import SMALL
from parallel_core.serialization.failure import exited
from parallel_core.tasks.description import function_name

#: So many small values wait to be folded at once, a level at a time: without a step of ours each.
BLOCK = 1024

Function = Callable[[Any, Any], Any]


class Folding(NamedTuple):
    """How workers are told to fold the results of a call."""

    token: int  #: of the definition of the function


class Nothing(enum.Enum):
    """Stands where there is no value."""

    EMPTY = "nothing to fold"


EMPTY = Nothing.EMPTY


class FoldFailed(Exception):
    """The function that folds has raised."""

    def __init__(self, error: BaseException, words: str) -> None:
        super().__init__(error, words)
        self.error = error
        self.words = words  #: what it was given

    def noted(self) -> BaseException:
        """Return what to raise in the caller: the error itself, with a note of where it was."""
        if isinstance(self.error, SystemExit):
            return exited(self.error, self.words)
        if isinstance(self.error, Exception):
            self.error.add_note(self.words)
        return self.error


def nodes_of(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield level and index of the largest nodes within positions `first` up to `end`, in order."""
    while first < end:
        level = (end - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield level, first >> level
        first += 1 << level


class Fold:
    """Folds the values of consecutive positions, each given after the one before it.

    A fold is filled like a list: by `append`, with `len` for how many values there were.
    """

    __slots__ = ("_first", "_function", "_levels", "_next", "_nodes", "pending")

    def __init__(self, function: Function, first: int) -> None:
        self._function = function  #: takes the value to the left and the one to the right of it
        self._first = self._next = first
        #: Small values that were not folded yet. The hot loop of a worker appends them itself; it
        #: has to `settle` when there are `BLOCK`. This list stays the same one.
        self.pending: list[Any] = []
        self._levels: list[int] = []
        self._nodes: list[Any] = []

    def __len__(self) -> int:
        return self._next + len(self.pending) - self._first

    def append(self, value: Any) -> None:
        """Take in the value of the next position, or `EMPTY`.

        Raises
        ------
        FoldFailed
            When the function raises. Then nothing that is here can be used any more.
        """
        if type(value) in SMALL:
            self.pending.append(value)
            if len(self.pending) >= BLOCK:
                self.settle()
            return
        if self.pending:
            self.settle()
        self._push(0, value)

    def settle(self) -> None:
        """Fold what is pending; it raises as `append` does."""
        values = self.pending
        done = 0
        for level, index in nodes_of(self._next, self._next + len(values)):
            size = 1 << level
            self._push(level, self._fold_block(values[done : done + size], index << level))
            done += size
        values.clear()

    def take(self) -> list[Any]:
        """Return the values of `nodes_of` the positions so far, and begin anew after them.

        It raises as `append` does.
        """
        if self.pending:
            self.settle()
        nodes = self._nodes
        self._levels, self._nodes, self._first = [], [], self._next
        return nodes

    def restart(self, first: int) -> None:
        """Begin anew at position `first`; what is there is dropped."""
        self.pending.clear()
        self._levels, self._nodes, self._first, self._next = [], [], first, first

    def _push(self, level: int, value: Any) -> None:
        """Take in the next node, and join it with those to its left whose sibling it completes."""
        levels, nodes = self._levels, self._nodes
        index = self._next >> level
        self._next += 1 << level
        while index & 1 and levels and levels[-1] == level:
            levels.pop()
            left = nodes.pop()
            level += 1
            index >>= 1
            value = _combine(self._function, left, value, level, index)
        levels.append(level)
        nodes.append(value)

    def _fold_block(self, values: list[Any], first: int) -> Any:
        """Return the value of the node that has `values` from position `first` on."""
        level = 0
        while len(values) > 1:
            level += 1
            folded: list[Any] = []
            error: BaseException
            try:
                folded.extend(map(self._function, values[::2], values[1::2]))
                error = StopIteration()  # which `extend` takes for the end, if there are too few
            except BaseException as raised:
                error = raised
            if 2 * len(folded) < len(values):
                words = _words_at(self._function, level, (first >> level) + len(folded))
                raise FoldFailed(error, words) from error
            values = folded
        return values[0]


class FoldTree:
    """Joins nodes that arrive in any order, from any thread."""

    def __init__(self, function: Function) -> None:
        self._function = function  #: as for `Fold`
        self._nodes: dict[tuple[int, int], Any] = {}
        self._lock = allocate_lock()  # never held while something is folded

    def __len__(self) -> int:
        return len(self._nodes)

    def put(self, first: int, count: int, values: list[Any]) -> None:
        """Take in what a `Fold` of so many positions was left with; it raises as that does."""
        for (level, index), value in zip(nodes_of(first, first + count), values, strict=True):
            self._join(level, index, value)

    def result(self) -> Any:
        """Return the value of all, or `EMPTY`; nothing more may come."""
        value: Any = EMPTY
        for level, index in sorted(self._nodes, key=_place, reverse=True):
            node = self._nodes[level, index]
            if value is not EMPTY and node is not EMPTY:
                try:
                    value = self._function(node, value)
                except BaseException as error:
                    first, last = index << level, (index + 1) << level
                    what = f"the results of {_tasks(first, last)} and of all after them"
                    raise FoldFailed(error, _words_for(self._function, what)) from error
            elif value is EMPTY:
                value = node
        return value

    def _join(self, level: int, index: int, value: Any) -> None:
        nodes, lock = self._nodes, self._lock
        while True:
            place = level, index ^ 1
            with lock:
                if place not in nodes:
                    nodes[level, index] = value
                    return
                sibling = nodes.pop(place)
            left, right = (sibling, value) if index & 1 else (value, sibling)
            level += 1
            index >>= 1
            value = _combine(self._function, left, right, level, index)


def _combine(function: Function, left: Any, right: Any, level: int, index: int) -> Any:
    """Return the value of a node from those of the two below it."""
    if left is EMPTY:
        return right
    if right is EMPTY:
        return left
    try:
        return function(left, right)
    except BaseException as error:
        raise FoldFailed(error, _words_at(function, level, index)) from error


def _place(node: tuple[int, int]) -> int:
    level, index = node
    return index << level


def _words_at(function: Function, level: int, index: int) -> str:
    """Return what the function is given at a node, in words."""
    first, half = index << level, 1 << (level - 1)
    left, right = _tasks(first, first + half), _tasks(first + half, first + 2 * half)
    return _words_for(function, f"the results of {left} and of {right}")


def _words_for(function: Function, what: str) -> str:
    return f"reduce={function_name(function)} was being applied to {what} of the call"


def _tasks(first: int, end: int) -> str:
    return f"task {first}" if end == first + 1 else f"tasks {first} to {end - 1}"
