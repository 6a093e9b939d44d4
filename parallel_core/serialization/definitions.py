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
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from parallel_core.serialization.capture import Capture
from parallel_core.serialization.large import (
    LARGE_VALUE,
    Indivisible,
    LargeValues,
    Reference,
    SharedPart,
    parts_over,
)
from parallel_core.serialization.lasting import sent_functions
from parallel_core.serialization.met_files import MetFiles
from parallel_core.serialization.opened import is_open_file
from parallel_core.serialization.pickling import (
    PICKLING_ERRORS,
    PROTOCOL,
    HandOver,
    TaskPickler,
    dumps,
    dumps_by_name,
    dumps_by_value,
    dumps_referring,
    goes_by_value,
    keep_within,
    modules_by_value,
    needs_value,
)
from parallel_core.serialization.resolving import defined, resolve

from parallel_core.serialization import variables as variables  # isort: skip - so that they are pickled

if TYPE_CHECKING:
    from memmapping.reducer import ArrayReducer


_T = TypeVar("_T")
Refer = Callable[[object], "Reference | None"]
_LARGE_WATCHED = 64  # groups of large values; each that is known is kept
_CACHED = 256  # definitions kept for reuse; a generator may yield a new lambda each time

_calls = itertools.count(1)
#: How objects of some types are pickled in tasks; NotImplemented: as ever. Types of libraries that
#: carry from task to task what need not go along; see `parallel_core.bridge`.
forms: dict[type, Callable[[Definitions, Any], Any]] = {}


def may_hold_arrays() -> bool:
    """Whether an argument can have anything to do with shared memory, in this program."""
    modules = sys.modules
    return "numpy" in modules or "memmapping.sharing" in modules


#: A definition on the wire: its pickle, whether it captures mutable state, and whether it lasts.
SentDefinition = tuple[bytes, bool, bool]


class Definition:
    """A function or class in the form in which it goes to workers."""

    __slots__ = (
        "captures_mutable_state",
        "data",
        "lasts",
        "obj",
        "requires",
        "token",
        "uses",
        "watch",
    )

    def __init__(
        self,
        token: int,
        obj: object,
        data: bytes,
        requires: tuple[Definition, ...],
        capture: Capture | None,
        uses: list[Any] | None = None,
        large: LargeValues | None = None,
    ) -> None:
        self.token = token  #: its number within the call
        self.uses = uses  #: what has to be kept for the arrays that it captured
        self.obj = obj
        self.data = data
        self.requires = requires  #: the classes that `data` refers to by token
        self.captures_mutable_state = capture is not None and capture.captures_mutable_state
        self.lasts = False  #: whether workers may keep it for other calls
        #: Says whether what it captured is unchanged; None when nothing can change.
        self.watch: Callable[[], bool] | None = None
        if capture is not None:
            self.watch = watch = capture.watch()
            if large is not None:
                self.watch = lambda: watch() and large.is_unchanged()

    def sent(self) -> SentDefinition:
        """Return what a worker is sent."""
        return self.data, self.captures_mutable_state, self.lasts


