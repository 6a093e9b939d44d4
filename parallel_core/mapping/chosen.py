"""Which backend `map`, `imap` and `as_completed` use: the one that was set, or a default."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

from parallel_core.backends.registry import check_name
from parallel_core.mapping.backends import (
    DefaultBackend,
    EngineBackend,
    LokyBackend,
    MappingBackend,
    MPIBackend,
    MultiprocessBackend,
    ThreadBackend,
)

#: The names of backends; any name that `Parallel` knows is good as well.
BackendType = Literal["multiprocess", "loky", "mpi", "threads"]

_KINDS: dict[str, Callable[[], MappingBackend]] = {
    "multiprocess": MultiprocessBackend,
    "loky": LokyBackend,
    "mpi": MPIBackend,
    "threads": ThreadBackend,
}
_chosen: MappingBackend | None = None


def set_parallel_backend(backend: str | MappingBackend | None = None) -> None:
    """Set the backend that `map`, `imap` and `as_completed` use in this process.

    Parameters
    ----------
    backend : str or MappingBackend, optional
        ``"multiprocess"``, ``"threads"``, ``"loky"``, ``"mpi"``, the name of a backend of
        `Parallel`, or an instance of a subclass of `MappingBackend`. None goes back to the default:
        processes, unless the surrounding `parallel_config` names a backend.

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For anything else that is no backend.
    RuntimeError
        If MPI cannot be used here.

    Examples
    --------
    >>> from parallel_core.mapping import imap, set_parallel_backend
    >>> set_parallel_backend("threads")
    >>> list(imap(abs, [-1, -2], max_workers=2))
    [1, 2]
    >>> set_parallel_backend()
    """
    global _chosen
    _chosen = None if backend is None else _backend_of(backend)


def get_parallel_backend(backend: str | None = None) -> MappingBackend:
    """Return the backend that is set, or one by its name, without setting it.

    A package that calls methods of a backend of its own does not disturb other packages.

    Parameters
    ----------
    backend : str, optional
        Name, as for `set_parallel_backend`. None stands for the backend that is set.

    Returns
    -------
    MappingBackend
        Backend. If none is set, it is a `MultiprocessBackend`.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for `set_parallel_backend`.

    Examples
    --------
    >>> from parallel_core.mapping import get_parallel_backend
    >>> get_parallel_backend("threads").map(abs, [-1, -2], max_workers=2)
    [1, 2]
    """
    if backend is not None:
        return _backend_of(backend)
    return _default() if _chosen is None else _chosen


@functools.cache
def _default() -> MappingBackend:
    return DefaultBackend()


def _backend_of(given: Any) -> MappingBackend:
    """Return the backend that `given` stands for."""
    if isinstance(given, MappingBackend):
        return given
    if isinstance(given, str):
        if given in _KINDS:
            return _KINDS[given]()
        names = ", ".join(map(repr, _KINDS))
        check_name(given, f"no backend of imap has the name {given!r}, expected one of {names}: ")
        return EngineBackend(given)
    if isinstance(given, type):
        raise TypeError(f"{given.__name__!r} is a class: pass an instance, {given.__name__}()")
    raise TypeError(
        f"{given!r} is no backend: it must be one of {', '.join(_KINDS)}, or an instance of a "
        "subclass of MappingBackend"
    )
