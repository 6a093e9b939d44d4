"""What a worker is told before its first batch, and again when it has changed.

Everything that is true of the caller's process at the time of the call and that a task could
notice: the import path, the working directory, ``sys.argv``, the nesting level, the environment;
the limit of threads for numeric libraries; and once in the worker's life the initializer.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import threading
from typing import Any, NamedTuple

from memmapping.modules import loaded
from parallel_core import config
from parallel_core.output.records import caller_handles, note_caller
from parallel_core.serialization.capture import stored_globals
from parallel_core.workers.threads import limited_environment, process_environment, tell_loaded


class ProcessState(NamedTuple):
    """What is true of the caller's process, and should be of the worker."""

    path: tuple[str, ...]  #: ``sys.path``
    folder: str | None  #: the working directory; None when it was removed under us
    argv: tuple[str, ...]  #: ``sys.argv``
    idle_seconds: float | None  #: after how long without a batch to leave
    level: int  #: nesting level of the tasks
    #: The environment variables, as bytes; None: those that the worker was started with.
    environment: dict[bytes, bytes] | None
    #: How many threads numeric libraries may use; None: as the environment says.
    threads: int | None = None
    max_memory: int | None = None  #: how many bytes it may hold between two tasks
    logs: bool = False  #: whether the root logger has handlers
    #: For proxies of `multiprocessing` managers among the arguments; None while there are none.
    authkey: bytes | None = None


class StartSettings(NamedTuple):
    """What a worker is told once, when it starts."""

    initializer: bytes | None  #: the pickle of ``(function, arguments)``
    #: Names of variables that are the worker's own, whatever the caller's process has.
    environment: tuple[str, ...]
    preload: tuple[str, ...]  #: modules to import first
    hooks: tuple[str, ...]  #: what to call before that; see `config.worker_hooks`
    parent: int = 0  #: process whose main thread has started it; 0 if another thread has
    counts_output: bool = False  #: whether it says how much it has printed; see `Printed`


def process_state(
    idle_seconds: float | None,
    level: int,
    threads: int | None = None,
    max_memory: int | None = None,
) -> ProcessState:
    """Return what a worker should be told now."""
    try:
        folder: str | None = os.getcwd()
    except OSError:
        folder = None
    return ProcessState(
        tuple(sys.path),
        folder,
        tuple(getattr(sys, "argv", ())),
        idle_seconds,
        level,
        dict(process_environment()),
        threads,
        max_memory,
        caller_handles(),
        own_authkey(),
    )


def own_authkey() -> bytes | None:
    """Return what this process proves itself by to managers; None while it has to do with none."""
    if loaded("multiprocessing.managers") is None:
        return None
    process: Any = sys.modules["multiprocessing.process"]
    return bytes(process.current_process().authkey)


def start_settings(key: WorkerKey) -> StartSettings:
    """Return what a worker should be told at start."""
    names = tuple(name for name, _ in key.environment)
    is_main = threading.current_thread() is threading.main_thread()
    parent = os.getpid() if is_main else 0
    return StartSettings(key.initializer, names, key.preload, key.hooks, parent)


def apply(now: ProcessState, before: ProcessState | None, kept: frozenset[bytes]) -> None:
    """Make it so in this process.

    Variables that have not changed since `before` stay as they are here, and so do those in `kept`.
    """
    if before is None or now.environment != before.environment or now.threads != before.threads:
        _apply_environment(now, before, kept)
    sys.path[:] = now.path
    sys.argv = list(now.argv)
    if now.folder is not None:
        try:
            os.chdir(now.folder)
        except OSError:
            pass
    if now.authkey is not None:
        from multiprocessing.process import current_process

        current_process().authkey = now.authkey
    config.enter_worker(now.level)
    note_caller(now.logs)


def _apply_environment(
    now: ProcessState, before: ProcessState | None, kept: frozenset[bytes]
) -> None:
    _own_environment()  # as it is before anything is changed
    known = dict(os.environb) if before is None else _environment_in_worker(before)
    wanted = _environment_in_worker(now)
    for name in known.keys() - wanted.keys() - kept:
        os.environb.pop(name, None)
    for name, value in wanted.items():
        if known.get(name) != value and name not in kept:
            os.environb[name] = value
    if now.threads is not None:
        tell_loaded(wanted, None if before is None else known)


def _environment_in_worker(told: ProcessState) -> dict[bytes, bytes]:
    environment = _own_environment() if told.environment is None else told.environment
    if told.threads is None:
        return environment
    return limited_environment(environment, told.threads)


@functools.cache
def _own_environment() -> dict[bytes, bytes]:
    """Return the variables that this process was started with."""
    return dict(os.environb)


def prepare(start_settings: StartSettings) -> dict[str, Any]:
    """Import modules and run the initializer, if any; return the globals that it set.

    Raises `NotPreloaded`, or whatever the initializer raises.
    """
    if start_settings.hooks:
        config.run_hooks(start_settings.hooks)
    if start_settings.preload:
        from parallel_core.workers.preload import import_modules

        import_modules(start_settings.preload)
    return {} if start_settings.initializer is None else run_initializer(start_settings.initializer)


def run_initializer(data: bytes) -> dict[str, Any]:
    """Call the initializer whose pickle is `data`; return the globals that it sets."""
    initializer, arguments = pickle.loads(data)
    initializer(*arguments)
    return {
        name: initializer.__globals__[name]
        for name in stored_globals(initializer)
        if name in initializer.__globals__
    }


class Exclusive:
    """One session, as the only one that may have workers; equal to itself alone."""

    __slots__ = ("shared",)

    def __init__(self, shared: Any = None) -> None:
        self.shared = shared  #: what a process gets as it starts, where multiprocessing starts it


class WorkerKey(NamedTuple):
    """What makes workers interchangeable: two calls share them when this is equal."""

    start_method: str  #: how they are started; see `starting`
    initializer: bytes | None = None  #: the pickle of ``(function, arguments)``
    #: Variables set before the worker's first import, which could not be changed later.
    environment: tuple[tuple[str, str], ...] = ()
    preload: tuple[str, ...] = ()  #: modules that it has imported before its first task
    hooks: tuple[str, ...] = ()  #: what it has called before that
    #: The pickles of the functions that prepare it for each session, and of what ends one.
    setup: bytes = b""
    exclusive: Exclusive | None = None  #: of workers that one session alone may have
