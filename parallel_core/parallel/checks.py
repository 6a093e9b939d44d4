"""Every parameter is checked when it is given, not when it first matters."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from memmapping.sizes import parse_nbytes
from parallel_core.backends.registry import check_name

_FOR_EVER = 1e9
_MMAP_MODES = (None, "r", "r+", "w+", "c")
_PREFERENCES = (None, "processes", "threads")
_REQUIREMENTS = (None, "sharedmem")


def check_hints(prefer: Any, require: Any) -> None:
    """Raise ValueError unless `prefer` and `require` are known and agree."""
    if prefer is require is None:
        return
    if prefer not in _PREFERENCES:
        raise ValueError(f"prefer must be 'processes', 'threads' or None, not {prefer!r}")
    if require not in _REQUIREMENTS:
        raise ValueError(f"require must be 'sharedmem' or None, not {require!r}")
    if prefer == "processes" and require == "sharedmem":
        raise ValueError(
            "prefer='processes' and require='sharedmem' contradict each other: processes do not "
            "share the caller's memory"
        )


def check_nested(given: Any) -> tuple[str, ...]:
    """Return the names of backends, by level, that `nested` lists, or is.

    Raises
    ------
    ValueError, TypeError
        For what is no name of a registered backend.
    """
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"nested must be a list of names of backends, one for each level of calls within "
            f"tasks, such as ('threading', 'sequential'), not {given!r}"
        )
    if not names:
        raise ValueError("nested must name one backend at least, such as 'sequential' for none")
    for name in names:
        check_name(name, "nested: ")
    return tuple(names)


def check_of_arrays(
    temp_folder: Any = None, max_nbytes: Any = "1M", mmap_mode: Any = "r", check: Any = "auto"
) -> None:
    """Raise ValueError or TypeError unless the parameters for large arrays make sense."""
    if temp_folder is None and max_nbytes == "1M" and mmap_mode == "r" and check == "auto":
        return
    if temp_folder is not None and not isinstance(temp_folder, (str, os.PathLike)):
        raise TypeError(f"temp_folder must be a path or None, not {temp_folder!r}")
    if max_nbytes != "1M":
        parse_nbytes(max_nbytes)
    if mmap_mode not in _MMAP_MODES:
        raise ValueError(f"mmap_mode must be one of {_MMAP_MODES}, not {mmap_mode!r}")
    if check not in ("auto", "always", "never"):
        raise ValueError(f"check_arrays must be 'auto', 'always' or 'never', not {check!r}")


def check_verbose(verbose: Any) -> int:
    """Return `verbose` as an integer; else raise TypeError."""
    if type(verbose) is int:
        return verbose
    if isinstance(verbose, (str, bytes)) or not hasattr(verbose, "__int__"):
        raise TypeError(f"verbose must be a number, not {verbose!r}")
    try:
        return int(verbose)
    except (ValueError, OverflowError):
        raise ValueError(f"verbose must be a finite number, not {verbose!r}") from None


def check_idle_seconds(given: Any) -> float | None:
    """Return `idle_worker_timeout` in seconds; None means for ever."""
    if given is None:
        return None
    if isinstance(given, (bool, str)) or not hasattr(given, "__float__"):
        raise TypeError(f"idle_worker_timeout must be a number of seconds or None, not {given!r}")
    try:
        seconds = float(given)
    except OverflowError:
        return None
    if not seconds >= 0:
        raise ValueError(f"idle_worker_timeout must not be negative, not {given!r}")
    return None if seconds > _FOR_EVER else seconds


def check_initializer(initializer: Any, initargs: Any) -> None:
    """Raise TypeError unless the two can be called together."""
    if initializer is not None and not callable(initializer):
        raise TypeError(f"initializer must be a function or None, not {initializer!r}")
    if not isinstance(initargs, (tuple, list)):
        raise TypeError(f"initargs must be a tuple of arguments, not {initargs!r}")


def check_preload(given: Any) -> tuple[str, ...]:
    """Return the names of modules that `preload` lists, or is.

    Raises
    ------
    ValueError, TypeError
        For what cannot be the name of a module.
    """
    if given is None:
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"preload must be a list of names of modules, not {given!r}")
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(
                f"preload must be a list of names of modules, such as 'numpy' or "
                f"'scipy.linalg', not {name!r}"
            )
    return tuple(dict.fromkeys(names))


def check_iterable(iterable: Any) -> Iterable[Any]:
    """Return `iterable`; raise TypeError unless it can be iterated over."""
    kind = type(iterable)
    if hasattr(kind, "__iter__") or (hasattr(kind, "__getitem__") and kind is not type):
        tasks: Iterable[Any] = iterable
        return tasks
    hint = ""
    if callable(iterable):
        hint = ": write Parallel(...)(delayed(f)(x) for x in xs), not Parallel(...)(f)"
    elif hasattr(kind, "__aiter__"):
        hint = ", which is asynchronous: submit its items to get_executor() instead"
    raise TypeError(
        f"Parallel takes an iterable of delayed calls, not {iterable!r} of type "
        f"{type(iterable).__name__!r}{hint}"
    )
