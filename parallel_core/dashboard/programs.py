"""The programs that report to the dashboard: one connection for each call.

Only processes of the same user get through; the kernel says whose a connection is. What they send
is JSON and nothing else. A program that sends nonsense is let go of.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from parallel_core.dashboard.calls import State, WatchedCall
from parallel_core.dashboard.feed import Feed
from parallel_core.observe.listener import (
    LARGEST_PACKET,
    address_of_user,
    connect,
    is_supported,
    peer_user,
)

_MOST_CONNECTIONS = 256
_MOST_PACKETS = 20  # read from one program before the others have their turn
_ANSWER_SECONDS = 3.0
_ASKED_SECONDS = 2.0


class Answer(NamedTuple):
    """What a program has said to a command."""

    is_done: bool
    text: str


class RunningDashboard(NamedTuple):
    """A dashboard of this user that runs already."""

    url: str
    port: int
    host: str


def running_dashboard() -> RunningDashboard | None:
    """Return the dashboard of this user, if there is one."""
    connection = connect()
    if connection is None:
        return None
    try:
        if not connection.send({"ask": "address"}):
            return None
        for message in connection.receive(_ASKED_SECONDS):
            found = message["address"], message["port"], message["host"]
            return RunningDashboard(str(found[0]), int(found[1]), str(found[2]))
    except (OSError, KeyError):  # it has just ended
        pass
    finally:
        connection.close()
    return None


def listen() -> socket.socket:
    """Return the socket that programs of this user connect to; raise OSError where it is taken."""
    address = address_of_user()
    if not is_supported():
        raise OSError("a dashboard needs Linux: programs find it by an abstract unix socket")
    if address is None:
        raise OSError(
            "PARALLEL_CORE_DASHBOARD says that there is to be no dashboard: unset it, or start the "
            "dashboard without it"
        )
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        found.setblocking(False)
        found.bind(address)
        found.listen(128)
    except OSError:
        found.close()
        raise
    return found


class _Program:
    """The connection of one call."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.call: WatchedCall | None = None


class Programs:
    """Takes in what programs tell of their calls."""

    def __init__(self, listener: socket.socket, feed: Feed, address: RunningDashboard) -> None:
        self._listener = listener
        self._feed = feed
        self._address = address
        self._numbers = itertools.count(1)
        self._commands = itertools.count(1)
        self._open: dict[int, _Program] = {}  # by descriptor
        self._asked: dict[int, asyncio.Future[Answer]] = {}

    def start(self) -> None:
        """Listen, in the loop that runs."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Let go of all programs."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._listener.close()
        for program in list(self._open.values()):
            self._close(program)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._open) >= _MOST_CONNECTIONS or peer_user(sock) != os.geteuid():
            sock.close()
            return
        sock.setblocking(False)
        program = _Program(sock)
        self._open[sock.fileno()] = program
        asyncio.get_running_loop().add_reader(sock, self._read, program)

    def _read(self, program: _Program) -> None:
        try:
            for _ in range(_MOST_PACKETS):
                packet = program.socket.recv(LARGEST_PACKET)
                if not packet:
                    self._close(program)
                    return
                self._take(program, json.loads(packet, parse_constant=_refuse))
        except BlockingIOError:
            return
        except (OSError, ValueError, KeyError, TypeError, LookupError, AttributeError):
            self._close(program)

    def _take(self, program: _Program, message: dict[str, Any]) -> None:
        if "ask" in message:
            url, port, host = self._address
            program.socket.send(json.dumps({"address": url, "port": port, "host": host}).encode())
        elif program.call is None:
            program.call = WatchedCall(next(self._numbers), message, int(message["pid"]))
            program.call.heard_at = monotonic()
            self._feed.add(program.call)
        else:
            program.call.heard_at = monotonic()
            program.call.take(message)
            for answer in message["answers"]:
                asked = self._asked.pop(int(answer["command"]), None)
                if asked is not None and not asked.done():
                    asked.set_result(Answer(bool(answer["done"]), str(answer["text"])))

    def _close(self, program: _Program) -> None:
        descriptor = program.socket.fileno()
        if self._open.pop(descriptor, None) is None:
            return
        asyncio.get_running_loop().remove_reader(program.socket)
        program.socket.close()
        if program.call is not None:
            program.call.finish(State.LOST)  # nothing, if it has said that it is over

    async def command(self, number: int, what: str, worker: int | None = None) -> Answer:
        """Have the program of a call do something, and return what it says."""
        found = [one for one in self._open.values() if one.call and one.call.number == number]
        if not found:
            return Answer(False, "the call is over")
        command = next(self._commands)
        asked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[command] = asked
        message = {"command": command, "do": what, "worker": worker}
        try:
            found[0].socket.send(json.dumps(message).encode())
            return await asyncio.wait_for(asked, _ANSWER_SECONDS)
        except TimeoutError:
            return Answer(
                False,
                "the program has not answered: it acts on this when it next waits for results",
            )
        except OSError as error:
            return Answer(False, f"the program cannot be reached: {error}")
        finally:
            self._asked.pop(command, None)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
