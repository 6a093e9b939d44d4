"""How many threads numeric libraries may use in a worker, and how they are told.

::

    caller                                           worker
    inner_max_num_threads,                           ┌─▶ os.environ: what is imported later
    else cores // n_jobs ──▶ ProcessState.threads ──▶┤
                                                     └─▶ tell_loaded: what is imported already

Workers that are warm are told another limit rather than replaced. So calls that take turns with
different `n_jobs` keep their processes, and a scan over `n_jobs` leaves no more workers than its
largest call. BLAS and OpenMP libraries (by `threadpoolctl`) and numexpr follow up and down. numba
follows only down from what its variable was at its import, so that variable is part of the
`WorkerKey` where the caller has numba loaded; of a numba that only tasks import, a warm worker
uses fewer threads than it might, never more. vecLib and TBB are told by the environment alone.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_OMP, _OPENBLAS, _MKL = b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"MKL_NUM_THREADS"
_BLIS, _VECLIB = b"BLIS_NUM_THREADS", b"VECLIB_MAXIMUM_THREADS"
_NUMBA, _NUMEXPR = b"NUMBA_NUM_THREADS", b"NUMEXPR_NUM_THREADS"

#: Variables that limit the threads of numeric libraries, which read them at their import.
THREAD_VARIABLES = (_OMP, _OPENBLAS, _MKL, _BLIS, _VECLIB, _NUMBA, _NUMEXPR)

_NUMEXPR_MAX = b"NUMEXPR_MAX_THREADS"
_NUMEXPR_DEFAULT_MAX = 64
#: Asks the TBB schedulers of several processes to share the cores.
_TBB = b"ENABLE_IPC"
#: The limit of the worker that this process is or descends from, then the variables in its
#: environment that are the user's; the others are ours, and not to be taken for the user's word.
_MARK = b"PARALLEL_CORE_WORKER_THREADS"

_CONCERNED = (*THREAD_VARIABLES, _NUMEXPR_MAX, _TBB, _MARK)


class ThreadLimit(NamedTuple):
    """What a worker is told of threads."""

    threads: int  #: how many numeric libraries may use
    environment: dict[bytes, bytes]  #: what the caller's process has of the variables that matter


def process_environment() -> Mapping[bytes, bytes]:
    """Return the environment of this process, not to be changed."""
    # The dictionary behind os.environ is private, and ten times faster to read or to copy.
    variables = getattr(os.environ, "_data", None)
    if type(variables) is dict and os.supports_bytes_environ:
        found: Mapping[bytes, bytes] = variables
        return found
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}


def thread_limit(threads: int) -> ThreadLimit:
    """Return what to tell workers that get nothing else of this process's environment."""
    environment = process_environment()
    concerned = {name: environment[name] for name in _CONCERNED if name in environment}
    return ThreadLimit(threads, concerned)


def enclosing_limit(environment: Mapping[bytes, bytes]) -> int | None:
    """Return the limit that holds for this process because it works for a call, if it does."""
    mark = environment.get(_MARK)
    return None if mark is None else _number(mark.partition(b" ")[0])


def general_limit(environment: Mapping[bytes, bytes]) -> int | None:
    """Return ``OMP_NUM_THREADS`` if the user has set it to a number.

    BLAS libraries and numexpr go by it, too, until their own variable is set, as we do.
    """
    value = environment.get(_OMP)
    if not value or (_MARK in environment and _OMP not in users_variables(environment)):
        return None
    return _number(value.partition(b",")[0])  # the rest is for nested regions


def users_variables(environment: Mapping[bytes, bytes]) -> set[bytes]:
    """Return which of `THREAD_VARIABLES` the user has set; an empty value counts as unset."""
    limit = enclosing_limit(environment)
    if limit is None:
        return {name for name in THREAD_VARIABLES if environment.get(name)}
    named = environment[_MARK].split()[1:]
    ours: dict[bytes, bytes | None] = {**_values(limit, environment)}
    ours[_NUMBA] = environment.get(_NUMBA)  # what it was at numba's import, see _tell_numba
    return {
        name
        for name in THREAD_VARIABLES
        if (value := environment.get(name)) and (value != ours[name] or name in named)
    }


def limited_environment(environment: Mapping[bytes, bytes], threads: int) -> dict[bytes, bytes]:
    """Return the environment of a worker for a caller that has `environment`."""
    users = users_variables(environment)
    ours = _values(threads, environment)
    limited = {**environment, **{name: ours[name] for name in ours if name not in users}}
    limited.setdefault(_TBB, b"1")
    limited[_MARK] = b" ".join([b"%d" % threads, *sorted(users)])
    return limited


def import_only_variables(threads: int) -> tuple[tuple[str, str], ...]:
    """Return the variables that a warm worker could not be told, if they matter to the caller."""
    if "numba" not in sys.modules:
        return ()
    environment = process_environment()
    value = _numba_threads(threads, environment.get(_NUMBA), environment.get(_MARK))
    return ((os.fsdecode(_NUMBA), value),)


