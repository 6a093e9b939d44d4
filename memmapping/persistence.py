"""`dump` and `load`: any object in a file, its arrays ready to be mapped.

::

    dump    object ──pack──▶ head, arrays ──(Compressing)──▶ new file ──▶ takes its place
    load    file ──┬─ mapped ───────────────────▶ unpack: every array a memmap
                   └─(Expanding)─▶ stream ──────▶ rebuild: every array read into its place

A file is one packed object (`layout`), or that compressed as a whole.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import stat
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, cast, overload

from memmapping.arrays import memmap_over, memory_of, native
from memmapping.compression import Compressing, Expanding, chosen_method, detected_method
from memmapping.damage import DamagedFileError
from memmapping.layout import (
    HEADER_NBYTES,
    MAGIC,
    Packed,
    cut_short,
    pack,
    parse_header,
    rebuild,
    unpack,
)
from memmapping.modules import loaded
from memmapping.pickler import ScriptObjects
from memmapping.replacing import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memmapping.arrays import Order
    from memmapping.compression import Method

Filename: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Compress: TypeAlias = "bool | int | str | tuple[str, int]"
MmapMode: TypeAlias = Literal["r", "r+", "w+", "c"]

_READ_NBYTES = 16 << 20  # read at a time: a file object may make a copy of each piece
_COMPRESSED_NBYTES = 1 << 20  # compressed at a time
_BUFFER_NBYTES = 256 << 10  # read ahead, for small arrays
_LOOKED_AT_NBYTES = 64 << 10  # of a foreign file, to say what it is

_STRANGERS = (
    (b"\x93NUMPY", "it is an array saved by numpy; numpy.load reads it"),
    (b"PK\x03\x04", "it is a zip archive; if numpy.savez made it, numpy.load reads it"),
    (b"\x89HDF", "it is a file of HDF5"),
)


@overload
def dump(
    value: object, filename: Filename, compress: Compress = 0, protocol: int | None = None
) -> list[str]: ...
@overload
def dump(
    value: object, filename: BinaryIO, compress: Compress = 0, protocol: int | None = None
) -> None: ...
def dump(
    value: object,
    filename: Filename | BinaryIO,
    compress: Compress = 0,
    protocol: int | None = None,
) -> list[str] | None:
    """Write any object to a file; numpy arrays in it are not copied in memory.

    Parameters
    ----------
    value : object
        Object that `pickle` or cloudpickle can pickle, including lambdas and local classes.
    filename : str, path or binary file
        File to write. A named file appears when it is complete: after an error, or on a full disk,
        an earlier file of this name is unchanged, and so are maps of it. A file object is written
        to at its current position.
    compress : bool, int, str or tuple, default 0
        Level from 0 (no compression) to 9 (smallest, slowest); or a method, ``"zlib"``, ``"gzip"``,
        ``"bz2"``, ``"lzma"``, ``"xz"``, or ``"lz4"`` if that is installed; or both, as in
        ``("gzip", 3)``. True is the default level. If no method is given, the file extension (.z,
        .gz, .bz2, .lzma, .xz or .lz4) chooses it, also for level 0; the default is zlib. Compressed
        files cannot be mapped.
    protocol : int, optional
        Pickle protocol, accepted for compatibility and ignored: large buffers need protocol 5,
        which every supported Python can read.

    Returns
    -------
    list of str, or None
        List with the name of the file; None for a file object.

    Raises
    ------
    ValueError
        For an invalid argument.
    OSError
        If the file cannot be written.

    Notes
    -----
    As with `pickle`, functions and classes of the running script are stored by name, so another run
    of the script loads its own. If `pickle` refuses the object, they are stored with their code.

    Arrays keep type, dtype and order of axes; their strides may become smaller. For a
    ``numpy.memmap``, the content is stored.

    See Also
    --------
    load : Read the file.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from memmapping import dump, load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     name = os.path.join(folder, "model.bin")
    ...     written = dump({"weights": np.arange(3.0), "rate": 0.1}, name)
    ...     print(written == [name], load(name))
    True {'weights': array([0., 1., 2.]), 'rate': 0.1}
    """
    _check_protocol(protocol)
    path = _path_of(filename, "write")
    chosen = chosen_method(compress, path)
    packed = pack(value, ScriptObjects.BY_NAME)
    if path is None:
        _write(packed, cast(BinaryIO, filename), chosen)
        return None
    with replacing(path) as file:
        _write(packed, file, chosen)
    return [path]


def load(
    filename: Filename | BinaryIO,
    mmap_mode: MmapMode | None = None,
    ensure_native_byte_order: bool | Literal["auto"] = "auto",
) -> Any:
    """Read an object that `dump` wrote.

    .. warning::
       A pickle can run any code. Load only files that you trust.

    Parameters
    ----------
    filename : str, path or binary file
        File to read. Its compression is detected. A file object is read from its current position,
        and left where the next object may begin. An `io.BytesIO` at its end, as after `dump`, is
        read from its start.
    mmap_mode : {"r", "r+", "w+", "c"}, optional
        Mode in which arrays are mapped as ``numpy.memmap``: read-only (``"r"``), written through to
        the file (``"r+"``, and ``"w+"`` means the same), or with changes that stay in memory
        (``"c"``). By default, arrays are read into memory. Compressed files and file objects are
        always read.
    ensure_native_byte_order : bool or "auto", default "auto"
        Whether to convert arrays to the byte order of this machine. ``"auto"`` does so without
        `mmap_mode`; maps cannot be converted.

    Returns
    -------
    object
        Object that was dumped.

    Raises
    ------
    DamagedFileError
        If the file is truncated or damaged, or was not written by `dump`. It is a ValueError.
    ValueError
        For an invalid argument.
    OSError
        If the file cannot be read.

    Notes
    -----
    A mapped file must not be truncated: a program that uses missing parts is killed by SIGBUS.
    `dump` never truncates; it replaces files. Arrays of Python objects are never mapped, nor are
    arrays whose class defines its own pickling.

    See Also
    --------
    dump : Write a file.

    Examples
    --------
    >>> import os, tempfile, numpy as np
    >>> from memmapping import dump, load
    >>> folder = tempfile.TemporaryDirectory()
    >>> filename = os.path.join(folder.name, "array.mmap")
    >>> large_array = np.ones(int(1e6))
    >>> _ = dump(large_array, filename)
    >>> large_memmap = load(filename, mmap_mode="r+")
    >>> large_memmap.__class__.__name__, large_array.nbytes, large_array.shape
    ('memmap', 8000000, (1000000,))
    >>> np.allclose(large_array, large_memmap)
    True
    >>> small_memmap = large_memmap[2:5]
    >>> small_memmap.__class__.__name__, small_memmap.nbytes, small_memmap.shape
    ('memmap', 24, (3,))
    >>> np.asarray(small_memmap).__class__.__name__
    'ndarray'
    >>> folder.cleanup()
    """
    makes_native = _makes_native(mmap_mode, ensure_native_byte_order)
    path = _path_of(filename, "read")
    if path is None:
        if mmap_mode is not None:
            _warn_not_mapped(mmap_mode, "a file object cannot be mapped")
        file = cast(BinaryIO, filename)
        start = _read_start(file)
        if not start and isinstance(file, io.BytesIO):  # it has just been written, say
            file.seek(0)
            start = _read_start(file)
        return _read(file, start, f"the file object {file!r}", None, makes_native)
    with open(path, "r+b" if mmap_mode in ("r+", "w+") else "rb", _BUFFER_NBYTES) as file:
        nbytes = _length_of(file)
        start = _read_start(file)
        if mmap_mode is not None and start == MAGIC and nbytes is not None:
            return _map(file, nbytes, path, "r+" if mmap_mode == "w+" else mmap_mode)
        if mmap_mode is not None and nbytes is None:
            _warn_not_mapped(mmap_mode, f"{path!r} is no regular file")
        elif mmap_mode is not None and detected_method(start) is not None:
            _warn_not_mapped(mmap_mode, f"{path!r} is compressed")
        return _read(file, start, repr(path), nbytes, makes_native)


def _write(packed: Packed, file: BinaryIO, chosen: tuple[Method, int] | None) -> None:
    if chosen is None:
        packed.write_to(file)
        return
    compressing = Compressing(file, *chosen)
    packed.write_to(cast(BinaryIO, compressing), piece_nbytes=_COMPRESSED_NBYTES)
    compressing.finish()


def _map(file: BinaryIO, nbytes: int, path: str, mode: str) -> Any:
    head = parse_header(MAGIC + file.read(HEADER_NBYTES - len(MAGIC)), repr(path), nbytes)
    access = {"r": mmap.ACCESS_READ, "r+": mmap.ACCESS_WRITE, "c": mmap.ACCESS_COPY}[mode]
    mapping = mmap.mmap(file.fileno(), head.nbytes, access=access)
    filename = os.path.abspath(path)

    def make_array(offset: int, dtype: Any, shape: tuple[int, ...], order: Order) -> Any:
        return memmap_over(mapping, offset, dtype, shape, order, filename=filename, mode=mode)

    return unpack(mapping, make_array, repr(path))


def _read(
    file: BinaryIO, start: bytes, name: str, found_nbytes: int | None, makes_native: bool
) -> Any:
    method = detected_method(start)
    if method is None:
        return _read_packed(_Stream(file, start, name), found_nbytes, makes_native)
    expanding = Expanding(file, method, start, name)
    buffered = io.BufferedReader(expanding, _BUFFER_NBYTES)
    name = f"{name}, expanded by {method.name},"
    start = _read_start(buffered)
    value = _read_packed(_Stream(buffered, start, name), None, makes_native)
    expanding.finish()
    return value


def _read_packed(stream: _Stream, found_nbytes: int | None, makes_native: bool) -> Any:
    stranger = _stranger(stream)
    if stranger is not None:
        raise DamagedFileError(f"{stream.name} was not written by memmapping.dump: {stranger}")
    header = stream.start + stream.read(HEADER_NBYTES - len(stream.start))
    head = parse_header(header, stream.name, found_nbytes)
    stream.expected_nbytes = head.nbytes
    body = stream.read(head.body_nbytes)
    if len(body) < head.body_nbytes:
        raise cut_short(stream.name, head.nbytes, stream.position)

    def make_array(offset: int, dtype: Any, shape: tuple[int, ...], order: Order) -> NDArray[Any]:
        import numpy

        made: NDArray[Any] = numpy.empty(shape, dtype, order)
        stream.read_into(offset, memory_of(made.T if order == "F" else made))
        return native(made) if makes_native else made

    def take_buffer(offset: int, nbytes: int) -> memoryview:
        numpy = loaded("numpy")  # does not fill with zeros what is filled anyway
        buffer = memoryview(bytearray(nbytes) if numpy is None else numpy.empty(nbytes, "u1"))
        stream.read_into(offset, buffer)
        return buffer

    value = rebuild(head, body, make_array, take_buffer, stream.name)
    stream.skip_to(head.nbytes)
    return value


class _Stream:
    """A packed object that is read from its start to its end."""

    def __init__(self, file: BinaryIO, start: bytes, name: str) -> None:
        self._file = file
        self._readinto = getattr(file, "readinto", None)
        self.start = start  #: its first bytes, which have been read already
        self.name = name
        self.position = len(start)  #: how many bytes have been read
        self.expected_nbytes = HEADER_NBYTES  #: how long it says it is

    def read(self, nbytes: int) -> bytes:
        """Return the next bytes, fewer only at the end of the file."""
        pieces = []
        while nbytes > 0:
            piece = self._file.read(nbytes)
            if not piece:
                break
            pieces.append(piece)
            nbytes -= len(piece)
            self.position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip_to(self, offset: int) -> None:
        """Pass over what pads; only a dtype whose metadata hold arrays makes us step back."""
        if offset < self.position:
            self._file.seek(offset - self.position, os.SEEK_CUR)
            self.position = offset
        self.read(offset - self.position)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` with what lies at `offset`."""
        self.skip_to(offset)
        while out:
            piece = out[:_READ_NBYTES]
            if self._readinto is None:
                data = self._file.read(len(piece))
                piece[: len(data)] = data
                done = len(data)
            else:
                done = self._readinto(piece)
            if not done:
                raise cut_short(self.name, self.expected_nbytes, self.position)
            self.position += done
            out = out[done:]


