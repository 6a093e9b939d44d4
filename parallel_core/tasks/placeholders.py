"""What stands in the place of a task that need not run, and of a result that is not there."""

from __future__ import annotations

import enum
from typing import Any


class Placeholder(enum.Enum):
    """Stands in the place of a result."""

    NO_RESULT = "it has not come"
    SKIPPED = "it is to be left out"


NO_RESULT, SKIPPED = Placeholder.NO_RESULT, Placeholder.SKIPPED


def drop_placeholders(values: list[Any]) -> list[Any]:
    """Return the results among `values`."""
    return [value for value in values if type(value) is not Placeholder]


class KnownResult:
    """The result of a task that need not run."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value  #: what the task returned when it ran
