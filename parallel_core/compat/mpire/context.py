"""``mpire.context``: which start methods there are."""

import multiprocessing
import sys

from parallel_core.pool.parameters import START_METHODS, context_of

RUNNING_WINDOWS = sys.platform == "win32"
RUNNING_MACOS = sys.platform == "darwin"
FORK_AVAILABLE = "fork" in multiprocessing.get_all_start_methods()
DEFAULT_START_METHOD = "fork" if FORK_AVAILABLE else "spawn"

#: By start method: what makes locks, events and the like.
MP_CONTEXTS = {
    "mp": {method: context_of(method) for method in multiprocessing.get_all_start_methods()},
    "threading": context_of("threading"),
}

__all__ = [
    "DEFAULT_START_METHOD",
    "FORK_AVAILABLE",
    "MP_CONTEXTS",
    "RUNNING_MACOS",
    "RUNNING_WINDOWS",
    "START_METHODS",
]
