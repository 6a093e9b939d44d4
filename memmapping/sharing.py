"""`share`: any object in shared memory once, and a small handle to pass on.

::

    share(obj) ──▶ layout.pack ──▶ segment ◀── open_shared ── a worker, at the first task that
       │                                            ▲          has the handle for an argument
       └──▶ Shared ── pickled: a few bytes ─────────┘

A process that receives a handle opens the object once and keeps it, so that every task there gets
the same one. It keeps it until it is told that the handle was closed: the code that connects the
processes passes that on (`when_closed`, `forget`).
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from memmapping.folders import candidate_folders, check_temp_folder
from memmapping.forks import in_child
from memmapping.layout import pack, unpack
from memmapping.segments import Origin, Segment
from memmapping.store import segment_store

_TOKEN_NBYTES = 16

_opened: dict[str, Any] = {}
_origins: dict[str, Origin] = {}
_opening = threading.RLock()  # an object may hold a handle, and open it
_listeners: list[Callable[[str], object]] = []


class Shared:
    """Handle of an object in shared memory, created by `share`.

    If a handle is an argument of a task, the task gets the object. If it lies within an argument,
    such as a list, the task gets the handle, and `get` returns the object.

    Attributes
    ----------
    nbytes : int
        Size of the shared memory in bytes.
    """

    __slots__ = ("__weakref__", "_segment", "_token", "_where", "nbytes")

    def __init__(
        self, token: str, nbytes: int, segment: Segment | None, where: Origin | None = None
    ) -> None:
        self._token = token
        self._segment = segment
        self._where = where
        self.nbytes = nbytes

    @property
    def segment(self) -> Segment | None:
        """Where it is, in the process that made it."""
        return self._segment

    @property
    def reference(self) -> tuple[tuple[Any, ...], int, str]:
        """What another process needs to open it; a ValueError says that the handle is closed."""
        where = self._segment.origin if self._segment is not None else self._where
        if where is None:
            raise ValueError("this shared object has been closed")
        return tuple(where), self.nbytes, self._token

    def get(self) -> Any:
        """Return the object; every call in a process returns the same one.

        Its arrays lie in shared memory and are read-only. In the process that created the handle,
        too, it is a copy of the original.

        Raises
        ------
        ValueError
            If the handle is closed.
        StaleReferenceError
            If its memory is gone.
        """
        return open_shared(*self.reference)

    def close(self) -> None:
        """Free the memory as soon as no pending task and no array needs it; safe to repeat."""
        self._segment = self._where = None
        forget(self._token)

    def __enter__(self) -> Shared:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, self.reference

    def __repr__(self) -> str:
        closed = "" if self._segment is not None or self._where is not None else ", closed"
        return f"<Shared object of {self.nbytes} bytes{closed}>"


class Argument:
    """A handle on its way to be an argument, where the object takes its place."""

    __slots__ = ("handle",)

    def __init__(self, handle: Shared) -> None:
        self.handle = handle

    @property
    def segment(self) -> Segment | None:
        """Where it is, in the process that made it."""
        return self.handle.segment

    def __reduce__(self) -> tuple[Any, ...]:
        return open_shared, self.handle.reference

    def __repr__(self) -> str:
        return repr(self.handle)


def share(obj: Any, temp_folder: str | None = None) -> Shared:
    """Put an object in shared memory once, for any number of tasks to use.

    The object is taken as it is now; tasks do not see later changes. All workers use its arrays
    in shared memory. Everything else is unpickled once in each worker. Tasks should only read the
    object: later tasks in the same worker see changes.

    Parameters
    ----------
    obj : object
        Object that can be pickled.
    temp_folder : str, optional
        Folder to use instead of ``/dev/shm``.

    Returns
    -------
    Shared
        Handle to pass to tasks in place of the object. The memory is freed when the handle is
        closed (it is a context manager) or dropped, and no pending task needs it.

    Raises
    ------
    OSError
        If there is no room for the object.

    Examples
    --------
    >>> from memmapping import share
    >>> from parallel_core import Parallel, delayed
    >>> def look_up(words, key):
    ...     return words[key]
    >>> with share({"one": 1, "two": 2}) as words:
    ...     Parallel(n_jobs=2)(delayed(look_up)(words, key) for key in ["two", "one"])
    [2, 1]
    """
    check_temp_folder(temp_folder)
    packed = pack(obj)
    token = secrets.token_hex(_TOKEN_NBYTES // 2)

    def fill(segment: Segment) -> None:
        packed.write_to(segment.fd, 0)
        segment.write(token.encode(), packed.nbytes)

    segment = segment_store().take_filled(
        packed.nbytes + _TOKEN_NBYTES, candidate_folders(temp_folder), fill, partial(_tell, token)
    )
    return Shared(token, packed.nbytes, segment)


def open_shared(origin: tuple[Any, ...], nbytes: int, token: str) -> Any:
    """Return the shared object that lies in the file of `origin`; the same one each time."""
    try:
        return _opened[token]
    except KeyError:
        pass
    from memmapping.arrays import memmap_over
    from memmapping.references import StaleReferenceError, open_mapping

    where = Origin(*origin)
    with _opening:
        if token in _opened:
            return _opened[token]
        mapping = open_mapping(where, nbytes + _TOKEN_NBYTES, "r")
        if mapping[nbytes : nbytes + _TOKEN_NBYTES] != token.encode():  # the number was given again
            raise StaleReferenceError("the memory of a shared object is another one's now")

        def make(offset: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
            return memmap_over(mapping, offset, dtype, shape, order, filename=None, mode="r")

        found = _opened[token] = unpack(mapping, make, "the shared object")
        _origins[token] = where
    return found


def forget(token: str) -> None:
    """Let go of a shared object that was opened here: its handle is closed."""
    _opened.pop(token, None)
    _origins.pop(token, None)


def forget_stale() -> None:
    """Let go of the shared objects that were opened here and whose owners have let go of them."""
    for token, where in list(_origins.items()):
        try:
            status = os.stat(where.path)
            stale = (status.st_dev, status.st_ino) != (where.device, where.inode)
        except OSError:
            stale = True
        if stale:
            forget(token)


def when_closed(listener: Callable[[str], object]) -> None:
    """Have `listener` told the token of each shared object of this process that is gone.

    That is when its handle is closed and no task in flight needs it any more. The listener may be
    called by a finalizer, in any thread and at any moment.
    """
    _listeners.append(listener)


def replace_handles(
    args: tuple[Any, ...], kwargs: dict[str, Any], replace: Callable[[Shared], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with `replace` applied to those that are handles."""
    if any(isinstance(value, Shared) for value in args):
        args = tuple(replace(value) if isinstance(value, Shared) else value for value in args)
    if kwargs and any(isinstance(value, Shared) for value in kwargs.values()):
        kwargs = {
            name: replace(value) if isinstance(value, Shared) else value
            for name, value in kwargs.items()
        }
    return args, kwargs


def _attached(origin: tuple[Any, ...], nbytes: int, token: str) -> Shared:
    return Shared(token, nbytes, None, Origin(*origin))


def _tell(token: str) -> None:
    forget(token)
    for listener in _listeners:
        listener(token)


@in_child
def _after_fork() -> None:
    global _opening
    _opening = threading.RLock()  # the thread that had it is not here
