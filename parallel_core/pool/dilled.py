"""Functions, arguments and results that dill pickles, on the way that everything goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def check_dill() -> None:
    """Raise ImportError unless dill can be used."""
    try:
        import dill  # noqa: F401 - it is there
    except ImportError as error:
        raise ImportError("use_dill=True needs dill: pip install dill") from error


class _ByDill:
    """A value that is another one after it was pickled: itself, as dill made it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        import dill

        return dill.loads, (dill.dumps(self._value),)


class DillFunction:
    """A function that dill pickles, and whose results it pickles; it is pickled once."""

    def __init__(self, function: Callable[..., Any], pickled: bytes | None = None) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._pickled = pickled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns, to be pickled by dill."""
        return _ByDill(self._function(*args, **kwargs))

    def __reduce__(self) -> tuple[Callable[[bytes], DillFunction], tuple[bytes]]:
        if self._pickled is None:
            import dill

            self._pickled = dill.dumps(self._function)
        return _unpickled, (self._pickled,)


@functools.lru_cache(maxsize=8)
def _unpickled(pickled: bytes) -> DillFunction:
    """Return the function whose pickle this is; each batch of a map brings the same."""
    import dill

    return DillFunction(dill.loads(pickled), pickled)


def by_dill(tasks: Iterable[tuple[Any, Any, dict[str, Any]]]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield delayed calls whose arguments are pickled by dill; their function is already."""
    for function, args, kwargs in tasks:
        named = {name: _ByDill(value) for name, value in kwargs.items()}
        yield function, tuple(map(_ByDill, args)), named
