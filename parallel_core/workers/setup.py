"""What a worker is told before its first batch, and again when it has changed.

Everything that is true of the caller's process at the time of the call and that a task could
notice: the import path, the working directory, ``sys.argv``, the nesting level; and once in the
worker's life the initializer.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any, NamedTuple

from parallel_core import config
from parallel_core.tasks.definitions import stored_globals


class Surroundings(NamedTuple):
    """What is true of the caller's process, and should be of the worker.

    Attributes
    ----------
    path : tuple
        ``sys.path``.
    folder : str or None
        The working directory; None when it was removed under us.
    argv : tuple
        ``sys.argv``.
    idle_seconds : float or None
        After how long without a batch to leave.
    level : int
        Nesting level of the tasks.
    environment : dict
        The environment variables, as bytes.
    """

    path: tuple[str, ...]
    folder: str | None
    argv: tuple[str, ...]
    idle_seconds: float | None
    level: int
    environment: dict[bytes, bytes]


class BirthSettings(NamedTuple):
    """What a worker is told once, when it is born.

    Attributes
    ----------
    authkey : bytes or None
        For proxies of `multiprocessing` managers among the arguments.
    initializer : bytes or None
        The pickle of ``(function, arguments)``.
    environment : tuple of str
        Names of variables that are the worker's own, whatever the caller's process has.
    """

    authkey: bytes | None
    initializer: bytes | None
    environment: tuple[str, ...]


def surroundings(idle_seconds: float | None, level: int) -> Surroundings:
    """Return what a worker should be told now."""
    try:
        folder: str | None = os.getcwd()
    except OSError:
        folder = None
    # The dictionary behind os.environ is private, and ten times faster to compare than a copy.
    variables = getattr(os.environ, "_data", None)
    if type(variables) is not dict:
        variables = dict(os.environb)
    return Surroundings(
        tuple(sys.path),
        folder,
        tuple(getattr(sys, "argv", ())),
        idle_seconds,
        level,
        variables.copy(),
    )


def birth_settings(key: WorkerKey) -> BirthSettings:
    """Return what a worker should be told at birth."""
    managers = sys.modules.get("multiprocessing.managers")
    authkey = None
    if managers is not None:
        process: Any = sys.modules["multiprocessing.process"]
        authkey = bytes(process.current_process().authkey)
    return BirthSettings(authkey, key.initializer, tuple(name for name, _ in key.environment))


def apply(now: Surroundings, before: Surroundings | None, kept: frozenset[bytes]) -> None:
    """Make it so in this process.

    Variables that have not changed since `before` stay as they are here, and so do those in `kept`.
    """
    known = dict(os.environb) if before is None else before.environment
    if now.environment != known:
        for name in known.keys() - now.environment.keys() - kept:
            os.environb.pop(name, None)
        for name, value in now.environment.items():
            if known.get(name) != value and name not in kept:
                os.environb[name] = value
    sys.path[:] = now.path
    sys.argv = list(now.argv)
    if now.folder is not None:
        try:
            os.chdir(now.folder)
        except OSError:
            pass
    config.enter_worker(now.level)


def prepare(birth: BirthSettings) -> dict[str, Any]:
    """Run the initializer, if there is one; return the globals that it set.

    Raises whatever the initializer raises.
    """
    if birth.authkey is not None:
        from multiprocessing.process import current_process

        current_process().authkey = birth.authkey
    return {} if birth.initializer is None else run_initializer(birth.initializer)


def run_initializer(data: bytes) -> dict[str, Any]:
    """Call the initializer whose pickle is `data`; return the globals that it sets."""
    initializer, arguments = pickle.loads(data)
    initializer(*arguments)
    return {
        name: initializer.__globals__[name]
        for name in stored_globals(initializer)
        if name in initializer.__globals__
    }


class WorkerKey(NamedTuple):
    """What makes workers interchangeable: two calls share them when this is equal.

    Attributes
    ----------
    start_method : str
        How they are born; see `birth`.
    initializer : bytes or None
        The pickle of ``(function, arguments)``.
    environment : tuple of (str, str)
        Variables set before the worker's first import.
    """

    start_method: str
    initializer: bytes | None = None
    environment: tuple[tuple[str, str], ...] = ()
