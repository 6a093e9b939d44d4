"""Pickling that needs no thought of its user's, and that says what was at fault.

The C pickler comes first. It refers to what stands in ``__main__`` by name, and the
``__main__`` of a worker is another one; so when the name appears in what it wrote, or when it
gave up, cloudpickle [1]_ does the work, which takes such functions and classes by value.

.. [1] https://github.com/cloudpipe/cloudpickle
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from time import monotonic
from types import CodeType, CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from memmapping.modules import loaded
from parallel_core.errors import SerializationError
from parallel_core.serialization.opened import is_open_file
from parallel_core.tasks.description import short_repr

if TYPE_CHECKING:
    from cloudpickle import Pickler as CloudPickler

PROTOCOL = 5
#: Whatever refers to the caller's script has this in its pickle.
MAIN = b"__main__"
#: A pickle with this in it may name a descriptor by its number, which is another one elsewhere.
CONNECTION = b"multiprocessing.connection"

_NO_FILE = "<dynamic-code>"  # cloudpickle's word for it
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, or as if

#: What `pickle` raises when it cannot: any of these sends the object to cloudpickle.
PICKLING_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ImportError)

_SEARCH_SECONDS = 0.5  # for what is at fault when something does not pickle
_MOST_STEPS = 10

Reducer = Callable[[object], Any]
HandOver = Callable[[pickle.PickleBuffer], bool]

#: How objects of types that nobody else can pickle are reduced; modules put theirs here.
REDUCERS: dict[type, Reducer] = {}


def needs_value(data: bytes) -> bool:
    """Whether `data`, written by the C pickler, may name what a worker does not have."""
    return (
        MAIN in data
        or ("cloudpickle" in sys.modules and bool(modules_by_value()))
        or ("multiprocessing.connection" in sys.modules and CONNECTION in data)
    )


def modules_by_value() -> set[str]:
    """Modules that the user registered with ``cloudpickle.register_pickle_by_value``."""
    cloudpickle = loaded("cloudpickle")
    if cloudpickle is None:
        return set()
    registered: set[str] = cloudpickle.list_registry_pickle_by_value()
    return registered


def goes_by_value(obj: object) -> bool:
    """Whether the function or class `obj` cannot be imported by a worker under its name."""
    if isinstance(obj, type) and not obj.__flags__ & _HEAP_TYPE:
        return False  # built in; some have no name in any module, but cloudpickle knows them
    module_name = getattr(obj, "__module__", None)
    if not isinstance(module_name, str) or module_name == "__main__":
        return True
    found: object = sys.modules.get(module_name)
    if found is None:
        return True
    for name in getattr(obj, "__qualname__", "<unknown>").split("."):
        found = getattr(found, name, None)
    if found is not obj:
        return True
    by_value = modules_by_value()
    if not by_value:
        return False
    parts = module_name.split(".")
    return any(".".join(parts[:n]) in by_value for n in range(1, len(parts) + 1))


_pickler_class: type[CloudPickler] | None = None


def _reducing_pickler() -> type[CloudPickler]:
    """Return cloudpickle's pickler with a say for us first; imported when first needed."""
    global _pickler_class
    if _pickler_class is None:
        import cloudpickle

        class ReducingPickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
            """Asks `reduce_first` about each object before cloudpickle decides."""

            def __init__(
                self, file: io.BytesIO, reduce_first: Reducer | None, hand_over: HandOver | None
            ) -> None:
                super().__init__(file, protocol=PROTOCOL, buffer_callback=hand_over)
                self.reduce_first = reduce_first

            def reducer_override(self, obj: Any) -> Any:
                reduce = REDUCERS.get(type(obj))
                if reduce is not None:
                    return reduce(obj)
                if isinstance(obj, _wrappers):
                    reduced = _reduce_wrapper(obj)
                    if reduced is not NotImplemented:
                        return reduced
                if self.reduce_first is not None:
                    reduced = self.reduce_first(obj)
                    if reduced is not NotImplemented:
                        return reduced
                if type(obj) is CodeType:
                    return _with_filename(obj, self.dispatch_table[CodeType](obj))
                reduced = super().reducer_override(obj)
                if isinstance(obj, type) and "__slots__" in vars(obj) and not _is_tuple(obj):
                    _keep_slots(obj, reduced)
                return reduced

        _pickler_class = ReducingPickler
    return _pickler_class


