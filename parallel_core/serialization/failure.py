"""An exception on its way from a worker to the caller.

It should arrive as itself: same type, same arguments, same attributes, with the worker's
traceback as its cause. `pickle` rebuilds an exception by calling its class with ``args``, which
fails for every class whose ``__init__`` takes something else; such an exception is rebuilt
without calling ``__init__``. What cannot be rebuilt at all arrives as `RemoteError`.
"""

from __future__ import annotations

import builtins
import os
import pickle
from collections.abc import Callable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType
from typing import Any

from parallel_core.errors import RemoteError, RemoteTraceback, TaskExitError

NoneType = type(None)
_MEMBERS = (MemberDescriptorType, GetSetDescriptorType)
Dumps = Callable[[object], bytes]


_OWN_FILES = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def traceback_text(error: BaseException) -> str:
    """Return the traceback of `error` as text, without the outermost frames that are ours."""
    import traceback

    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
        trace = trace.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception as broken:
        return f"{type(error).__name__}, whose traceback cannot be shown: {broken!r}\n"


def pack(error: BaseException, dumps: Dumps) -> tuple[bytes, str]:
    """Return what travels: a pickle that is known to unpickle, and the traceback as text."""
    return pickle_exception(error, dumps), traceback_text(error)


def pickle_exception(error: BaseException, dumps: Dumps) -> bytes:
    """Pickle `error` in the first form that can be read back as the same."""
    if isinstance(error, SystemExit):
        code: object = error.code
        if not isinstance(code, (int, str, NoneType)):
            code = repr(code)
        return pickle.dumps((_exited, (code,)))
    for form in _forms(error, dumps):
        try:
            data = dumps(form)
            if _is_same(pickle.loads(data), error):
                return data
        except Exception:  # the next form is tried
            continue
    return pickle.dumps(RemoteError(_message(error), _type_name(error)))


def _forms(error: BaseException, dumps: Dumps) -> Iterator[object]:
    """Yield what may be pickled for `error`, the most faithful first."""
    yield error
    attributes = _attributes(error)
    kind = type(error)
    if isinstance(error, _group_class()):
        members = [pickle_exception(member, dumps) for member in error.exceptions]
        yield _Rebuilt(kind, (error.message, members), dict(error.__dict__), group=True)
    yield _Rebuilt(kind, error.args, attributes)
    kept = {name: value for name, value in attributes.items() if _pickles(value, dumps)}
    yield _Rebuilt(kind, error.args, kept)
    shown = tuple(arg if _pickles(arg, dumps) else repr(arg) for arg in error.args)
    yield _Rebuilt(kind, shown, kept)


def _is_same(back: object, error: BaseException) -> bool:
    """Whether `back` is `error` as it should arrive; classes that go by value may have doubles."""
    if isinstance(back, _Rebuilt):
        return isinstance(back.exception(), BaseException)
    if type(back).__qualname__ != type(error).__qualname__:
        return False
    if not isinstance(back, BaseException) or str(back) != str(error):
        return False
    before, after = _attributes(error), _attributes(back)
    kept = before.keys() - error.__dict__.keys()  # what pickle by itself forgets
    return before.keys() == after.keys() and all(
        repr(before[name]) == repr(after[name]) for name in kept
    )


def _attributes(error: BaseException) -> dict[str, Any]:
    """Return the attributes of `error`, those in slots and those that C code keeps included."""
    found = {
        name: getattr(error, name)
        for cls in type(error).__mro__
        for name in _slots(cls)
        if hasattr(error, name)
    }
    for cls in type(error).__mro__:
        if cls.__module__ == "builtins" and cls is not BaseException:
            for name, member in vars(cls).items():
                value = getattr(error, name, None) if isinstance(member, _MEMBERS) else None
                if value is not None and not name.startswith("__"):
                    found[name] = value
    return {**found, **error.__dict__}


def _slots(cls: type) -> tuple[str, ...]:
    """Return the names in the ``__slots__`` of `cls` itself."""
    slots = cls.__dict__.get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _pickles(value: object, dumps: Dumps) -> bool:
    try:
        pickle.loads(dumps(value))
    except Exception:
        return False
    return True


def _group_class() -> Any:
    return getattr(builtins, "BaseExceptionGroup", ())


def unpack(data: bytes, text: str, note: str) -> BaseException:
    """Rebuild the exception, its cause the worker's traceback, `note` naming the task."""
    try:
        error = pickle.loads(data)
        if isinstance(error, _Rebuilt):
            error = error.exception()
        elif isinstance(error, tuple):
            make, args = error
            error = make(note, *args)
        rebuilt: object = error
    except Exception as broken:
        last = text.strip().splitlines()[-1:] or ["an exception"]
        error = RemoteError(f"{last[0]} (its exception does not unpickle here: {broken!r})")
        rebuilt = error
    if not isinstance(rebuilt, BaseException):
        rebuilt = RemoteError(f"a task raised something that unpickles to {rebuilt!r}")
    rebuilt.__cause__ = RemoteTraceback(text)
    rebuilt.add_note(note)
    return rebuilt


def exited(error: SystemExit, note: str) -> TaskExitError:
    """Return what a ``sys.exit`` of a task is turned into, wherever the task ran."""
    return _exited(note, error.code)


def named(error: BaseException, what: str) -> BaseException:
    """Return what to raise for a task that raised `error` in this process: with a note of `what`.

    An interrupt is no failure of a task, and stays as it is.
    """
    if isinstance(error, SystemExit):
        return exited(error, what)
    if isinstance(error, Exception):
        error.add_note(what)
    return error


def _exited(note: str, code: object) -> TaskExitError:
    return TaskExitError(f"{note} called sys.exit({code!r})", code)


def load_exception(data: bytes) -> object:
    """Return the exception that `pickle_exception` has pickled, or what came of it."""
    return _exception_of(pickle.loads(data))


class _Rebuilt:
    """An exception in parts, put together again without its ``__init__``."""

    def __init__(
        self,
        cls: type[BaseException],
        args: tuple[Any, ...],
        attributes: dict[str, Any],
        group: bool = False,
    ) -> None:
        self.cls = cls
        self.args = args
        self.attributes = attributes
        self.group = group

    def exception(self) -> BaseException:
        args = self.args
        if self.group:
            message, members = args
            args = (message, [_exception_of(pickle.loads(member)) for member in members])
        try:
            error = self.cls.__new__(self.cls, *args)
        except Exception:
            error = BaseException.__new__(self.cls)
        if not self.group:
            error.args = args
        for name, value in self.attributes.items():
            try:
                setattr(error, name, value)
            except (AttributeError, TypeError):  # what can only be read stays as it is
                continue
        return error


def _exception_of(loaded: Any) -> Any:
    return loaded.exception() if isinstance(loaded, _Rebuilt) else loaded


def _message(error: BaseException) -> str:
    try:
        return f"{_type_name(error)}: {error}"
    except Exception:
        return _type_name(error)


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"
