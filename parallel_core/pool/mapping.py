"""`pmap` and `pstarmap`: the builtin `map` and `itertools.starmap`, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

from parallel_core.parallel.call import Parallel

_R = TypeVar("_R")
_NO_KEYWORDS: dict[str, Any] = {}


def pmap(
    function: Callable[..., _R],
    iterable: Iterable[Any],
    *more: Iterable[Any],
    n_jobs: int | None = -1,
    **options: Any,
) -> list[_R]:
    """Return ``list(map(function, iterable, *more))``, made by several workers.

    Parameters
    ----------
    function : callable
        Function to run in the workers. It may be a lambda.
    iterable : iterable
        Arguments of `function`.
    *more : iterable
        Further arguments. The shortest iterable determines the number of calls.
    n_jobs : int, default -1
        Number of workers, as for `Parallel`: -1 stands for all cores.
    **options
        Any other parameter of `Parallel`.

    Returns
    -------
    list
        Results in the form of `return_as`, or the one value of `reduce`.

    Examples
    --------
    >>> from parallel_core import pmap
    >>> pmap(abs, [-1, 2, -3], n_jobs=2)
    [1, 2, 3]
    >>> pmap(pow, [2, 3], [5, 2], n_jobs=2)
    [32, 9]
    """
    _check(function, "pmap")
    arguments = zip(iterable, *more)  # noqa: B905 - as long as the shortest, like the builtin
    lengths = [_length(each) for each in (iterable, *more)]
    found: list[_R] = _run(function, arguments, min(lengths), n_jobs, options)
    return found


def pstarmap(
    function: Callable[..., _R],
    iterable: Iterable[Iterable[Any]],
    *,
    n_jobs: int | None = -1,
    **options: Any,
) -> list[_R]:
    """Return ``list(itertools.starmap(function, iterable))``, made by several workers.

    Parameters
    ----------
    function : callable
        Function to run in the workers.
    iterable : iterable of iterable
        Arguments of each call.
    n_jobs : int, default -1
        Number of workers, as for `Parallel`: -1 stands for all cores.
    **options
        Any other parameter of `Parallel`.

    Returns
    -------
    list
        Results in the form of `return_as`, or the one value of `reduce`.

    Examples
    --------
    >>> from parallel_core import pstarmap
    >>> pstarmap(pow, [(2, 5), (3, 2)], n_jobs=2)
    [32, 9]
    """
    _check(function, "pstarmap")
    length = _length(iterable)
    found: list[_R] = _run(function, map(tuple, iterable), length, n_jobs, options)
    return found


def _check(function: object, name: str) -> None:
    if not callable(function):
        raise TypeError(f"{name} takes a function and its arguments, not {function!r}")


def _length(iterable: Iterable[Any]) -> int:
    """Return how many items there are; -1 where that is not known."""
    return len(iterable) if isinstance(iterable, Sized) else -1


class _Tasks:
    """The tasks of a call, which know their number; as a generator, they could not."""

    def __init__(self, tasks: Iterable[Any], length: int) -> None:
        self._tasks = tasks
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tasks)

    def __length_hint__(self) -> int:
        return self._length


def _run(
    function: Callable[..., _R],
    arguments: Iterable[tuple[Any, ...]],
    length: int,
    n_jobs: int | None,
    options: dict[str, Any],
) -> Any:
    none = _NO_KEYWORDS
    tasks: Iterable[Any] = ((function, args, none) for args in arguments)
    if length >= 0:
        tasks = _Tasks(tasks, length)
    return Parallel(n_jobs=n_jobs, **options)(tasks)
