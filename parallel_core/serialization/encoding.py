"""Arguments are taken at the moment when the task is yielded.

Values that cannot change (`SCALARS`, and numpy's scalars) ride in the batch as they are, and so
does a copy of a short list of them. When any argument of a task is something else, the task's
arguments are pickled there and then, alone, so that nothing the generator does later reaches them
and no two tasks share an object in a worker.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from time import monotonic
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from memmapping.modules import loaded
from parallel_core.serialization.batch import NO_TOKEN, PICKLED, Batch, Run, run_length
from parallel_core.serialization.capture import SCALARS, refers_by_name
from parallel_core.serialization.definitions import Definition, Definitions, may_hold_arrays
from parallel_core.serialization.handles import to_send
from parallel_core.serialization.large import LARGE_VALUE
from parallel_core.serialization.pickling import (
    CONNECTION,
    MAIN,
    PICKLING_ERRORS,
    PROTOCOL,
    explain,
    modules_by_value,
    why_not_picklable,
)
from parallel_core.serialization.repeats import LARGE, RepeatedArguments
from parallel_core.tasks.description import describe_call, describe_task, function_name

if TYPE_CHECKING:
    from memmapping.reducer import ArrayReducer

#: A function and its keyword arguments in a form that does as well, unless these bytes are in it.
Slimmed = tuple[Any, dict[str, Any], bytes]
#: For callable objects of some types: what returns this form of a task, where there is one.
slimmers: dict[type, Callable[[Any, dict[str, Any]], Slimmed | None]] = {}

_SMALL_PICKLE = 1 << 14  # bytes; a smaller one is not measured each time
_FLAT = 64  # items of a list that is copied; looking at more takes as long as pickling them
_FLAT_NBYTES = 1 << 12  # of text and bytes in it
_LEARNED = 1000  # types remembered; a program may make more

#: The scalars whose size needs no counting.
SMALL = frozenset({int, float, bool, complex, type(None)})


class BatchBuilder:
    """Encodes the tasks of one call into batches.

    The dispatcher's pull loop appends the commonest form of a task itself: while `function`,
    `arity` and `watch` fit and the arguments are `SMALL`, it extends `payload`. Everything else
    goes through `add`, which starts a new run when it must.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions  #: those of the call
        self._start = 0
        self._closed = 0  # tasks in all runs but the last
        self._by_name = True
        self._connects = False
        self._arrays: ArrayReducer | None = None
        self.repeats = RepeatedArguments()
        #: Seconds of pickling arguments. Where these are small, a task of each batch is measured.
        self.seconds = 0.0
        self.shared_nbytes = 0  #: how much memory was copied to be shared, in all
        self._measured = 0  # tasks of this batch, and their seconds
        self._measured_seconds = 0.0
        self._encode: Callable[[tuple[Any, ...], dict[str, Any]], None] = self._add_measured
        self._runs: list[Run] = []
        self._used: dict[int, Definition] = {}
        self.nbytes = 0
        self.function: Callable[..., Any] | None = None
        self.watch: Callable[[], bool] | None = None
        self.token = NO_TOKEN
        self._run_token = NO_TOKEN
        self._definition: Definition | None = None
        self.arity = PICKLED
        self.payload: list[Any] = []

    def __len__(self) -> int:
        return self._closed + (run_length(self._runs[-1]) if self._runs else 0)

    def begin(self, start: int) -> None:
        """Start a batch whose first task has position `start`."""
        self._start = start
        self._runs = []
        self._closed = 0
        self._used = {}
        self.nbytes = 0
        self._by_name = not modules_by_value()
        self._connects = "multiprocessing.connection" in sys.modules
        self._arrays = self._definitions.arrays
        self.arity = PICKLED  # so that the first task goes through `add`
        self._measured, self._measured_seconds = 0, 0.0
        self._encode = self._add_measured

    def settle(self) -> None:
        """Note that there are no more tasks.

        Raises
        ------
        ChangedValueError
            When a large value has changed, and some tasks have gone without.
        """
        self._definitions.settle_large()

    def drop_attempt(self) -> None:
        """Forget what is left of a task that did not pickle."""
        if self._arrays is not None:
            self._arrays.buffers = []
            self._arrays.copied_nbytes = 0
        self._definitions.take_used()

    def finish(self, size: int) -> Batch:
        """Return the batch of the `size` tasks added since `begin`."""
        self._used.update(self._definitions.needed)
        if self._measured:
            tasks = sum(len(payload) for _, arity, payload in self._runs if arity == PICKLED)
            self.seconds += self._measured_seconds * tasks / self._measured
        batch = Batch(self._start, size, self._runs, self._used, self.nbytes)
        if self._arrays is not None and self._arrays.uses:
            batch.uses, self._arrays.uses = self._arrays.uses, []
        files = self._definitions.files.take_uses()
        if files:
            batch.uses = [*batch.uses, *files]
        return batch

    def add(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Encode one task.

        Raises
        ------
        SerializationError
            When the function or an argument does not pickle; it names the part at fault.
        """
        if function is not self.function or not (self.watch is None or self.watch()):
            if not is_definable(function):
                if self._measured:
                    self._add_with_function(function, args, kwargs)
                else:
                    began = monotonic()
                    self._add_with_function(function, args, kwargs)
                    self._note_measured(monotonic() - began)
                return
            self._define(function, args, kwargs)
        self.add_arguments(args, kwargs)

    def add_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Encode a task of the current `function`, which has just been watched."""
        nbytes = -1 if kwargs else plain_size(args)
        if nbytes < 0 and not kwargs and (flat := flat_copy(args)) is not None:
            args, nbytes = flat
        if nbytes < 0:
            if self.arity != PICKLED or self._run_token != self.token or not self._runs:
                self._open(self.token, PICKLED)
            self._encode(args, kwargs)
            return
        arity = len(args)
        if arity != self.arity or self._run_token != self.token or not self._runs:
            self._open(self.token, arity)
        self.nbytes += nbytes
        if arity:
            self.payload += args
        else:
            self.payload.append(None)

    def _add_measured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Do as `_add_pickled`, and measure how long it takes."""
        nbytes, began = self.nbytes, monotonic()
        self._add_pickled(args, kwargs)
        self._note_measured(monotonic() - began)
        if self.nbytes - nbytes < _SMALL_PICKLE:
            self._encode = self._add_pickled

    def _note_measured(self, seconds: float) -> None:
        self._measured += 1
        self._measured_seconds += seconds

    def _add_pickled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._arrays is None and may_hold_arrays():
            self._arrays = self._definitions.arrays  # numpy was imported after `begin`
        arrays = self._arrays
        if arrays is not None:
            args, kwargs = to_send(args, kwargs)
        try:
            if arrays is None:
                data = pickle.dumps((args, kwargs), PROTOCOL)
            else:
                data = self._definitions.pickler.dumps((args, kwargs))
            if MAIN in data or not self._by_name or (self._connects and CONNECTION in data):
                data = self._definitions.dumps_by_value((args, kwargs))
            if self._definitions.refers:
                self._used.update(self._definitions.take_used())
        except Exception:
            if arrays is not None:
                arrays.buffers.clear()  # of the attempt that failed
            data = self._dumps_or_explain(self.token, self.function, args, kwargs)
        self._append(data)
        if len(data) >= LARGE:
            self._definitions.renew_pickler()
            self.repeats.note(self.function, args, kwargs, len(data))

    def _append(self, data: bytes) -> None:
        """Add the pickle of a task, with the buffers that belong to it."""
        arrays = self._arrays
        if arrays is not None and arrays.copied_nbytes:
            self.nbytes += arrays.copied_nbytes
            self.shared_nbytes += arrays.copied_nbytes
            arrays.copied_nbytes = 0
        if arrays is not None and arrays.buffers:
            self.payload.append((data, arrays.buffers))
            arrays.buffers = []
        else:
            self.payload.append(data)
        self.nbytes += len(data)

    def _add_with_function(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Encode a task whose function, a bound method say, is one more argument."""
        args, kwargs = to_send(args, kwargs)
        data: bytes | None = None
        lighten = slimmers.get(type(function))
        if lighten is not None and (light := lighten(function, kwargs)) is not None:
            lightened, fewer, mark = light
            data = self._dumps_or_explain(NO_TOKEN, lightened, args, fewer)
            if mark in data:
                self.drop_attempt()
                data = None
        around: bytes | None = None
        if data is None:
            holder = holder_of(function)
            is_known = self._definitions.holds_large(holder)
            if is_known:
                around = self._dumps_around(function, args, kwargs, holder)
            if around is None:
                data = self._dumps_or_explain(NO_TOKEN, function, args, kwargs)
                if len(data) >= LARGE_VALUE and holder is not None and not is_known:
                    around = self._dumps_around(function, args, kwargs, holder)
                    if around is None:  # buffers of the first attempt are gone
                        data = self._dumps_or_explain(NO_TOKEN, function, args, kwargs)
        if self._run_token != NO_TOKEN or not self._runs:
            self._open(NO_TOKEN, PICKLED)
        if around is not None:
            self._append(around)
            if type(self.payload[-1]) is bytes:
                self.payload[-1] = around, []
        elif data is not None:
            self._append(data)

    def _dumps_around(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        holder: object,
    ) -> bytes | None:
        """Pickle a task around what is large of the object whose method it calls, if it can be."""
        self.drop_attempt()
        try:
            data = self._definitions.dumps_around((function, args, kwargs), holder)
        except PICKLING_ERRORS:
            data = None  # the usual way says what is wrong
        if data is None:
            self.drop_attempt()
            return None
        self._used.update(self._definitions.take_used())
        self.nbytes += self._definitions.files.take_weight()
        return data

    def _define(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Make `function` the one that the following tasks are expected to have."""
        try:
            definition = self._definitions.define(function)
        except Exception as error:
            name = f"the function {function_name(function)}"
            raise explain(
                self._describe(function, args, kwargs),
                function,
                name,
                error,
                self._definitions.files.reduce_captured,
            ) from error
        self.function, self.watch, self.token = function, definition.watch, definition.token
        self._definition = definition

    def _dumps(self, task: tuple[Any, ...]) -> bytes:
        data = self._definitions.dumps(task)
        self._used.update(self._definitions.take_used())
        self.nbytes += self._definitions.files.take_weight()
        return data

    def _dumps_or_explain(
        self,
        token: int,
        function: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> bytes:
        try:
            return self._dumps((args, kwargs) if token != NO_TOKEN else (function, args, kwargs))
        except Exception as error:
            what = self._describe(function, args, kwargs)
            obj, name = self._at_fault(token, function, args, kwargs)
            raise explain(what, obj, name, error, self._definitions.files.reduce) from error

    def _open(self, token: int, arity: int) -> None:
        self._closed = len(self)
        self._run_token, self.arity, self.payload = token, arity, []
        self._runs.append((token, arity, self.payload))
        if token != NO_TOKEN and self._definition is not None:
            for needed in (self._definition, *self._definition.requires):
                self._used[needed.token] = needed

    def _describe(
        self, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str:
        return describe_task(self._start + len(self), describe_call(function, args, kwargs))

    def _at_fault(
        self,
        token: int,
        function: Callable[..., Any] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[object, str]:
        parts: list[tuple[object, str]] = []
        if token == NO_TOKEN:
            parts.append((function, f"the function {function_name(function)}"))
        parts += [(value, f"argument {index}") for index, value in enumerate(args)]
        parts += [(value, f"argument {name!r}") for name, value in kwargs.items()]
        for value, name in parts:
            if why_not_picklable(value, name, self._definitions.files.reduce) is not None:
                return value, name
        return (args, kwargs), "the arguments"


def is_definable(function: object) -> bool:
    """Whether `function` is sent once a call; methods, partials and objects go with each task."""
    return isinstance(function, (FunctionType, type)) or refers_by_name(function)


def holder_of(function: Callable[..., Any]) -> object | None:
    """Return the object whose method `function` is, or itself if it is an object that is called.

    None: what it holds are arguments of tasks, or belongs to a function.
    """
    if isinstance(function, MethodType):
        owner: object = function.__self__
        return None if isinstance(owner, (type, ModuleType)) else owner
    kind = type(function)
    is_wrapper = kind.__module__ in ("functools", "builtins") or isinstance(function, type)
    return None if is_wrapper else function


_immutable = set(SCALARS)
_mutable: set[type] = {list, dict, tuple, set}


def plain_size(args: tuple[Any, ...] | list[Any]) -> int:
    """Return the bytes in `args` when none of them can change, else -1."""
    size = 0
    for value in args:
        kind = type(value)
        if kind not in _immutable and (kind in _mutable or not _learn(kind)):
            return -1
        if kind is str or kind is bytes:
            size += len(value)
    return size


def is_flat(value: Any) -> bool:
    """Whether a list or tuple is short, and holds only what cannot change."""
    if len(value) > _FLAT:
        return False
    return SMALL.issuperset(map(type, value)) or 0 <= plain_size(value) <= _FLAT_NBYTES


def flat_copy(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], int] | None:
    """Return a copy of `args` that nobody else can change, and its bytes; None if it takes more.

    Besides what cannot change it may hold flat tuples and one flat list.
    """
    copies = []
    nbytes = lists = 0
    for value in args:
        kind = type(value)
        if kind is list or kind is tuple:
            if not is_flat(value):
                return None
            nbytes += 8 * len(value)
            if kind is list:
                lists += 1
                copies.append(value.copy())
                continue
        elif (size := plain_size((value,))) >= 0:
            nbytes += size
        else:
            return None
        copies.append(value)
    if lists > 1:  # they may be one, and the task has to see them as one
        return None
    return tuple(copies), nbytes


def _learn(kind: type) -> bool:
    """Note which it is for a type not met before; numpy's number types cannot change either."""
    numpy = loaded("numpy")
    if kind.__module__ == "numpy" and numpy and issubclass(kind, (numpy.number, numpy.bool_)):
        _immutable.add(kind)
        return True
    if len(_mutable) < _LEARNED:
        _mutable.add(kind)
    return False


def is_scalar(value: object) -> bool:
    """Whether `value` may ride in a frame as it is."""
    return plain_size((value,)) >= 0
