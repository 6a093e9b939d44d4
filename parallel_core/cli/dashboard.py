"""``parallel-core dashboard``: serve the dashboard in this process, until Ctrl-C."""

from __future__ import annotations

import sys

from parallel_core.cli.arguments import DashboardOptions, ExitCode, complain
from parallel_core.dashboard.server import (
    AlreadyRunning,
    DashboardAddress,
    check_installed,
    serve,
)

_COMMAND = "dashboard"


def run(options: DashboardOptions) -> int:
    """Run ``parallel-core dashboard`` and return its exit code."""
    try:
        check_installed()
        serve(options.ports, options.host, lambda address: _announce(address, options))
    except AlreadyRunning as error:
        if error.address is None:
            complain(_COMMAND, f"{error}, and is just ending: try again")
            return ExitCode.FAILED
        print(f"{error}: {error.address.url}", flush=True)
    except ImportError as error:
        complain(_COMMAND, str(error))
        return ExitCode.USAGE
    except OSError as error:
        complain(_COMMAND, error.strerror or str(error))
        return ExitCode.FAILED
    return ExitCode.DONE


def _announce(address: DashboardAddress, options: DashboardOptions) -> None:
    """Print the address, and what should be known of it."""
    if address.skipped:
        ports = ", ".join(map(str, address.skipped))
        complain(_COMMAND, f"in use: port {ports}; port {address.port} is taken")
    print(f"The dashboard is at {address.url}", flush=True)
    if options.is_open:
        complain(
            _COMMAND,
            f"it can be reached from other machines, through {address.host}; who has the address "
            "sees the calls of this user and can end them, and nothing is encrypted on the way",
        )
    if sys.stdout.isatty():
        print("Ctrl-C ends it.", flush=True)
