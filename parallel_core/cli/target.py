"""Find the function that ``package.module:function`` names, or say well why not."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

_MAX_NAMES = 8


class TargetError(Exception):
    """The name of a function leads to none; the message says where it went wrong."""


def add_current_directory() -> None:
    """Make modules of the current directory importable, as ``python -m`` does."""
    if getattr(sys.flags, "safe_path", False):  # the user asked Python for the opposite
        return
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


@functools.cache
def load_function(target: str) -> Callable[[Any], Any]:
    """Import and return the function that ``package.module:attribute.attribute`` names.

    A `TargetError` says what is not there, or cannot be called or imported, and what is there.
    """
    module_name, colon, path = target.partition(":")
    if not colon or not path or not module_name.strip("."):
        raise TargetError(_malformed(target))
    if os.sep in module_name or module_name.startswith(".") or module_name.endswith(".py"):
        raise TargetError(_a_path(module_name, path))
    found: Any = _import(module_name)
    where = module_name
    for name in path.split("."):
        try:
            following = getattr(found, name)
        except AttributeError:
            raise TargetError(_no_attribute(found, where, name)) from None
        except Exception as error:
            raise TargetError(f"looking up {name!r} in {where!r} failed: {_say(error)}") from error
        found = following
        where = f"{where}.{name}" if ":" in where else f"{where}:{name}"
    if not callable(found):
        raise TargetError(f"{target!r} cannot be called: it is of type {type(found).__name__!r}")
    function: Callable[[Any], Any] = found
    return function


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (name == missing or name.startswith(missing + ".")):
            raise TargetError(_no_module(missing)) from None
        raise TargetError(f"importing {name!r} failed: {_say(error)}") from error
    except (Exception, SystemExit) as error:
        raise TargetError(f"importing {name!r} failed: {_say(error)}") from error


def _say(error: BaseException) -> str:
    """Return the error and, when its traceback leads to a file, the place."""
    if isinstance(error, SyntaxError):  # its own message names file and line
        return f"{type(error).__name__}: {error}"
    import traceback

    places = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    place = f" ({places[-1].filename}:{places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{place}"


def _malformed(target: str) -> str:
    message = f"{target!r} does not name a function: write package.module:function"
    head, dot, last = target.rpartition(".")
    if dot and head and ":" not in target and last.isidentifier():
        message += f", such as {head}:{last}"
    return message


def _a_path(module_name: str, path: str) -> str:
    dotted = module_name.removesuffix(".py").replace(os.sep, ".").strip(".")
    return f"{module_name!r} is not the name of a module: write it as in an import, {dotted}:{path}"


def _no_module(name: str) -> str:
    import pkgutil

    parent = name.rpartition(".")[0]
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", []))
        if not folders:
            return f"there is no module {name!r}: {parent!r} is a module, not a package"
    else:
        folders = sys.path
    message = f"there is no module {name!r} "
    message += f"in package {parent!r}" if parent else "on the path"
    prefix = f"{parent}." if parent else ""
    names = [prefix + module.name for module in pkgutil.iter_modules(folders)]
    if not parent:
        names += sys.builtin_module_names
    here = [prefix + module.name for module in pkgutil.iter_modules(folders[:1])]
    what = f"package {parent!r}" if parent else f"{folders[0] or os.getcwd()}" if folders else ""
    return message + _instead(name, names, here, what)


def _no_attribute(found: object, where: str, name: str) -> str:
    names = [other for other in dir(found) if not other.startswith("_")]
    own = [other for other in names if _is_own_callable(found, other)]
    message = f"{where!r} has no attribute {name!r}"
    return message + _instead(name, names, own, repr(where))


def _is_own_callable(found: object, name: str) -> bool:
    """Whether `name` is a function that `found` defines, not one that it imported."""
    value = getattr(found, name, None)
    if not callable(value):
        return False
    home = getattr(value, "__module__", None)
    return not isinstance(found, ModuleType) or home in (found.__name__, None)


def _instead(name: str, names: Iterable[str], own: list[str], where: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.7)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    if not own:
        return ""
    shown = ", ".join(own[:_MAX_NAMES]) + (", ..." if len(own) > _MAX_NAMES else "")
    return f"; {where} has: {shown}"
