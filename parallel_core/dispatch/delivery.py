"""Results on their way to the caller: as a list, in order, or as they come."""

from __future__ import annotations

from collections import deque
from typing import Any

from parallel_core.dispatch.limits import ReturnAs
from parallel_core.tasks.placeholders import NO_RESULT


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
            results.extend([NO_RESULT] * missing)  # filled in when they come
        results[first : first + len(values)] = values

    def arrived(self) -> list[tuple[int, list[Any]]]:
        """Return what is there, in chunks: the position of the first, and values."""
        return [(0, self.results)]


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

    def pass_over(self) -> None:
        """Continue with the next result that is there: earlier ones will never come."""
        if self._waiting:
            self.next = min(self._waiting)

    def arrived(self) -> list[tuple[int, list[Any]]]:
        """Return what is there and was not taken."""
        return sorted(self._waiting.items())


class UnorderedDelivery:
    """Chunks as they come."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, list[Any]]] = deque()

    def put(self, first: int, values: list[Any]) -> None:
        """Take in results."""
        if values:
            self._waiting.append((first, values))

    def take(self) -> list[Any] | None:
        """Return some results, or None when there are none."""
        return self._waiting.popleft()[1] if self._waiting else None

    def pass_over(self) -> None:
        """Do nothing: no result waits for another."""

    def arrived(self) -> list[tuple[int, list[Any]]]:
        """Return what is there and was not taken."""
        return sorted(self._waiting, key=lambda chunk: chunk[0])


class NumberedDelivery:
    """Chunks as they come, with the position of their first result."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, list[Any]]] = []

    def put(self, first: int, values: list[Any]) -> None:
        """Take in results."""
        if values:
            self.waiting.append((first, values))

    def take(self) -> list[Any] | None:
        """Return a list of the list of all chunks, or None if there are none."""
        # The consumer empties that list. So nothing here refers to a result that was taken.
        if not self.waiting:
            return None
        taken, self.waiting = self.waiting, []
        return [taken]

    def pass_over(self) -> None:
        """Do nothing: no result waits for another."""

    def arrived(self) -> list[tuple[int, list[Any]]]:
        """Return what is there and was not taken."""
        return sorted(self.waiting, key=lambda chunk: chunk[0])


Delivery = ListDelivery | OrderedDelivery | UnorderedDelivery | NumberedDelivery


def delivery_for(return_as: ReturnAs, is_live: bool = False) -> Delivery:
    """Return an empty delivery for `return_as`, or for tasks that are added during the call."""
    if is_live:
        return NumberedDelivery()
    if return_as is ReturnAs.LIST:
        return ListDelivery()
    return OrderedDelivery() if return_as is ReturnAs.GENERATOR else UnorderedDelivery()
