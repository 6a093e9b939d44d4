"""Configuration: what is in force here and now, in this thread and in this async task.

::

    parallel_config(...)  ──sets──▶  a frozen Settings in a context variable
    Parallel(...)         ──reads─▶  explicit parameter, else the context's, else the default

Context variables [1]_ give each thread and each asyncio task its own configuration. The nesting
level, how many parallel calls surround this code, is kept the same way, with a floor for the
whole process in workers.

.. [1] PEP 567, https://peps.python.org/pep-0567/
"""

from __future__ import annotations

import os
from contextvars import ContextVar, Token
from importlib import import_module
from typing import Any

#: Our environment variables, each with the name under which people may have set it for joblib.
VARIABLES = {
    "PARALLEL_CORE_START_METHOD": "JOBLIB_START_METHOD",
    "PARALLEL_CORE_MULTIPROCESSING": "JOBLIB_MULTIPROCESSING",
    "PARALLEL_CORE_TEMP_FOLDER": "JOBLIB_TEMP_FOLDER",
}


class Unset:
    """Stands where a parameter was not given; its text is what the default would be."""

    def __init__(self, default: object) -> None:
        self.default = default

    def __repr__(self) -> str:
        return repr(self.default)


#: The parameters that a context can set, with their defaults.
DEFAULTS: dict[str, Any] = {
    "backend": None,
    "n_jobs": None,
    "verbose": 0,
    "temp_folder": None,
    "max_nbytes": "1M",
    "mmap_mode": "r",
    "prefer": None,
    "require": None,
}
UNSET: dict[str, Any] = {name: Unset(value) for name, value in DEFAULTS.items()}


class Settings:
    """What the surrounding `parallel_config` blocks set; never changed once made.

    Attributes
    ----------
    values : dict
        By parameter name; only what was set.
    backend_params : dict
        Further parameters of the backend.
    """

    __slots__ = ("backend_params", "values")

    def __init__(self, values: dict[str, Any], backend_params: dict[str, Any]) -> None:
        self.values = values
        self.backend_params = backend_params


#: What worker processes call before anything else, each as ``"module:function"``.
worker_hooks: tuple[str, ...] = ()

_EMPTY = Settings({}, {})
_settings: ContextVar[Settings] = ContextVar("parallel_core_settings", default=_EMPTY)
_level: ContextVar[int] = ContextVar("parallel_core_level", default=0)
_process_level = 0


def current_settings() -> Settings:
    """Return the settings in force."""
    return _settings.get()


def setting(name: str, given: Any, settings: Settings) -> Any:
    """Return `given` if it was given, else what `settings` say of `name`, else the default."""
    if type(given) is not Unset:
        return given
    return settings.values.get(name, given.default)


def push_settings(values: dict[str, Any], backend_params: dict[str, Any]) -> Token[Settings]:
    """Put `values` over what is in force; a new backend drops the parameters of the old one."""
    outer = _settings.get()
    params = backend_params if "backend" in values else {**outer.backend_params, **backend_params}
    return _settings.set(Settings({**outer.values, **values}, params))


def pop_settings(token: Token[Settings]) -> None:
    """Undo `push_settings`; in another context than that of the push, what is there is dropped."""
    try:
        _settings.reset(token)
    except ValueError:
        _settings.set(_EMPTY)


def nesting_level() -> int:
    """Return how many parallel calls surround this code: 0 in the main program."""
    return max(_level.get(), _process_level)


def enter_task(level: int) -> None:
    """Run what follows in this context as a task at `level`: outside of the caller's settings."""
    _level.set(level)
    _settings.set(_EMPTY)


def enter_worker(level: int) -> None:
    """Note that this whole process works for a call at ``level - 1``."""
    global _process_level
    _process_level = level
    _level.set(0)  # a forked child starts with a copy of its parent's context
    _settings.set(_EMPTY)


def run_hooks(hooks: tuple[str, ...]) -> None:
    """Call what the caller's process wants to be called in its workers; `worker_hooks` of it."""
    for hook in hooks:
        module, _, function = hook.partition(":")
        getattr(import_module(module), function)()


def environment(name: str) -> str | None:
    """Return our environment variable `name`, or else joblib's; empty counts as unset."""
    for candidate in (name, VARIABLES.get(name)):
        if candidate is not None:
            value = os.environ.get(candidate, "").strip()
            if value:
                return value
    return None


def processes_forbidden() -> str | None:
    """Return the variable that forbids worker processes, with its value, or None."""
    for name in ("PARALLEL_CORE_MULTIPROCESSING", "JOBLIB_MULTIPROCESSING"):
        if name in os.environ and (value := os.environ[name].strip()):
            return f"{name}={value}" if value == "0" else None
    return None
