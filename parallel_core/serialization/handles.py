"""Handles of shared objects (`memmapping.share`) that are arguments of a task.

A handle that is an argument arrives as what it stands for, in a thread and in the caller's own
thread as in another process. One that lies within another object arrives as a handle.
"""

from __future__ import annotations

import sys
from typing import Any

from memmapping.modules import loaded

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def to_send(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Return the arguments as they should be pickled for a worker."""
    if "memmapping.sharing" not in sys.modules or not (sharing := loaded("memmapping.sharing")):
        return args, kwargs
    replaced: Arguments = sharing.replace_handles(args, kwargs, sharing.Argument)
    return replaced


def to_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Return the arguments as a task that runs in this process should have them."""
    if "memmapping.sharing" not in sys.modules or not (sharing := loaded("memmapping.sharing")):
        return args, kwargs
    replaced: Arguments = sharing.replace_handles(args, kwargs, sharing.Shared.get)
    return replaced