_wrappers = (type(functools.lru_cache(repr)), functools.cached_property, MethodType)


def _reduce_wrapper(obj: Any) -> Any:
    """Reduce what cloudpickle would name or refuse: cached functions and properties of a script."""
    if isinstance(obj, MethodType):  # by its object, so that it keeps its class's globals
        name = getattr(obj.__func__, "__name__", "")
        if getattr(obj.__self__, name, None) == obj:
            return getattr, (obj.__self__, name)
        return NotImplemented
    if isinstance(obj, functools.cached_property):
        return _cached_property, (obj.func, obj.attrname)
    if goes_by_value(obj):
        return _cached_function, (obj.__wrapped__, obj.cache_parameters())
    return NotImplemented


def _with_filename(code: CodeType, reduced: Any) -> Any:
    """Put the file of `code` back, for tracebacks: cloudpickle leaves it out since 3.1.3."""
    make, args = reduced[:2]
    return make, tuple(code.co_filename if arg == _NO_FILE else arg for arg in args)


def _is_tuple(cls: type) -> bool:
    return issubclass(cls, tuple)  # typing.NamedTuple sees to its own slots


def _keep_slots(cls: type, reduced: Any) -> None:
    """Have cloudpickle make a class with the slots of `cls`; by itself it forgets them.

    Its way of making classes by value passes what their namespace starts with as a dictionary.
    """
    if isinstance(reduced, tuple) and len(reduced) > 1 and len(reduced[1]) > 3:
        namespace = reduced[1][3]
        if isinstance(namespace, dict):
            namespace["__slots__"] = cls.__dict__["__slots__"]


