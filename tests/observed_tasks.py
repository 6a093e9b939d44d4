"""Functions that tests of observers send to workers; a module that is imported in no time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parallel_core.context.item import ContextItem, Part, Place


def wait_for(path: str, x: int) -> int:
    """Say that the task runs, and wait until it may end."""
    Path(f"{path}.{x}").touch()
    while not Path(path).exists():
        time.sleep(0.001)
    return x


class Counting(ContextItem):
    """Learns which tasks ran in a batch."""

    name = "counting"
    places = tuple(Place)

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        return _Counted()


class _Counted(Part):
    def __init__(self) -> None:
        self._positions: list[int] = []

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        positions = itertools.count(position)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._positions.append(next(positions))
            return function(*args, **kwargs)

        return call

    def end(self) -> list[int]:
        return self._positions


class Log:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def notify(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]
