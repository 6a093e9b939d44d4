"""The functions and classes of one call, by number, in the parent; `received` is the other end.

A function is pickled once a call and sent once to each worker; after that a batch names it by
its *token*. Classes that go by value (those of ``__main__``) travel the same way: an argument
refers to its class by token, so a million instances carry no definition, and a result comes
back as an instance of the caller's own class.

States of a definition in the parent: *current* (what it captured is unchanged) or *stale*
(the next task that needs it makes a new definition, with a new token; batches on their way keep
the old one). In a worker: *received* (bytes), *loaded* (on first use), and back to received
when a task changed what a volatile definition had captured.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
from _thread import get_ident
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from parallel_core.tasks.capture import Capture, names_stored
from parallel_core.tasks.opened import is_open_file
from parallel_core.tasks.pickling import (
    PICKLING_ERRORS,
    PROTOCOL,
    HandOver,
    TaskPickler,
    dumps,
    dumps_by_value,
    goes_by_value,
    needs_value,
)

from parallel_core.tasks import variables as variables  # isort: skip - so that they are pickled

if TYPE_CHECKING:
    from typing import Protocol

    from memmapping.reducer import ArrayReducer
    from parallel_core.tasks.open_files import Held, OpenFiles

    class Received(Protocol):
        """What a worker was sent for a call; see `received`."""

        def resolve(self, token: int) -> object:
            """Return the function or class."""


_T = TypeVar("_T")
_CACHED = 256  # definitions kept for reuse; a generator may yield a new lambda each time

_calls = itertools.count(1)
_defined: WeakValueDictionary[str, Definitions] = WeakValueDictionary()
#: How objects of some types are pickled in tasks; NotImplemented: as ever. Types of libraries that
#: carry from task to task what need not go along; see `parallel_core.bridge`.
forms: dict[type, Callable[[Definitions, Any], Any]] = {}
#: What workers have received, by call and thread: an engine may have many.
received: dict[tuple[str, int], Received] = {}


def resolve(call: str, token: int) -> object:
    """Return the function or class `token` of `call`; what a reference unpickles to."""
    table = received.get((call, get_ident())) or _defined.get(call)
    if table is None:
        raise LookupError(f"definition {token} belongs to call {call}, which has ended")
    return table.resolve(token)


def may_hold_arrays() -> bool:
    """Whether an argument can have anything to do with shared memory, in this program."""
    modules = sys.modules
    return "numpy" in modules or "memmapping.sharing" in modules


class Definition:
    """A function or class in the form in which it goes to workers.

    Attributes
    ----------
    token : int
        Its number within the call.
    data : bytes
        Its pickle.
    requires : tuple of Definition
        The classes that `data` refers to by token.
    volatile : bool
        Whether it captured values that a task could change in place.
    watch : callable or None
        Says whether what it captured is unchanged; None when nothing can change.
    uses : list
        What has to be kept for the arrays that it captured.
    """

    __slots__ = ("data", "obj", "requires", "token", "uses", "volatile", "watch")

    def __init__(
        self,
        token: int,
        obj: object,
        data: bytes,
        requires: tuple[Definition, ...],
        capture: Capture | None,
        uses: list[Any] | None = None,
    ) -> None:
        self.token = token
        self.uses = uses
        self.obj = obj
        self.data = data
        self.requires = requires
        self.volatile = capture is not None and capture.volatile
        self.watch: Callable[[], bool] | None = None
        if capture is not None:
            self.watch = capture.watch()


class Definitions:
    """The parent's side: what one call has defined so far.

    Parameters
    ----------
    own : frozenset of str
        Globals that the call's initializer sets in each worker.
    make_arrays : callable, optional
        Returns the reducer for large arrays, when there is first need of it.
    passes_descriptors : bool, default False
        Whether the workers can be sent descriptors.
    """

    def __init__(
        self,
        own: frozenset[str] = frozenset(),
        make_arrays: Callable[[], ArrayReducer] | None = None,
        passes_descriptors: bool = False,
    ) -> None:
        self.call = f"{os.getpid()}.{next(_calls)}"
        self._own = own
        self._make_arrays = make_arrays
        self._arrays: ArrayReducer | None = None
        self._passes_descriptors = passes_descriptors
        self._files: OpenFiles | None = None
        self._captures = 0  # how deep we are in what functions capture
        self._pickler: TaskPickler | None = None
        self._comparer: TaskPickler | None = None
        self._tokens = itertools.count()
        self._cache: dict[int, Definition] = {}
        self._referred: dict[int, object] = {}
        self._making: set[int] = set()
        self._used: dict[int, Definition] = {}
        self._sent_once: dict[Hashable, Definition] = {}

    @property
    def arrays(self) -> ArrayReducer | None:
        """The reducer for large arrays; None while there can be none, or where none may be."""
        if self._arrays is None and self._make_arrays is not None and may_hold_arrays():
            self._arrays = self._make_arrays()
        return self._arrays

    def check_arrays(self, is_last: bool) -> None:
        """Raise ChangedArrayError when tasks may have been given an array in an older state.

        Where nobody tells what was written, that may be found only with the last task.
        """
        arrays = self._arrays
        if arrays is not None:
            if is_last:
                arrays.confirm()
            if arrays.changed is not None:
                raise arrays.changed

    @property
    def pickler(self) -> TaskPickler:
        """The pickler that makes references of large arrays; only when `arrays` is not None."""
        if self._pickler is None:
            assert self._arrays is not None
            self._pickler = TaskPickler(self._reduce_at_once, self._arrays.hand_over)
        return self._pickler

    def resolve(self, token: int) -> object:
        """Return the caller's own class for a reference that came back in a result."""
        return self._referred[token]

    def define(self, obj: object) -> Definition:
        """Return the definition of `obj` as it is now."""
        definition = self._cache.get(id(obj))
        if definition is not None and (definition.watch is None or definition.watch()):
            return definition
        definition = self._by_value(obj) if goes_by_value(obj) else self._by_name(obj)
        self._cache[id(obj)] = definition
        if len(self._cache) > _CACHED:
            del self._cache[next(iter(self._cache))]
        return definition

    def define_once(self, obj: object) -> Definition:
        """Return the definition of any callable as it is now; what changes in it is not followed.

        Nor is it put back in a worker, where what it captured lasts until the call ends.
        """
        try:
            data = pickle.dumps(obj, PROTOCOL)
            if not needs_value(data):
                return Definition(next(self._tokens), obj, data, (), None)
        except PICKLING_ERRORS:
            pass
        data, requires, uses = self._apart(lambda: dumps_by_value(obj, self._reduce))
        return Definition(next(self._tokens), obj, data, requires, None, uses)

    def dumps_apart(self, obj: object) -> tuple[bytes, tuple[Definition, ...]]:
        """Pickle `obj`, which belongs to no task; return the definitions that it refers to, too."""
        try:
            data = pickle.dumps(obj, PROTOCOL)
            if not needs_value(data):
                return data, ()
        except PICKLING_ERRORS:
            pass
        data, requires, _ = self._apart(lambda: dumps_by_value(obj, self._reduce_class))
        return data, requires

    def _by_name(self, obj: object) -> Definition:
        return Definition(next(self._tokens), obj, pickle.dumps(obj, PROTOCOL), (), None)

    def _by_value(self, obj: object) -> Definition:
        def make() -> tuple[bytes, Capture]:
            data = dumps_by_value(obj, self._reduce)
            return data, Capture(obj, self._dumps_captured, self._own)

        self._making.add(id(obj))
        try:
            (data, capture), requires, uses = self._apart(make)
        finally:
            self._making.discard(id(obj))
        definition = Definition(next(self._tokens), obj, data, requires, capture, uses)
        if isinstance(obj, type):
            self._referred[definition.token] = obj
            _defined[self.call] = self  # only calls with references are looked up
        return definition

    def _apart(self, make: Callable[[], _T]) -> tuple[_T, tuple[Definition, ...], list[Any]]:
        """Return what `make` does, the definitions that it refers to, and what is to be kept."""
        outer, self._used = self._used, {}
        outer_files = self.take_files()
        uses: list[Any] = []
        self._captures += 1
        arrays = self.arrays
        if arrays is not None:
            outer_uses, arrays.uses = arrays.uses, uses
        try:
            made = make()
            uses += self.take_files()
            return made, tuple(self._used.values()), uses
        finally:
            self._used = outer
            self._captures -= 1
            if self._files is not None:
                self._files.uses = {id(held): held for held in outer_files}
            if arrays is not None:
                arrays.uses = outer_uses

    def dumps(self, obj: object) -> bytes:
        """Pickle `obj`: classes that go by value and large arrays as references.

        See `take_used` for the former and `arrays` for the latter.
        """
        arrays = self.arrays
        if arrays is None:
            return dumps(obj, self._reduce)
        return self._dumps_by(self.pickler, obj, arrays.hand_over)

    def renew_pickler(self) -> None:
        """After a large object: clearing its memo would take as long for each small one."""
        self._pickler = None

    def dumps_by_value(self, obj: object) -> bytes:
        """Pickle `obj` as `dumps` does what the C pickler would name, or has refused."""
        arrays = self.arrays
        if arrays is None:
            return dumps_by_value(obj, self._reduce)
        arrays.buffers.clear()  # of the attempt before
        return dumps_by_value(obj, self._reduce, arrays.hand_over)

    def _dumps_captured(self, value: object) -> bytes:
        """Pickle what a function captured, for comparison: buffers stay within."""
        arrays = self.arrays
        if arrays is None:
            return dumps(value, self._reduce)
        if self._comparer is None:
            self._comparer = TaskPickler(arrays.reduce, keep_within)
        return self._dumps_by(self._comparer, value, keep_within)

    def _dumps_by(self, pickler: TaskPickler, obj: object, hand_over: HandOver) -> bytes:
        buffers = [] if self._arrays is None else self._arrays.buffers
        before = len(buffers)
        try:
            data = pickler.dumps(obj)
            if not needs_value(data):
                return data
        except PICKLING_ERRORS:
            pass
        del buffers[before:]
        return dumps_by_value(obj, self._reduce, hand_over)

    @property
    def refers(self) -> bool:
        """Whether pickles made since the last call of `take_used` refer to definitions."""
        return bool(self._used)

    def take_used(self) -> dict[int, Definition]:
        """Return the definitions that pickles made since the last call refer to."""
        used, self._used = self._used, {}
        return used

    def send_once(self, obj: object, key: Hashable) -> Any:
        """Return how `obj` is pickled that stands for all with the same `key` in this call.

        As by `define_once`, of whose definitions one is made for each key.
        """
        definition = self._sent_once.get(key)
        if definition is None:
            self._making.add(id(obj))
            try:
                definition = self._sent_once[key] = self.define_once(obj)
            finally:
                self._making.discard(id(obj))
            if len(self._sent_once) > _CACHED:
                del self._sent_once[next(iter(self._sent_once))]
        return self._refer(definition)

    def _refer(self, definition: Definition) -> Any:
        for needed in (definition, *definition.requires):
            self._used[needed.token] = needed
        return resolve, (self.call, definition.token)

    def _reduce_at_once(self, obj: object) -> Any:
        """Say for the C pickler how `obj` is pickled, so that cloudpickle need not do all again."""
        if self._arrays is not None:
            reduced = self._arrays.reduce(obj)
            if reduced is not NotImplemented:
                return reduced
        kind = type(obj)
        if kind in forms and id(obj) not in self._making:
            return forms[kind](self, obj)
        if isinstance(obj, type) and obj.__module__ == "__main__":
            return self._reduce_class(obj)
        return NotImplemented

    def take_files(self) -> list[Held]:
        """Return what has to be kept for open files in pickles made since the last call."""
        return [] if self._files is None else self._files.take_uses()

    def take_weight(self) -> int:
        """Return as how many bytes the files count that were met since the last call."""
        return 0 if self._files is None else self._files.take_weight()

    def reduce_open(self, obj: object) -> Any:
        """Return how an open file or a socket is pickled, for ``reducer_override``."""
        if not is_open_file(obj):
            return NotImplemented
        if self._files is None:
            from parallel_core.tasks.open_files import OpenFiles

            self._files = OpenFiles(self._passes_descriptors)
        if self._captures:
            return self._files.reduce_captured(obj)
        return self._files.reduce(obj)

    def reduce_captured(self, obj: object) -> Any:
        """Return the same of what a function captures."""
        self._captures += 1
        try:
            return self.reduce_open(obj)
        finally:
            self._captures -= 1

    def _reduce(self, obj: object) -> Any:
        reduced = self.reduce_open(obj)
        if reduced is NotImplemented:
            reduced = self._reduce_at_once(obj)
        return self._reduce_class(obj) if reduced is NotImplemented else reduced

    def _reduce_class(self, obj: object) -> Any:
        if isinstance(obj, type) and id(obj) not in self._making and goes_by_value(obj):
            return self._refer(self.define(obj))
        return NotImplemented


def keep_within(buffer: pickle.PickleBuffer) -> bool:
    """Have `buffer` be part of the pickle, for `TaskPickler`."""
    del buffer
    return True


def stored_globals(function: object) -> frozenset[str]:
    """Return the globals that an initializer sets, when it goes by value to workers."""
    if isinstance(function, FunctionType) and goes_by_value(function):
        return names_stored(function.__code__)
    return frozenset()
