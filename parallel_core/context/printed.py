"""What tasks print, taken from them: kept with their results, or dropped."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.observe.capturing import Captured, Discarded, redirected


class CapturesOutput(ContextItem):
    """Each task returns a `TaskOutput`."""

    name = "output='capture'"
    places = tuple(Place)

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the tasks of a batch."""
        return _Part(_capture)


class DiscardsOutput(ContextItem):
    """What tasks print is not shown."""

    name = "output='discard'"
    places = tuple(Place)

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the tasks of a batch."""
        return _Part(_discard)


class _Part(Part):
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        return functools.partial(self._call, function)


def _capture(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    captured = Captured()
    try:
        with redirected(captured):
            value = function(*args, **kwargs)
    except BaseException as error:
        with contextlib.suppress(Exception):  # some have no room for attributes
            error.task_output = captured.output(None)  # type: ignore[attr-defined]
        raise
    return captured.output(value)


def _discard(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with redirected(Discarded()):
        return function(*args, **kwargs)
