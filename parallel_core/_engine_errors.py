"""The errors with bases in the standard library's engines; reach them through `errors`."""

from __future__ import annotations

import builtins
import multiprocessing
from concurrent.futures.process import BrokenProcessPool

from parallel_core.errors import ParallelError


class TaskTimeoutError(ParallelError, builtins.TimeoutError, multiprocessing.TimeoutError):
    """A task, or the wait for a result, took longer than `timeout` allows.

    Caught by ``except TimeoutError`` and by ``except multiprocessing.TimeoutError``.
    """


class WorkerDiedError(ParallelError, BrokenProcessPool):
    """A worker process ended while it was on a task, which the message names."""


class InitializerError(ParallelError, BrokenProcessPool):
    """The `initializer` raised in a worker; the original exception is the cause."""


for _class in (TaskTimeoutError, WorkerDiedError, InitializerError):
    _class.__module__ = "parallel_core.errors"
