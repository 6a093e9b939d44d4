"""Words for a task that has succeeded; nothing of the user's runs to find them.

A failed task may be shown with the ``repr`` of its arguments. But each call has its slowest tasks,
and the ``repr`` of a table may take longer than the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parallel_core.serialization.capture import SCALARS
from parallel_core.tasks.description import describe_call, function_name, short_repr

if TYPE_CHECKING:
    from parallel_core.serialization.batch import Batch

_MOST_NBYTES = 1 << 16  # of the arguments of a task that are worth reading
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class _Named:
    """Stands for a value of which only this is shown."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words


def words_for(batch: Batch, index: int, is_held: bool) -> str:
    """Return the words for a task of `batch`; `is_held`: its arguments are the caller's own."""
    if not is_held:
        if batch.nbytes > _MOST_NBYTES * batch.size:
            return f"{batch.function_name() or 'a function'}(...), with large arguments"
        return batch.describe(index).partition(": ")[2]
    function, args, kwargs = batch.call(index)
    shown = {name: _shown(value) for name, value in kwargs.items()}
    return describe_call(function, [_shown(value) for value in args], shown)


def _shown(value: Any) -> Any:
    """Return `value` if its ``repr`` is known to be quick, or something in its place."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind in _CONTAINERS:
        return _Named(f"<{kind.__name__} of {len(value)} items>")
    if kind.__module__ == "numpy":
        return _Named(short_repr(value))
    return _Named(f"<{function_name(kind)}>")
