"""References: how an array or buffer that lies in a file is named, and opened by another process.

::

    array over a mapping ──▶ (origin, offset, dtype, shape, strides) ──▶ open_array ──▶ memmap
      of a file or segment                 a few bytes                   in any process

One mapping of each file serves all arrays that a process has of it, while `keeping` says so or an
array is alive; only copy-on-write mappings are made anew each time, since two tasks must not see
each other's changes. What was opened here is remembered by its mapping: so an array that came as a
reference can be handed on as one.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from memmapping.arrays import memmap_over
from memmapping.forks import in_child
from memmapping.interrupts import HeldSignals
from memmapping.maps import file_at
from memmapping.segments import Origin, Segment


class StaleReferenceError(RuntimeError):
    """The file of a reference is gone, was truncated, or was replaced."""


class Mapped(NamedTuple):
    """Where the memory of a mapping comes from."""

    origin: Origin
    mode: str  #: how it was opened: ``"r"``, ``"r+"`` or ``"c"``
    start: int  #: the address
    offset: int  #: where in the file it starts
    segment: Segment | None  #: in the process that made it


_mapped: WeakKeyDictionary[mmap.mmap, Mapped] = WeakKeyDictionary()
_open: WeakValueDictionary[tuple[int, int, str], mmap.mmap] = WeakValueDictionary()
_lock = threading.Lock()
#: Where this host has files of another one, by path, device and inode there.
_relocated: dict[tuple[str, int, int], Origin] = {}


class Keeper:
    """Keeps mappings open from one use to the next, until they are not used for one round.

    A worker's tasks share their arrays; between two of them no array may be alive. Before the
    first round and after `drop` nothing is kept.
    """

    def __init__(self) -> None:
        self._active = False
        self._now: dict[mmap.mmap, None] = {}
        self._before: dict[mmap.mmap, None] = {}

    def begin(self) -> None:
        """Start a round: keep what it uses, and until it ends what the one before used."""
        self._active = True
        self._before, self._now = self._now, {}

    def end(self) -> None:
        """Let go of what this round did not use."""
        self._before = {}

    def keep(self, mapping: mmap.mmap) -> None:
        """Note that `mapping` is used."""
        if self._active:
            self._now[mapping] = None

    def has_read_only(self) -> bool:
        """Whether this round has used a mapping that cannot be written to."""
        return any(_mapped[mapping].mode == "r" for mapping in self._now if mapping in _mapped)

    def drop(self) -> None:
        """Let go of everything."""
        self._active = False
        self._now, self._before = {}, {}


keeper = Keeper()


def open_mapping(origin: Origin, nbytes: int, mode: str) -> mmap.mmap:
    """Return a mapping of at least the first `nbytes` of the file that `origin` names.

    A `StaleReferenceError` says that the file is not there any more, or not what it was.
    """
    if _relocated:
        origin = _relocated.get(origin[:3], origin)
    key = (origin.device, origin.inode, mode)
    with HeldSignals(), _lock:  # whose handlers may make a call, and come in here
        mapping = _open.get(key) if mode != "c" else None
        if mapping is not None and not origin.nameless:
            _check_length(origin, nbytes)
        if mapping is None or len(mapping) < nbytes:
            mapping = _map(origin, nbytes, mode)
            if mode != "c":
                _open[key] = mapping
    if mode != "c":
        keeper.keep(mapping)
    return mapping


def _map(origin: Origin, nbytes: int, mode: str) -> mmap.mmap:
    fd = _open_file(origin, os.O_RDWR if mode == "r+" else os.O_RDONLY)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (origin.device, origin.inode):
            raise StaleReferenceError(f"{_words(origin)} is another file than it was")
        if not stat.S_ISREG(status.st_mode):
            raise StaleReferenceError(f"{_words(origin)} is no regular file")
        if status.st_size < nbytes:
            raise _truncated(origin, nbytes, status.st_size)
        access = {"r": mmap.ACCESS_READ, "r+": mmap.ACCESS_WRITE, "c": mmap.ACCESS_COPY}[mode]
        mapping = mmap.mmap(fd, status.st_size, access=access)
    finally:
        os.close(fd)
    remember(mapping, origin, mode)
    return mapping


def relocate(places: Iterable[tuple[Any, Any]]) -> None:
    """Note that files of another host are to be opened elsewhere; each origin as its fields."""
    for there, here in places:
        _relocated[Origin(*there)[:3]] = Origin(*here)


def _open_file(origin: Origin, flags: int) -> int:
    try:
        return os.open(origin.path, flags | os.O_CLOEXEC)
    except OSError as error:
        why = error.strerror
        if origin.nameless and isinstance(error, FileNotFoundError):
            why = "the process that holds it has let go of it, or has ended"
        raise StaleReferenceError(f"{_words(origin)} cannot be opened: {why}") from error


def _check_length(origin: Origin, nbytes: int) -> None:
    """Raise StaleReferenceError when a file that is mapped was cut off: reading would be fatal."""
    try:
        found = os.stat(origin.path).st_size
    except OSError:
        return  # it has lost its name, not its content
    if found < nbytes:
        raise _truncated(origin, nbytes, found)


def _truncated(origin: Origin, nbytes: int, found: int) -> StaleReferenceError:
    return StaleReferenceError(
        f"{_words(origin)} has been truncated: it should hold {nbytes} bytes, and holds {found}"
    )


def _words(origin: Origin) -> str:
    if origin.nameless:
        return f"the shared memory of an array ({origin.path})"
    return f"the file of a memory map ({origin.path})"


def remember(mapping: mmap.mmap, origin: Origin, mode: str, segment: Segment | None = None) -> None:
    """Note where `mapping`, of a whole file, comes from."""
    _mapped[mapping] = Mapped(origin, mode, address_of(mapping), 0, segment)


def address_of(buffer: mmap.mmap | memoryview) -> int:
    """Return where in memory a contiguous `buffer` begins."""
    return int(np.frombuffer(buffer, np.uint8, 1).ctypes.data)


def root_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array that `array` is a view of, or itself."""
    root = array
    base: Any = array.base
    while base is not None:
        if isinstance(base, np.ndarray):
            root = base
            base = base.base
        elif isinstance(base, memoryview):
            base = base.obj
        elif type(base).__name__ == "DummyArray":  # of numpy.lib.stride_tricks
            base = base.base
        else:
            break
    return root


