"""What can go wrong, by name.

Bad parameters raise the builtin ``TypeError`` and ``ValueError``. Everything that happens
to a task, to a worker or on the way between them is one of the classes below, so that
``except ParallelError`` catches what the library itself has to say, while an exception
that a task raised reaches the caller as itself.

The classes that descend from ``multiprocessing`` or ``concurrent.futures`` are made when
they are first asked for: importing those two packages would double the import time.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING

__all__ = [
    "BackendError",
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


_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OUR_FOLDERS = tuple(os.path.join(_HOME, name) + os.sep for name in ("parallel_core", "memmapping"))
_OUR_PACKAGES = (__name__.partition(".")[0] + ".", "memmapping.")


class ParallelError(Exception):
    """Base of all errors that the library raises on its own account."""


class BackendError(ParallelError, TypeError):
    """A backend does not do what its interface asks of it; the message names class and method."""


class InvalidTaskError(ParallelError, TypeError):
    """An item of the iterable is not a delayed call ``(function, args, kwargs)``."""


class ChangedValueError(ParallelError, RuntimeError):
    """A large global changed in place while tasks were handed out, and not all of them saw it."""


class ContextError(ParallelError):
    """What the caller had set up could not be captured, or not be restored where tasks run."""


class JournalError(ParallelError):
    """A journal cannot be used, does not belong to this call, or could not be written to."""


class SerializationError(ParallelError, pickle.PicklingError):
    """An argument, a function or a result could not be pickled or unpickled."""


class TaskExitError(ParallelError, RuntimeError):
    """A task called ``sys.exit`` or raised ``SystemExit``.

    Attributes
    ----------
    code : object
        What the task passed to ``sys.exit``.
    """

    def __init__(self, message: str, code: object = None) -> None:
        super().__init__(message)
        self.code = code


class WorkerExitError(ParallelError, RuntimeError):
    """A function given as `worker_exit` raised, or ended its worker; the message names which."""


class LowMemoryError(ParallelError, MemoryError):
    """There was too little free memory for too long: see `min_free_memory`."""


class RemoteError(ParallelError):
    """Stands for an exception of a task that could not be rebuilt in this process.

    Attributes
    ----------
    type_name : str
        The qualified name of the original exception's class.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name


class PerformanceWarning(UserWarning):
    """Says how a call could be much faster; given once."""


class RemoteTraceback(Exception):
    """The traceback of a worker as text; the ``__cause__`` of what a task raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def add_note(error: BaseException, note: str) -> None:
    """Attach `note` to `error` as PEP 678 does; Python 3.10 keeps it without showing it."""
    if hasattr(error, "add_note"):
        error.add_note(note)
        return
    notes = getattr(error, "__notes__", None)
    if notes is None:
        notes = []
        try:
            error.__notes__ = notes  # type: ignore[attr-defined]  # born in Python 3.11
        except AttributeError:
            return
    notes.append(note)


def is_worker_death(error: BaseException) -> bool:
    """Whether `error` says that a worker died at its task."""
    made = globals().get("WorkerDiedError")  # while there is no class, there is no instance
    return made is not None and isinstance(error, made)


def warn_caller(message: str, category: type[Warning]) -> None:
    """Give a warning that points at the code which called the library."""
    depth, frame = 1, sys._getframe(0)
    while frame.f_back is not None:
        if not frame.f_globals.get("__name__", "").startswith(_OUR_PACKAGES):
            break
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


def cut_traceback(error: BaseException) -> BaseException:
    """Return `error` with only the users' own frames in its traceback, for who raises it anew.

    That is for Ctrl-C, which comes wherever we happen to be. Frames of other libraries that we had
    called go with ours.
    """
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
    """Return `error` with no frames of this library in its traceback, for who raises it anew.

    They tell nothing of what a task, the caller's iterable or function has raised, or of an error
    that was meant. Any other that comes from here is a mistake of ours: it keeps them, but for the
    first, which is about to be added again.
    """
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
        """A task ran for longer than `timeout` allows.

        Caught by ``except TimeoutError`` and by ``except multiprocessing.TimeoutError``.
        """

    class CallTimeoutError(ParallelError, TimeoutError, multiprocessing.TimeoutError):
        """A whole call took longer than `call_timeout` allows."""

    class WorkerDiedError(ParallelError, BrokenProcessPool):
        """A worker process ended while it was on a task, which the message names.

        Attributes
        ----------
        position : int or None
            Of the task in the call, if one was to blame.
        exitcode : int or None
            Of the process; ``-n`` for signal n.
        memory : int or None
            How many bytes the process had held, as far as is known.
        stack : str
            What `faulthandler` wrote in the worker as it died; empty if it could not.
        """

        position = None
        exitcode = None
        memory = None
        stack = ""

    class InitializerError(ParallelError, BrokenProcessPool):
        """The `initializer` raised in a worker; the original exception is the cause."""

    class PreloadError(InitializerError):
        """A module of `preload` does not import in a worker, which the message names."""

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
