"""Where agents and workers call back, and greet."""

from __future__ import annotations

import secrets
import socket
from typing import Any

from parallel_core.backends.cluster.greeting import TOKEN_NBYTES, Greeting, tune

_MOST = 64  # greetings at a time, for the sake of descriptors


class Listener:
    """A listening socket at one address of this host, and the greetings that have begun there."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=1024)
        self._socket.setblocking(False)
        self.token = secrets.token_bytes(TOKEN_NBYTES)
        self._greetings: dict[int, Greeting] = {}

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def accept(self) -> list[int]:
        """Take in connections; return the descriptors from which greetings are to be read."""
        found: list[int] = []
        while len(self._greetings) < _MOST:
            try:
                sock, _ = self._socket.accept()
            except OSError:  # that was all
                break
            try:
                tune(sock)
                greeting = Greeting(sock, self.token)
            except OSError:  # it is gone already
                sock.close()
                continue
            self._greetings[sock.fileno()] = greeting
            found.append(sock.fileno())
        return found

    def read(self, descriptor: int) -> tuple[Greeting, dict[str, Any]] | None:
        """Return who has greeted, to be answered, and its facts; None while they are on the way.

        Raises `ConnectionError` when it is nobody that we know.
        """
        greeting = self._greetings[descriptor]
        facts = greeting.read()
        if facts is None:
            return None
        del self._greetings[descriptor]
        return greeting, facts

    def is_greeting(self, descriptor: int) -> bool:
        """Whether a greeting is read from `descriptor`."""
        return descriptor in self._greetings

    def drop(self, descriptor: int) -> None:
        """Close the connection of a greeting that has failed."""
        self._greetings.pop(descriptor).sock.close()

    def close(self) -> None:
        """Close all sockets."""
        for greeting in self._greetings.values():
            greeting.sock.close()
        self._greetings.clear()
        self._socket.close()


def address_towards(host: str) -> str:
    """Return the address of this host that packets to `host` leave from."""
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # of a datagram socket: nothing is sent
        return str(probe.getsockname()[0])
