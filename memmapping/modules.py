"""Modules that are here already, and so matter; and those that another thread is just importing."""

from __future__ import annotations

import _frozen_importlib
import _imp
import contextlib
import importlib
import os
import sys
import threading
from typing import Any

_OURS = ("memmapping", "parallel_core")
_locks: dict[str, Any] = getattr(_frozen_importlib, "_module_locks", {})  # in CPython


def loaded(name: str) -> Any:
    """Return the module `name`, or None; also while another thread is importing it."""
    module = sys.modules.get(name)
    if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None  # half of its names are missing
    return module


def _imported_elsewhere() -> list[str]:
    """Return the modules of ours that other threads are importing; they may be yet to be found."""
    me = threading.get_ident()
    names = []
    for name, reference in list(_locks.items()):
        owner = getattr(reference(), "owner", None)
        if owner not in (None, me) and name.partition(".")[0] in _OURS:
            names.append(name)
    return names


class _Imports:
    """No fork while a thread imports one of our modules: the child could never import it.

    Python hands the locks of modules on to a forked child as they are, so one whose owner is not
    there stays taken for good. No module's lock can be taken without the interpreter's import lock,
    so this is held from the last look to the fork.
    """

    def stop(self) -> None:
        while True:
            _imp.acquire_lock()
            names = _imported_elsewhere()
            if not names:
                return
            _imp.release_lock()
            for name in names:
                with contextlib.suppress(Exception):  # whose import it is will hear of it
                    importlib.import_module(name)

    def go_on(self) -> None:
        _imp.release_lock()


if hasattr(os, "register_at_fork"):
    _imports = _Imports()
    os.register_at_fork(
        before=_imports.stop, after_in_parent=_imports.go_on, after_in_child=_imports.go_on
    )
