"""Looking at a program, in a thread of it, while it does what is measured."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class Onlooker(ABC):
    """A thread that looks on for the time of a ``with`` block."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def _look_on(self) -> None:
        """Look, again and again, until it has ended."""
