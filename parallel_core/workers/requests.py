"""Calls that the parent has a worker make between two tasks, such as init and exit functions.

The frames are in `messages`; this is what both sides do with them.
"""

from __future__ import annotations

import contextvars
import pickle
import time
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

from memmapping.modules import loaded
from parallel_core.context.this_worker import Passed, ThisWorker, globals_of, this_worker
from parallel_core.serialization.capture import stored_globals
from parallel_core.serialization.failure import pack
from parallel_core.serialization.pickling import dumps, explain
from parallel_core.workers.board import PHASE, SINCE, Board, Phase
from parallel_core.workers.messages import Ask, Reply


class Request:
    """A call that a worker was asked for, and, later, its answer."""

    __slots__ = ("_outcome", "data", "is_late", "limit", "phase", "what")

    def __init__(self, phase: Phase, data: bytes, what: str, limit: float | None = None) -> None:
        self.phase = phase  #: what the worker's board says meanwhile
        self.data = data  #: the pickle of ``(function, arguments)``
        self.what = what  #: what it is, in words: ``"worker_init connect()"``
        self.limit = limit  #: how many seconds it may take
        self.is_late = False  #: whether it took longer, so that its worker was killed
        self._outcome: tuple[Any, BaseException | None] | None = None

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer."""
        return self._outcome is not None

    def answer(self, value: Any, error: BaseException | None = None) -> None:
        """Take in the answer: a value, or what was raised."""
        self._outcome = value, error

    def result(self) -> Any:
        """Return the value of the answer, or raise its error."""
        if self._outcome is None:
            raise RuntimeError(f"{self.what} has no answer yet")
        value, error = self._outcome
        if error is not None:
            raise error
        return value


def pickle_call(function: Callable[..., Any], args: tuple[Any, ...], what: str) -> bytes:
    """Return the pickle of a call for a worker.

    Raises
    ------
    SerializationError
        When something of it does not pickle, named as part of `what`.
    """
    call = function, args
    try:
        return dumps(call)
    except Exception as error:
        raise explain(what, call, "it", error) from error


def run_request(board: Board, ask: Ask) -> Reply:
    """Make a call in this worker; return the reply."""
    board.times[SINCE] = time.monotonic()
    board.words[PHASE] = ask.phase
    try:
        value = contextvars.copy_context().run(_call, ask.call)
    except BaseException as error:
        return Reply(*pack(error, dumps))
    else:
        return Reply(value, "")
    finally:
        board.words[PHASE] = Phase.IDLE


def _call(data: bytes) -> bytes:
    function, args = pickle.loads(data)
    value = function(*args)
    try:
        return dumps(value)
    except Exception as error:
        raise explain("what it returned", value, "the value", error) from error


#: Shared objects that a process has by its start: inherited by a fork, or as multiprocessing
#: passes arguments to a process.
_inherited: Any = None


def inherit(shared: Any) -> None:
    """Keep shared objects that came with the start of this process."""
    global _inherited
    _inherited = shared


class _Recipient:
    """Stands for the process that multiprocessing thinks it is starting.

    It hands over locks, queues and shared memory only to such a one. Names of semaphores will do
    for any process; and descriptors are fetched from this process, each once.
    """

    @staticmethod
    def duplicate_for_child(descriptor: int) -> int:
        return descriptor

    @staticmethod
    def DupFd(descriptor: int) -> object:
        from multiprocessing import resource_sharer

        shared: Any = resource_sharer  # whose class of this name depends on the system
        return shared.DupFd(descriptor)


def pickle_shared(shared: Any) -> tuple[bytes, bool]:
    """Return the pickle of shared objects, and whether more than one worker may have it.

    Raises
    ------
    SerializationError
        When they do not pickle.
    """
    try:
        return dumps(shared), True
    except Exception as error:
        if loaded("multiprocessing.context") is None:
            raise explain("the shared objects", shared, "they", error) from error
        original = error
    from multiprocessing import context, reduction

    spawning: Any = context
    before = spawning.get_spawning_popen()
    spawning.set_spawning_popen(_Recipient())
    try:
        return bytes(reduction.ForkingPickler.dumps(shared)), False
    except Exception:
        raise explain("the shared objects", shared, "they", original) from original
    finally:
        spawning.set_spawning_popen(before)


def begin_worker(init: Callable[..., object] | None, passed: Passed, shared: bytes | None) -> None:
    """Prepare this worker for the tasks of a session; it may have inherited the shared objects."""
    worker = this_worker()
    worker.shared = _inherited if shared is None else pickle.loads(shared)
    if init is not None:
        call_init(init, passed, worker)


def call_init(init: Callable[..., object], passed: Passed, worker: ThisWorker) -> None:
    """Call the init function; what it sets of globals is kept for functions that go by value."""
    init(*passed.arguments(worker))
    if isinstance(init, FunctionType):
        found: Mapping[str, Any] = init.__globals__
        names = (name for name in stored_globals(init) if name in found)
        globals_of(worker).update((name, found[name]) for name in names)


def end_worker(exit: Callable[..., object], passed: Passed) -> object:
    """Call the exit function; return what it returns."""
    return exit(*passed.arguments(this_worker()))
