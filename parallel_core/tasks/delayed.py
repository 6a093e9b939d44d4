"""`delayed`, and delayed calls: plain tuples ``(function, args, kwargs)``."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, ParamSpec, TypeVar

from parallel_core.errors import InvalidTaskError
from parallel_core.tasks.description import short_repr

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: A delayed call, of a function that returns `_R`.
Task = tuple[Callable[..., _R], tuple[Any, ...], dict[str, Any]]
#: What is accepted as one.
TaskLike = tuple[Callable[..., _R], tuple[Any, ...] | list[Any], dict[str, Any]]


def _delayed_call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[Any]:
    return function, args, kwargs


def delayed(function: Callable[_P, _R]) -> Callable[_P, Task[_R]]:
    """Turn a call of `function` into a description of that call.

    Parameters
    ----------
    function : callable
        Function that workers will call.

    Returns
    -------
    callable
        Function that takes the same arguments, returns the tuple ``(function, args, kwargs)``, and
        calls nothing. Type checkers compare the arguments with the signature of `function`; see
        :doc:`/howto/typing`.

    Examples
    --------
    >>> from parallel_core import delayed
    >>> delayed(pow)(2, 5)
    (<built-in function pow>, (2, 5), {})
    """
    # A bound method takes two thirds of the time of a closure to make and to call.
    return MethodType(_delayed_call, function)


def check_task(item: object, position: int) -> Task[Any]:
    """Return `item` as a task; raise `InvalidTaskError` if it is none."""
    # Other libraries make their own delayed calls, so a list or tuple of a callable, a sequence of
    # arguments and a mapping of keyword arguments is accepted.
    if isinstance(item, (tuple, list)) and len(item) == 3:
        function, args, kwargs = item
        if type(args) is tuple and type(kwargs) is dict and callable(function):
            return function, args, kwargs
        if callable(function) and isinstance(args, (tuple, list)) and isinstance(kwargs, dict):
            return function, tuple(args), kwargs
    shown = short_repr(item)
    mend = "pass delayed(f)(x) for each x, not f(x)"
    if isinstance(item, MethodType) and item.__func__ is _delayed_call:
        mend = "it has not been given its arguments: write delayed(f)(x), not delayed(f(x))"
    raise InvalidTaskError(
        f"item {position} of the iterable is not a delayed call but {shown} of type "
        f"{type(item).__name__!r}: {mend}"
    )
