"""Items of a map: how they become arguments, how they are counted, and how they are cut."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from fractions import Fraction
from itertools import islice
from operator import length_hint
from types import GeneratorType
from typing import Any, NamedTuple

_NO_KEYWORDS: dict[str, Any] = {}  # of many tasks; nothing writes to it
#: How many parts an array is cut into for each worker, and how many chunks other input makes.
_PARTS_OF_ARRAYS = 4
_CHUNKS = 64


def make_single_arguments(
    iterable_of_args: Iterable[Any], generator: bool = True
) -> list[tuple[Any]] | Generator[tuple[Any], None, None]:
    """Return each item alone in a tuple, so that maps do not unpack it.

    Parameters
    ----------
    iterable_of_args : iterable
        The items.
    generator : bool, default True
        Whether to return a generator instead of a list.

    Examples
    --------
    >>> from parallel_core import make_single_arguments
    >>> make_single_arguments([(1, 2), {"x": 3}], generator=False)
    [((1, 2),), ({'x': 3},)]
    """
    singles = ((item,) for item in iterable_of_args)
    return singles if generator else list(singles)


def chunk_tasks(
    iterable_of_args: Iterable[Any],
    iterable_len: int | None = None,
    chunk_size: float | None = None,
    n_splits: int | None = None,
) -> Generator[Any, None, None]:
    """Yield the items in chunks: tuples, or slices if the input is a numpy array.

    Parameters
    ----------
    iterable_of_args : iterable
        The items.
    iterable_len : int, optional
        Number of items to take; by default all.
    chunk_size : int or float, optional
        Number of items in a chunk. With 2.5, every other chunk has 3 items and the others have 2.
    n_splits : int, optional
        Number of chunks, if no `chunk_size` is given.

    Raises
    ------
    ValueError
        If neither `chunk_size` nor `n_splits` is given, or `n_splits` for an unknown number of
        items.

    Examples
    --------
    >>> from parallel_core import chunk_tasks
    >>> list(chunk_tasks(range(10), n_splits=3))
    [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    >>> list(chunk_tasks(range(10), chunk_size=2.5))
    [(0, 1, 2), (3, 4), (5, 6, 7), (8, 9)]
    """
    if chunk_size is None and n_splits is None:
        raise ValueError("chunk_size and n_splits cannot both be None: give one of them")
    count = iterable_len
    if count is None and isinstance(iterable_of_args, Sized):  # a hint of a length is not enough
        count = count_items(iterable_of_args)
    size = Fraction(1)
    if chunk_size is not None:
        size = max(size, Fraction(chunk_size))
    elif count is None:
        raise ValueError(
            "n_splits needs to know how many items there are: give iterable_len, an iterable "
            "that has a len(), or a chunk_size"
        )
    else:
        assert n_splits is not None
        size = max(size, Fraction(count, n_splits))
    bounds = _bounds(size, count)
    if is_array(iterable_of_args):
        array: Any = iterable_of_args
        for start, stop in bounds:
            if start >= len(array):
                return
            yield array[start:stop]
        return
    iterator = iter(iterable_of_args)
    for start, stop in bounds:
        chunk = tuple(islice(iterator, stop - start))
        if not chunk:
            return
        yield chunk


def _bounds(size: Fraction, count: int | None) -> Iterator[tuple[int, int]]:
    """Yield where each chunk starts and stops; for ever where there is no `count`."""
    start, number = 0, 1
    while count is None or start < count:
        stop = math.ceil(number * size)
        yield start, stop if count is None else min(stop, count)
        start, number = stop, number + 1


def is_array(value: object) -> bool:
    """Whether `value` is a numpy array; numpy is not imported for it."""
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def count_items(items: object, told: int | None = None) -> int | None:
    """Return how many `items` there are, or what was `told`; None where nobody knows."""
    if told is not None or isinstance(items, GeneratorType):
        return told
    try:
        length = length_hint(items, -1)
    except Exception:  # a range may be longer than an index can say
        return None
    return length if length >= 0 else None


class Cut(NamedTuple):
    """What a map runs: arguments of its tasks, and how many of them make a chunk."""

    items: Iterable[Any]
    #: How many there are, as far as is known.
    total: int | None
    #: None adapts it to how long tasks take.
    chunk_size: int | None
    #: Whether the input was an array, and tasks get slices of it.
    is_array: bool = False


def cut(
    items: Any,
    n_jobs: int,
    iterable_len: int | None,
    chunk_size: float | None,
    n_splits: int | None,
) -> Cut:
    """Return what a map of `items` runs."""
    count = count_items(items, iterable_len)
    if is_array(items):
        if items.ndim == 0:
            raise TypeError(
                "a map needs an iterable, and an array without dimensions is none: pass "
                "[array], or array[None]"
            )
        count = len(items) if count is None else min(count, len(items))
        if chunk_size is None and n_splits is None:
            n_splits = n_jobs * _PARTS_OF_ARRAYS
        chunks = [(part,) for part in chunk_tasks(items, count, chunk_size, n_splits)]
        return Cut(chunks, len(chunks), 1, True)
    if iterable_len is not None:
        items = islice(items, min(iterable_len, sys.maxsize))
    if chunk_size is not None:
        return Cut(items, count, math.ceil(chunk_size))
    if n_splits is not None and count is not None:
        return Cut(items, count, max(1, -(-count // n_splits)))
    return Cut(items, count, None)


def default_chunk_size(count: int | None, n_jobs: int) -> int:
    """Return how many tasks make a chunk where it may not adapt."""
    return 1 if count is None else max(1, -(-count // (_CHUNKS * n_jobs)))


def delayed_calls(
    function: Callable[..., Any], items: Iterable[Any]
) -> Generator[tuple[Callable[..., Any], Any, dict[str, Any]], None, None]:
    """Yield a delayed call of `function` for each item, unpacked where it is to be.

    A dictionary gives keywords. Other iterables give arguments, but for strings, bytes and arrays,
    which are one argument, like everything that is not iterable.
    """
    none = _NO_KEYWORDS
    singles: dict[type, bool] = {tuple: False, dict: False}
    find = singles.get
    for item in items:
        kind = type(item)
        is_single = find(kind)
        if is_single is None:
            is_single = singles[kind] = _is_single(item)
        if is_single:
            yield function, (item,), none
        elif kind is tuple:
            yield function, item, none
        elif isinstance(item, dict):
            yield function, (), item if kind is dict else dict(item)
        else:
            yield function, tuple(item), none


def _is_single(item: object) -> bool:
    """Whether `item` is one argument, whatever else of its type is met in the same map."""
    return isinstance(item, (str, bytes)) or is_array(item) or not isinstance(item, Iterable)


def arguments_of(
    args: Any, kwargs: dict[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a single call, unpacked by the same rule."""
    if isinstance(args, dict) and kwargs is None:
        return (), dict(args)
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError(f"kwargs must be a dictionary or None, not {kwargs!r}")
    found = (args,) if type(args) is not tuple and _is_single(args) else tuple(args)
    return found, {} if kwargs is None else kwargs


def concatenated(results: list[Any]) -> Any:
    """Return `results` as one array if all are arrays that can be joined; else as they are."""
    if not results or not is_array(results[0]) or not all(map(is_array, results)):
        return results
    if not results[0].ndim or len({array.shape[1:] for array in results}) > 1:
        return results
    if any(array.ndim == 0 for array in results):
        return results
    import numpy

    return numpy.concatenate(results)
