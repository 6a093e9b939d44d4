"""Any object as one run of bytes, in which its arrays are aligned.

::

    header   64 bytes: magic, version, checksums, lengths
    pickle   protocol 5; it says of each array at which offset it lies, of which dtype and shape
    table    offset and length of each buffer that pickle handed over for other types
    ···      nothing, up to the next multiple of 64, or of 4096 if there is anything large
    data     the arrays and buffers, large ones at multiples of 4096, the others of 64

All numbers are little-endian. Offsets in pickle and table count from the start of the data, so
the pickle need not know its own length. The header has a checksum of itself and one of pickle and
table; the data have none, since computing it takes longer than writing them.

`pack` copies nothing and `unpack` neither: what lies between may be a file, shared memory, or
bytes. `parse_header` and `rebuild` are the halves of `unpack`, for callers that have no memory to
show but a stream to read from.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from memmapping.arrays import ArrayPacker, array_in_place, array_maker
from memmapping.damage import DamagedFileError
from memmapping.pickler import ScriptObjects, pickle_to

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from memmapping.arrays import ArrayFactory

MAGIC = b"\x89memmap\n"
VERSION = 1
ALIGNMENT = 64
PAGE_NBYTES = 4096
#: From this size on, an array starts at a page.
LARGE_NBYTES = 64 << 10
#: What is written at a time: Ctrl-C is heard between two pieces.
PIECE_NBYTES = 128 << 20

_SMALL_NBYTES = 256 << 10  # pieces below that are written together
_HEADER = struct.Struct("<8sHHIQQQQI12x")
HEADER_NBYTES = _HEADER.size
_CHECKSUM_PLACE = slice(12, 16)
_ENTRY = struct.Struct("<QQ")


class Content(Protocol):
    """The content of an array or of another buffer."""

    @property
    def nbytes(self) -> int:
        """How long it is."""

    def pieces(self, piece_nbytes: int, /) -> Iterator[memoryview]:
        """Yield it in order, in pieces of at most so many bytes."""


class Part(NamedTuple):
    """What lies where in the packed bytes."""

    offset: int  #: where it starts
    #: What it is: ``nbytes``, and ``pieces(piece_nbytes)`` that yields memoryviews.
    content: Content


class Packed:
    """An object ready to be written; it refers to the memory of the arrays in it.

    What happens to these before it is written, happens to what is written.
    """

    __slots__ = ("head", "nbytes", "parts")

    def __init__(self, head: list[bytes], parts: list[Part], nbytes: int) -> None:
        self.head = head  #: what comes before the arrays: header, pickle and table
        self.parts = parts  #: arrays and other buffers, in the order of their offsets
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return f"<Packed: {self.nbytes} bytes, {len(self.parts)} of its parts are buffers>"

    def write_to(
        self,
        target: int | BinaryIO,
        offset: int | None = None,
        piece_nbytes: int = PIECE_NBYTES,
    ) -> int:
        """Write it all, large arrays straight from where they are, and return how many bytes.

        The target is a descriptor, or anything that has ``write``. With a descriptor, `offset` is
        where in the file to start; by default it is written where the descriptor stands. Arrays
        are aligned in memory if it is a multiple of 4096. Not more than `piece_nbytes` are written
        at a time.
        """
        if isinstance(target, int):
            write = _writer_to_descriptor(target, offset)
        elif offset is None:
            write = _writer_to_file(target)
        else:
            raise ValueError("offset is for descriptors; a file object can seek by itself")
        for piece in self._pieces(piece_nbytes):
            while piece:
                piece = piece[write(piece) :]
        return self.nbytes

    def _pieces(self, piece_nbytes: int) -> Iterator[memoryview]:
        """Yield all bytes in order, small runs and what pads them together."""
        together = bytearray()
        position = 0
        for start, content in self._contents():
            together += bytes(start - position)
            position = start + content.nbytes
            for piece in content.pieces(piece_nbytes):
                if len(piece) < _SMALL_NBYTES:
                    together += piece
                    if len(together) < _SMALL_NBYTES:
                        continue
                    piece = memoryview(b"")
                if together:
                    yield memoryview(together)
                    together = bytearray()
                yield piece
        yield memoryview(together)

    def _contents(self) -> Iterator[tuple[int, Content]]:
        position = 0
        for run in self.head:
            yield position, _Buffer(memoryview(run))
            position += len(run)
        yield from self.parts


class Head(NamedTuple):
    """What `parse_header` found."""

    pickle_nbytes: int
    n_buffers: int  #: number of entries in the table
    checksum: int  #: of pickle and table together
    data_offset: int  #: where the data start
    nbytes: int  #: of the packed object, header and all

    @property
    def body_nbytes(self) -> int:
        """How much follows the header: pickle and table."""
        return self.pickle_nbytes + self.n_buffers * _ENTRY.size


def pack(obj: object, script_objects: ScriptObjects = ScriptObjects.BY_VALUE) -> Packed:
    """Take an object apart, to be written in one run that `unpack` can read in place.

    Every numpy array in it, however deep, becomes a part of its own, unless it holds Python
    objects or its class has its own way to be pickled. So does every buffer that other
    types hand over, as in PEP 574. All else is pickled, by cloudpickle what `pickle` refuses.
    Nothing is copied before `Packed.write_to`.

    >>> import io, numpy as np
    >>> file = io.BytesIO()
    >>> pack({"weights": np.arange(3.0), "name": "linear"}).write_to(file) == len(file.getvalue())
    True
    >>> unpack(file.getvalue())
    {'weights': array([0., 1., 2.]), 'name': 'linear'}
    """
    collected = pickle_to(_Collected, obj, script_objects)
    table = b"".join(_ENTRY.pack(*entry) for entry in collected.table)
    body_end = HEADER_NBYTES + sum(map(len, collected.runs)) + len(table)
    data_offset = body_end
    if collected.parts:
        is_large = any(part.content.nbytes >= LARGE_NBYTES for part in collected.parts)
        data_offset = _next_multiple(body_end, PAGE_NBYTES if is_large else ALIGNMENT)
    nbytes = data_offset + collected.data_nbytes
    checksum = 0
    for run in (*collected.runs, table):
        checksum = zlib.crc32(run, checksum)
    pickle_nbytes = body_end - HEADER_NBYTES - len(table)
    header = _header(pickle_nbytes, len(collected.table), data_offset, nbytes, checksum)
    parts = [Part(data_offset + offset, content) for offset, content in collected.parts]
    return Packed([header, *collected.runs, table], parts, nbytes)


def unpack(
    source: ReadableBuffer, make_array: ArrayFactory | None = None, name: str = "the memory"
) -> Any:
    """Make the object again whose packed bytes are in `source`, its arrays over that memory.

    A pickle can run any code: unpack only what comes from a source that you trust. The memory may
    be longer; arrays can be written to if it can. `make_array` takes offset (in `source`), dtype,
    shape and order of each array; by default it makes a plain array over that memory. A source that
    is too short, or holds something else, is a `DamagedFileError`, which calls it `name`.
    """
    memory = memoryview(source).cast("B")
    head = parse_header(memory[:HEADER_NBYTES].tobytes(), name, len(memory))
    body = memory[HEADER_NBYTES : HEADER_NBYTES + head.body_nbytes].tobytes()

    def array_over_memory(offset: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
        import numpy

        # numpy.ndarray alone would let the owner of the memory, an mmap say, be closed under it.
        held = numpy.frombuffer(memory, numpy.uint8)
        return numpy.ndarray(shape, dtype, held, offset, None, order)

    return rebuild(
        head,
        body,
        array_over_memory if make_array is None else make_array,
        lambda offset, nbytes: memory[offset : offset + nbytes],
        name,
    )


def parse_header(data: bytes, name: str, found_nbytes: int | None = None) -> Head:
    """Read the first `HEADER_NBYTES` of a packed object, of which there are `found_nbytes` in all.

    A `DamagedFileError` says that it is none, or is of a version to come, or should be longer; it
    calls the source `name`.
    """
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        what = f"it starts with {data[:8]!r}" if data else "it is empty"
        raise DamagedFileError(f"{name} does not hold an object packed by memmapping: {what}")
    if len(data) < HEADER_NBYTES:
        raise cut_short(name, HEADER_NBYTES, len(data), "at least ")
    (_, version, _, checksum, pickle_nbytes, n_buffers, data_offset, nbytes, body_checksum) = (
        _HEADER.unpack(data)
    )
    if version != VERSION:
        raise DamagedFileError(
            f"{name} holds an object packed in version {version} of the format; this release of "
            f"memmapping reads version {VERSION}"
        )
    if checksum != _header_checksum(data):
        raise DamagedFileError(f"{name} is damaged: its header (bytes 0 to 63) was changed")
    if found_nbytes is not None and found_nbytes < nbytes:
        raise cut_short(name, nbytes, found_nbytes)
    return Head(pickle_nbytes, n_buffers, body_checksum, data_offset, nbytes)


def cut_short(name: str, expected: int, found: int, words: str = "") -> DamagedFileError:
    """Return the error for a source that ends too early."""
    return DamagedFileError(f"{name} is cut short: expected {words}{expected} bytes, found {found}")


def rebuild(
    head: Head,
    body: bytes,
    make_array: ArrayFactory,
    take_buffer: Callable[[int, int], ReadableBuffer],
    name: str,
) -> Any:
    """Make an object of its head, and of arrays and buffers as the caller makes them.

    `body` are the `Head.body_nbytes` that follow the header. `make_array` takes offset, dtype,
    shape and order, `take_buffer` offset and length. Both are called in the order of the offsets,
    which count from the start of the header. An error calls the source `name`.
    """
    if zlib.crc32(body) != head.checksum:
        raise DamagedFileError(
            f"{name} is damaged: its pickle (bytes {HEADER_NBYTES} to "
            f"{HEADER_NBYTES + head.body_nbytes - 1}) was changed"
        )
    file = io.BytesIO(body)
    table = _ENTRY.iter_unpack(memoryview(body)[head.pickle_nbytes :])
    buffers = (take_buffer(head.data_offset + offset, nbytes) for offset, nbytes in table)
    return _Unpickler(file, buffers, array_maker(make_array, head.data_offset, head.nbytes)).load()


class _Unpickler(pickle.Unpickler):
    """Puts `maker` where the pickle names `array_in_place`."""

    def __init__(self, file: BinaryIO, buffers: Iterator[ReadableBuffer], maker: Any) -> None:
        super().__init__(file, buffers=buffers)
        self._maker = maker

    def find_class(self, module: str, name: str, /) -> Any:
        if name == array_in_place.__name__ and module == array_in_place.__module__:
            return self._maker
        try:
            return super().find_class(module, name)
        except AttributeError as error:
            if module != "__main__":
                raise
            raise AttributeError(
                f"the script that packed this object defined {name!r} itself, and the one that "
                f"runs now does not; what a module defines can be read everywhere"
            ) from error


class _Buffer:
    """A buffer that pickle handed over, or a run of it."""

    __slots__ = ("_view", "nbytes")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.nbytes = view.nbytes

    def pieces(self, piece_nbytes: int) -> Iterator[memoryview]:
        for start in range(0, self.nbytes, piece_nbytes):
            yield self._view[start : start + piece_nbytes]


class _Collected:
    """What one attempt at pickling has brought."""

    def __init__(self) -> None:
        self.runs: list[bytes] = []
        self.parts: list[Part] = []
        self.table: list[tuple[int, int]] = []
        self.data_nbytes = 0
        # Without numpy there are no arrays; and if pickling imports it, they are buffers.
        has_numpy = "numpy" in sys.modules
        self.reduce: Callable[[Any], Any] | None = (
            ArrayPacker(self.store).reduce if has_numpy else None
        )

    def store(self, content: Content) -> int:
        """Reserve a place and return its offset."""
        alignment = PAGE_NBYTES if content.nbytes >= LARGE_NBYTES else ALIGNMENT
        offset = _next_multiple(self.data_nbytes, alignment)
        self.parts.append(Part(offset, content))
        self.data_nbytes = offset + content.nbytes
        return offset

    def write(self, data: Any) -> None:
        # Large bytes come as they are, so nothing is copied but what might change.
        self.runs.append(data if type(data) is bytes else bytes(data))

    def keep_buffer(self, buffer: pickle.PickleBuffer) -> None:
        content = _Buffer(buffer.raw())
        self.table.append((self.store(content), content.nbytes))

    def contains(self, text: bytes) -> bool:
        return any(text in run for run in self.runs)


def _next_multiple(number: int, of: int) -> int:
    return -(-number // of) * of


def _header(
    pickle_nbytes: int, n_buffers: int, data_offset: int, nbytes: int, body_checksum: int
) -> bytes:
    fields = (pickle_nbytes, n_buffers, data_offset, nbytes, body_checksum)
    unsigned = _HEADER.pack(MAGIC, VERSION, 0, 0, *fields)
    return _HEADER.pack(MAGIC, VERSION, 0, _header_checksum(unsigned), *fields)


def _header_checksum(header: bytes) -> int:
    blanked = bytearray(header)
    blanked[_CHECKSUM_PLACE] = bytes(4)
    return zlib.crc32(blanked)


def _writer_to_descriptor(fd: int, offset: int | None) -> Callable[[memoryview], int]:
    import os

    if offset is None:
        return lambda piece: os.write(fd, piece)
    position = offset

    def write(piece: memoryview) -> int:
        nonlocal position
        written = os.pwrite(fd, piece, position)
        position += written
        return written

    return write


def _writer_to_file(file: BinaryIO) -> Callable[[memoryview], int]:
    is_raw = isinstance(file, io.RawIOBase)

    def write(piece: memoryview) -> int:
        written: int | None = file.write(piece)
        if is_raw:
            if written is None:
                raise BlockingIOError(f"{file!r} does not wait until it can be written to")
            return written
        return len(piece)  # a file with a buffer takes it all, and need not say so

    return write
