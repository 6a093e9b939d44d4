"""Looking into a pickle without running anything of it.

To name a task whose worker died, the parent has only the pickle of its arguments, and unpickling
that for a message could do anything: import modules, take for ever, end the program. Here numbers,
strings and containers are read as they are, and every other object is shown by its class's name.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

_FORM = 4  # fields of `open_files.Form`, of which the first is a name


class _Shown:
    """Stands for an object of a class that is not imported; takes everything, does nothing."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Shown:
        del args, kwargs
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take an item of a list's subclass."""

    def extend(self, items: Any) -> None:
        """Take items of a list's subclass."""

    def add(self, item: Any) -> None:
        """Take an item of a set's subclass."""

    def __call__(self, *args: Any, **kwargs: Any) -> _Shown:
        return self

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).name}>"


class _Previewer(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "memmapping.references" and name == "open_array":
            return _show_array
        if module == "parallel_core.serialization.open_files":
            return _show_file
        shown = name if module in ("builtins", "__main__") else f"{module}.{name}"
        return type("_Shown", (_Shown,), {"name": shown})

    def persistent_load(self, pid: Any) -> Any:
        return f"<{pid}>"


def _show_array(*reference: Any) -> Any:
    shape = reference[5]
    return type("_Shown", (_Shown,), {"name": f"numpy.memmap of shape {shape}"})()


def _show_file(*reference: Any) -> Any:
    forms = [part for part in reference if isinstance(part, tuple) and len(part) == _FORM]
    name = f"file {forms[0][0]!r}" if forms else "socket"
    return type("_Shown", (_Shown,), {"name": name})()


def preview(pickled: bytes | tuple[bytes, list[Any]]) -> Any:
    """Return what `pickled` (see `batch`) holds, objects replaced by something with a short repr.

    Raises
    ------
    Exception
        When it is not a pickle, or one that cannot be followed without running it.

    Examples
    --------
    >>> preview(pickle.dumps((1, "a", [2.5], io.BytesIO(b"x"))))
    (1, 'a', [2.5], <_io.BytesIO>)
    """
    data, references = pickled if isinstance(pickled, tuple) else (pickled, [])
    buffers = [f"<buffer of {nbytes} bytes>" for _, _, nbytes in references]
    return _Previewer(io.BytesIO(data), buffers=buffers).load()
