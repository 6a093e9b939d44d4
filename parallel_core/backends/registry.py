"""Backends by name, and everything else that may stand for one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from memmapping.interrupts import HeldSignals
from memmapping.modules import loaded
from parallel_core.backends.base import Backend
from parallel_core.backends.local import SequentialBackend, ThreadingBackend

Factory = Callable[..., Any]


def _processes() -> Backend:
    from parallel_core.workers.system import has_own_pool

    if not has_own_pool():
        return _loky()
    from parallel_core.backends.processes import ProcessesBackend

    return ProcessesBackend()


def _multiprocessing() -> Backend:
    from parallel_core.backends.processes import multiprocessing_backend

    return multiprocessing_backend()


def _loky() -> Backend:
    from parallel_core.backends.loky import LokyBackend

    return LokyBackend()


def _mpi() -> Backend:
    from parallel_core.backends.cluster.mpi import MpiBackend

    return MpiBackend()


def _dask(**params: Any) -> Backend:
    from parallel_core.backends.cluster.dask import DaskBackend

    return DaskBackend(**params)


def _ray(**params: Any) -> Backend:
    from parallel_core.backends.cluster.ray import RayBackend

    return RayBackend(**params)


_factories: dict[str, Factory] = {
    "processes": _processes,
    "threading": ThreadingBackend,
    "sequential": SequentialBackend,
    "loky": _loky,
    "multiprocessing": _multiprocessing,
    "mpi": _mpi,
}
_default = "processes"
_BUILT_IN = dict(_factories)
_ENGINES: dict[str, Factory] = {"dask": _dask, "ray": _ray}  # built in as well, and with parameters
_factories.update(_ENGINES)
#: Modules whose backends ours of the same name stand for.
_REPLACED = ("joblib._parallel_backends", "joblib._dask", "ray.util.joblib.ray_backend")
_STATELESS = (_processes, ThreadingBackend, SequentialBackend, _loky, _mpi)
_made: dict[str, Backend] = {}
_replaced: ModuleType | None = None  # joblib.parallel, when we stand in its place


def register_parallel_backend(name: str, factory: Factory, make_default: bool = False) -> None:
    """Register a backend under a name.

    Parameters
    ----------
    name : str
        Name that users pass as ``backend=``.
    factory : callable
        Function or class that returns a `Backend`, a `concurrent.futures.Executor`, or a backend by
        joblib's conventions. It is called with the ``backend_params`` of the `parallel_config`
        block that chose the backend.
    make_default : bool, default False
        Whether calls that choose no backend use this one.

    Raises
    ------
    TypeError
        If `name` is not a string or `factory` is not callable.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from parallel_core import Parallel, delayed, register_parallel_backend
    >>> executor = ThreadPoolExecutor(2)
    >>> register_parallel_backend("mine", lambda: executor)
    >>> Parallel(n_jobs=2, backend="mine")(delayed(abs)(x) for x in (-1, -2))
    [1, 2]
    >>> executor.shutdown()
    """
    global _default
    if not isinstance(name, str):
        raise TypeError(f"a backend's name must be a string, not {name!r}")
    if not callable(factory):
        raise TypeError(f"the factory of backend {name!r} cannot be called: {factory!r}")
    _factories[name] = factory
    if make_default:
        _default = name


def default_backend_name() -> str:
    """Return the name of the backend used where none is chosen."""
    if _replaced is not None:
        usual = "threading" if _replaced.mp is None else "loky"
        if usual != _replaced.DEFAULT_BACKEND:
            return str(_replaced.DEFAULT_BACKEND)
    return _default


def follow_joblib(parallel: ModuleType | None) -> None:
    """Let what is registered with joblib come before what is ours; None: let it come after.

    Parameters
    ----------
    parallel : module or None
        ``joblib.parallel``.
    """
    global _replaced
    _replaced = parallel


def check_name(name: str, where: str = "") -> None:
    """Raise ValueError, which begins with `where`, unless `name` is registered."""
    if _find_factory(name) is None:
        raise ValueError(where + _unknown(name))


def takes_params(backend: object) -> bool:
    """Whether `backend` is the name of one whose factory may have parameters: none of ours."""
    if not isinstance(backend, str):
        return False
    return backend not in _BUILT_IN or _find_factory(backend) is not _BUILT_IN[backend]


def find_backend(backend: Any, params: dict[str, Any] | None = None) -> Backend:
    """Return the backend that `backend` stands for.

    Parameters
    ----------
    backend : str, Backend, Executor, multiprocessing context or a backend by joblib's conventions
        A registered name, or the thing itself.
    params : dict, optional
        Passed to the factory of a registered name, where `takes_params` says yes.

    Raises
    ------
    ValueError
        For a name that is not registered.
    TypeError
        For anything that cannot run tasks.
    """
    if isinstance(backend, Backend):
        return backend
    if isinstance(backend, str):
        factory = _find_factory(backend)
        if factory is None:
            raise ValueError(_unknown(backend))
        if factory is _BUILT_IN.get(backend):
            return built_in(backend)
        made = factory(**(params or {}))
        return _as_backend(made, f"the factory of backend {backend!r}", backend)
    return _as_backend(backend, "backend=")


def built_in(name: str) -> Backend:
    """Return our own backend `name`, whatever has been registered under that name since."""
    known = _made.get(name)
    if known is not None:
        return known
    factory = _BUILT_IN[name]
    if factory in _STATELESS and sys.is_finalizing():  # nothing can be imported any more
        factory = SequentialBackend
    with HeldSignals():  # a handler might need the module that is being imported
        made: Backend = factory()
    if factory in _STATELESS:
        _made[name] = made
    return made


def _find_factory(name: str) -> Factory | None:
    ours = _factories.get(name)
    if ours is None or _replaced is not None:
        return _factory_of_joblib(name) or ours
    return ours


def _factory_of_joblib(name: str) -> Factory | None:
    """Return what others have registered with joblib, where joblib is in use."""
    joblib = loaded("joblib.parallel")
    if joblib is None:
        return None
    known = joblib.BACKENDS
    register = getattr(joblib, "EXTERNAL_BACKENDS", {}).get(name)
    if name not in known and register is not None:
        register()
    found: Factory | None = known.get(name)
    home = getattr(found, "__module__", "")
    if home == "parallel_core.bridge.backend":
        return None  # this would be a circle
    if home in _REPLACED and name in _factories:
        return None  # ours of that name is meant
    return found


def _as_backend(made: Any, source: str, name: str | None = None) -> Backend:
    if isinstance(made, Backend):
        return made
    futures = loaded("concurrent.futures")
    if futures is not None and isinstance(made, futures.Executor):
        from parallel_core.backends.futures import ExecutorBackend

        return ExecutorBackend(made)
    if hasattr(made, "Process") and hasattr(made, "get_start_method"):
        from parallel_core.backends.processes import multiprocessing_backend

        return multiprocessing_backend(made)
    from parallel_core.backends import joblib_style

    if joblib_style.is_joblib_style(made):
        ours = joblib_style.name_of_ours(made)
        if ours is not None:
            return built_in(ours)
        return joblib_style.JoblibStyleBackend(made, name, find_backend)
    what = "a class, and no backend yet" if isinstance(made, type) else "no backend"
    raise TypeError(
        f"{source} gave {made!r}, which is {what}: it must be the name of a registered one "
        f"({', '.join(sorted(_factories))}), a Backend, a concurrent.futures.Executor, a "
        "multiprocessing context or a backend by joblib's conventions"
    )


def _unknown(name: str) -> str:
    import difflib

    joblib = loaded("joblib.parallel")
    names = sorted({*_factories, *(() if joblib is None else joblib.BACKENDS)})
    close = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return (
        f"unknown backend {name!r}{hint} Known are: {', '.join(names)}; any other has to be "
        "registered first, with register_parallel_backend or with joblib"
    )
