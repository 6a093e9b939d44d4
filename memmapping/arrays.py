"""How an array is taken apart to be packed, and made again over the memory it lands in.

The memory of an array is stored as it lies: C and Fortran order stay what they are, and axes that
were swapped stay swapped. So nearly every array is written from where it is, and loops over it are
as fast afterwards as before. Only gaps are closed, and steps backwards turned forwards.

numpy is imported in functions alone: a program without arrays does not pay for it.
"""

from __future__ import annotations

import copyreg
import enum
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from memmapping.modules import loaded

if TYPE_CHECKING:
    import mmap
    from typing import Literal, TypeAlias

    import numpy
    from numpy.typing import NDArray

    Order: TypeAlias = Literal["C", "F"]
    #: Makes the array that lies at an offset in the packed bytes.
    ArrayFactory: TypeAlias = Callable[
        [int, numpy.dtype[Any], tuple[int, ...], Order], NDArray[Any]
    ]

#: An array with gaps is gathered in pieces of this many bytes.
GATHERED_NBYTES = 1 << 20

#: Kinds of dtype whose values are their bytes, and not what these point to.
_PLAIN_KINDS = frozenset("biufcmMSUV")

#: A class with one of these of its own decides itself how it is pickled.
_PICKLING_METHODS = ("__reduce__", "__reduce_ex__", "__setstate__")


class StoredArray:
    """The elements of an array, in the order in which they will lie.

    `rows` is a view whose axes are in the order of memory: the last one is the densest.
    """

    __slots__ = ("_rows", "nbytes")

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = rows
        self.nbytes: int = rows.nbytes

    def pieces(self, piece_nbytes: int) -> Iterator[memoryview]:
        """Yield the bytes in pieces of up to so many: views, or copies where there are gaps."""
        if self._rows.flags.c_contiguous:
            view = memory_of(self._rows)
            for start in range(0, self.nbytes, piece_nbytes):
                yield view[start : start + piece_nbytes]
        else:
            rows = self._rows
            if rows.dtype.names is not None:  # numpy would leave out what pads the fields
                rows = rows.view(f"V{rows.itemsize}")
            for part in _gathered(rows, min(piece_nbytes, GATHERED_NBYTES)):
                yield memory_of(part)


class ArrayPacker:
    """Decides for each object that pickle meets whether it is an array to be stored.

    `store` takes a `StoredArray` and returns the offset at which it will lie.
    """

    def __init__(self, store: Callable[[StoredArray], int]) -> None:
        import numpy

        self._store = store
        self._ndarray = numpy.ndarray
        self._forms: dict[type, Form] = {}

    def reduce(self, obj: Any) -> Any:
        """Return how `obj` is to be pickled, for ``reducer_override``; NotImplemented: as ever."""
        cls = type(obj)
        if not issubclass(cls, self._ndarray):
            return NotImplemented
        form = self._forms.get(cls)
        if form is None:
            form = self._forms[cls] = form_of(cls)
        if form is Form.ITS_OWN:
            return NotImplemented
        if form is Form.MASKED:
            return masked_over, parts_of_masked(obj)
        dtype = obj.dtype
        if not has_plain_bytes(dtype) or not dtype.itemsize:
            return NotImplemented
        plain = self._ndarray.view(obj, self._ndarray)
        if form is Form.SUBCLASS:
            return subclass_over, (cls, plain)
        if plain.flags.c_contiguous:
            return array_in_place, (self._store(StoredArray(plain)), dtype, plain.shape, "C")
        axes = memory_axes(plain)
        rows = plain.transpose(axes)
        offset = self._store(StoredArray(rows))
        if axes == tuple(reversed(range(plain.ndim))):
            return array_in_place, (offset, dtype, plain.shape, "F")
        if axes == tuple(range(plain.ndim)):
            return array_in_place, (offset, dtype, plain.shape, "C")
        return array_in_place, (offset, dtype, rows.shape, "C", axes)


def array_in_place(
    offset: int,
    dtype: object,
    shape: tuple[int, ...],
    order: str,
    axes: tuple[int, ...] | None = None,
) -> object:
    """Stand in a pickle for what makes an array; `unpack` puts its own function there."""
    raise TypeError("this pickle is part of a packed object, and only memmapping.unpack reads it")


def array_maker(make_array: ArrayFactory, start: int, end: int) -> Callable[..., NDArray[Any]]:
    """Return what stands for `array_in_place` while an object is unpacked.

    `make_array` takes offset, dtype, shape and order. Offsets in the pickle count from `start`; the
    packed bytes end at `end`.
    """
    from memmapping.damage import DamagedFileError

    def make(
        offset: int,
        dtype: numpy.dtype[Any],
        shape: tuple[int, ...],
        order: Order,
        axes: tuple[int, ...] | None = None,
    ) -> NDArray[Any]:
        first = start + offset
        last = first + math.prod(shape) * dtype.itemsize
        if offset < 0 or last > end:
            raise DamagedFileError(f"an array lies at bytes {first} to {last} of {end}")
        made = make_array(first, dtype, shape, order)
        if axes is None:
            return made
        turned: NDArray[Any] = made.transpose([axes.index(axis) for axis in range(len(axes))])
        return turned

    return make


