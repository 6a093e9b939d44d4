"""Configuration: what is in force here and now, in this thread and in this async task.

::

    parallel_config(...)  ──sets──▶  a frozen Settings in a context variable
    Parallel(...)         ──reads─▶  explicit parameter, else the context's, else the default
    task_settings()       ──from──▶  it, what holds in the tasks of a call
    enter_task(...)       ──puts──▶  that in force where they run

Context variables [1]_ give each thread and each asyncio task its own configuration. The nesting
level, how many parallel calls surround this code, is kept the same way. In a worker, both are
those of the whole process as well, for threads that its tasks start.

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
    "nested": None,
    "output": "pass",
    "observers": None,
    "progress": None,
    "trace": None,
    "check_arrays": "auto",
}

#: The parameters of workers, which a context can set as well, with their defaults.
WORKER_DEFAULTS: dict[str, Any] = {
    "initializer": None,
    "initargs": (),
    "idle_worker_timeout": 300.0,
    "inner_max_num_threads": None,
    "max_worker_memory": None,
    "preload": None,
    "worker_lifespan": None,
    "worker_init": None,
    "worker_exit": None,
    "cpu_ids": None,
    "worker_env": None,
}
UNSET: dict[str, Any] = {
    name: Unset(value) for name, value in (*DEFAULTS.items(), *WORKER_DEFAULTS.items())
}


#: What a context sets for its own calls alone: who runs them, and that they show how far they are.
_CHOICE_OF_CALL = ("backend", "n_jobs", "progress", "trace")


class Settings:
    """What the surrounding `parallel_config` blocks set, and calls left; never changed once made.

    What cannot be pickled is left out when it is.
    """

    __slots__ = ("backend_params", "cores", "threads", "values")

    def __init__(
        self,
        values: dict[str, Any],
        backend_params: dict[str, Any],
        cores: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.values = values  #: by parameter name; only what was set
        self.backend_params = backend_params  #: parameters of the backend's workers that were set
        #: How many cores the calls around this code left to it; None where there are no such calls.
        self.cores = cores
        #: How many threads numeric libraries may use in this task, where the whole process has not
        #: been told.
        self.threads = threads

    def __reduce__(self) -> tuple[Any, ...]:
        kept = _what_can_be_pickled(self.values), _what_can_be_pickled(self.backend_params)
        return Settings, (*kept, self.cores, self.threads)


def _what_can_be_pickled(values: dict[str, Any]) -> dict[str, Any]:
    import pickle

    kept = {}
    for name, value in values.items():
        if type(value) not in (str, int, float, type(None)):
            try:
                pickle.dumps(value)
            except Exception:
                continue
        kept[name] = value
    return kept


#: What worker processes call before anything else, each as ``"module:function"``.
worker_hooks: tuple[str, ...] = ()

_EMPTY = Settings({}, {})
_settings: ContextVar[Settings] = ContextVar("parallel_core_settings")
_level: ContextVar[int] = ContextVar("parallel_core_level", default=0)
_process_level = 0
_process_settings = _EMPTY


def current_settings() -> Settings:
    """Return the settings in force."""
    return _settings.get(_process_settings)


def setting(name: str, given: Any, settings: Settings) -> Any:
    """Return `given` if it was given, else what `settings` say of `name`, else the default."""
    if type(given) is not Unset:
        return given
    return settings.values.get(name, given.default)


def only_given(**params: Any) -> dict[str, Any]:
    """Return those of `params` that were given."""
    return {name: value for name, value in params.items() if type(value) is not Unset}


def push_settings(values: dict[str, Any], backend_params: dict[str, Any]) -> Token[Settings]:
    """Put `values` over what is in force; a new backend drops the parameters of the old one."""
    outer = current_settings()
    params = backend_params if "backend" in values else {**outer.backend_params, **backend_params}
    merged = Settings({**outer.values, **values}, params, outer.cores, outer.threads)
    return _settings.set(merged)


def pop_settings(token: Token[Settings]) -> None:
    """Undo `push_settings`; in another context than that of the push, what is there is dropped."""
    try:
        _settings.reset(token)
    except ValueError:
        _settings.set(_process_settings)


def task_settings(
    cores: int | None = None,
    threads: int | None = None,
    nested: tuple[Any, int | None] | None = None,
) -> Settings:
    """Return what of the settings in force holds inside the tasks of a call.

    That is all but the backend, its parameters and the number of jobs, which chose who runs this
    call. `cores` is how many the call leaves to each task, by default those that it has got itself.
    `threads` is how many threads numeric libraries may use in each, where no worker process is
    told; `inner_max_num_threads` is in it. `nested` is what `Backend.nested` returned.
    """
    outer = current_settings()
    values = {name: value for name, value in outer.values.items() if name not in _CHOICE_OF_CALL}
    if nested is not None:
        values["backend"], values["n_jobs"] = nested
    return Settings(values, {}, outer.cores if cores is None else cores, threads)


def nesting_level() -> int:
    """Return how many parallel calls surround this code: 0 in the main program."""
    return max(_level.get(), _process_level)


def in_worker() -> bool:
    """Whether this whole process works for a call of another one."""
    return _process_level > 0


def enter_task(level: int, settings: Settings | None = None) -> None:
    """Run what follows in this context as a task at `level`, with `settings` by `task_settings`."""
    _level.set(level)
    _settings.set(_EMPTY if settings is None else settings)


def enter_worker(level: int, settings: Settings | None = None) -> None:
    """Note that this whole process works for a call at ``level - 1``; `settings`: `enter_task`."""
    global _process_level, _process_settings
    _process_level = level
    _process_settings = _EMPTY if settings is None else settings
    _level.set(0)  # a forked child starts with a copy of its parent's context
    _settings.set(_process_settings)


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
