"""The process of the dashboard: it takes a port, says its address, and serves until it is ended.

::

    parallel-core dashboard ──────────▶ serve ──▶ uvicorn, until Ctrl-C
    start_dashboard ── a process ──▶ main ─┘       until the program that started it has ended
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
DEFAULT_PORTS = range(8080, 8100)
_NEEDED = ("starlette", "uvicorn")


class DashboardAddress(NamedTuple):
    """Where a dashboard is."""

    url: str  #: with its token
    port: int
    host: str
    skipped: tuple[int, ...] = ()  #: ports that were in use


class AlreadyRunning(Exception):
    """A dashboard of this user runs already."""

    def __init__(self, address: DashboardAddress | None) -> None:
        super().__init__("a dashboard of this user runs already")
        self.address = address  #: if it has said it


def check_installed() -> None:
    """Raise ImportError unless everything is there that the server needs."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the dashboard needs {' and '.join(missing)}: pip install 'parallel-core[dashboard]'"
        )


def check_ports(port_range: Iterable[int]) -> list[int]:
    """Return the ports to try; raise ValueError or TypeError if there is none among them."""
    try:
        ports = list(port_range)
    except TypeError:
        ports = ["?"]  # type: ignore[list-item] # it is refused
    if any(isinstance(port, str) for port in ports):
        raise TypeError(f"port_range must be a range of port numbers, not {port_range!r}")
    if not ports:
        raise ValueError(f"port_range must have at least one port: {port_range!r} has none")
    for port in ports:
        if type(port) is not int:
            raise TypeError(f"port_range must have whole numbers, not {port!r}")
        if not 0 <= port < 1 << 16:
            raise ValueError(f"a port is a number from 0 to {(1 << 16) - 1}, not {port}")
    return ports


def take_port(ports: Iterable[int], host: str) -> tuple[socket.socket, tuple[int, ...]]:
    """Return a socket that listens at the first free one of `ports`, and those before it.

    Raises
    ------
    OSError
        If none is free.
    """
    skipped: list[int] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        found = socket.socket(family, socket.SOCK_STREAM)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port))
            found.listen(128)
            return found, tuple(skipped)
        except OSError as error:
            found.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            skipped.append(port)
    shown = f"{skipped[0]} to {skipped[-1]}" if len(skipped) > 1 else str(skipped[0])
    raise OSError(
        errno.EADDRINUSE,
        f"no port is free for the dashboard at {host}: tried {shown}; give it others by port_range",
    )


def serve(
    ports: Iterable[int],
    host: str,
    announce: Callable[[DashboardAddress], object],
    ends_with: int | None = None,
) -> None:
    """Serve the dashboard until this process is told to end.

    Parameters
    ----------
    ports : iterable of int
        Ports to try.
    host : str
        Address to bind to.
    announce : callable
        Function that is told the address, when browsers can use it.
    ends_with : int, optional
        Descriptor; the dashboard ends when its other end is closed.

    Raises
    ------
    AlreadyRunning
        If this user has a dashboard.
    OSError
        If no port is free.
    """
    check_installed()
    import uvicorn

    from parallel_core.dashboard.app import make_app
    from parallel_core.dashboard.feed import Feed
    from parallel_core.dashboard.programs import (
        Programs,
        RunningDashboard,
        listen,
        running_dashboard,
    )
    from parallel_core.dashboard.security import Secrets

    try:
        listener = listen()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        found = running_dashboard()
        raise AlreadyRunning(None if found is None else DashboardAddress(*found)) from None
    try:
        bound, skipped = take_port(ports, host)
    except OSError:
        listener.close()
        raise
    port = bound.getsockname()[1]
    opened_by = Secrets.make()
    shown = f"[{host}]" if ":" in host else socket.gethostname() if host == "0.0.0.0" else host
    url = f"http://{shown}:{port}/?token={opened_by.token}"
    feed = Feed()
    programs = Programs(listener, feed, RunningDashboard(url, port, host))
    app = make_app(feed, programs, opened_by, host, port)

    class Server(uvicorn.Server):
        """Says when it is there, and lets browsers go when it ends."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ends_with is not None:
                _end_with(self, ends_with)
            announce(DashboardAddress(url, port, host, skipped))

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            feed.stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
        limit_concurrency=256,
    )
    try:
        Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass
    finally:
        bound.close()


def _end_with(server: object, descriptor: int) -> None:
    """Have this process end when whoever has the other end of a pipe does."""
    import asyncio

    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(descriptor, 64):
            loop.remove_reader(descriptor)
            signal.raise_signal(signal.SIGTERM)

    loop.add_reader(descriptor, look)


def main() -> None:
    """Serve for the program that has started this process; stdin is the pipe to it."""
    request = json.loads(sys.stdin.buffer.readline())

    def tell(reply: dict[str, object]) -> None:
        print(json.dumps(reply), flush=True)

    try:
        serve(
            request["ports"],
            LOOPBACK,
            lambda address: tell({"address": address}),
            ends_with=sys.stdin.fileno(),
        )
    except AlreadyRunning as error:
        tell({"running": error.address})
    except OSError as error:
        tell({"error": str(error.strerror or error)})
