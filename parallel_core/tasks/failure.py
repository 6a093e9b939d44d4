"""An exception on its way from a worker to the caller.

It should arrive as itself: same type, same arguments, same attributes, with the worker's
traceback as its cause. `pickle` rebuilds an exception by calling its class with ``args``, which
fails for every class whose ``__init__`` takes something else; such an exception is rebuilt
without calling ``__init__``. What cannot be rebuilt at all arrives as `RemoteError`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from types import TracebackType
from typing import Any

from parallel_core.errors import RemoteError, RemoteTraceback, TaskExitError, add_note

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
    """Pickle `error` in the first form that can be read back."""
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, (int, str)) else repr(error.code)
        return pickle.dumps((_exited, (code,)))
    cause, context = error.__cause__, error.__context__
    attempts: list[Callable[[], object]] = [
        lambda: error,
        lambda: _Rebuilt(type(error), error.args, dict(error.__dict__)),
        lambda: _Rebuilt(type(error), error.args, {}),
        lambda: _Rebuilt(type(error), tuple(map(_plain, error.args)), {}),
    ]
    for attempt in attempts:
        try:
            data = dumps(attempt())
            back = pickle.loads(data)
        except Exception:  # the next form is tried
            continue
        finally:
            error.__cause__, error.__context__ = cause, context
        if type(back) is type(error) or isinstance(back, _Rebuilt):
            return data
        if type(back).__qualname__ == type(error).__qualname__:
            return data  # a class that went by value is another object when it comes back
    return pickle.dumps(RemoteError(_message(error), _type_name(error)))


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
    add_note(rebuilt, note)
    return rebuilt


def exited(error: SystemExit, note: str) -> TaskExitError:
    """Return what a ``sys.exit`` of a task is turned into, wherever the task ran."""
    return _exited(note, error.code)


def _exited(note: str, code: object) -> TaskExitError:
    return TaskExitError(f"{note} called sys.exit({code!r})", code)


class _Rebuilt:
    """An exception in parts, put together again without its ``__init__``."""

    def __init__(
        self, cls: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]
    ) -> None:
        self.cls = cls
        self.args = args
        self.attributes = attributes

    def exception(self) -> BaseException:
        try:
            error = self.cls.__new__(self.cls, *self.args)
        except Exception:
            error = BaseException.__new__(self.cls)
        error.args = self.args
        error.__dict__.update(self.attributes)
        return error


def _plain(value: object) -> object:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return repr(value)
    return value


def _message(error: BaseException) -> str:
    try:
        return f"{_type_name(error)}: {error}"
    except Exception:
        return _type_name(error)


def _type_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"
