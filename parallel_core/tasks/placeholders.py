"""What stands where there is no result."""

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
