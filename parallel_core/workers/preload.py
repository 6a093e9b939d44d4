"""Modules that are imported before a worker's first task, in the worker or in its fork server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parallel_core.errors import PreloadError


class NotPreloaded(Exception):
    """A module of `preload` that does not import, on its way to the caller with what it raised."""

    def __init__(self, module: str, data: bytes, text: str) -> None:
        super().__init__(module, data, text)
        self.module = module
        self.data = data
        self.text = text

    def error(self) -> PreloadError:
        """Return what the caller should see."""
        from parallel_core.errors import PreloadError
        from parallel_core.serialization.failure import unpack

        note = f"raised by the import of {self.module}, which preload asks for, in a worker"
        original = unpack(self.data, self.text, note)
        error = PreloadError(
            f"preload: the module {self.module!r} does not import in a worker: "
            f"{type(original).__name__}: {original}"
        )
        error.__cause__ = original
        return error


def import_modules(
    names: tuple[str, ...], before: Callable[[str], object] = lambda _: None
) -> None:
    """Import all of `names`; `before` is told of each that is not there yet."""
    for name in names:
        if name in sys.modules:
            continue
        before(name)
        try:
            import_module(name)
        except BaseException as error:
            from parallel_core.serialization.failure import pack
            from parallel_core.serialization.pickling import dumps

            raise NotPreloaded(name, *pack(error, dumps)) from None
