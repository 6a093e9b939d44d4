"""Our names in joblib's place, so that what is imported afterwards has the whole engine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.cores import cpu_count
from parallel_core.backends.local import SequentialBackend, ThreadingBackend
from parallel_core.backends.loky import LokyBackend
from parallel_core.backends.processes import MultiprocessingBackend, ProcessesBackend
from parallel_core.backends.registry import (
    find_backend,
    follow_joblib,
    register_parallel_backend,
)
from parallel_core.bridge.bars import BarsOfCallbacks
from parallel_core.bridge.slimming import register_slimmers
from parallel_core.errors import warn_caller
from parallel_core.observe.observers import observer_factories
from parallel_core.parallel.call import Parallel
from parallel_core.parallel.contexts import (
    effective_n_jobs,
    get_active_backend,
    parallel_backend,
    parallel_config,
)
from parallel_core.serialization.wrapping import wrap_non_picklable_objects
from parallel_core.tasks.delayed import delayed

_HOOK = f"{__name__}:install_in_worker"
_MODULES = ("joblib", "joblib.parallel")
_OURS: dict[str, Any] = {
    "Parallel": Parallel,
    "cpu_count": cpu_count,
    "delayed": delayed,
    "effective_n_jobs": effective_n_jobs,
    "get_active_backend": get_active_backend,
    "parallel_backend": parallel_backend,
    "parallel_config": parallel_config,
    "wrap_non_picklable_objects": wrap_non_picklable_objects,
}
#: Names that go on working when a module has taken joblib's: they have to do with no engine.
_HARMLESS = ("cpu_count", "delayed", "wrap_non_picklable_objects")
_SHOWN = 5


class _Place(NamedTuple):
    """A name in a module of joblib's, and what was there before us."""

    module: ModuleType
    name: str
    original: Any


_taken: list[_Place] = []
_factories: list[Callable[[Any], Any]] = []


def install() -> None:
    """Replace `Parallel`, `delayed` and related names of joblib by those of this library.

    Code that imports them from ``joblib`` or ``joblib.parallel`` afterwards, in this process and in
    workers, gets the new ones. So call it before the library that uses joblib (such as
    scikit-learn) is imported. joblib's caching, hashing and files do not change. A second call does
    nothing.

    Raises
    ------
    ImportError
        If joblib is not installed.

    Warns
    -----
    RuntimeWarning
        If modules have imported joblib's own names before, and keep them; it names the modules.

    Examples
    --------
    >>> from parallel_core.compat.joblib import install, uninstall
    >>> import joblib, warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # of what has been imported here already
    ...     install()
    >>> joblib.Parallel
    <class 'parallel_core.parallel.call.Parallel'>
    >>> uninstall()
    >>> joblib.Parallel
    <class 'joblib.parallel.Parallel'>
    """
    takers = _install()
    if takers:
        shown = ", ".join(takers[:_SHOWN])
        others = len(takers) - _SHOWN
        if others > 0:
            shown += f" and {others} other modules"
        warn_caller(
            f"joblib's own Parallel, or what configures it, has been taken already by {shown}, "
            "and will be used there: call parallel_core.compat.joblib.install() before that is "
            "imported",
            RuntimeWarning,
        )


def install_in_worker() -> None:
    """Do as the caller's process has done, before a task can import what uses joblib."""
    _install()


def _install() -> list[str]:
    """Put our names in; return the modules that have joblib's."""
    if _taken:
        return []
    modules = [import_joblib(name) for name in _MODULES]
    takers = _takers(modules[1])
    _factories[:] = [BarsOfCallbacks(modules[1]), register_slimmers]
    for module in modules:
        for name, ours in _OURS.items():
            if name in vars(module):
                _taken.append(_Place(module, name, getattr(module, name)))
                setattr(module, name, ours)
    observer_factories.extend(_factories)
    follow_joblib(modules[1])
    _be_instances(modules[1])
    register_parallel_backend("parallel_core", _processes)  # as `register_joblib` names them
    config.worker_hooks = (*config.worker_hooks, _HOOK)
    return takers


def _be_instances(parallel: ModuleType) -> None:
    """Let our backends be instances of joblib's classes, which its users ask for."""
    for theirs, ours in (
        (parallel.SequentialBackend, SequentialBackend),
        (parallel.ThreadingBackend, ThreadingBackend),
        (parallel.LokyBackend, LokyBackend),
        (parallel.LokyBackend, ProcessesBackend),
        (parallel.MultiprocessingBackend, MultiprocessingBackend),
        (parallel.ParallelBackendBase, Backend),
    ):
        theirs.register(ours)  # there is no way back, and none is needed


def _processes() -> Any:
    return find_backend("processes")


def uninstall() -> None:
    """Restore joblib's own names, which `install` has replaced.

    Modules that were imported in between keep the names of this library, and continue to work.
    Without an `install` before, it does nothing.

    Warns
    -----
    RuntimeWarning
        If other code has replaced a name since; that replacement stays.
    """
    strangers = []
    places, _taken[:] = list(_taken), []
    for module, name, original in places:
        if getattr(module, name, None) is _OURS[name]:
            setattr(module, name, original)
        else:
            strangers.append(f"{module.__name__}.{name}")
    for follower in _factories:
        observer_factories.remove(follower)
    _factories.clear()
    follow_joblib(None)
    config.worker_hooks = tuple(hook for hook in config.worker_hooks if hook != _HOOK)
    if strangers:
        warn_caller(
            f"{', '.join(strangers)}: replaced by somebody else after install(), and left as it is",
            RuntimeWarning,
        )


def import_joblib(name: str = "joblib") -> ModuleType:
    """Return a module of joblib's."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("joblib", name):
            raise
        raise ImportError(
            "joblib is not installed, so there is nothing to stand in for: "
            "python -m pip install joblib",
            name="joblib",
        ) from error


def _takers(parallel: ModuleType) -> list[str]:
    """Return the names of modules, not joblib's, that hold what we are about to replace."""
    held = {id(getattr(parallel, name)) for name in _OURS.keys() - set(_HARMLESS)}
    kinds = [parallel.Parallel]
    for kind in kinds:  # the list grows: subclasses of subclasses
        subclasses = kind.__subclasses__()
        kinds += subclasses
        held.update(map(id, subclasses))
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in ("joblib", "parallel_core")
        and not held.isdisjoint(map(id, list(getattr(module, "__dict__", {}).values())))
    )
