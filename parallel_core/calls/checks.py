"""The checks of all parameters, made when a parameter is given and not when it is first used."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from memmapping.sizes import parse_nbytes
from parallel_core.backends.cores import check_n_jobs as check_n_jobs
from parallel_core.backends.registry import check_name
from parallel_core.calls.pre_dispatch import check_pre_dispatch as check_pre_dispatch
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import warn_caller
from parallel_core.tasks.placeholders import NO_RESULT
from parallel_core.workers.system import can_pin

RETRY_BACKOFF = 0.1
LOW_MEMORY_TIMEOUT = 60.0

_FOR_EVER = 1e9
_MMAP_MODES = (None, "r", "r+", "w+", "c")
_PREFERENCES = (None, "processes", "threads")
_REQUIREMENTS = (None, "sharedmem")
_OUTPUTS = ("pass", "capture", "discard")
_ON_ERROR = ("raise", "return", "skip")


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
    """Return the names of backends by level; raise ValueError or TypeError for other values."""
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
    """Return the names of modules as a tuple; raise ValueError or TypeError for other values."""
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


def check_flag(given: Any, name: str) -> bool:
    """Return `given`, which must be True or False."""
    if given is True or given is False:
        return bool(given)
    raise TypeError(f"{name} must be True or False, not {given!r}")


def check_function(given: Any, name: str) -> Callable[..., Any] | None:
    """Return `given` if it can be called, or None."""
    if given is None or callable(given):
        function: Callable[..., Any] | None = given
        return function
    raise TypeError(f"{name} must be a function or None, not {given!r}")


def check_cpu_ids(given: Any) -> tuple[tuple[int, ...], ...] | None:
    """Return the CPUs of each worker; None, with a warning, if the system cannot pin processes."""
    if given is None:
        return None
    words = (
        "cpu_ids must be a list with one entry for each worker, the number of a CPU or a list of "
        f"such numbers, as in [0, 1] or [[0, 1], [2, 3]], not {given!r}"
    )
    if not isinstance(given, (list, tuple, range)):
        raise TypeError(words)
    each = tuple(_cpus(entry, words) for entry in given)
    known = os.cpu_count() or 1
    for number in (number for cpus in each for number in cpus):
        if not 0 <= number < known:
            raise ValueError(f"cpu_ids: there is no CPU {number} here, but 0 to {known - 1}")
    if not can_pin():
        warn_caller("cpu_ids: workers cannot be tied to CPUs on this system", RuntimeWarning)
        return None
    return each


def _cpus(entry: Any, words: str) -> tuple[int, ...]:
    numbers = entry if isinstance(entry, (list, tuple, set, frozenset, range)) else [entry]
    if not numbers:
        raise ValueError(f"{words}: a worker needs one CPU at least")
    try:
        if any(isinstance(number, bool) for number in numbers):
            raise TypeError
        return tuple(sorted({operator.index(number) for number in numbers}))
    except TypeError:
        raise TypeError(words) from None


def check_worker_env(given: Any) -> tuple[tuple[tuple[str, str], ...], ...] | None:
    """Return the variables of each worker; raise ValueError or TypeError for other values."""
    if given is None:
        return None
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, Mapping) for one in given):
        raise TypeError(
            "worker_env must be a list with one mapping of variables for each worker, as in "
            f"[{{'CUDA_VISIBLE_DEVICES': '0'}}, {{'CUDA_VISIBLE_DEVICES': '1'}}], not {given!r}"
        )
    for name, value in (variable for one in given for variable in one.items()):
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"worker_env: names and values must be strings, not {name!r}: {value!r}"
                + (f"; write {str(value)!r}" if isinstance(name, str) else "")
            )
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"worker_env: {name!r}: {value!r} cannot be a variable")
    return tuple(tuple(one.items()) for one in given)


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


def check_count(given: Any, name: str) -> int | None:
    """Return `given` as a positive integer, or None."""
    if given is None:
        return None
    try:
        number = 0 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a positive integer or None, not {given!r}")
    return number


def check_size(given: Any, name: str) -> int | None:
    """Return `given` as a positive number of bytes, or None."""
    if given is None:
        return None
    nbytes = parse_nbytes(given, name)
    if nbytes == 0:
        raise ValueError(f"{name} must be more than nothing, or None for no limit, not {given!r}")
    return nbytes


def check_batch_size(given: object) -> int | None:
    """Return `given` as a positive integer, or None for ``"auto"``; else raise ValueError."""
    if given == "auto":
        return None
    if not isinstance(given, (str, bytes, bool, float)):
        try:
            size = operator.index(given)  # type: ignore[arg-type]  # the TypeError is the answer
        except TypeError:
            size = 0
        if size > 0:
            return size
    raise ValueError(f"batch_size must be 'auto' or a positive integer, not {given!r}")


def check_timeout(given: object, name: str = "timeout") -> float | None:
    """Return `given` as seconds, or None; else raise ValueError or TypeError about `name`."""
    if given is None:
        return None
    if isinstance(given, bool) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {given!r}")
    try:
        seconds = float(given)
    except OverflowError:
        raise ValueError(f"{name} must be a number of seconds or None, not {given!r}") from None
    if not seconds > 0:
        raise ValueError(f"{name} must be a positive number of seconds or None, not {given!r}")
    return None if math.isinf(seconds) else seconds


def check_return_as(given: object) -> ReturnAs:
    """Return `given` as a member of `ReturnAs`; else raise ValueError."""
    if given == "list":
        return ReturnAs.LIST
    try:
        return ReturnAs(given)
    except ValueError:
        known = ", ".join(repr(member.value) for member in ReturnAs)
        raise ValueError(f"return_as must be one of {known}, not {given!r}") from None


def check_failures(
    on_error: Any, retries: Any, retry_on: Any, backoff: Any
) -> tuple[Any, int, tuple[type[BaseException], ...], float]:
    """Return the four parameters about failures; raise unless they make sense."""
    if not callable(on_error) and on_error not in _ON_ERROR:
        known = ", ".join(map(repr, _ON_ERROR))
        raise ValueError(f"on_error must be one of {known}, or a function, not {on_error!r}")
    try:
        number = -1 if isinstance(retries, bool) else operator.index(retries)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"retries must be a number of times, 0 or more, not {retries!r}")
    kinds = tuple(retry_on) if isinstance(retry_on, (tuple, list)) else (retry_on,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(
                f"retry_on must be an exception class or a tuple of them, not {retry_on!r}"
            )
    if isinstance(backoff, (bool, str)) or not hasattr(backoff, "__float__"):
        raise TypeError(f"retry_backoff must be a number of seconds, not {backoff!r}")
    if not 0 <= float(backoff) < math.inf:
        raise ValueError(f"retry_backoff must not be negative or infinite, not {backoff!r}")
    return on_error, number, kinds, float(backoff)


def check_results(
    *,
    return_as: ReturnAs,
    stop_when: Any,
    reduce: Any,
    reduce_initial: Any,
    output: Any,
    on_error: Any,
    journal: Any,
) -> None:
    """Raise ValueError or TypeError unless what the caller wants to get goes together."""
    if stop_when is not None and not callable(stop_when):
        raise TypeError(f"stop_when must be a function of a result, not {stop_when!r}")
    if journal is not None:
        _check_journal(journal)
    check_output(output)
    if output == "capture":
        for name, given, why in (
            ("reduce", reduce, "what is folded are the results alone"),
            ("journal", journal, "it keeps results, for calls that may not capture"),
        ):
            if given is not None:
                raise ValueError(f"output='capture' does not go together with {name}: {why}")
    if reduce is None:
        if reduce_initial is not NO_RESULT:
            raise ValueError("reduce_initial has a meaning only together with reduce")
        return
    if not callable(reduce):
        raise TypeError(f"reduce must be a function of two results, not {reduce!r}")
    for name, is_given, why in (
        ("return_as='generator'", return_as is not ReturnAs.LIST, "the call returns one value"),
        ("on_error='return'", on_error == "return", "exceptions are no results to fold"),
        ("stop_when", stop_when is not None, "single results do not arrive"),
        ("journal", journal is not None, "single results do not arrive"),
    ):
        if is_given:
            raise ValueError(f"reduce does not go together with {name}: {why}")


def check_output(output: Any) -> None:
    """Raise ValueError unless `output` is one of its words."""
    if output not in _OUTPUTS:
        raise ValueError(f"output must be 'pass', 'capture' or 'discard', not {output!r}")


def _check_journal(journal: Any) -> None:
    """Raise TypeError unless `journal` is a path, or an open journal of the command line's."""
    store = sys.modules.get("parallel_core.journal.store")
    if store is not None and isinstance(journal, store.Journal):
        return
    try:
        os.fspath(journal)
    except TypeError:
        raise TypeError(f"journal must be the path of a file or None, not {journal!r}") from None
