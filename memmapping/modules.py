"""Modules that are here already, and so matter."""

from __future__ import annotations

import _frozen_importlib
import sys
import threading
from typing import Any

from memmapping.forks import in_child

_locks: dict[str, Any] = getattr(_frozen_importlib, "_module_locks", {})  # in CPython


def loaded(name: str) -> Any:
    """Return the module `name`, or None; also while another thread is importing it."""
    module = sys.modules.get(name)
    if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None  # half of its names are missing
    return module


@in_child
def _forget_imports_of_others() -> None:
    """In a forked child: have what other threads were just importing imported anew.

    Python hands the locks of modules on to the child as they are; one whose owner is not there
    would stay taken for good, and whoever imports that module would wait for ever.
    """
    me = threading.get_ident()
    for name, reference in list(_locks.items()):
        if getattr(reference(), "owner", None) not in (None, me):
            _locks.pop(name, None)
            if name in sys.modules and loaded(name) is None:
                _drop(name)


def _drop(name: str) -> None:
    """Have a module imported anew, with what was imported below it: a package has to be told."""
    del sys.modules[name]
    for other, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if other.startswith(f"{name}.") and isinstance(path, str) and path.endswith(".py"):
            del sys.modules[other]
