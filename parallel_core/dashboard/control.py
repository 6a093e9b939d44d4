"""What programs call: start a dashboard, connect to one, end it.

The names and what they return are MPIRE's; `parallel_core.compat.mpire.dashboard` has them, too.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

from memmapping.forks import in_child
from parallel_core.dashboard.server import (
    DEFAULT_PORTS,
    LOOPBACK,
    DashboardAddress,
    check_installed,
    check_ports,
)
from parallel_core.observe import listener, reporting

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from parallel_core.dashboard.server import main; main()"
)
_END_SECONDS = 5.0

_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None  # that this program has started
_address: DashboardAddress | None = None  # of the dashboard that it has started or connected to


def start_dashboard(port_range: Iterable[int] = DEFAULT_PORTS) -> dict[str, Any]:
    """Start a dashboard: a web page that shows all calls of this user on this machine.

    It is a process of its own, which ends with this program, or by `shutdown_dashboard`. It is
    reached from this machine only. Programs of the same user need not do anything to be shown. If
    one of them has started a dashboard, that one is used.

    Parameters
    ----------
    port_range : range or iterable of int, default range(8080, 8100)
        Ports to try, in order.

    Returns
    -------
    dict
        ``"url"``: address for a browser, with the token that it needs; ``"dashboard_port_nr"``,
        ``"manager_host"`` and ``"manager_port_nr"``: port and host, for `connect_to_dashboard`.

    Raises
    ------
    RuntimeError
        If this program has started a dashboard, or has connected to one.
    OSError
        If no port is free.
    ImportError
        If what the dashboard needs is not installed: ``pip install 'parallel-core[dashboard]'``.

    Examples
    --------
    >>> from parallel_core import shutdown_dashboard, start_dashboard
    >>> details = start_dashboard(range(8080, 8200))
    >>> details["url"].startswith("http://127.0.0.1:8")
    True
    >>> shutdown_dashboard()
    """
    global _process, _address
    check_installed()
    ports = check_ports(port_range)
    with _lock:
        _check_none()
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
        )
        try:
            reply = _ask(process, {"ports": ports})
        except BaseException:
            _end(process)
            raise
        if "error" in reply:
            _end(process)
            raise OSError(reply["error"])
        running = reply.get("address") or reply.get("running")
        if running is None:
            _end(process)
            raise OSError("a dashboard of this user has just been started by another program")
        _address = DashboardAddress(*running)
        if "address" in reply:
            _process = process
            atexit.register(shutdown_dashboard)
        else:
            _end(process)
    listener.look_again()
    return _details(_address)


def connect_to_dashboard(manager_port_nr: int, manager_host: str | None = None) -> None:
    """Check that a dashboard shows the calls of this program.

    Programs of the user who has started a dashboard are shown in any case. So this function is for
    programs that were written for MPIRE, and for those that want to know.

    Parameters
    ----------
    manager_port_nr : int
        Port of the dashboard.
    manager_host : str, optional
        Host of the dashboard, which must be this machine.

    Raises
    ------
    ConnectionRefusedError
        If there is no dashboard of this user at that port.
    RuntimeError
        If this program has started a dashboard, or has connected to one.

    Examples
    --------
    >>> from parallel_core import connect_to_dashboard
    >>> connect_to_dashboard(1)
    Traceback (most recent call last):
    ConnectionRefusedError: there is no dashboard at port 1 of this machine: ...
    """
    global _address
    check_installed()
    [port] = check_ports([manager_port_nr])
    host = LOOPBACK if manager_host is None else manager_host
    _check_host(host)
    with _lock:
        _check_none()
        from parallel_core.dashboard.programs import running_dashboard

        found = running_dashboard()
        if found is None or found.port != port or not _is_same_host(host, found.host):
            where = "this machine" if _is_same_host(host, LOOPBACK) else repr(host)
            words = "start one by start_dashboard() or `parallel-core dashboard`"
            if found is not None:
                words = f"yours is at port {found.port} of this machine"
            where = f"port {port} of {where}"
            raise ConnectionRefusedError(f"there is no dashboard at {where}: {words}")
        _address = DashboardAddress(*found)
    listener.look_again()


def shutdown_dashboard() -> None:
    """End the dashboard that this program has started, if there is one.

    It is called at the end of the program. From a dashboard that another program has started, this
    one disconnects.

    Examples
    --------
    >>> from parallel_core import shutdown_dashboard
    >>> shutdown_dashboard()
    """
    global _process, _address
    with _lock:
        process, _process, _address = _process, None, None
        if process is not None:
            atexit.unregister(shutdown_dashboard)
            _end(process)
            listener.look_again()


def set_stacklevel(stacklevel: int) -> None:
    """Set which line of a program the dashboard shows as the place of a call.

    Parameters
    ----------
    stacklevel : int
        1 for the line that calls this library, 2 for the line that calls the function around it,
        and so on.

    Examples
    --------
    >>> from parallel_core import get_stacklevel, set_stacklevel
    >>> set_stacklevel(2)
    >>> get_stacklevel()
    2
    >>> set_stacklevel(1)
    """
    if type(stacklevel) is not int:
        raise TypeError(f"stacklevel must be a whole number, not {stacklevel!r}")
    if stacklevel < 1:
        raise ValueError(f"stacklevel must be 1 or more, not {stacklevel}")
    reporting.stacklevel = stacklevel


def get_stacklevel() -> int:
    """Return which line of a program the dashboard shows; see `set_stacklevel`.

    Returns
    -------
    int
        1 for the line that calls this library.

    Examples
    --------
    >>> from parallel_core import get_stacklevel
    >>> get_stacklevel()
    1
    """
    return reporting.stacklevel


def _check_host(given: object) -> None:
    if not isinstance(given, str):
        raise TypeError(f"manager_host must be the name of a host, not {given!r}")


def _check_none() -> None:
    if _address is None:
        return
    how = "has started" if _process is not None else "is connected to"
    raise RuntimeError(
        f"this program {how} a dashboard already, at port {_address.port}; shutdown_dashboard() "
        "ends that"
    )


def _is_same_host(host: str, other: str) -> bool:
    local = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
    return host == other or (host in local and other in local)


def _details(address: DashboardAddress) -> dict[str, Any]:
    return {
        "dashboard_port_nr": address.port,
        "manager_host": address.host,
        "manager_port_nr": address.port,
        "url": address.url,
    }


def _ask(process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any]:
    """Send `request` to a dashboard that starts, and return its reply."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        raise OSError("the dashboard has ended as it started; what it wrote to stderr says why")
    reply: dict[str, Any] = json.loads(line)
    return reply


def _end(process: subprocess.Popen[str]) -> None:
    """End a dashboard: it does so by itself when its stdin is closed."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@in_child
def _forget() -> None:
    """In a forked child: the dashboard is the parent's."""
    global _lock, _process, _address
    _lock = threading.Lock()
    process, _process, _address = _process, None, None
    if process is not None:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.returncode = 0  # so that its destructor does not complain
