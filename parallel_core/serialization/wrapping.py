"""`wrap_non_picklable_objects`: an object that pickles by value, because the user asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from parallel_core.serialization.pickling import dumps_by_value


def _load(data: bytes) -> object:
    import cloudpickle

    return cloudpickle.loads(data)


def _load_wrapped(data: bytes) -> object:
    return wrap_non_picklable_objects(_load(data))


class WrappedObject:
    """Behaves as the object `wrapped`, and pickles by value."""

    def __init__(self, wrapped: object, keep_wrapper: bool) -> None:
        self.wrapped = wrapped
        self._keep_wrapper = keep_wrapper

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        load = _load_wrapped if self._keep_wrapper else _load
        return load, (dumps_by_value(self.wrapped),)

    def __getattr__(self, name: str) -> Any:
        if name in ("wrapped", "_keep_wrapper"):  # not there yet: being unpickled or copied
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __repr__(self) -> str:
        return f"<wrapped {self.wrapped!r}>"


class WrappedCallable(WrappedObject):
    """A `WrappedObject` that can be called."""

    def __init__(self, wrapped: Callable[..., Any], keep_wrapper: bool) -> None:
        super().__init__(wrapped, keep_wrapper)
        functools.update_wrapper(self, wrapped, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped object."""
        return self.wrapped(*args, **kwargs)  # type: ignore[operator]  # __init__ takes callables


def wrap_non_picklable_objects(obj: Any, keep_wrapper: bool = True) -> Any:
    """Make `obj` pickle by value, with cloudpickle, wherever it is sent.

    The default workers do not need this: objects that do not pickle by name are pickled by value
    automatically. Use it for other engines, and for objects inside their containers.

    Parameters
    ----------
    obj : object
        Function, class (its instances will be wrapped) or other object.
    keep_wrapper : bool, default True
        Whether the receiver gets the wrapper again, so that it can send the object on.

    Returns
    -------
    object
        Wrapper that behaves like `obj`.

    Examples
    --------
    >>> import pickle
    >>> from parallel_core import wrap_non_picklable_objects
    >>> double = wrap_non_picklable_objects(lambda x: 2 * x)
    >>> pickle.loads(pickle.dumps(double))(21)
    42
    """
    if isinstance(obj, type):

        def make(*args: Any, **kwargs: Any) -> Any:
            return wrap_non_picklable_objects(obj(*args, **kwargs), keep_wrapper)

        functools.update_wrapper(make, obj, updated=())
        return WrappedCallable(make, keep_wrapper)
    if callable(obj):
        return WrappedCallable(obj, keep_wrapper)
    return WrappedObject(obj, keep_wrapper)
