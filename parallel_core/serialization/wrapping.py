"""`wrap_non_picklable_objects`: an object that pickles through cloudpickle, by its user's word."""

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
    """Behaves as the object within, and pickles by value.

    Attributes
    ----------
    wrapped : object
        The object itself.
    """

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
    """A `WrappedObject` that is called as the object within."""

    def __init__(self, wrapped: Callable[..., Any], keep_wrapper: bool) -> None:
        super().__init__(wrapped, keep_wrapper)
        functools.update_wrapper(self, wrapped, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object within."""
        return self.wrapped(*args, **kwargs)  # type: ignore[operator]  # __init__ takes callables


def wrap_non_picklable_objects(obj: Any, keep_wrapper: bool = True) -> Any:
    """Make `obj` pickle by value, with cloudpickle, wherever it is sent.

    The default workers need none of this: what does not pickle by name is pickled by value
    without being asked. It is for other engines, and for objects inside containers of theirs.

    Parameters
    ----------
    obj : object
        A function, a class (its instances will be wrapped) or any other object.
    keep_wrapper : bool, default True
        Whether the other side gets the wrapper again, so that it can be sent on.

    Returns
    -------
    object
        Something that behaves as `obj` does.

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
