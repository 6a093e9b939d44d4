"""What runs the jobs: the values of `parallelizer`, and what each stands for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.backends.base import Backend
from parallel_core.backends.registry import check_name

START_METHODS = ("fork", "spawn", "forkserver")

#: The names of the original, and the backends that they stand for; None: the one in force.
_BACKENDS: dict[str, str | None] = {
    "default": None,
    "robust": "processes",
    "multiprocess": "processes",
    "fast": "processes",
    "concurrent": "processes",
    "concurrent.futures": "processes",
    "futures": "processes",
    "multiprocessing": "multiprocessing",
    "serial": "sequential",
    "thread": "threading",
    "threadpool": "threading",
}
_OF_PROCESSES = (None, "processes", "multiprocessing")


class Method(NamedTuple):
    """What runs the jobs."""

    name: str  #: for people
    backend: Any = None  #: as for `Parallel`
    map_function: Callable[..., Any] | None = None  #: in the place of a backend
    is_async: bool = False
    copies: bool = False  #: whether jobs in this process get copies of their arguments


def find_method(parallelizer: Any, serial: bool, start_method: str | None) -> Method:
    """Return what `parallelizer` stands for; raise TypeError or ValueError for anything unknown."""
    method = _find("serial" if serial else parallelizer)
    if start_method is None:
        return method
    if start_method not in START_METHODS:
        known = ", ".join(map(repr, START_METHODS))
        raise ValueError(f"start_method must be one of {known}, or None, not {start_method!r}")
    if method.map_function is not None or method.backend not in _OF_PROCESSES:
        raise ValueError(
            f"start_method={start_method!r} is for processes that are started for this call, not "
            f"for parallelizer={parallelizer!r}"
        )
    return method._replace(backend=multiprocessing.get_context(start_method))


def _find(parallelizer: Any) -> Method:
    if parallelizer is None:
        return Method("default")
    if not isinstance(parallelizer, str):
        is_backend = isinstance(parallelizer, Backend) or hasattr(parallelizer, "submit")
        if callable(parallelizer) and not is_backend:
            name = getattr(parallelizer, "__qualname__", type(parallelizer).__qualname__)
            return Method(name, map_function=parallelizer)
        return Method(type(parallelizer).__name__, parallelizer)
    words = parallelizer.lower().split("-")
    is_async, copies = "async" in words, "copy" in words
    name = "-".join(word for word in words if word not in ("async", "copy")) or "default"
    if name not in _BACKENDS:
        if not (is_async or copies):
            name = parallelizer
        known = ", ".join(map(repr, _BACKENDS))
        check_name(name, f"parallelizer must be one of {known}, a backend, or a map function: ")
    return Method(parallelizer, _BACKENDS.get(name, name), None, is_async, copies)
