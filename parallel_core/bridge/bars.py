"""Progress bars that are hung into joblib's `BatchCompletionCallBack`.

The usual way to have a bar for a call that somebody else makes is to replace that class, or its
``__call__``, by one that moves the bar and then does what joblib's does. With our `Parallel` in
joblib's place nobody makes such callbacks. So where one has been replaced, it is made and called
for what has been completed, with a stand-in for joblib's `Parallel` that asks it to do no more.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

from parallel_core.observe.events import Event
from parallel_core.observe.observers import Observer

_NAME = "BatchCompletionCallBack"


class BarsOfCallbacks:
    """Makes an observer of each call where the callback has been replaced."""

    def __init__(self, parallel: ModuleType) -> None:
        self._module = parallel
        self._original: Any = getattr(parallel, _NAME, None)
        self._call = getattr(self._original, "__call__", None)  # noqa: B004 - the function itself

    def __call__(self, parallel: Any) -> Observer | None:
        """Return what moves the bar of a call of `parallel`; None where there is none."""
        current = getattr(self._module, _NAME, None)
        if current is None or (current is self._original and current.__call__ is self._call):
            return None
        return _Bar(current, _StandIn(parallel))


class _Bar:
    """Moves the bar of one call."""

    def __init__(self, callback: Any, stand_in: Any) -> None:
        self._callback = callback
        self._stand_in = stand_in
        self._told = 0

    def notify(self, event: Event) -> None:
        """Call the replaced callback for tasks that have been completed since the last time."""
        completed = getattr(event, "completed", 0)
        if completed > self._told:
            self._told, new = completed, completed - self._told
            self._callback(time.time(), new, self._stand_in)(None)


class _StandIn:
    """What joblib's callback needs to know of a `Parallel` of ours, to leave off at once."""

    def __init__(self, parallel: Any) -> None:
        self._parallel = parallel
        self._call_id = ""
        self._aborting = True  # it takes no result, and dispatches nothing
        self._lock = nullcontext()
        self._backend = SimpleNamespace(supports_retrieve_callback=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parallel, name)
