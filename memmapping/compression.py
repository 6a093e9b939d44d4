"""Methods of compression: which one is asked for, which one a file is of, and how to go through.

Compressor and decompressor objects of the standard library do the work; they differ little, and
what differs is evened out here. Each is imported when it is first needed.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple

from memmapping.damage import DamagedFileError

_CHUNK_NBYTES = 256 << 10  # read from a compressed file at a time
_EXPANDED_NBYTES = 1 << 20  # made of it at a time, at most


class Method(NamedTuple):
    """A method of compression."""

    name: str
    extension: str  #: how the names of its files end
    prefix: bytes  #: how its files start
    default_level: int
    #: Takes a level, and returns an object with ``compress`` and ``flush``.
    compressor: Callable[[int], Any]
    decompressor: Callable[[], Any]  #: returns an object as `bz2.BZ2Decompressor`


def chosen_method(compress: object, filename: str | None) -> tuple[Method, int] | None:
    """Return method and level for what a user asked for, or None for no compression.

    The extension of `filename` names the method unless `compress`, as for `dump`, does. What is no
    method or level, or is not installed, is a ValueError.
    """
    level: int | None
    if isinstance(compress, str):
        return _named(compress), _named(compress).default_level
    if isinstance(compress, tuple):
        if len(compress) != 2:
            raise ValueError(
                f"compress, as a tuple, must be a method and a level such as ('zlib', 3), "
                f"not {compress!r}"
            )
        method = _named(compress[0])
        level = method.default_level if compress[1] is None else _checked_level(compress[1])
        return (method, level) if level else None
    if compress is True or compress is None:
        level = None
    else:
        level = _checked_level(compress)
    by_extension = _of_extension(filename)
    if by_extension is not None:
        return by_extension, level or by_extension.default_level
    if level == 0:
        return None
    return METHODS["zlib"], level or METHODS["zlib"].default_level


def detected_method(start: bytes) -> Method | None:
    """Return by which method a file that starts with these bytes is compressed, if by any."""
    for method in METHODS.values():
        if start.startswith(method.prefix):
            if method.name == "zlib" and (len(start) < 2 or int.from_bytes(start[:2], "big") % 31):
                continue  # begins with an x, and that is all
            return method
    return None


class Compressing:
    """A file to write to, that passes everything on to another, compressed."""

    def __init__(self, file: BinaryIO, method: Method, level: int) -> None:
        self._file = file
        self._compressor = method.compressor(level)

    def write(self, data: memoryview) -> int:
        """Compress `data`, and pass on what comes out."""
        _write_all(self._file, self._compressor.compress(data))
        return len(data)

    def finish(self) -> None:
        """Pass on the rest; the file stays open."""
        _write_all(self._file, self._compressor.flush())


class Expanding(io.RawIOBase):
    """A file to read from, that expands what another file holds.

    `start` is what has been read of that already, `name` what an error calls it.
    """

    def __init__(self, file: BinaryIO, method: Method, start: bytes, name: str) -> None:
        super().__init__()
        self._file = file
        self._method = method
        self._name = name
        self._read_nbytes = len(start)
        self._waiting = start
        self._decompressor = method.decompressor()

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, out: Any, /) -> int:
        """Fill `out` from its start; return with how many bytes, 0 at the end."""
        view = memoryview(out).cast("B")
        piece = self._next(min(len(view), _EXPANDED_NBYTES)) if len(view) else b""
        view[: len(piece)] = piece
        return len(piece)

    def finish(self) -> None:
        """Read up to the end of the stream, whose checksum is there, and leave the file there.

        A `DamagedFileError` says that the end is missing, or that the checksum differs.
        """
        while not self._decompressor.eof:
            self._expand(_EXPANDED_NBYTES)
        too_much = len(self._decompressor.unused_data or b"")  # None from lz4 for nothing
        if too_much and self._file.seekable():
            self._file.seek(-too_much, os.SEEK_CUR)

    def _next(self, nbytes: int) -> bytes:
        piece = b""
        while not piece:
            if self._decompressor.eof and not self._begin_another():
                break
            piece = self._expand(nbytes)
        return piece

    def _expand(self, nbytes: int) -> bytes:
        data = self._waiting
        self._waiting = b""
        at_end = False
        if not data and self._decompressor.needs_input:
            data = self._file.read(_CHUNK_NBYTES)
            self._read_nbytes += len(data)
            at_end = not data
        try:
            piece: bytes = self._decompressor.decompress(data, nbytes)
        except MemoryError:
            raise
        except Exception as error:  # each method has its own
            raise DamagedFileError(
                f"{self._name} is damaged: it is no {self._method.name} stream around byte "
                f"{self._read_nbytes - len(data)}: {error}"
            ) from error
        if at_end and not piece and not self._decompressor.eof:
            raise DamagedFileError(
                f"{self._name} is cut short: its {self._method.name} stream goes on after "
                f"{self._read_nbytes} bytes, the last that were found"
            )
        return piece

    def _begin_another(self) -> bool:
        """Go on with another stream that follows, as some tools write them; false: none does."""
        rest: bytes = (self._decompressor.unused_data or b"") + self._file.read(_CHUNK_NBYTES)
        if not rest.startswith(self._method.prefix):
            return False
        self._waiting = rest
        self._decompressor = self._method.decompressor()
        return True


class _ZlibDecompressor:
    """The one of `zlib`, with the methods that the others have."""

    def __init__(self, wbits: int) -> None:
        import zlib

        self._decompressor = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._decompressor.eof

    @property
    def unused_data(self) -> bytes:
        return self._decompressor.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._decompressor.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._decompressor.decompress(self._decompressor.unconsumed_tail + data, max_length)


class _Lz4Compressor:
    """The one of the package lz4, with the methods that the others have."""

    def __init__(self, level: int) -> None:
        self._compressor = _lz4_frame().LZ4FrameCompressor(compression_level=level)
        self._waiting: bytes = self._compressor.begin()

    def compress(self, data: memoryview) -> bytes:
        start, self._waiting = self._waiting, b""
        piece: bytes = self._compressor.compress(data)
        return start + piece

    def flush(self) -> bytes:
        piece: bytes = self._compressor.flush()
        return self._waiting + piece


def _zlib_compressor(level: int, wbits: int = 15) -> Any:
    import zlib

    return zlib.compressobj(level, zlib.DEFLATED, wbits)


def _bz2_compressor(level: int) -> Any:
    import bz2

    return bz2.BZ2Compressor(level)


def _bz2_decompressor() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz_compressor(level: int) -> Any:
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=level)


def _lzma_compressor(level: int) -> Any:
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=level)


def _lzma_decompressor() -> Any:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_AUTO)


def _lz4_frame() -> Any:
    try:
        return import_module("lz4.frame")
    except ImportError:
        raise ValueError("compression by lz4 needs the package lz4: pip install lz4") from None


def _lz4_decompressor() -> Any:
    return _lz4_frame().LZ4FrameDecompressor()


#: All of them by name.
METHODS = {
    method.name: method
    for method in (
        Method("zlib", ".z", b"x", 3, _zlib_compressor, lambda: _ZlibDecompressor(15)),
        Method(
            "gzip",
            ".gz",
            b"\x1f\x8b",
            3,
            lambda level: _zlib_compressor(level, 31),
            lambda: _ZlibDecompressor(31),
        ),
        Method("bz2", ".bz2", b"BZh", 9, _bz2_compressor, _bz2_decompressor),
        Method("lzma", ".lzma", b"]\0\0", 6, _lzma_compressor, _lzma_decompressor),
        Method("xz", ".xz", b"\xfd7zXZ\0", 6, _xz_compressor, _lzma_decompressor),
        Method("lz4", ".lz4", b"\x04\x22\x4d\x18", 1, _Lz4Compressor, _lz4_decompressor),
    )
}


def _named(name: object) -> Method:
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        raise ValueError(f"compress must name one of {', '.join(map(repr, METHODS))}, not {name!r}")
    if method.name == "lz4":
        _lz4_frame()  # before anything is written
    return method


def _of_extension(filename: str | None) -> Method | None:
    for method in METHODS.values():
        if filename is not None and filename.endswith(method.extension):
            return _named(method.name)
    return None


def _checked_level(level: object) -> int:
    if isinstance(level, int) and 0 <= level <= 9:
        return int(level)
    raise ValueError(f"the level of compression must be a whole number from 0 to 9, not {level!r}")


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written: int | None = file.write(view)
        view = view[len(view) if written is None else written :]
