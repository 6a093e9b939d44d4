"""What stands where there is no result."""

from __future__ import annotations

import enum
from typing import Any


class Gap(enum.Enum):
    """Stands in the place of a result."""

    MISSING = "it has not come"
    SKIPPED = "it is to be left out"


def without_gaps(values: list[Any]) -> list[Any]:
    """Return the results among `values`."""
    return [value for value in values if type(value) is not Gap]
