"""Progress bars that are hung into joblib's `BatchCompletionCallBack`.

The usual way to have a bar for a call that somebody else makes is to replace that class, or its
``__call__``, by one that moves the bar and then does what joblib's does. With our `Parallel` in
joblib's place nobody makes such callbacks. So where one has been replaced, it is made and called
for what has been completed, with a stand-in for joblib's `Parallel` that asks it to do no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

_NAME = "BatchCompletionCallBack"


class BarsOfCallbacks:
    """A follower of calls.

    Parameters
    ----------
    parallel : module
        ``joblib.parallel``.
    """

    def __init__(self, parallel: ModuleType) -> None:
        self._module = parallel
        self._original: Any = getattr(parallel, _NAME, None)
        self._call = getattr(self._original, "__call__", None)  # noqa: B004 - the function itself

    def __call__(self, parallel: Any) -> Callable[[], None] | None:
        """Return what moves the bar; None where there is none."""
        current = getattr(self._module, _NAME, None)
        if current is None or (current is self._original and current.__call__ is self._call):
            return None
        stand_in: Any = _StandIn(parallel)
        told = 0

        def tell() -> None:
            nonlocal told
            completed = parallel.n_completed_tasks
            if completed > told:
                told, new = completed, completed - told
                current(time.time(), new, stand_in)(None)

        return tell


class _StandIn:
    """What joblib's callback needs to know of a `Parallel`, to leave off at once.

    Parameters
    ----------
    parallel : Parallel
        Ours, for the counters.
    """

    def __init__(self, parallel: Any) -> None:
        self._parallel = parallel
        self._call_id = ""
        self._aborting = True  # it takes no result, and dispatches nothing
        self._lock = nullcontext()
        self._backend = SimpleNamespace(supports_retrieve_callback=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parallel, name)
