"""What is done when this process forks: one list for both packages, in the order of registration.

A forked child has the locks of its parent as they were, held by threads that it has not; and open
descriptors, processes and calls that are none of its own. Each module says here what is to be put
right in a child, next to what it is about. Nothing else calls `os.register_at_fork`.

::

    before the fork       the latest first
    after it, here        in order
    after it, in a child  in order
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

Handler = Callable[[], object]

_before: list[Handler] = []
_in_parent: list[Handler] = []
_in_child: list[Handler] = []


def in_child(handler: Handler) -> Handler:
    """Have `handler` called in every forked child of this process; to be used as a decorator too.

    It is kept for good.
    """
    _in_child.append(handler)
    return handler


def around_forks(before: Handler, in_parent: Handler | None = None) -> None:
    """Have handlers called `before` each fork of this process, and after it in this process."""
    _before.append(before)
    if in_parent is not None:
        _in_parent.append(in_parent)


def _call(handlers: Iterable[Handler]) -> None:
    """Call all; what one raises is shown, as Python shows it, and the others are called still."""
    show: Any = sys.unraisablehook
    for handler in handlers:
        try:
            handler()
        except BaseException as error:
            where = {"err_msg": "Exception ignored in a handler of forks", "object": handler}
            show(
                SimpleNamespace(
                    exc_type=type(error),
                    exc_value=error,
                    exc_traceback=error.__traceback__,
                    **where,
                )
            )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _call(reversed(_before)),
        after_in_parent=lambda: _call(_in_parent),
        after_in_child=lambda: _call(_in_child),
    )
