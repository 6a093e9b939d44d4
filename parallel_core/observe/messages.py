"""The messages of ``verbose``: what is said, how often, and where."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import sqrt
from time import monotonic

_TO_STDOUT = 50
_EVERY_ONE = 10

#: From which `verbose` on it is reported which parameters were overridden.
MESSAGE_OF_OVERRIDES = 10


def duration(seconds: float) -> str:
    """Return seconds for people: ``0.6s``, then ``1.5min``."""
    return f"{seconds:5.1f}s" if seconds < 60 else f"{seconds / 60:4.1f}min"


class Messages:
    """Says how far a call is, by lines that begin with its label.

    A `verbose` of 0 is silent; higher values report more often, above 10 after every completion.
    Messages go to stderr, or to stdout above 50; `divert` takes their text instead of either.
    """

    def __init__(
        self, verbose: int, label: str, divert: Callable[[str], object] | None = None
    ) -> None:
        self._verbose = verbose
        self._label = label
        self._divert = divert
        self._began = monotonic()
        self._told = -1
        self._finished = False

    def say(self, text: str) -> None:
        """Tell `text`."""
        if self._verbose:
            (self._divert or self.write)(text)

    def write(self, text: str) -> None:
        """Write a line."""
        stream = sys.stderr if self._verbose <= _TO_STDOUT else sys.stdout
        if stream is None:
            return
        try:
            stream.write(f"[{self._label}]: {text}\n")
            stream.flush()
        except (OSError, ValueError):  # closed, or its reader is gone: no reason to fail a call
            pass

    def progress(self, completed: int, total: int | None) -> None:
        """Say how many tasks are done, if it is time to say so again."""
        if not self._verbose:
            return
        elapsed = duration(monotonic() - self._began)
        if total is None:
            if completed > self._told and completed and self._due(completed):
                self._told = completed
                self.say(f"Done {completed:3d} tasks      | elapsed: {elapsed}")
            return
        if completed >= total:
            if not self._finished:
                self._finished = True
                self.say(f"Done {completed:3d} out of {total:3d} | elapsed: {elapsed} finished")
            return
        if completed > self._told and completed and self._due(completed):
            self._told = completed
            left = (monotonic() - self._began) / completed * (total - completed)
            self.say(
                f"Done {completed:3d} out of {total:3d} | elapsed: {elapsed} "
                f"remaining: {duration(left)}"
            )

    def _due(self, completed: int) -> bool:
        """Whether enough tasks were done since the last message: ever more are needed.

        Messages come when ``sqrt(completed / rarity)`` reaches the next whole number.
        """
        if self._verbose > _EVERY_ONE:
            return True
        rarity = 0.5 * (_EVERY_ONE + 1 - self._verbose) ** 2
        last = max(self._told, 0)
        return self._told < 0 or int(sqrt(completed / rarity)) > int(sqrt(last / rarity))
