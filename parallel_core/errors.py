"""The errors of the library.

Invalid parameters raise the built-in ``TypeError`` and ``ValueError``. Every other error of the
library is one of the classes below, so ``except ParallelError`` catches it. An exception that a
task raised reaches the caller as itself.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import warnings
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

__all__ = [
    "BackendError",
    "CallCancelledError",
    "CallTimeoutError",
    "ChangedValueError",
    "ContextError",
    "InitializerError",
    "InvalidTaskError",
    "JournalError",
    "LowMemoryError",
    "ParallelError",
    "PerformanceWarning",
    "PreloadError",
    "RemoteError",
    "RemoteTraceback",
    "SerializationError",
    "TaskExitError",
    "TaskTimeoutError",
    "WorkerDiedError",
    "WorkerExitError",
]


# The classes that descend from ``multiprocessing`` or ``concurrent.futures`` are made when they are
# first asked for: importing those two packages would double the import time.

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OUR_FOLDERS = tuple(os.path.join(_HOME, name) + os.sep for name in ("parallel_core", "memmapping"))
_OUR_PACKAGES = (__name__.partition(".")[0] + ".", "memmapping.")


class ParallelError(Exception):
    """Base class of the library's own errors."""


class BackendError(ParallelError, TypeError):
    """A backend breaks its interface; the message names class and method."""


class CallCancelledError(ParallelError):
    """A call was cancelled from the dashboard, or by an observer, which may raise this.

    An observer raises it from `notify`, for a `BatchAnswered` or `WorkersSeen`.
    """


class EngineError(ParallelError, ConnectionError):
    """An engine such as dask or ray gives no workers; the message says why, and what to do."""


class InvalidTaskError(ParallelError, TypeError):
    """An item of the iterable is not a delayed call ``(function, args, kwargs)``."""


class ChangedValueError(ParallelError, RuntimeError):
    """A large captured value changed in place during a call, and not all later tasks saw it."""


class ContextError(ParallelError):
    """A setting of the caller could not be captured, or could not be restored where tasks run."""


class JournalError(ParallelError):
    """A journal cannot be used, does not belong to this call, or cannot be written to."""


class SerializationError(ParallelError, pickle.PicklingError):
    """An argument, a function or a result could not be pickled or unpickled."""


class TaskExitError(ParallelError, RuntimeError):
    """A task called ``sys.exit`` or raised ``SystemExit``.

    Attributes
    ----------
    code : object
        Argument of ``sys.exit``.
    """

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerExitError(ParallelError, RuntimeError):
    """A `worker_exit` function raised an exception or ended its worker; the message names it."""


class LowMemoryError(ParallelError, MemoryError):
    """There was too little free memory for too long: see `min_free_memory`."""


class RemoteError(ParallelError):
    """Stands for an exception of a task that cannot be rebuilt in this process.

    Attributes
    ----------
    type_name : str
        Qualified name of the original exception's class.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


class PerformanceWarning(UserWarning):
    """Warning that says how a call could be much faster; given once."""


class RemoteTraceback(Exception):
    """The traceback of a worker as text: the ``__cause__`` of a task's exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def is_worker_death(error: BaseException) -> bool:
    """Whether `error` says that a worker died in its task."""
    made = globals().get("WorkerDiedError")  # while there is no class, there is no instance
    return made is not None and isinstance(error, made)


def is_our_file(path: str) -> bool:
    """Whether a file belongs to this library."""
    return path.startswith(_OUR_FOLDERS)


def is_ours(frame: FrameType) -> bool:
    """Whether a frame runs code of this library."""
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith(_OUR_PACKAGES)


def warn_caller(message: str, category: type[Warning]) -> None:
    """Give a warning that points to the code that called the library."""
    depth, frame = 1, sys._getframe(0)
    while frame.f_back is not None:
        if not is_ours(frame):
            break
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


def cut_traceback(error: BaseException) -> BaseException:
    """Return `error`, to be raised again, with only frames of the user in its traceback."""
    # For Ctrl-C, which may come anywhere in the library. Frames of other libraries that ours had
    # called go, too.
    kept: list[TracebackType] = []
    trace, ours = error.__traceback__, True
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_OUR_FOLDERS):
            ours = True
        elif not (ours and _is_library(file)):
            ours = False
            kept.append(trace)
        trace = trace.tb_next
    return error.with_traceback(_chained(kept))