class Definitions:
    """The parent's side: what one call has defined so far."""

    def __init__(
        self,
        own: frozenset[str] = frozenset(),
        make_arrays: Callable[[], ArrayReducer] | None = None,
        passes_descriptors: bool = False,
    ) -> None:
        self.call = f"{os.getpid()}.{next(_calls)}"  #: names them, in this process and in workers
        self.needed: dict[int, Definition] = {}  #: definitions that every batch brings, by token
        self._own = own  #: globals that the call's initializer sets in each worker
        #: Returns the reducer for large arrays, when there is first need of it.
        self._make_arrays = make_arrays
        self._arrays: ArrayReducer | None = None
        self.files = MetFiles(passes_descriptors)  #: open files that pickles have met
        self._pickler: TaskPickler | None = None
        self._comparer: TaskPickler | None = None
        self._tokens = itertools.count()
        self._cache: dict[int, Definition] = {}
        self._referred: dict[int, object] = {}
        self._making: set[int] = set()
        self._used: dict[int, Definition] = {}
        self._sent_once: dict[Hashable, Definition] = {}
        self._large: dict[int, LargeValues] = {}
        self._holders: dict[int, tuple[object, LargeValues, Definition]] = {}

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
        """Return the caller's own class for a reference that came back in a result.

        Of large values, which a task refers to that is run here, it is a copy.
        """
        found = self._referred[token]
        return pickle.loads(found.data) if type(found) is LargeValues else found

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
        named = dumps_by_name(obj)
        if named is not None:
            return Definition(next(self._tokens), obj, named, (), None)
        data, requires, uses = self._apart(lambda: dumps_by_value(obj, self._reduce))
        return Definition(next(self._tokens), obj, data, requires, None, uses)

    def dumps_apart(self, obj: object) -> tuple[bytes, tuple[Definition, ...]]:
        """Pickle `obj`, which belongs to no task; return the definitions that it refers to, too."""
        named = dumps_by_name(obj)
        if named is not None:
            return named, ()
        data, requires, _ = self._apart(lambda: dumps_by_value(obj, self._reduce_class))
        return data, requires

    def _by_name(self, obj: object) -> Definition:
        return Definition(next(self._tokens), obj, pickle.dumps(obj, PROTOCOL), (), None)

    def _by_value(self, obj: object) -> Definition:
        self._making.add(id(obj))
        try:
            made, requires, uses = self._apart(lambda: self._capture(obj))
        finally:
            self._making.discard(id(obj))
        data, capture, large = made
        definition = Definition(next(self._tokens), obj, data, requires, capture, uses, large)
        if capture.lasts and isinstance(obj, FunctionType) and not (requires or uses or self._own):
            definition.lasts = True
            sent_functions.keep(obj, capture, data)
        if isinstance(obj, type):
            self._referred[definition.token] = obj
            defined[self.call] = self  # only calls with references are looked up
        return definition

    def _capture(self, obj: object) -> tuple[bytes, Capture, LargeValues | None]:
        """Pickle `obj`, which goes by value; return also what it captured."""
        capture = Capture(obj, self._dumps_captured, self._own)
        parts = capture.large_parts()
        if not parts:
            return self._dumps_function(obj, capture), capture, None

        def make(large: LargeValues, refer: Refer) -> tuple[bytes, Capture]:
            data = dumps_referring(obj, refer, self._reduce)

            def dumps_small(value: object) -> bytes:
                try:
                    return dumps_referring(value, refer, self._reduce)
                except SharedPart:
                    return b"something else than before"

            return data, Capture(obj, dumps_small, self._own, large)

        try:
            (data, capture), large, _ = self._set_apart(parts, make)
        except Indivisible:
            return dumps_by_value(obj, self._reduce), capture, None
        return data, capture, large

    def _dumps_function(self, obj: object, capture: Capture) -> bytes:
        """Pickle `obj` by value; a function that lasts is not pickled again."""
        data = None
        if capture.lasts and isinstance(obj, FunctionType) and not modules_by_value():
            data = sent_functions.find(obj, capture)
        return dumps_by_value(obj, self._reduce) if data is None else data

    def _set_apart(
        self, parts: list[tuple[str, object]], make: Callable[[LargeValues, Refer], _T]
    ) -> tuple[_T, LargeValues, Definition]:
        """Define large values; return also what `make` returns, which pickles around them."""
        large = LargeValues(self.call, next(self._tokens), parts)
        definition = self._define_large(large)
        n_values = len(large)
        made = make(large, self._refer_to(large, definition))
        if len(large) > n_values:  # parts of them are referred to as well
            new = self._define_large(large)
            definition.data, definition.requires, definition.uses = new.data, new.requires, new.uses
        making = frozenset(self._making)

        def dumps_again() -> bytes:
            outer, self._making = self._making, self._making | making
            try:
                return self._apart(lambda: self._dumps_large(large))[0]
            finally:
                self._making = outer

        large.seal(definition.data, dumps_again)
        self._referred[large.token] = large
        defined[self.call] = self
        self._large[large.token] = large
        if len(self._large) > _LARGE_WATCHED:
            del self._large[next(iter(self._large))]
        return made, large, definition

    def _define_large(self, large: LargeValues) -> Definition:
        data, requires, uses = self._apart(lambda: self._dumps_large(large))
        return Definition(large.token, large, data, requires, None, uses)

    def _dumps_large(self, large: LargeValues) -> bytes:
        def reduce(obj: object) -> Any:
            if is_open_file(obj):
                raise Indivisible
            large.note(obj)
            return self._reduce_at_once(obj)

        def reduce_any(obj: object) -> Any:
            reduced = reduce(obj)
            return self._reduce_class(obj) if reduced is NotImplemented else reduced

        try:
            data = TaskPickler(reduce, keep_within).dumps(large.loading)
            if not needs_value(data):
                return data
        except PICKLING_ERRORS:
            pass
        return dumps_by_value(large.loading, reduce_any)

    def _refer_to(self, large: LargeValues, definition: Definition) -> Refer:
        def refer(obj: object) -> Reference | None:
            reference = large.refer(obj)
            if reference is not None:
                for needed in (definition, *definition.requires):
                    self._used[needed.token] = needed
            return reference

        return refer

    def holds_large(self, holder: object) -> bool:
        """Whether a task has been pickled around large values of `holder`."""
        return id(holder) in self._holders

    def dumps_around(self, task: tuple[Any, ...], holder: object) -> bytes | None:
        """Pickle a task around the large values of `holder`, whose method or call it is.

        None: there are none, or arguments belong to them, so that it has to be pickled as ever.
        """

        def make(large: LargeValues, refer: Refer) -> bytes:
            return self._dumps_referring(task, refer)

        known = self._holders.get(id(holder))
        try:
            if known is None:
                if len(self._dumps_captured(holder)) < LARGE_VALUE:
                    return None  # the arguments are what is large
            elif known[1].is_unchanged():
                data = self._dumps_referring(task, self._refer_to(known[1], known[2]))
                if len(data) < LARGE_VALUE or not self._has_more(holder, *known[1:]):
                    return data
            words = f"the {type(holder).__name__} that is called"
            parts = list(parts_over(words, holder, self._dumps_captured))
            data, large, definition = self._set_apart(parts, make)
        except (SharedPart, Indivisible):
            return None
        self._holders[id(holder)] = holder, large, definition
        if len(self._holders) > _LARGE_WATCHED:
            del self._holders[next(iter(self._holders))]
        return data

    def _dumps_referring(self, obj: object, refer: Refer) -> bytes:
        arrays = self.arrays
        if arrays is None:
            return dumps_referring(obj, refer, self._reduce)
        arrays.buffers.clear()  # of an attempt before
        return dumps_referring(obj, refer, self._reduce, arrays.hand_over)

    def _has_more(self, holder: object, large: LargeValues, definition: Definition) -> bool:
        """Whether `holder` has got large values that were not there when the others were found."""
        refer = self._refer_to(large, definition)
        return len(dumps_referring(holder, refer, self._reduce)) >= LARGE_VALUE

    def expect_changes(self) -> None:
        """Look at large values for the next task: the caller has had time to change them."""
        for large in self._large.values():
            large.expect_change()

    def settle_large(self) -> None:
        """Make sure that the tasks so far were handed out with large values as they are now.

        Raises
        ------
        ChangedValueError
            When one has changed, and some went without a look at it.
        """
        for large in self._large.values():
            large.settle()

    def _apart(self, make: Callable[[], _T]) -> tuple[_T, tuple[Definition, ...], list[Any]]:
        """Return what `make` does, the definitions that it refers to, and what is to be kept."""
        outer, self._used = self._used, {}
        outer_files = self.files.begin_capture()
        uses: list[Any] = []
        arrays = self.arrays
        if arrays is not None:
            outer_uses, arrays.uses = arrays.uses, uses
        try:
            made = make()
            uses += self.files.take_uses()
            return made, tuple(self._used.values()), uses
        finally:
            self._used = outer
            self.files.end_capture(outer_files)
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

    def _reduce(self, obj: object) -> Any:
        reduced = self.files.reduce(obj)
        if reduced is NotImplemented:
            reduced = self._reduce_at_once(obj)
        return self._reduce_class(obj) if reduced is NotImplemented else reduced

    def _reduce_class(self, obj: object) -> Any:
        if isinstance(obj, type) and id(obj) not in self._making and goes_by_value(obj):
            return self._refer(self.define(obj))
        return NotImplemented
