"""Noticing that a module was reloaded, so that no warm worker runs its old form.

``importlib.reload``, and a new import after ``del sys.modules[...]``, give a module a new
``__spec__``. The user's own modules (those outside the standard library and the installed
packages) are looked at before each call, which takes a few microseconds.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from types import ModuleType

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_not_users = tuple(
    folder + os.sep
    for folder in (
        _OWN,
        os.path.join(os.path.dirname(_OWN), "memmapping"),
        *filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))),
    )
)


class _Watch:
    """The modules seen so far."""

    def __init__(self) -> None:
        self.count = 0
        self.specs: dict[str, object] = {}
        self.modules = -1
        self.latest = ""


_watch = _Watch()


def reloads() -> int:
    """Return how many times a module of the user's has been reloaded in this process so far."""
    watch, modules = _watch, sys.modules
    for name, spec in watch.specs.items():
        module = modules.get(name)
        if module is not None and getattr(module, "__spec__", spec) is not spec:
            watch.modules = -1
            break
    if len(modules) != watch.modules or next(reversed(modules)) != watch.latest:
        _look_again(watch)
    return watch.count


def _look_again(watch: _Watch) -> None:
    watch.modules = len(sys.modules)
    watch.latest = next(reversed(sys.modules))
    specs: dict[str, object] = {}
    for name, module in sys.modules.copy().items():  # a finalizer may import something
        spec = getattr(module, "__spec__", None)
        if spec is not None and _is_users(module):
            specs[name] = spec
            before = watch.specs.get(name)
            if before is not None and before is not spec:
                watch.count += 1
    watch.specs = {**watch.specs, **specs}


def _is_users(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not file.startswith(_not_users)
