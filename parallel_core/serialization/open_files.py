"""Open files and sockets on their way to a task in another process.

::

    what pickle  ──▶ OpenFiles.reduce ──┬─▶ a regular file, open for reading: opened again by the
    cannot take                         │     worker, through our descriptor, where it stands now
                                        └─▶ anything else: its descriptor crosses beside the batch

    task is done ──▶ opened.close_opened: what it was given is flushed and closed

A file that is read has an offset of its own in each task, so what a task reads depends on no
other. Whatever is written to, or has no offset, is shared: a duplicate of the descriptor is of the
same *open file description*, so that what several tasks write follows one another.

Whatever the caller does with a file after the yield, a duplicate of its descriptor stays open in
`Held`, which the batch has among its `uses` until it is done.

Other ways were weighed. `pidfd_getfd` needs the right to trace the parent. Pipes can be opened
through ``/proc``, but sockets and pseudo terminals cannot. A second socket for each worker is two
descriptors more, paid for at each start. If a worker asked for a descriptor when a task needs it,
the parent would have to answer while the caller rests.
"""

from __future__ import annotations

import itertools
import os
import pickle
import stat
import sys
from _io import (
    BufferedRandom,
    BufferedReader,
    BufferedWriter,
    FileIO,
    IncrementalNewlineDecoder,
    TextIOWrapper,
    _IOBase,
)
from _socket import socket as _c_socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary, ref

from parallel_core.serialization.opened import name_of, note, standard_name

_BUFFERED = {"reader": BufferedReader, "writer": BufferedWriter, "random": BufferedRandom}

_WEIGHT = 1 << 16  # bytes that a descriptor counts for: batches should not hold very many

Number = tuple[int, int]
_numbers = itertools.count(1)
_held: WeakValueDictionary[Number, Held]
#: Descriptors that came beside the batch which runs in this process.
_arrived: dict[Number, int] = {}


