"""Results on their way to the caller: a list, in order as they come, or just as they come."""

from __future__ import annotations

from collections import deque
from typing import Any

from parallel_core.dispatch.plan import ReturnAs


class ListDelivery:
    """A list, each result in its place."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def put(self, first: int, values: list[Any]) -> None:
        """Take in results ``first``, ``first + 1``, ..."""
        results = self.results
        missing = first - len(results)
        if missing == 0:
            results += values
            return
        if missing > 0:
            results.extend([None] * missing)  # filled in when they come
        results[first : first + len(values)] = values


class OrderedDelivery:
    """Chunks in the order of the tasks."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[Any]] = {}
        self.next = 0

    def put(self, first: int, values: list[Any]) -> None:
        """Take in results ``first``, ``first + 1``, ..."""
        if values:
            self._waiting[first] = values

    def take(self) -> list[Any] | None:
        """Return the next results in order, or None when they are not there yet."""
        values = self._waiting.pop(self.next, None)
        if values is not None:
            self.next += len(values)
        return values


class UnorderedDelivery:
    """Chunks as they come."""

    def __init__(self) -> None:
        self._waiting: deque[list[Any]] = deque()

    def put(self, first: int, values: list[Any]) -> None:
        """Take in results."""
        del first
        if values:
            self._waiting.append(values)

    def take(self) -> list[Any] | None:
        """Return some results, or None when there are none."""
        return self._waiting.popleft() if self._waiting else None


def delivery_for(return_as: ReturnAs) -> ListDelivery | OrderedDelivery | UnorderedDelivery:
    """Return an empty delivery of the kind that the caller asked for."""
    if return_as is ReturnAs.LIST:
        return ListDelivery()
    return OrderedDelivery() if return_as is ReturnAs.GENERATOR else UnorderedDelivery()
