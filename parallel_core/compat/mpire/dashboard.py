"""``mpire.dashboard``: a web page that shows maps while they run."""

from parallel_core.dashboard.control import (
    connect_to_dashboard,
    get_stacklevel,
    set_stacklevel,
    shutdown_dashboard,
    start_dashboard,
)

__all__ = [
    "connect_to_dashboard",
    "get_stacklevel",
    "set_stacklevel",
    "shutdown_dashboard",
    "start_dashboard",
]