def _read_start(file: BinaryIO) -> bytes:
    start = b""
    while len(start) < len(MAGIC):
        piece = file.read(len(MAGIC) - len(start))
        if not piece:
            break
        start += piece
    return start


def _stranger(stream: _Stream) -> str | None:
    """Return in words what a file is that others wrote; None for ours and for the unknown."""
    start = stream.start
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        if b"joblib.numpy_pickle" in start + stream.read(_LOOKED_AT_NBYTES):
            return "it is a file of joblib with arrays; joblib.load reads it"
        return (
            "it is a plain pickle; pickle.load reads it, or joblib.load, whose files are such "
            "pickles where they hold no arrays"
        )
    for beginning, words in _STRANGERS:
        if start.startswith(beginning):
            return words
    return None


def _length_of(file: BinaryIO) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _path_of(filename: object, method: str) -> str | None:
    """Return the path, or None for a file object."""
    if isinstance(filename, (str, bytes, os.PathLike)):
        return os.fsdecode(filename)
    if isinstance(filename, io.TextIOBase):
        raise ValueError(f"the file must be open in binary mode, and {filename!r} is not")
    if not callable(getattr(filename, method, None)):
        raise ValueError(
            f"filename must be a path, or a binary file with the method {method!r}, "
            f"not {filename!r}"
        )
    return None