class Held:
    """A duplicate of a descriptor, open for as long as somebody has this object."""

    __slots__ = ("__weakref__", "crosses", "descriptor", "number", "owner")

    def __init__(self, descriptor: int, crosses: bool, owner: object) -> None:
        self.descriptor = _duplicate(descriptor)  #: of this process
        #: Whether it is to be sent beside the batch; else others open its file by `path`.
        self.crosses = crosses
        self.number = os.getpid(), next(_numbers)  #: names it, in other processes, too
        self.owner = ref(owner)
        _held[self.number] = self

    def path(self, name: object) -> str:
        """Return where another process opens the same file."""
        path = f"/proc/{self.number[0]}/fd/{self.descriptor}"
        if not os.path.exists(path) and isinstance(name, (str, bytes)):
            return os.path.abspath(os.fsdecode(name))  # an operating system without /proc
        return path

    def __del__(self) -> None:
        descriptor = getattr(self, "descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)


_held = WeakValueDictionary()


def _duplicate(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError as error:
        raise pickle.PicklingError(
            f"its descriptor cannot be kept open for the task: {error.strerror}; pass its name"
        ) from error


class Form(NamedTuple):
    """What a file object is made of, but for its descriptor."""

    name: object  #: as it was opened
    mode: str  #: of the lowest layer
    buffer: str | None  #: which kind of buffer is above that
    #: Encoding, errors, newline, whether lines and writes are flushed, and the mode it was opened
    #: with; None for bytes.
    text: tuple[Any, ...] | None

    def open(self, descriptor: int) -> Any:
        """Return such a file object over `descriptor`, which it will close."""
        file: Any = FileIO(descriptor, self.mode)
        if not isinstance(self.name, int):
            file.name = self.name
        if self.buffer is not None:
            file = _BUFFERED[self.buffer](file)
        if self.text is not None:
            encoding, errors, newline, by_line, write_through, mode = self.text
            file = TextIOWrapper(file, encoding, errors, newline, by_line, write_through)
            if mode is not None:
                file.mode = mode
        return file


class OpenFiles:
    """The caller's side, for one call."""

    def __init__(self, passes: bool) -> None:
        self._passes = passes  #: whether descriptors can be sent to them
        self._by_file: WeakValueDictionary[tuple[int, int], Held] = WeakValueDictionary()
        self._by_owner: WeakValueDictionary[int, Held] = WeakValueDictionary()
        self._weight = 0
        #: What has to be kept for the files that were met; whoever sends them takes it away.
        self.uses: dict[int, Held] = {}

    def take_weight(self) -> int:
        """Return as how many bytes of arguments the descriptors count that were duplicated."""
        weight, self._weight = self._weight, 0
        return weight

    def take_uses(self) -> list[Held]:
        """Return what has to be kept for what was pickled since the last call."""
        uses, self.uses = self.uses, {}
        return list(uses.values())

    def reduce(self, obj: Any) -> Any:
        """Return how an argument of which `is_open_file` is true is pickled.

        Raises
        ------
        PicklingError
            When it cannot cross; it says what to do instead.
        """
        return self._reduce(obj, self._cross)

    def reduce_captured(self, obj: Any) -> Any:
        """Return the same of what a function has captured, which is sent before its tasks."""
        return self._reduce(obj, _not_captured)

    def _reduce(self, obj: Any, cross: Callable[[Any], Held]) -> Any:
        name = standard_name(obj)
        if name == "stdin":
            raise pickle.PicklingError(
                "workers do not read the caller's standard input; read it in the caller, and pass "
                "what was read"
            )
        if name is not None:
            return getattr, (sys, name)
        if isinstance(obj, _c_socket):
            return self._reduce_socket(obj, cross)
        if type(obj).__name__ == "Connection":
            if obj.closed:
                raise pickle.PicklingError("it is closed")
            return open_connection, (cross(obj).number, obj.readable, obj.writable)
        if not isinstance(obj, _IOBase):
            return as_is, (obj.file,)  # a temporary file, which is the caller's to remove
        form, raw = _form_of(obj)
        status = os.fstat(raw.fileno())
        if stat.S_ISREG(status.st_mode) and not raw.writable():
            return self._reduce_reader(obj, form, raw, status)
        _flush(obj)
        return open_passed, (cross(obj).number, tuple(form))

    def _reduce_reader(self, obj: Any, form: Form, raw: FileIO, status: os.stat_result) -> Any:
        file = status.st_dev, status.st_ino
        try:
            position = obj.tell()
        except OSError as error:
            raise pickle.PicklingError(
                f"its position is not known while it is read by a for loop ({error}): read it with "
                "readline(), or open it in binary mode"
            ) from error
        held = self._by_file.get(file)
        if held is None:
            held = self._by_file[file] = self._hold(raw.fileno(), False, obj)
        self.uses[id(held)] = held
        return reopen, (held.path(form.name), *file, tuple(form), position)

    def _hold(self, descriptor: int, crosses: bool, owner: object) -> Held:
        self._weight += _WEIGHT
        return Held(descriptor, crosses, owner)

    def _reduce_socket(self, obj: Any, cross: Callable[[Any], Held]) -> Any:
        import socket

        if type(obj) is not socket.socket:
            raise pickle.PicklingError(
                f"a {type(obj).__name__} has state in this process, which cannot cross with its "
                "descriptor; make the connection in the task"
            )
        if obj.fileno() < 0:
            raise pickle.PicklingError("it is closed")
        about = int(obj.family), int(obj.type), obj.proto, obj.gettimeout()
        return open_socket, (cross(obj).number, *about)

    def _cross(self, obj: Any) -> Held:
        if not self._passes:
            raise _no_way(obj)
        held = self._by_owner.get(id(obj))
        if held is None or held.owner() is not obj or not _is_same(held, obj):
            held = self._by_owner[id(obj)] = self._hold(obj.fileno(), True, obj)
        self.uses[id(held)] = held
        return held


def _is_same(held: Held, obj: Any) -> bool:
    return os.path.sameopenfile(held.descriptor, obj.fileno())


def _no_way(obj: Any) -> pickle.PicklingError:
    instead = "make the connection in the task" if isinstance(obj, _c_socket) else "pass its name"
    return pickle.PicklingError(
        "it is open in this process, and cannot be handed to the workers of this backend; "
        f"{instead}, or use the backend 'processes' or 'threading'"
    )


def _not_captured(obj: Any) -> Held:
    raise pickle.PicklingError(
        f"{name_of(obj)} is open in this process, and belongs to a function that is sent once "
        "for all its tasks; pass it to each task as an argument"
    )


def _form_of(obj: Any) -> tuple[Form, FileIO]:
    """Return what the file object `obj` is made of, and its lowest layer."""
    if obj.closed:
        raise pickle.PicklingError("it is closed")
    layer: Any = obj
    text: tuple[Any, ...] | None = None
    if type(obj) is TextIOWrapper:
        modes = obj.line_buffering, obj.write_through, obj.__dict__.get("mode")
        text = obj.encoding, obj.errors, _newline_of(obj), *modes
        layer = obj.buffer
    buffer = next((name for name, kind in _BUFFERED.items() if type(layer) is kind), None)
    if buffer is not None:
        layer = layer.raw
    if type(layer) is not FileIO or (text is not None and buffer is None):
        raise pickle.PicklingError(
            f"a {type(obj).__name__} over a {type(layer).__name__} cannot be made anew in a "
            "worker; open it in the task"
        )
    return Form(layer.name, layer.mode, buffer, text), layer


def _newline_of(text: TextIOWrapper) -> str | None:
    """Return what `text` was given as `newline`.

    Nothing tells that but what the object refers to: behind encoder and decoder comes `newline`
    where it is no None, then text that was read ahead, if any, or is to be written; last, `errors`.
    """
    if text.writable():
        text.flush()
    strings, is_universal, has_snapshot = _parts_of(text)
    if is_universal and strings == [""] and has_snapshot:  # it may be either of the two
        text.seek(text.tell())  # so that nothing is read ahead
        strings, _, _ = _parts_of(text)
    if not strings or (is_universal and strings[0]):
        return None
    return strings[0]


def _parts_of(text: TextIOWrapper) -> tuple[list[str], bool, bool]:
    """Return those strings, whether any end of line will do, and whether a position is noted."""
    import gc

    strings: list[str] = []
    is_universal = has_snapshot = False
    for part in gc.get_referents(text):
        if isinstance(part, str):
            strings.append(part)
        elif isinstance(part, tuple):
            has_snapshot = True
        elif hasattr(part, "setstate"):
            strings.clear()
            is_universal = isinstance(part, IncrementalNewlineDecoder)
    return strings[:-1], is_universal, has_snapshot


def _flush(obj: Any) -> None:
    """Bring what `obj` has buffered to the file, and the offset to where `obj` stands."""
    if not obj.writable():
        return
    if obj.readable() and obj.seekable():
        try:
            obj.seek(obj.tell())
        except OSError:  # being iterated over
            pass
    obj.flush()


def as_is(file: Any) -> Any:
    """Return `file`."""
    return file


def reopen(path: str, device: int, inode: int, form: tuple[Any, ...], position: int) -> Any:
    """Return a file that another process has open, at `position`, with an offset of its own."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_here(form, f"{error.strerror}: {path}") from error
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) != (device, inode):
        os.close(descriptor)
        raise _not_here(form, f"{path} is another file here")
    file = note(Form(*form).open(descriptor))
    file.seek(position)
    return file


def _not_here(form: tuple[Any, ...], why: str) -> OSError:
    return OSError(
        f"the caller's file {form[0]!r} cannot be opened here ({why}); pass its name, and open it "
        "in the task"
    )


def open_passed(number: Number, form: tuple[Any, ...]) -> Any:
    """Return a file over the descriptor that came as `number`."""
    return note(Form(*form).open(_descriptor(number)))


def open_socket(number: Number, family: int, kind: int, proto: int, timeout: float | None) -> Any:
    """Return a socket over the descriptor that came as `number`."""
    import socket

    made = socket.socket(family, kind, proto, fileno=_descriptor(number))
    made.settimeout(timeout)
    return note(made)


def open_connection(number: Number, readable: bool, writable: bool) -> Any:
    """Return an end of a `multiprocessing.Pipe` over the descriptor that came as `number`."""
    from multiprocessing.connection import Connection

    return note(Connection(_descriptor(number), readable, writable))


def _descriptor(number: Number) -> int:
    """Return a duplicate of what came as `number`, or was to leave from here."""
    arrived = _arrived.get(number)
    if arrived is not None:
        return os.dup(arrived)
    held = _held.get(number)
    if held is not None:
        return os.dup(held.descriptor)
    raise LookupError("its descriptor did not arrive; this process may have too many files open")


def crossing(uses: Iterable[object]) -> list[Held]:
    """Return those of `uses` that are to be sent beside the batch."""
    return [use for use in uses if type(use) is Held and use.crosses]


def arrive(numbers: list[Number], descriptors: list[int]) -> None:
    """Take in what came for the next batch; where there are too few, the last are missing."""
    _arrived.update(zip(numbers, descriptors, strict=False))


def end_batch() -> None:
    """Close what came for the batch that has ended."""
    while _arrived:
        os.close(_arrived.popitem()[1])
