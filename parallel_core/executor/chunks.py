"""What a worker runs for several items of a map; so nothing is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Return the results of `function` for each tuple of arguments, the last one first."""
    results = [function(*args) for args in chunk]
    results.reverse()  # they are taken from the end
    return results


def run_calls(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Return the results of `function` for each tuple of arguments."""
    return [function(*args) for args in chunk]
