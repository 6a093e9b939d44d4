"""What may be passed as `trace`: a path, or a dictionary with a path and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Union

#: What may be passed as `trace`.
TraceLike = Union[str, "os.PathLike[str]", Mapping[str, Any], None]
MAX_EVENTS = 2_000_000
_KNOWN = ("path", "max_events")


class Target(NamedTuple):
    """A file to be written, checked."""

    path: str
    max_events: int | None = MAX_EVENTS  #: None for no limit


def check_trace(given: Any) -> Target | None:
    """Return the file to write, None for none; raise TypeError or ValueError for other values."""
    if given is None or isinstance(given, Target):
        return given
    options: dict[str, Any] = {"path": given}
    if isinstance(given, Mapping):
        options = dict(given)
        if unknown := [name for name in options if name not in _KNOWN]:
            known = " and ".join(map(repr, _KNOWN))
            raise TypeError(f"trace has no option {unknown[0]!r}; known are {known}")
        if "path" not in options:
            raise TypeError(f"trace needs a 'path', which is not in {given!r}")
    path = options["path"]
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"trace must be a path, such as 'run.json', a dictionary with a 'path', or None, not "
            f"{given!r}"
        )
    path = os.fspath(path)
    if not path or "\0" in path:
        raise ValueError(f"trace must be the path of a file, not {path!r}")
    most = options.get("max_events", MAX_EVENTS)
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"trace['max_events'] must be a number of events or None, not {most!r}")
    return Target(path, most)
