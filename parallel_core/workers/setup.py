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


def surroundings(idle_seconds: float | None, level: int) -> dict[str, Any]:
    """Return what a worker should be told now; compare two of these to see if it changed."""
    try:
        folder: str | None = os.getcwd()
    except OSError:  # the folder was removed under us
        folder = None
    return {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "folder": folder,
        "argv": list(getattr(sys, "argv", [""])),
        "idle_seconds": idle_seconds,
        "level": level,
    }


def birth_settings() -> dict[str, Any]:
    """Return what is said only once, to a new worker."""
    managers = sys.modules.get("multiprocessing.managers")
    key = None
    if managers is not None:
        process: Any = sys.modules["multiprocessing.process"]
        key = bytes(process.current_process().authkey)
    return {"authkey": key}


def apply(settings: dict[str, Any]) -> dict[str, Any]:
    """Make it so in this process; return the globals that the initializer set, if it ran now.

    Raises whatever the initializer raises.
    """
    sys.path[:] = settings["path"]
    sys.argv = settings["argv"]
    if settings["folder"] is not None:
        try:
            os.chdir(settings["folder"])
        except OSError:
            pass
    config.enter_worker(settings["level"])
    if settings.get("authkey"):
        from multiprocessing.process import current_process

        current_process().authkey = settings["authkey"]
    data = settings.get("initializer")
    if data is None:
        return {}
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