def subclass_over(cls: type[NDArray[Any]], base: NDArray[Any]) -> NDArray[Any]:
    """Make an array of class `cls` over the memory of `base`, which has no gaps.

    As when it is unpickled otherwise, ``__array_finalize__`` gets None.
    """
    import numpy

    memory = memory_of(base.transpose(memory_axes(base)))
    made: NDArray[Any] = numpy.ndarray.__new__(cls, base.shape, base.dtype, memory, 0, base.strides)
    return made


def masked_over(
    data: NDArray[Any], mask: NDArray[Any] | None, fill_value: Any, is_hard: bool
) -> NDArray[Any]:
    """Make a masked array over `data` and `mask`."""
    import numpy

    made: numpy.ma.MaskedArray[Any, Any] = numpy.ma.MaskedArray(
        data, mask=numpy.ma.nomask if mask is None else mask, copy=False, hard_mask=is_hard
    )
    if fill_value is not None:
        made.fill_value = fill_value
    return made


def memmap_over(
    mapping: mmap.mmap,
    offset: int,
    dtype: numpy.dtype[Any],
    shape: tuple[int, ...],
    order: Order = "C",
    *,
    strides: tuple[int, ...] | None = None,
    filename: str | None,
    mode: str,
) -> numpy.memmap[Any, Any]:
    """Return a ``numpy.memmap`` over a mapping of a whole file that others may use, too.

    The constructor of ``numpy.memmap`` makes a mapping for each array. A process may have 65530
    of them, and by the time of the second one the file may have been replaced.
    """
    import numpy

    made: Any = numpy.ndarray.__new__(numpy.memmap, shape, dtype, mapping, offset, strides, order)
    made._mmap = mapping
    made.filename = filename
    made.offset = offset
    made.mode = mode
    found: numpy.memmap[Any, Any] = made
    return found


def memory_axes(array: NDArray[Any]) -> tuple[int, ...]:
    """Return the axes in the order of memory, from the one with the longest strides down."""
    longer = [(size, abs(s)) for size, s in zip(array.shape, array.strides, strict=True)]
    if any(size > 1 and stride == 0 for size, stride in longer):
        return tuple(range(array.ndim))  # repeated in place: there is no order to keep
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return tuple(reversed(range(array.ndim)))
    places = [axis for axis in range(array.ndim) if array.shape[axis] != 1]
    sorted_places = sorted(places, key=lambda axis: -longer[axis][1])
    axes = list(range(array.ndim))  # the strides of an axis of length 1 mean nothing: it stays
    for place, axis in zip(places, sorted_places, strict=True):
        axes[place] = axis
    return tuple(axes)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the byte order of this machine; its memory may be changed for it."""
    dtype = array.dtype.newbyteorder("=")
    if array.dtype == dtype:  # `isnative` would not look at arrays within fields
        return array
    if array.dtype.names is not None:
        return array.astype(dtype)  # only some of the fields may be in the other order
    swapped: NDArray[Any] = array.byteswap(inplace=True).view(dtype)
    return swapped


def memory_of(array: NDArray[Any]) -> memoryview:
    """Return the memory of a C-contiguous array, of any dtype, as bytes."""
    import numpy

    flat: Any = array.reshape(-1).view(numpy.uint8)
    return memoryview(flat)


def has_plain_bytes(dtype: Any) -> bool:
    """Whether values of `dtype` are their bytes, and not what these point to."""
    return not dtype.hasobject and dtype.kind in _PLAIN_KINDS


class Form(enum.Enum):
    """How the instances of a class of arrays are packed."""

    PLAIN = enum.auto()
    SUBCLASS = enum.auto()
    MASKED = enum.auto()
    ITS_OWN = enum.auto()


def form_of(cls: type) -> Form:
    """Return how instances of `cls`, a class of arrays, are taken apart."""
    import numpy

    if cls in copyreg.dispatch_table:
        return Form.ITS_OWN
    if cls is numpy.ndarray or cls is numpy.memmap:
        return Form.PLAIN
    masked = loaded("numpy.ma")
    if masked is not None and cls is masked.MaskedArray:
        return Form.MASKED
    for name in _PICKLING_METHODS:
        if getattr(cls, name, None) is not getattr(numpy.ndarray, name):
            return Form.ITS_OWN
    return Form.SUBCLASS


def parts_of_masked(array: Any) -> tuple[object, ...]:
    """Return what `masked_over` makes a masked array of."""
    import numpy

    mask = numpy.ma.getmask(array)
    is_unmasked = mask is numpy.ma.nomask
    return array.data, None if is_unmasked else mask, array._fill_value, array.hardmask


def _gathered(rows: NDArray[Any], piece_nbytes: int) -> Iterator[NDArray[Any]]:
    """Yield contiguous copies of parts of `rows` that follow on one another."""
    import numpy

    if rows.nbytes <= piece_nbytes:
        yield numpy.ascontiguousarray(rows)
        return
    at_once = piece_nbytes // (rows.nbytes // len(rows))
    if at_once:
        for first in range(0, len(rows), at_once):
            yield numpy.ascontiguousarray(rows[first : first + at_once])
    else:
        for row in rows:
            yield from _gathered(row, piece_nbytes)
