"""Warnings on their way from a worker to the caller's filters and `warnings.showwarning`.

What the filters let through in a task is warned of again in the caller, as if it came from the
same line there. So the caller's filters and its memory of what was shown decide, and a line that
warns in several workers is shown once.
"""

from __future__ import annotations

import builtins
import pickle
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

_has_warned = False  # since `forget_warnings`
_registries: dict[str, dict[Any, Any]] = {}  # of modules that are not imported here


def relay_warnings(send: Callable[[bytes], bool]) -> None:
    """Have `send` called with every warning that is to be shown; where it returns false, it is."""
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        global _has_warned
        _has_warned = True
        if file is None:
            try:
                if send(pack_warning(message, category, filename, lineno)):
                    return
            except Exception:  # it is shown here, then
                pass
        shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show


def pack_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int
) -> bytes:
    """Return the bytes of a warning, and of its text for where its class is not known."""
    from parallel_core.serialization.failure import pickle_exception
    from parallel_core.serialization.pickling import dumps

    warning = message if isinstance(message, Warning) else category(message)
    pickled = pickle_exception(warning, dumps)
    known = next(cls.__name__ for cls in type(warning).__mro__ if cls.__module__ == "builtins")
    module = _module_at(filename, lineno)
    return pickle.dumps((pickled, str(warning), known, filename, lineno, module), 5)


def _module_at(filename: str, lineno: int) -> str | None:
    """Return the name of the module that a running line belongs to, which filters may ask for."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_lineno == lineno and frame.f_code.co_filename == filename:
            name: str | None = frame.f_globals.get("__name__")
            return name
        frame = frame.f_back
    return None


def warn_again(data: bytes) -> None:
    """Warn of what a task has warned of; raises the warning where a filter says so."""
    from parallel_core.serialization.failure import load_exception

    pickled, text, known, filename, lineno, module = pickle.loads(data)
    try:
        warning = load_exception(pickled)
    except Exception:
        warning = None
    if not isinstance(warning, Warning):
        warning = getattr(builtins, known)(text)
    warnings.warn_explicit(warning, None, filename, lineno, module, _registry(module or filename))


def _registry(module: str) -> dict[Any, Any]:
    """Return where Python keeps what a module has warned of."""
    imported = sys.modules.get(module)
    if imported is None:
        return _registries.setdefault(module, {})
    registry: dict[Any, Any] = vars(imported).setdefault("__warningregistry__", {})
    return registry


def forget_warnings() -> None:
    """Have every line of this process warn anew: the caller's filters decide what is repeated."""
    global _has_warned
    if _has_warned:
        _has_warned = False
        with warnings.catch_warnings():  # as this ends, Python forgets
            pass