def mapping_under(root: np.ndarray[Any, Any]) -> Mapped | None:
    """Return what is known of the file under `root`, if it lies in one that others can open.

    A ``numpy.memmap`` of the user's counts when its file still is what was mapped; one that was
    opened copy-on-write does not, since what this process wrote is in no file.
    """
    mapping: Any = root.base
    if isinstance(mapping, memoryview):
        mapping = mapping.obj
    found = _mapped.get(mapping) if isinstance(mapping, mmap.mmap) else None
    if found is None and isinstance(mapping, mmap.mmap) and isinstance(root, np.memmap):
        found = _named(root, mapping)
    if found is None:
        found = _mapped_at(int(root.ctypes.data))
    if found is None or found.mode == "c":
        return None
    if not found.origin.nameless and not _is_there(found.origin):
        return None
    if found.segment is not None:  # as this process, which may be a fork, has it
        found = found._replace(origin=found.segment.origin)
    return found


def _mapped_at(address: int) -> Mapped | None:
    """Return what is known of the mapping around `address`, whatever object led there."""
    for mapping, found in list(_mapped.items()):
        if found.start <= address < found.start + len(mapping):
            return found
    return None


def _named(root: np.memmap[Any, Any], mapping: mmap.mmap) -> Mapped | None:
    filename, mode = getattr(root, "filename", None), getattr(root, "mode", None)
    if filename is None or mode is None:
        return None
    start = address_of(mapping)
    try:
        path = os.path.realpath(filename)
        status = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    if mode == "c" or file_at(start) != (path, status.st_ino):
        return None
    offset = root.offset - (root.ctypes.data - start)
    origin = Origin(path, status.st_dev, status.st_ino, False)
    found = Mapped(origin, "r" if mode == "r" else "r+", start, offset, None)
    _mapped[mapping] = found
    return found


def _is_there(origin: Origin) -> bool:
    try:
        status = os.stat(origin.path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (origin.device, origin.inode)


def bounds_of(array: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the first address of an array's elements, and the one after the last."""
    low = high = int(array.ctypes.data)
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size == 0:
            return low, low
        if stride < 0:
            low += (size - 1) * stride
        else:
            high += (size - 1) * stride
    return low, high + array.itemsize


def reduce_mapped(array: np.ndarray[Any, Any], mapped: Mapped) -> tuple[Any, ...]:
    """Return how to pickle an array over the mapping `mapped`: as a reference."""
    mode = "r+" if mapped.mode == "r+" and array.flags.writeable else "r"
    return reference(array, mapped.origin, mapped.offset - mapped.start, mode)


def reduce_if_mapped(obj: object) -> Any:
    """Return how to pickle `obj` as a reference, for ``reducer_override``; else NotImplemented."""
    if type(obj) is np.ndarray or type(obj) is np.memmap:
        mapped = mapping_under(root_of(obj))
        if mapped is not None:
            return reduce_mapped(obj, mapped)
    return NotImplemented


def reference(
    array: np.ndarray[Any, Any], origin: Origin, shift: int, mode: str | None
) -> tuple[Any, ...]:
    """Return how to pickle `array`, whose byte at ``p`` is at ``p + shift`` in the file."""
    _, end = bounds_of(array)
    return open_array, (
        tuple(origin),
        array.ctypes.data + shift,
        end + shift,
        mode,
        array.dtype,
        array.shape,
        None if array.flags.c_contiguous else array.strides,
    )


def open_array(
    origin: tuple[Any, ...],
    offset: int,
    nbytes: int,
    mode: str | None,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
) -> np.ndarray[Any, Any]:
    """Return the array that lies at `offset` in the file of `origin`, the fields of an `Origin`.

    The file has to reach up to `nbytes`, or a `StaleReferenceError` is raised. A `mode` of None
    makes an array of its own, in memory; `strides` of None are those of C order.
    """
    where = Origin(*origin)
    mapping = open_mapping(where, nbytes, "r" if mode is None else mode)
    array = memmap_over(
        mapping,
        offset,
        dtype,
        shape,
        strides=strides,
        filename=None if where.nameless else where.path,
        mode="r" if mode is None else mode,
    )
    return np.array(array, order="K", subok=False) if mode is None else array


@in_child
def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that had it is not here


def open_buffer(origin: tuple[Any, ...], offset: int, nbytes: int) -> memoryview:
    """Return `nbytes` at `offset` in the file of `origin`, read-only."""
    mapping = open_mapping(Origin(*origin), offset + nbytes, "r")
    return memoryview(mapping)[offset : offset + nbytes]