def without_our_frames(error: Exception) -> Exception:
    """Return `error`, to be raised again, with no frames of this library in its traceback."""
    # They say nothing about exceptions of a task, of the caller's iterable or of its functions, or
    # about an error that the library raises on purpose. Any other error from here is a bug of the
    # library: it keeps the frames, except the first, which is about to be added again.
    kept: list[TracebackType] = []
    first = trace = error.__traceback__
    ours = False
    while trace is not None:
        ours = trace.tb_frame.f_code.co_filename.startswith(_OUR_FOLDERS)
        if not ours:
            kept.append(trace)
        trace = trace.tb_next
    is_meant = isinstance(error, ParallelError) or isinstance(error.__cause__, RemoteTraceback)
    if ours and not is_meant and first is not None:
        return error.with_traceback(first.tb_next)
    return error.with_traceback(_chained(kept))


def _chained(entries: list[TracebackType]) -> TracebackType | None:
    chained: TracebackType | None = None
    for entry in reversed(entries):
        chained = TracebackType(chained, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return chained


def _is_library(file: str) -> bool:
    return file.startswith(("<frozen ", *_library_folders()))


@functools.cache
def _library_folders() -> tuple[str, ...]:
    import sysconfig

    found = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(folder + os.sep for folder in found if folder)


if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import TimeoutError as MultiprocessingTimeoutError

    class TaskTimeoutError(ParallelError, TimeoutError, MultiprocessingTimeoutError):
        """As below."""

    class CallTimeoutError(ParallelError, TimeoutError, MultiprocessingTimeoutError):
        """As below."""

    class WorkerDiedError(ParallelError, BrokenProcessPool):
        """As below."""

        position: int | None
        exitcode: int | None
        memory: int | None
        stack: str

    class InitializerError(ParallelError, BrokenProcessPool):
        """As below."""

    class PreloadError(InitializerError):
        """As below."""


def _engine_errors() -> dict[str, type[Exception]]:
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool

    class TaskTimeoutError(ParallelError, TimeoutError, multiprocessing.TimeoutError):
        """A task took longer than `timeout`.

        It derives from ``TimeoutError`` and ``multiprocessing.TimeoutError``.
        """

    class CallTimeoutError(ParallelError, TimeoutError, multiprocessing.TimeoutError):
        """A call took longer than `call_timeout`."""

    class WorkerDiedError(ParallelError, BrokenProcessPool):
        """A worker process ended while it ran a task, which the message names.

        Attributes
        ----------
        position : int or None
            Position of the task in the call; None if the process was not running a task.
        exitcode : int or None
            Exit code of the process; ``-n`` for signal n.
        memory : int or None
            Bytes that the process held at most, as far as is known.
        stack : str
            Stack that `faulthandler` wrote when the process died; empty if there is none.
        """

        position = None
        exitcode = None
        memory = None
        stack = ""

    class InitializerError(ParallelError, BrokenProcessPool):
        """The `initializer` raised an exception in a worker, which is the cause of this error."""

    class PreloadError(InitializerError):
        """A module of `preload`, which the message names, cannot be imported in a worker."""

    made: dict[str, type[Exception]] = {}
    engine_errors: tuple[type[Exception], ...] = (
        TaskTimeoutError,
        CallTimeoutError,
        WorkerDiedError,
        InitializerError,
        PreloadError,
    )
    for error in engine_errors:
        error.__qualname__ = error.__name__  # as if defined at the top, where pickle looks
        made[error.__name__] = error
    return made


_ENGINE_ERRORS = (
    "CallTimeoutError",
    "InitializerError",
    "PreloadError",
    "TaskTimeoutError",
    "WorkerDiedError",
)


def __getattr__(name: str) -> type[Exception]:
    if name in _ENGINE_ERRORS:
        for key, made in _engine_errors().items():
            globals().setdefault(key, made)  # another thread may have been first
        found: type[Exception] = globals()[name]
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
