"""How results are pickled for the next start of the program.

Its ``__main__`` will be the same script, so what stands there goes by name: a result comes back as
an instance of the script's own class. What has no name there goes by value, as to workers.
"""

from __future__ import annotations

import pickle
from types import FunctionType
from typing import Any

from parallel_core.serialization.pickling import PICKLING_ERRORS, PROTOCOL, dumps_by_value


def dumps_result(value: object) -> bytes:
    """Pickle a result."""
    try:
        return pickle.dumps(value, PROTOCOL)
    except PICKLING_ERRORS:
        return dumps_by_value(value, _by_name)


def _by_name(obj: object) -> Any:
    """Reduce the script's classes and functions to their names; the rest goes by value."""
    if isinstance(obj, (type, FunctionType)) and obj.__module__ == "__main__":
        try:
            pickle.dumps(obj, PROTOCOL)
        except Exception:  # not to be found there: made within a function
            return NotImplemented
        return _in_script, (obj.__qualname__,)
    return NotImplemented


def _in_script(name: str) -> Any:
    import __main__

    found: Any = __main__
    for part in name.split("."):
        found = getattr(found, part)
    return found
