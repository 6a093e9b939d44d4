"""The elements of numpy's arrays, bit for bit, however they lie in memory.

The memory between the fields of a structured array, and between the bits of its long doubles, is
nobody's: it does not count.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy

from parallel_core.journal.tokens import NBYTES

_ITEMS = 1 << 20  # copied at a time, where elements do not lie in order

#: Of the 16 bytes of an extended double, 10 are in use.
_EXTENDED_NBYTES = 10 if numpy.finfo(numpy.longdouble).nmant == 63 else None


def array_facts(array: Any) -> tuple[tuple[Any, ...], list[Any]]:
    """Return what an array of numpy's own type is made of: plain facts, and objects.

    One that tasks can fill for others is refused: what they write into it is no result.
    """
    if getattr(array, "mode", None) in ("r+", "w+") and array.flags.writeable:
        raise TypeError(
            "it is a memory map that tasks can write to; what they write would not be there when "
            "their results come from the journal: have them return it, or open it read-only"
        )
    dtype = array.dtype
    if dtype.names is not None:
        plain = numpy.asarray(array)
        return (array.shape,), [dtype, *(plain[name] for name in dtype.names)]
    if dtype.hasobject or dtype.char == "T":
        return (array.shape,), [dtype, *array.ravel(order="C").tolist()]
    if dtype.metadata is None and dtype.char != "V":
        return (dtype.str, array.shape, _digest(array)), []
    return (array.shape, _digest(array)), [dtype]


def _digest(array: Any) -> bytes:
    """Return a digest of the elements' bytes, in C order; large arrays are not copied whole."""
    state = blake2b(digest_size=NBYTES)
    array = numpy.asarray(array)
    is_padded = _EXTENDED_NBYTES is not None and array.dtype.char in "gG"
    if array.nbytes and array.flags.c_contiguous and not is_padded:
        state.update(array.reshape(-1).view(numpy.uint8).data)
    elif array.nbytes:
        flags = ["external_loop", "buffered"]
        iterate: Any = numpy.nditer  # numpy's stubs want literals for the flags
        for piece in iterate(array, flags, order="C", buffersize=_ITEMS):
            in_bytes = numpy.ascontiguousarray(piece).view(numpy.uint8)
            if is_padded:
                used = in_bytes.reshape(-1, 16)[:, :_EXTENDED_NBYTES]
                in_bytes = numpy.ascontiguousarray(used)
            state.update(in_bytes.data)
    return state.digest()
