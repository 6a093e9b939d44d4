"""Arrays that are born in shared memory, and so never need a copy to get there."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from memmapping.arrays import memmap_over
from memmapping.folders import candidate_folders, check_temp_folder
from memmapping.references import remember
from memmapping.segments import PAGE, Segment
from memmapping.store import segment_store

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


def empty(
    shape: int | tuple[int, ...],
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
    temp_folder: str | None = None,
) -> np.memmap[Any, Any]:
    """Return a new array in shared memory, for tasks to read and to fill in place.

    A task gets a reference to the same memory: nothing is copied, and everybody sees what the task
    writes. All of the memory is reserved now, so that later writes cannot fail. It is freed when
    nothing refers to the array any more, in this process or a worker, and at the latest when the
    processes end.

    Parameters
    ----------
    shape : int or tuple of int
        Shape of the array.
    dtype : dtype, default float
        Type of its elements; not objects.
    order : {"C", "F"}, default "C"
        Memory layout.
    temp_folder : str, optional
        Folder to use instead of ``/dev/shm``.

    Returns
    -------
    numpy.memmap
        Writable array of zeros.

    Raises
    ------
    OSError
        If no folder has room for it.
    TypeError
        For a dtype that holds Python objects.

    Examples
    --------
    >>> from memmapping import empty
    >>> from parallel_core import Parallel, delayed
    >>> out = empty(4)
    >>> def fill(out, i):
    ...     out[i] = i**2
    >>> _ = Parallel(n_jobs=2)(delayed(fill)(out, i) for i in range(4))
    >>> print(out)
    [0. 1. 4. 9.]
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"an array of {kind} cannot lie in shared memory: it holds Python objects")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    check_temp_folder(temp_folder)
    dimensions = _dimensions(shape)
    nbytes = kind.itemsize
    for size in dimensions:
        nbytes *= size
    length = max(-(-nbytes // PAGE), 1) * PAGE
    folders = candidate_folders(temp_folder)
    segment = segment_store().take_filled(length, folders, Segment.reserve)
    mapping = mmap.mmap(segment.fd, length)
    remember(mapping, segment.origin, "r+", segment)
    return memmap_over(mapping, 0, kind, dimensions, order, filename=None, mode="r+")


def zeros(
    shape: int | tuple[int, ...],
    dtype: DTypeLike = float,
    order: Literal["C", "F"] = "C",
    temp_folder: str | None = None,
) -> np.memmap[Any, Any]:
    """Return a new array of zeros in shared memory; see `empty`.

    Examples
    --------
    >>> from memmapping import zeros
    >>> zeros((2, 3), "int8").tolist()
    [[0, 0, 0], [0, 0, 0]]
    """
    return empty(shape, dtype, order, temp_folder)


def empty_like(
    array: Any, dtype: DTypeLike | None = None, temp_folder: str | None = None
) -> np.memmap[Any, Any]:
    """Return a new array in shared memory with the shape, order and type of `array`; see `empty`.

    Parameters
    ----------
    array : array_like
        Array with the shape and type to use.
    dtype : dtype, optional
        Type of the elements, if it should differ.
    temp_folder : str, optional
        Folder to use instead of ``/dev/shm``.

    Examples
    --------
    >>> import numpy
    >>> from memmapping import empty_like
    >>> made = empty_like(numpy.ones((2, 3), order="F"))
    >>> made.shape, made.dtype, made.flags.f_contiguous
    ((2, 3), dtype('float64'), True)
    """
    model = np.asarray(array)
    order: Literal["C", "F"]
    order = "F" if model.flags.f_contiguous and not model.flags.c_contiguous else "C"
    return empty(model.shape, model.dtype if dtype is None else dtype, order, temp_folder)


def _dimensions(shape: Any) -> tuple[int, ...]:
    import operator

    try:
        given = tuple(shape) if np.iterable(shape) else (shape,)
        dimensions = tuple(operator.index(size) for size in given)
    except TypeError:
        raise TypeError(f"shape must be an integer or a tuple of integers, not {shape!r}") from None
    if any(size < 0 for size in dimensions):
        raise ValueError(f"shape must not have negative sizes: {shape!r}")
    return dimensions