def _cached_function(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _cached_property(function: Callable[[Any], Any], name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def dumps_by_name(obj: object) -> bytes | None:
    """Pickle `obj`, if nothing in it has to go by value."""
    try:
        data = pickle.dumps(obj, PROTOCOL)
    except PICKLING_ERRORS:
        return None
    return None if needs_value(data) else data


def dumps_by_value(
    obj: object, reduce_first: Reducer | None = None, hand_over: HandOver | None = None
) -> bytes:
    """Pickle with cloudpickle; `reduce_first` may take over objects, `hand_over` buffers."""
    file = io.BytesIO()
    _reducing_pickler()(file, reduce_first, hand_over).dump(obj)
    return file.getvalue()


_referring_class: type[CloudPickler] | None = None


def dumps_referring(
    obj: object, refer: Reducer, reduce_first: Reducer, hand_over: HandOver | None = None
) -> bytes:
    """Pickle as `dumps_by_value`; `refer` says what stands for an object instead, or None."""
    global _referring_class
    if _referring_class is None:

        class ReferringPickler(_reducing_pickler()):  # type: ignore[misc]  # untyped base
            """Asks `refer` about each object, lists and dicts, too."""

            refer: Reducer

            def persistent_id(self, obj: Any) -> Any:
                return self.refer(obj)

        _referring_class = ReferringPickler
    file = io.BytesIO()
    pickler: Any = _referring_class(file, reduce_first, hand_over)
    pickler.refer = refer
    pickler.dump(obj)
    return file.getvalue()


class _Chunks:
    """The least that a pickler takes for a file."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], Any]) -> None:
        self.write = write


class TaskPickler(pickle.Pickler):
    """Pickles one object after the other as `pickle.dumps` does, and as fast."""

    def __init__(self, reduce: Reducer, hand_over: HandOver) -> None:
        self._chunks: list[bytes] = []
        super().__init__(_Chunks(self._chunks.append), PROTOCOL, buffer_callback=hand_over)
        self.reducer_override = reduce  # type: ignore[method-assign]  # where pickle looks for it
        self._hand_over = hand_over  #: asked about each buffer; see ``buffer_callback``
        self._is_busy = False

    def dumps(self, obj: object) -> bytes:
        """Return the pickle of `obj`."""
        if self._is_busy:  # a ``__reduce__`` that has come back here
            return TaskPickler(self.reducer_override, self._hand_over).dumps(obj)
        chunks = self._chunks
        self._is_busy = True
        try:
            self.dump(obj)
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            chunks.clear()
            self.clear_memo()
            self._is_busy = False


def dumps(obj: object, reduce_first: Reducer | None = None) -> bytes:
    """Pickle `obj` by the C pickler where that is right, else by cloudpickle."""
    try:
        data = pickle.dumps(obj, PROTOCOL)
    except PICKLING_ERRORS:
        return dumps_by_value(obj, reduce_first)
    if needs_value(data):
        return dumps_by_value(obj, reduce_first)
    return data


def why_not_picklable(
    obj: object, name: str, reduce_first: Reducer | None = None
) -> tuple[str, BaseException] | None:
    """Find the innermost part of `obj` that does not pickle.

    Parameters
    ----------
    obj : object
        What failed to pickle.
    name : str
        What to call it, ``argument 'lock'`` say.
    reduce_first : callable, optional
        Takes over objects that pickle would refuse.

    Returns
    -------
    tuple of str and exception, or None
        The path to the part at fault with its value, and what it raised; None when the
        object pickles after all.
    """
    path, value = name, obj
    error = _pickling_error(value, reduce_first)
    if error is None:
        return None
    seen = {id(value)}
    until = monotonic() + _SEARCH_SECONDS
    while True:
        if len(seen) > _MOST_STEPS and isinstance(error, RecursionError):
            return f"{path}... (it is nested too deeply: pass it in a flatter form)", error
        advice = _advice_on(value)
        for step, part in () if advice else parts_of(value):
            if monotonic() > until:
                return f"{path}, or something in it", error
            if id(part) in seen:
                continue
            part_error = _pickling_error(part, reduce_first)
            if part_error is not None:
                seen.add(id(part))
                path, value, error = path + step, part, part_error
                break
        else:
            what = f"{path}, {short_repr(value)} of type {type(value).__name__!r}"
            return what + advice, error


#: What these define is for processes that inherit it.
_INHERITED = frozenset(
    f"multiprocessing.{module}" for module in ("queues", "synchronize", "sharedctypes")
)


def _managed(kind: type) -> str:
    """Return what a manager calls its own form of the type `kind` of multiprocessing."""
    if kind.__module__.endswith("sharedctypes"):
        return "Array(...)" if "Array" in kind.__name__ else "Value(...)"
    return f"{kind.__name__.removeprefix('Simple')}()"


def _advice_on(value: object) -> str:
    """Return in brackets what to do instead of pickling `value`, where it is known."""
    if isinstance(value, CoroutineType):
        return " (an async function only makes one: have the task call asyncio.run with it)"
    if type(value).__module__ in _INHERITED:
        return (
            " (multiprocessing hands it only to processes that it starts itself: take "
            f"multiprocessing.Manager().{_managed(type(value))}, whose proxy goes to any worker)"
        )
    logging = loaded("logging")
    if logging is None:
        return ""
    if isinstance(value, logging.Logger):
        return " (pass its name, and have the task call logging.getLogger with it)"
    if isinstance(value, logging.Handler):
        return " (a handler stays here: what tasks log comes to the handlers of this process)"
    return ""


def _pickling_error(obj: object, reduce_first: Reducer | None) -> BaseException | None:
    try:
        dumps(obj, reduce_first)
    except Exception as error:
        return error
    return None


def parts_of(value: object) -> Iterator[tuple[str, object]]:
    """Yield what `value` is made of, each with the words that lead to it."""
    if is_open_file(value):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield f", key {short_repr(key, 40)}", key
            yield f"[{short_repr(key, 40)}]", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield ", an item of the set", item
    elif isinstance(value, FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield f", its variable {name!r}", cell.cell_contents
            except ValueError:
                continue
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f", its global {name!r}", value.__globals__[name]
    else:
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, type(sys)):
            yield ", its object", owner
        for name in ("func", "args", "keywords"):
            if hasattr(value, "func") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            for name, item in attributes.items():
                yield f".{name}", item


def explain(
    what: str,
    obj: object,
    name: str,
    error: BaseException,
    reduce_first: Reducer | None = None,
) -> SerializationError:
    """Return the error that names the task (`what`), the part of `obj` at fault, and why."""
    found = why_not_picklable(obj, name, reduce_first)
    fault, cause = found if found is not None else (f"{name} of type {type(obj).__name__!r}", error)
    explained = SerializationError(
        f"{what}: cannot pickle {fault}: {type(cause).__name__}: {cause}"
    )
    explained.__cause__ = error
    return explained


def keep_within(buffer: pickle.PickleBuffer) -> bool:
    """Have `buffer` be part of the pickle, for `TaskPickler`."""
    del buffer
    return True
