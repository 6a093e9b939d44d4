"""Open files that are met while tasks are pickled; most calls meet none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parallel_core.serialization.opened import is_open_file

if TYPE_CHECKING:
    from parallel_core.serialization.open_files import Held, OpenFiles


class MetFiles:
    """Open files that are met while the tasks of one call, and what they need, are pickled."""

    def __init__(self, passes_descriptors: bool) -> None:
        self._passes_descriptors = passes_descriptors  #: whether workers can be sent them
        self._files: OpenFiles | None = None
        self._captures = 0  # how deep we are in what functions capture

    def take_uses(self) -> list[Held]:
        """Return what has to be kept for pickles made since the last call."""
        return [] if self._files is None else self._files.take_uses()

    def take_weight(self) -> int:
        """Return as how many bytes the files count that were met since the last call."""
        return 0 if self._files is None else self._files.take_weight()

    def reduce(self, obj: object) -> Any:
        """Return how an open file or a socket is pickled, for ``reducer_override``."""
        if not is_open_file(obj):
            return NotImplemented
        if self._files is None:
            from parallel_core.serialization.open_files import OpenFiles

            self._files = OpenFiles(self._passes_descriptors)
        if self._captures:
            return self._files.reduce_captured(obj)
        return self._files.reduce(obj)

    def reduce_captured(self, obj: object) -> Any:
        """Return the same of what a function captures."""
        self._captures += 1
        try:
            return self.reduce(obj)
        finally:
            self._captures -= 1

    def begin_capture(self) -> list[Held]:
        """Go on to what a function captures; return what was met before."""
        self._captures += 1
        return self.take_uses()

    def end_capture(self, before: list[Held]) -> None:
        """Go on with what was met `before`."""
        self._captures -= 1
        if self._files is not None:
            self._files.uses = {id(held): held for held in before}
