"""Bytes that travel beside a pickle, and the memory they are received into.

::

    pickle ── HERE ─── HERE ─── ...       in the pickle, each buffer is one `HERE` (out of band)
               │        │
            Buffer   Buffer               on the way: what memory it wants, and then its bytes
               │        │
            allocate allocate             at the other end: memory that is written once, and is
                                          what the pickle gets in place of `HERE`

So an array is received into the very object that the receiver of the pickle will have.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Stands in a pickle for a buffer beside it; the bytes are not its own.
HERE = pickle.PickleBuffer(bytearray(1))

#: What memory a buffer wants: a number of bytes; or for an array that number, its dtype (as a
#: character, or pickled), its shape, and ``"C"`` or ``"F"``. Nobody needs numpy to read this.
Description = int | tuple[int, str | bytes, tuple[int, ...], str]

_SHELF = 1 << 20
_MIDDLING = 1 << 18

#: The dtypes that are known by one character.
_SIMPLE = frozenset("?bBhHiIlLqQefdgFDG")


class Buffer:
    """Bytes to send."""

    __slots__ = ("description", "views")

    def __init__(self, description: Description, views: list[memoryview]) -> None:
        self.description = description  #: what memory they want at the other end
        self.views = views  #: where they are now, one piece after the other


class Shelf:
    """Memory into which buffers of middling size are copied, to leave together.

    One that is sent alone costs the receiver as much in being called up as in being received.
    """

    __slots__ = ("_memory", "_used")

    def __init__(self) -> None:
        self._memory: memoryview | None = None
        self._used = 0

    def put(self, buffers: list[Buffer]) -> list[Buffer] | None:
        """Return copies; None when `buffers` are large, or when there is no more room."""
        wanted = sum(nbytes_of(buffer.description) for buffer in buffers)
        if wanted > _MIDDLING or self._used + wanted > _SHELF:
            return None
        if self._memory is None:
            self._memory = memoryview(bytearray(_SHELF))
        copies = []
        for buffer in buffers:
            start = self._used
            for view in buffer.views:
                end = self._used + len(view)
                self._memory[self._used : end] = view
                self._used = end
            copies.append(Buffer(buffer.description, [self._memory[start : self._used]]))
        return copies

    def clear(self) -> None:
        """Forget what is there: it was sent, or copied elsewhere."""
        self._used = 0


def array_buffer(array: NDArray[Any]) -> Buffer | None:
    """Return the memory of an ordinary array; None when it cannot be sent like this.

    An array with gaps is copied, so that it has none.
    """
    from memmapping.arrays import has_plain_bytes

    dtype = array.dtype
    if not has_plain_bytes(dtype) or not array.nbytes:
        return None
    order = "C"
    if not array.flags.c_contiguous:
        if array.flags.f_contiguous:
            order = "F"
        else:
            array = array.copy(order="C")
    character = dtype.char
    known = character in _SIMPLE and dtype.isnative and dtype.metadata is None
    form = character if known else pickle.dumps(dtype, 5)
    return Buffer((array.nbytes, form, array.shape, order), [_memory_of(array)])


def nbytes_of(description: Description) -> int:
    """Return how many bytes follow for a buffer."""
    return description if isinstance(description, int) else description[0]


def allocate(description: Description) -> tuple[object, memoryview]:
    """Return what a buffer is received into, and its memory as bytes.

    Raises
    ------
    MemoryError
        When there is not enough.
    Exception
        Whatever comes of a dtype that this process does not know.
    """
    if isinstance(description, int):
        numpy: Any = sys.modules.get("numpy")
        if hasattr(numpy, "empty"):  # a bytearray is filled with zeros first
            memory = memoryview(numpy.empty(description, "B"))
        else:
            memory = memoryview(bytearray(description))
        return memory, memory
    import math

    import numpy

    from parallel_core.serialization.memory import array_memory

    nbytes, form, shape, order = description
    dtype = numpy.dtype(form) if isinstance(form, str) else pickle.loads(form)
    if math.prod(shape) * dtype.itemsize != nbytes:
        raise TypeError(f"{dtype} has another size in this process")
    array = array_memory.empty(nbytes, shape, dtype, order)
    return array, _memory_of(array)


def _memory_of(array: Any) -> memoryview:
    """Return the memory of a contiguous array, of any dtype."""
    return memoryview(array.reshape(-1, order="A").view("B"))
