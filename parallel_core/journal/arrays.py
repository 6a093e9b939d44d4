"""What numpy's arrays and scalars are made of: their elements, bit for bit, however they lie.

A memory map is the array that it shows. The memory between the fields of a structured array, and
between the bits of its long doubles, is nobody's: it does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy

from parallel_core.journal.graph import NBYTES, Form

_PIECE = 1 << 24  # bytes that are copied at a time, where elements do not lie in order

#: Of the 16 bytes of an extended double, 10 are in use.
_EXTENDED_NBYTES = 10 if numpy.finfo(numpy.longdouble).nmant == 63 else None


def array_form(array: Any) -> Form:
    """Return what an array of numpy's own types is made of.

    Raises
    ------
    TypeError
        For one that tasks can fill for others: what they write into it is no result.
    """
    if _is_output(array):
        raise TypeError(
            "it is a memory map that tasks can write to; what they write would not be there when "
            "their results come from the journal: have them return it, or open it read-only"
        )
    dtype = array.dtype
    if dtype.names is not None:
        plain = numpy.asarray(array)
        fields = [plain[name] for name in dtype.names]
        return Form("array", (array.shape,), [dtype, *fields])
    described = _described(dtype)
    parts = [] if described is not None else [dtype]
    if dtype.hasobject:
        return Form("array", (described, array.shape), [*parts, *array.ravel(order="C").tolist()])
    return Form("array", (described, array.shape, content_digest(array)), parts)


def masked_form(array: Any) -> Form:
    """Return what a masked array is made of; what lies under its mask counts."""
    parts = [array.data, numpy.ma.getmaskarray(array), array.fill_value]
    return Form("masked", (bool(array.hardmask),), parts)


def scalar_form(scalar: Any) -> Form:
    """Return what one element is made of."""
    dtype = scalar.dtype
    if dtype.char in "gGOV":
        return Form("scalar", (), [numpy.asarray(scalar)])
    return Form("scalar", (_described(dtype), scalar.tobytes()), [])


def _is_output(array: Any) -> bool:
    return getattr(array, "mode", None) in ("r+", "w+") and array.flags.writeable


def _described(dtype: Any) -> str | None:
    """Return a text that says all about `dtype`; None when it takes more than a text."""
    if dtype.metadata is not None or dtype.char not in "?bhilqpBHILQPefdgFDGSUVOMm":
        return None
    text: str = dtype.str
    return text


def content_digest(array: Any) -> bytes:
    """Return a digest of the elements' bytes, in C order; large arrays are not copied whole."""
    state = blake2b(digest_size=NBYTES)
    array = numpy.asarray(array)
    if array.nbytes:
        for piece in _pieces(array):
            in_bytes = piece.reshape(-1).view(numpy.uint8)
            if _EXTENDED_NBYTES is not None and array.dtype.char in "gG":
                used = in_bytes.reshape(-1, 16)[:, :_EXTENDED_NBYTES]
                in_bytes = numpy.ascontiguousarray(used)
            state.update(in_bytes)
    return state.digest()


def _pieces(array: Any) -> Iterator[Any]:
    """Yield contiguous arrays that follow each other."""
    is_padded = _EXTENDED_NBYTES is not None and array.dtype.char in "gG"
    if array.flags.c_contiguous and not (is_padded and array.nbytes > _PIECE):
        yield array
    elif array.nbytes <= _PIECE:
        yield numpy.ascontiguousarray(array)
    elif array.ndim > 1 and array[0].nbytes > _PIECE:
        for row in array:
            yield from _pieces(row)
    else:
        rows = max(1, _PIECE // array[0].nbytes)
        for first in range(0, len(array), rows):
            yield numpy.ascontiguousarray(array[first : first + rows])
