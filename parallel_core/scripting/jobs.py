"""The arguments of each job, from the forms in which they may be given."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

#: Positional and keyword arguments of one job.
Job = tuple[tuple[Any, ...], dict[str, Any]]


class Jobs:
    """The jobs of a run: tasks of one function, of which none is kept when it has been taken."""

    is_at_hand = True  #: for the dispatch: no code of the caller's runs when a task is taken

    def __init__(
        self,
        func: Callable[..., Any],
        positional: list[tuple[Any, ...]],
        keywords: list[dict[str, Any]],
    ) -> None:
        self._func = func
        self._positional = positional
        self._keywords = keywords

    def __len__(self) -> int:
        return len(self._positional)

    def __iter__(self) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
        return zip(itertools.repeat(self._func), self._positional, self._keywords, strict=False)

    @property
    def argslist(self) -> list[Job]:
        """Positional and keyword arguments of each job."""
        return list(zip(self._positional, self._keywords, strict=True))

    def with_shared(self, shared: dict[str, Any]) -> Jobs:
        """Return the jobs with further keyword arguments, which they share."""
        if not shared:
            return self
        keywords = [{**each, **shared} for each in self._keywords]
        return Jobs(self._func, self._positional, keywords)


def make_jobs(
    func: Any, iterarg: Any, iterkwargs: Any, args: Any, kwargs: Any, func_kwargs: dict[str, Any]
) -> Jobs:
    """Return the jobs; raise TypeError or ValueError unless they make sense."""
    if not callable(func):
        raise TypeError(f"func must be a function, not {func!r}")
    if args is None:
        args = ()
    elif not isinstance(args, (tuple, list)):
        raise TypeError(
            f"args must be a tuple or a list of arguments for all jobs, not {args!r}; for one "
            "argument write args=(x,)"
        )
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dictionary of arguments for all jobs, not {kwargs!r}")
    common = {**(kwargs or {}), **func_kwargs}
    count, items = _items(iterarg)
    each = _iterated(iterkwargs)
    if each is None:
        if count is None:
            raise ValueError(
                "there is nothing to iterate over: give iterarg (a sequence, or the number of "
                "jobs) or iterkwargs (a dictionary of lists, or a list of dictionaries)"
            )
    elif count is None:
        count = len(each)
    elif count != len(each):
        raise ValueError(
            f"iterarg has {count} items and iterkwargs has {len(each)}: give both the same number"
        )
    if not count:
        raise ValueError("there is nothing to do: iterarg or iterkwargs has no items")
    shared = tuple(args)
    if each is None:  # a call makes a dictionary of its own of the keyword arguments
        keywords = [common] * count
    else:
        keywords = [{**common, **own} for own in each]
    if items is None:
        positional = [shared] * count
    elif tuple in set(map(type, items)):
        positional = [(*it, *shared) if type(it) is tuple else (it, *shared) for it in items]
    else:  # the usual case, without a step of Python for each job
        positional = list(zip(items, *map(itertools.repeat, shared), strict=False))
    return Jobs(func, positional, keywords)


def _items(iterarg: Any) -> tuple[int | None, list[Any] | None]:
    """Return how many jobs `iterarg` asks for, and their arguments; None for what it does not."""
    if iterarg is None:
        return None, None
    if isinstance(iterarg, Iterable):
        items = list(iterarg)
        return len(items), items
    if isinstance(iterarg, bool) or not isinstance(iterarg, numbers.Real):
        raise TypeError(
            f"iterarg must be a sequence or a number of jobs, not {iterarg!r} of type "
            f"{type(iterarg).__name__!r}"
        )
    number = float(iterarg)
    if not (number.is_integer() and number >= 1):
        raise ValueError(
            f"iterarg must be a positive whole number of jobs, or a sequence, not {iterarg!r}"
        )
    return int(number), None


def _iterated(iterkwargs: Any) -> list[dict[str, Any]] | None:
    """Return the keyword arguments of each job that `iterkwargs` gives; None if it is None."""
    if iterkwargs is None:
        return None
    if isinstance(iterkwargs, Mapping):
        columns = {}
        for name, values in iterkwargs.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(
                    f"iterkwargs[{name!r}] must be a list with one value for each job, not "
                    f"{values!r}; values for all jobs are for kwargs"
                )
            columns[name] = list(values)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise ValueError(f"iterkwargs must have as many values for each name: {told}")
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return _with_names(rows)
    if isinstance(iterkwargs, str) or not isinstance(iterkwargs, Iterable):
        raise TypeError(
            "iterkwargs must be a dictionary of lists or a list of dictionaries, not "
            f"{iterkwargs!r}"
        )
    rows = list(iterkwargs)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"iterkwargs[{index}] must be a dictionary, not {row!r}")
    return _with_names(rows)


def _with_names(rows: list[Any]) -> list[dict[str, Any]]:
    """Return `rows`; raise TypeError unless their keys can be names of arguments."""
    for row in rows[:1]:
        for name in row:
            if not isinstance(name, str):
                raise TypeError(f"iterkwargs: a name of an argument must be a string, not {name!r}")
    return rows


def number_of_workers(ncpus: Any, n_available: int) -> int:
    """Return the number of workers that `ncpus` asks for; raise unless it is a sensible number."""
    if ncpus is None:
        return n_available
    if isinstance(ncpus, (bool, str)) or not hasattr(ncpus, "__float__"):
        raise TypeError(f"ncpus must be a number or None, not {ncpus!r}")
    number = float(ncpus)
    if not 0 <= number < float("inf"):
        raise ValueError(
            f"ncpus must be a number of workers, a fraction of the CPUs between 0 and 1, or None "
            f"for all, not {ncpus!r}"
        )
    if number == 0:
        return n_available
    if number < 1:
        return math.ceil(number * n_available)
    return int(number)
