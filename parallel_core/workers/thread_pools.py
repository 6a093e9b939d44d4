"""How many threads numeric libraries may use while threads of this process run tasks.

::

    caller's thread                                 each thread of the call
    begin ──▶ libraries with one number for the     enter ──▶ those with a number for each
      │       process (OpenBLAS, MKL, BLIS):                  thread (OpenMP): lowered,
      │       lowered, the old ones noted                     and gone with the thread
      ▼
    end   ──▶ put back, when no other call needs them lowered

Numbers are only ever lowered: a smaller one, set by a user of `threadpoolctl` or for the call
around this one, stays. What is loaded is looked for again when modules have been imported since;
asking `threadpoolctl` takes a millisecond, and a call of threads a tenth of that. Its own context
manager is not used, since calls overlap: the first that ends would put back what others need.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from memmapping.forks import in_child
from memmapping.interrupts import HeldInterrupts
from parallel_core.workers.threads import (
    native_libraries,
    process_environment,
    setter_of,
    users_variables,
    variable_of,
)


class _Libraries(NamedTuple):
    """What is loaded, each with the variable that it goes by."""

    n_modules: int  #: how many there were then
    shared: list[tuple[Any, bytes]]  #: libraries with one number for the process
    #: Those with a number for each thread, and what sets it.
    own: list[tuple[Any, bytes, Callable[[int], object]]]


class _Lowered:
    """A library whose number is lowered."""

    __slots__ = ("before", "library", "now")

    def __init__(self, library: Any) -> None:
        self.library = library
        self.before = self.now = library.get_num_threads()

    def set(self, number: int) -> None:
        self.now = number
        setter_of(self.library)(number)

    def follow(self, limit: int | None) -> None:
        """Go back as far as `limit` allows, all the way where there is none."""
        if limit is None:
            self.set(self.before)
        elif min(limit, self.before) > self.now == self.library.get_num_threads():
            self.set(min(limit, self.before))  # what somebody else has set is left to them


_libraries = _Libraries(0, [], [])
#: Of each call that is going on, what it allows.
_limits: dict[int, int] = {}
_lowered: dict[str, _Lowered] = {}  # by the library's file
_lock = threading.RLock()  # a signal handler, or the collector, may come back in here


class PoolLimit:
    """For one call: how many threads a library may use in each thread of the call."""

    __slots__ = ("_own", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._own: list[tuple[Callable[[int], object], int]] = []

    def begin(self) -> None:
        """Lower what is lowered for the whole process; called in the caller's thread."""
        found = _loaded()
        if not (found.shared or found.own):
            return
        users = users_variables(process_environment())
        threads = self._threads
        for library, variable, setter in found.own:
            if variable not in users:
                self._own.append((setter, min(threads, library.get_num_threads())))
        with _lock:
            _limits[id(self)] = threads
            for library, variable in found.shared:
                if variable not in users and threads < library.get_num_threads():
                    if library.filepath not in _lowered:
                        _lowered[library.filepath] = _Lowered(library)
                    _lowered[library.filepath].set(threads)

    def enter(self) -> None:
        """Lower what is lowered for the thread that this is called in."""
        for setter, number in self._own:
            setter(number)

    def end(self) -> None:
        """Put back what no other call needs; once or several times, whatever `begin` has done."""
        if id(self) not in _limits:
            return
        with HeldInterrupts(), _lock:
            if _limits.pop(id(self), None) is None:
                return
            limit = min(_limits.values(), default=None)
            for lowered in _lowered.values():
                lowered.follow(limit)
            if limit is None:
                _lowered.clear()

    def __del__(self) -> None:
        self.end()


def _loaded() -> _Libraries:
    global _libraries
    if len(sys.modules) != _libraries.n_modules and not sys.is_finalizing():
        _libraries = _look()
    return _libraries


def _look() -> _Libraries:
    shared, own = [], []
    try:
        libraries = native_libraries()
    except Exception:  # a library that it cannot speak to is no reason to fail a call
        libraries = []
    for library in libraries:
        if library.internal_api == "openmp":
            own.append((library, variable_of(library), _setter_of_thread(library)))
        elif getattr(library, "threading_layer", "") != "openmp":  # else OpenMP's number counts
            shared.append((library, variable_of(library)))
    return _Libraries(len(sys.modules), shared, own)


def _setter_of_thread(library: Any) -> Callable[[int], object]:
    """Return what sets the number of OpenMP in the thread that calls it.

    It keeps the interpreter's lock, for the time of an assignment: in a thread that has just begun,
    giving it away and waiting for it takes longer than all the rest of a call.
    """
    import ctypes

    fallback: Callable[[int], object] = library.set_num_threads
    try:
        same = ctypes.PyDLL(library.filepath, handle=library.dynlib._handle)
        return same.omp_set_num_threads
    except (AttributeError, TypeError):
        return fallback


@in_child
def _forget_in_child() -> None:
    """Forget the calls of the parent: nobody in a forked child ends them."""
    global _lock
    _lock = threading.RLock()
    _limits.clear()
    _lowered.clear()
