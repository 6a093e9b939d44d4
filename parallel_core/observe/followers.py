"""Who else wants to hear of completions than `Parallel.print_progress`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Each is called with a `Parallel` whose call begins; what it returns is called after completions.
followers: list[Callable[[Any], Callable[[], None] | None]] = []


def followed(parallel: Any, told: Callable[[], None] | None) -> Callable[[], None] | None:
    """Return what tells `told` and all followers of completions; None where nobody listens."""
    listeners = [listen for follow in list(followers) if (listen := follow(parallel)) is not None]
    if not listeners:
        return told
    if told is not None:
        listeners.append(told)

    def tell() -> None:
        for listen in listeners:
            listen()

    return tell
