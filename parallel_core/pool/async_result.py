"""What `apply_async` returns."""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Any

from parallel_core import errors
from parallel_core.dispatch.ending import CallInterrupted
from parallel_core.errors import TaskExitError, WorkerExitError, without_our_frames

TERMINATED = "Pool was terminated"
#: A time of `Lock.acquire` that does not end.
_FOR_EVER = -1.0


class AsyncResult:
    """Present or future outcome of a task, returned by `WorkerPool.apply_async`.

    Parameters
    ----------
    callback : callable, optional
        Function to call with the result, before `get` returns it.
    error_callback : callable, optional
        Function to call with the exception, before `get` raises it.
    """

    # The manager of an executor settles it as it settles a future, of which it has the methods
    # that are needed; a future with its condition takes ten times as long to make.
    __slots__ = ("__weakref__", "_callback", "_error", "_error_callback", "_latch", "_value")

    def __init__(
        self,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._callback = callback
        self._error_callback = error_callback
        self._value: Any = None
        self._error: BaseException | None = None
        self._latch = allocate_lock()  # open from when there is an outcome
        self._latch.acquire()

    def ready(self) -> bool:
        """Return whether the task is done."""
        return not self._latch.locked()

    def successful(self) -> bool:
        """Return whether the task, which is done, raised nothing.

        Raises
        ------
        ValueError
            If the task is not done.
        """
        if not self.ready():
            raise ValueError("the task is not done: wait() for it, or ask ready() first")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the task is done.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, at most.
        """
        if self._latch.acquire(timeout=_seconds(timeout)):
            self._latch.release()

    def get(self, timeout: float | None = None) -> Any:
        """Return the result of the task; wait for it if necessary.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, at most.

        Raises
        ------
        TimeoutError
            If the task is not done by then; it continues.
        Exception
            Exception of the task, or an error such as `WorkerDiedError`.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError(f"the task is not done after {timeout:g} s; it goes on")
        if self._error is None:
            return self._value
        if isinstance(self._error, Exception):
            raise without_our_frames(self._error)
        raise self._error

    def set_running_or_notify_cancel(self) -> bool:
        """Note that a worker is about to get the task; nobody cancels it."""
        return not self.ready()

    def cancel(self) -> bool:
        """Fail, since the pool ends before the task began."""
        self.set_exception(RuntimeError(TERMINATED))
        return True

    def set_result(self, value: Any) -> None:
        """Take in the result."""
        self._value = value
        self._settle(self._callback, value)

    def set_exception(self, error: BaseException) -> None:
        """Take in what the task raised."""
        if isinstance(error, CallInterrupted):
            error = RuntimeError(TERMINATED)
        self._error = error = as_raised(error)
        self._settle(self._error_callback, error)

    def _settle(self, callback: Callable[[Any], object] | None, outcome: Any) -> None:
        """Tell the callback, then whoever waits; an error of the callback is no one else's."""
        self._callback = self._error_callback = None
        try:
            if callback is not None:
                callback(outcome)
        except BaseException as error:
            _report(error)
        finally:
            self._latch.release()


def _seconds(timeout: float | None) -> float:
    """Return `timeout` as `Lock.acquire` takes it."""
    if timeout is None:
        return _FOR_EVER
    return min(max(0.0, timeout), threading.TIMEOUT_MAX)


def _report(error: BaseException) -> None:
    """Show what a callback raised, as an uncaught exception of a thread is shown."""
    kind, trace = type(error), error.__traceback__
    thread = threading.current_thread()
    threading.excepthook(threading.ExceptHookArgs((kind, error, trace, thread)))


class TaskExited(TaskExitError, SystemExit):
    """A task called ``sys.exit``; uncaught, it ends this program, too, as in other pools."""

    code: Any


def as_raised(error: BaseException) -> BaseException:
    """Return `error` as a pool raises it.

    What an init or exit function raised is raised as it is, with our words as a note.
    """
    if type(error) is TaskExitError:
        exited = TaskExited(str(error), error.code)
        exited.__cause__ = error.__cause__
        return exited
    cause = error.__cause__
    if cause is not None and isinstance(error, (WorkerExitError, errors.InitializerError)):
        cause.add_note(str(error))
        return as_raised(cause)
    return error
