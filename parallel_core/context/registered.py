"""What libraries and users register, so that it holds inside tasks."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.context.item import PROCESSES, ContextItem, Dumps, Entered, Part, Place
from parallel_core.errors import ContextError

Capture = Callable[[], Any]
Restore = Callable[[Any], Any]


class _Registration(NamedTuple):
    capture: Capture
    restore: Restore


_registered: dict[str, _Registration] = {}


def register_context(name: str, capture: Capture, restore: Restore) -> None:
    """Carry a setting of the caller into tasks, wherever they run.

    Parameters
    ----------
    name : str
        Name for messages. A new registration replaces one of the same name.
    capture : callable
        Function without arguments that returns the state. It is called when a call of `Parallel`
        begins, in the thread of the call. For tasks in other processes, the state is pickled.
    restore : callable
        Function that is called with the state where tasks run: before each batch in processes, once
        in each thread. It returns None, or a context manager that surrounds the tasks. With
        ``n_jobs=1`` tasks run in the caller's own thread, and nothing is restored.

    Raises
    ------
    TypeError
        If `name` is not a string, or `capture` or `restore` is not callable.

    See Also
    --------
    unregister_context : Remove a registration.

    Notes
    -----
    An exception of `capture`, `restore` or the context manager, or a state that does not pickle,
    ends the call with a `ContextError`, whatever its `on_error` is.

    Examples
    --------
    >>> import locale
    >>> from parallel_core import register_context, unregister_context
    >>> def restore(name):
    ...     locale.setlocale(locale.LC_NUMERIC, name)
    >>> register_context("locale", lambda: locale.setlocale(locale.LC_NUMERIC), restore)
    >>> unregister_context("locale")
    """
    _check(name, capture, restore)
    _registered[name] = _Registration(capture, restore)


def _check(name: Any, capture: Any, restore: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"the name of a context must be a text, not {name!r}")
    for role, function in (("capture", capture), ("restore", restore)):
        if not callable(function):
            hint = "; to end a registration there is unregister_context" if function is None else ""
            raise TypeError(f"{role} of the context {name!r} is {function!r}, not callable{hint}")


def unregister_context(name: str) -> None:
    """Remove a registration of `register_context`.

    Parameters
    ----------
    name : str
        Name of the registration.

    Raises
    ------
    ValueError
        If nothing is registered under `name`.
    """
    if name not in _registered:
        known = ", ".join(map(repr, _registered)) or "none"
        raise ValueError(f"no context is registered as {name!r}; there is {known}")
    del _registered[name]


def captured() -> list[ContextItem]:
    """Return what is registered, as it is now; a `capture` that raises is a `ContextError`."""
    items: list[ContextItem] = []
    for name, (capture, restore) in list(_registered.items()):
        try:
            state = capture()
        except Exception as error:
            raise ContextError(
                f"the context {name!r} could not be captured: {type(error).__name__}: {error}"
            ) from error
        items.append(Restored(name, state, restore))
    return items


class Restored(ContextItem):
    """A registered context: what `capture` has returned, and the `restore` that takes it."""

    places = (Place.THREAD, *PROCESSES)

    def __init__(self, name: str, state: Any, restore: Restore) -> None:
        self.name = name
        self._state = state
        self._restore = restore

    def packed(self, dumps: Dumps) -> ContextItem:
        """Return it in the form that travels; an error says which part does not pickle."""
        parts = {}
        for what, part in (("state", self._state), ("restore", self._restore)):
            try:
                parts[what] = dumps(part)
            except Exception as error:
                raise ContextError(
                    f"the context {self.name!r} has a {what} that does not pickle, so it cannot "
                    f"hold in another process: {type(error).__name__}: {error}"
                ) from error
        return ToldRestored(self.name, parts["state"], parts["restore"])

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Restore it."""
        del position, place
        manager = self._restore(self._state)
        if manager is None:
            return None
        kind = type(manager)
        if hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
            return Entered(manager)
        raise ContextError(
            f"its restore must return None or a context manager, not {manager!r} of type "
            f"{kind.__name__!r}"
        )


class ToldRestored(ContextItem):
    """A registered context as it travels."""

    places = Restored.places

    def __init__(self, name: str, state: bytes, restore: bytes) -> None:
        self.name = name
        self._state = state
        self._restore = restore

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Restore it, with a state of this batch alone."""
        state, restore = pickle.loads(self._state), pickle.loads(self._restore)
        return Restored(self.name, state, restore).begin(position, place)
