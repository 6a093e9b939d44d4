"""Memory for arrays that are received one after another.

The system hands out memory in pages of 4 KiB when they are first written to, and for an array of
128 KiB that takes twice as long as receiving it. With huge pages, 2 MiB each, it takes a fifth.
numpy asks for these for each array of 4 MiB or more. For smaller ones a whole block is taken here,
written to, and freed: then malloc has it, and makes the next arrays of it. So each is as ordinary
as any, and owns its memory.
"""

from __future__ import annotations

from typing import Any

_BLOCK = 16 << 20
_LARGE = 4 << 20  # numpy sees to these itself
_SEVERAL = 4 << 20  # bytes of arrays before the first block: a few are not worth it
_PAGE = 4096
_OVERHEAD = 64  # of malloc, about


class ArrayMemory:
    """Makes arrays, the smaller ones of memory that was made ready many at a time."""

    def __init__(self) -> None:
        self._ready = _SEVERAL
        self._is_of_use = True

    def empty(self, nbytes: int, shape: tuple[int, ...], dtype: Any, order: Any) -> Any:
        """Return ``numpy.empty(shape, dtype, order)``, which has so many bytes."""
        import numpy

        if nbytes < _LARGE and self._is_of_use:
            self._ready -= nbytes + _OVERHEAD
            if self._ready < 0:
                self._ready = _BLOCK
                try:
                    self._is_of_use = _make_ready(numpy)
                except MemoryError:
                    self._is_of_use = False
        return numpy.empty(shape, dtype, order)


def keep_freed(numpy: Any) -> None:
    """Have malloc keep the memory of arrays for the next ones, up to twice a block of it.

    Else it gives back what is freed at the end of its heap, and to have it anew takes four times as
    long as adding two arrays.
    """
    numpy.empty(_BLOCK, "B")  # see M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in mallopt(3)


def _make_ready(numpy: Any) -> bool:
    """Let malloc have a block that was written to; return whether it keeps what is freed."""
    keep_freed(numpy)
    block = numpy.empty(_BLOCK, "B")
    block[::_PAGE] = 0
    start = _address(block)
    del block
    return _address(numpy.empty(_BLOCK // 2, "B")) == start


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


#: Of this process.
array_memory = ArrayMemory()