def _check_protocol(protocol: object) -> None:
    if protocol is None:
        return
    if isinstance(protocol, bool) or not isinstance(protocol, int):
        raise ValueError(f"protocol must be the number of a pickle protocol, not {protocol!r}")
    if protocol > pickle.HIGHEST_PROTOCOL:
        raise ValueError(
            f"protocol must not be above {pickle.HIGHEST_PROTOCOL}, the highest there is, "
            f"but it is {protocol}"
        )


def _makes_native(mmap_mode: object, ensure_native_byte_order: object) -> bool:
    """Check how to load, and return whether byte orders are changed."""
    if mmap_mode not in (None, "r", "r+", "w+", "c"):
        raise ValueError(f"mmap_mode must be 'r', 'r+', 'w+', 'c' or None, not {mmap_mode!r}")
    if ensure_native_byte_order == "auto":
        return mmap_mode is None
    if not isinstance(ensure_native_byte_order, bool):
        raise ValueError(
            f"ensure_native_byte_order must be True, False or 'auto', "
            f"not {ensure_native_byte_order!r}"
        )
    if ensure_native_byte_order and mmap_mode is not None:
        raise ValueError(
            f"ensure_native_byte_order=True changes what was read, and with "
            f"mmap_mode={mmap_mode!r} nothing is read"
        )
    return ensure_native_byte_order


def _warn_not_mapped(mmap_mode: str, why: str) -> None:
    warnings.warn(
        f"mmap_mode={mmap_mode!r} has no effect, the arrays are read into memory: {why}",
        UserWarning,
        stacklevel=3,
    )