@functools.lru_cache(64)
def _numba_threads(threads: int, value: bytes | None, mark: bytes | None) -> str:
    given = {_NUMBA: value, _MARK: mark}
    environment = {name: text for name, text in given.items() if text is not None}
    return os.fsdecode(limited_environment(environment, threads)[_NUMBA])


def follow(now: ThreadLimit, before: ThreadLimit | None) -> None:
    """Have this process, which was told `before`, follow another limit."""
    wanted = limited_environment(now.environment, now.threads)
    known = {} if before is None else limited_environment(before.environment, before.threads)
    for name in _CONCERNED:
        value = wanted.get(name)
        if value == known.get(name):
            continue
        if value is None:
            os.environ.pop(os.fsdecode(name), None)
        else:
            os.environ[os.fsdecode(name)] = os.fsdecode(value)
    tell_loaded(wanted, None if before is None else known)


def tell_loaded(wanted: Mapping[bytes, bytes], known: Mapping[bytes, bytes] | None) -> None:
    """Have the libraries that are loaded in this process follow their variables.

    `wanted` and `known` are environments by `limited_environment`, now and before. If there was
    none before, libraries whose variable the user has set are left alone: they may have been
    loaded, and set up, by the process that this one was forked from.
    """
    if known is None:
        alone = wanted[_MARK].split()[1:]
        news = [name for name in THREAD_VARIABLES if name not in alone]
    else:
        news = [name for name in THREAD_VARIABLES if wanted.get(name) != known.get(name)]
    numbers = {
        name: number
        for name in news
        if (number := _number(wanted.get(name, b"").partition(b",")[0])) is not None
    }
    if not numbers:
        return
    for tell in (_tell_numexpr, _tell_numba, _tell_native):
        try:
            tell(numbers)
        except Exception as error:
            warnings.warn(
                f"a worker could not limit the threads of its libraries: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )


def _tell_numexpr(numbers: dict[bytes, int]) -> None:
    numexpr: Any = sys.modules.get("numexpr")
    if numexpr is not None and _NUMEXPR in numbers:
        numexpr.set_num_threads(min(numbers[_NUMEXPR], numexpr.MAX_THREADS))


def _tell_numba(numbers: dict[bytes, int]) -> None:
    numba: Any = sys.modules.get("numba")
    if numba is not None and _NUMBA in numbers:
        most = numba.config.NUMBA_NUM_THREADS
        # With another value than at its import, numba refuses to compile, or crashes.
        os.environ[os.fsdecode(_NUMBA)] = str(most)
        numba.set_num_threads(min(numbers[_NUMBA], most))


def _tell_native(numbers: dict[bytes, int]) -> None:
    for library in native_libraries():
        number = numbers.get(variable_of(library))
        if number is not None:
            setter_of(library)(number)


def native_libraries() -> list[Any]:
    """Return what `threadpoolctl` knows of the libraries that are loaded."""
    if not _has_native():
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it thinks of the user's libraries
        from threadpoolctl import ThreadpoolController

        found: list[Any] = ThreadpoolController().lib_controllers
        return found


def setter_of(library: Any) -> Callable[[int], object]:
    """Return what sets the number of threads of a library known to `threadpoolctl`.

    From 3.7 on, its own method makes the calling thread the only one that may set OpenBLAS's number
    from then on: users' limits in other threads would do nothing after it, and ours would do
    nothing within theirs.
    """
    setter: Callable[[int], object] = getattr(
        library, "_real_set_num_threads", library.set_num_threads
    )
    return setter


def variable_of(library: Any) -> bytes:
    """Return the variable that a library known to `threadpoolctl` goes by."""
    own = {b"openblas": _OPENBLAS, b"mkl": _MKL, b"blis": _BLIS}
    kind = library.internal_api
    if kind == "openblas" and library.threading_layer == "openmp":
        return _OMP  # its threads are OpenMP's
    return own.get(kind.encode(), _OMP)


_NATIVE = (b"blas", b"libblis", b"libmkl", b"libgomp", b"libiomp", b"libomp")


def _has_native() -> bool:
    """Whether there is anything for `threadpoolctl`, whose import takes as long as a start."""
    if "threadpoolctl" in sys.modules:
        return True
    try:
        with open("/proc/self/maps", "rb") as file:
            maps = file.read()
    except OSError:
        return True  # it knows how to look elsewhere
    return any(name in maps for name in _NATIVE)


def _values(threads: int, environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what each variable should be by a limit."""
    values = dict.fromkeys(THREAD_VARIABLES, b"%d" % threads)
    most = _number(environment.get(_NUMEXPR_MAX, b"")) or _NUMEXPR_DEFAULT_MAX
    if threads > most:  # numexpr would complain, and use one
        values[_NUMEXPR] = b"%d" % most
    return values


def _number(value: bytes) -> int | None:
    try:
        number = int(value)
    except ValueError:
        return None
    return number if number > 0 else None
