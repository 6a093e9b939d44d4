"""Functions that tests send to workers; nothing here takes long to import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_buffer = np.zeros(100_000)

#: Results of 64 KiB and more, and some below.
LARGE: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(50_000.0),
    "read-only": lambda: _read_only(np.arange(50_000.0)),
    "Fortran order": lambda: np.asfortranarray(np.arange(60_000.0).reshape(300, 200)),
    "with gaps": lambda: np.arange(200_000.0)[::2],
    "other byte order": lambda: np.arange(50_000).astype(">i4"),
    "dates": lambda: np.arange(50_000).astype("M8[D]"),
    "fields": lambda: np.zeros(20_000, [("a", "i4"), ("b", ">f8")]),
    "of objects": lambda: np.array([str(x) for x in range(20_000)], object),
    "masked": lambda: np.ma.masked_less(np.arange(50_000.0), 9.0),
    "small": lambda: np.arange(5.0),
    "bytes": lambda: b"b" * 200_000,
    "text": lambda: "ä" * 200_000,
    "bytearray": lambda: bytearray(b"b" * 200_000),
    "list": lambda: [float(x) for x in range(20_000)],
    "nested": lambda: {"a": [np.arange(50_000.0), b"x" * 100_000], "b": "y" * 100_000},
    "set": lambda: set(range(20_000)),
    "none": lambda: None,
}


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def large_result(name: str) -> Any:
    """Return one of those."""
    return LARGE[name]()


def same(one: Any, other: Any) -> bool:
    """Whether two results are alike, with type and order."""
    if isinstance(one, np.ndarray):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and one.flags.f_contiguous == other[...].copy(order="K").flags.f_contiguous
            and one.flags.writeable
            and bool(np.array_equal(one, other))
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and len(one) < 100:
        return all(map(same, one, other))
    return type(one) is type(other) and one == other


def fill_buffer(x: int, length: int = 100_000) -> Any:
    """Return the same array each time, with other values."""
    global _buffer
    if len(_buffer) != length:
        _buffer = np.zeros(length)
    _buffer[:] = x
    return _buffer


def large_unless(x: int, at: int) -> bytes:
    """Return something large, or raise."""
    if x == at:
        raise KeyError(x)
    return b"x" * 200_000


class Unloadable:
    """Pickles, and does not unpickle."""

    def __init__(self) -> None:
        self.array = np.arange(50_000.0)

    def __reduce__(self) -> Any:
        return _refuse, (self.array,)


def _refuse(array: Any) -> Any:
    raise ValueError("not here")


def unloadable_at(x: int, at: int) -> Any:
    """Return something that does not unpickle, or something large that does."""
    return Unloadable() if x == at else b"x" * 100_000
