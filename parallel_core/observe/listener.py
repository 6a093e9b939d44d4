r"""The way to a dashboard of the same user: an abstract unix socket.

::

    dashboard ── binds, listens ──▶ "\0parallel-core-UID[-NAME]" ◀── connects ── each call

The name is in no file system, so nothing stays behind, however the dashboard ends. Both ends ask
the kernel for the user of the other one (SO_PEERCRED), so nobody else can take the name and be told
anything, or tell a dashboard anything. Messages are JSON, one to a packet; they are sent without
waiting, or not at all.
"""

from __future__ import annotations

import _socket  # the module `socket` takes milliseconds to import, which calls in one thread save
import os
import struct
import sys
from time import monotonic
from typing import Any

from parallel_core import config

VARIABLE = "PARALLEL_CORE_DASHBOARD"
LOOK_SECONDS = 1.0
#: Bytes that a packet may have.
LARGEST_PACKET = 128 << 10

_OFF = ("off", "0", "no", "false")
_ON = ("on", "1", "yes", "true")
_LONGEST_NAME = 80

_next_look = 0.0
_is_there = False


def is_supported() -> bool:
    """Whether this system has abstract sockets whose peer is known."""
    system: str = sys.platform
    return system == "linux" and hasattr(_socket, "SO_PEERCRED")


def address_of_user(name: str | None = None) -> bytes | None:
    """Return the address at which a dashboard of this user listens; None where there is none.

    `name` is by default what the environment says: dashboards with different names do not meet.
    """
    wanted = (config.environment(VARIABLE) or "on") if name is None else name
    if wanted.lower() in _OFF or not is_supported():
        return None
    plain = f"\0parallel-core-dashboard-{os.geteuid()}"
    if wanted.lower() in _ON:
        return plain.encode()
    return f"{plain}-{wanted[:_LONGEST_NAME]}".encode(errors="replace")


def has_listener() -> bool:
    """Whether a dashboard listens; it is looked for at most once a second."""
    global _next_look, _is_there
    now = monotonic()
    if now >= _next_look:
        _next_look = now + LOOK_SECONDS
        found = connect()
        _is_there = found is not None
        if found is not None:
            found.close()
    return _is_there


def look_again() -> None:
    """Have the next call look for a dashboard, whenever the last one has."""
    global _next_look
    _next_look = 0.0


def peer_user(sock: _socket.socket) -> int:
    """Return the user id of the process at the other end of a unix socket."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, size))
    return int(user)


class Connection:
    """A connection to a dashboard of this user; nothing here waits."""

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock

    def send(self, message: dict[str, Any]) -> bool:
        """Send `message`; return False if there is no room now, and raise OSError if it is over."""
        import json

        packet = json.dumps(message, separators=(",", ":")).encode()
        try:
            self._socket.send(packet, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        return True

    def receive(self, seconds: float = 0.0) -> list[dict[str, Any]]:
        """Return what the dashboard has sent; wait for the first for at most `seconds`.

        Raises OSError if the connection is over.
        """
        import json

        found: list[dict[str, Any]] = []
        self._socket.settimeout(seconds)
        try:
            while packet := self._socket.recv(LARGEST_PACKET):
                self._socket.settimeout(0.0)
                message = json.loads(packet)
                if isinstance(message, dict):
                    found.append(message)
        except (BlockingIOError, TimeoutError):
            return found
        except ValueError:  # no dashboard of this library sends that
            raise ConnectionResetError("the dashboard has sent something else than JSON") from None
        if not found:
            raise ConnectionResetError("the dashboard has closed the connection")
        return found

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def connect() -> Connection | None:
    """Return a connection to the dashboard of this user; None where there is none."""
    address = address_of_user()
    if address is None:
        return None
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    except OSError:  # no descriptors are left, or no such sockets
        return None
    try:
        sock.setblocking(False)
        sock.connect(address)
        if peer_user(sock) == os.geteuid():
            return Connection(sock)
    except OSError:
        pass
    sock.close()
    return None
