"""Dashboards of tests: one that only listens, and a client of a real one."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from programs import environment

import parallel_core
from parallel_core.observe import listener
from watching import LIMIT

PORTS = range(8200, 8400)
_numbers = itertools.count()


@contextlib.contextmanager
def own_name() -> Iterator[str]:
    """Have this process, and those that it starts, look for a dashboard of their own."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(listener.VARIABLE, name)
        listener.look_again()
        try:
            yield name
        finally:
            listener.look_again()
            listener._is_there = False


class Listening:
    """Listens as a dashboard does, and keeps what it is told; sends `commands` after each hello."""

    def __init__(self, reads: bool = True, commands: tuple[dict[str, Any], ...] = ()) -> None:
        address = listener.address_of_user()
        assert address is not None
        self.messages: list[dict[str, Any]] = []
        self.has_come = threading.Event()
        self._commands = commands
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(address)
        self._socket.listen(64)
        if reads:
            self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._socket.accept()
            except OSError:
                return
            self._ends.append(end)
            self._start(self._read, end)

    def _read(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError), end:
            while packet := end.recv(listener.LARGEST_PACKET):
                message = json.loads(packet)
                self.messages.append(message)
                if "hello" in message:
                    for command in self._commands:
                        end.send(json.dumps(command).encode())
                    self.has_come.set()

    def close(self) -> None:
        """End as a dashboard that is killed: nothing is said to anybody."""
        for end in [self._socket, *self._ends]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()

    def hellos(self) -> list[dict[str, Any]]:
        return [message for message in list(self.messages) if "hello" in message]

    def updates(self) -> list[dict[str, Any]]:
        return [message for message in list(self.messages) if "at" in message]

    def __enter__(self) -> Listening:
        listener.look_again()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Client:
    """Asks a dashboard, as a browser would or as nobody should."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.url: str = details["url"]
        self.port: int = details["dashboard_port_nr"]
        self.token = self.url.partition("token=")[2]
        self.host = f"127.0.0.1:{self.port}"
        page = self.get(f"/?token={self.token}")
        found = re.search('data-base="([^"]+)"', page.text)
        assert page.status == 200 and found, page
        self.base = found[1]
        self.cookie = page.headers["set-cookie"].partition(";")[0]
        self.set_cookie = page.headers["set-cookie"]

    def ask(self, method: str, path: str, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host="Host" in named)
            for name, value in named.items():
                connection.putheader(name, value)
            connection.endheaders()
            found = connection.getresponse()
            known = {name.lower(): value for name, value in found.getheaders()}
            return Reply(found.status, known, found.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def state(self, call: int | None = None) -> dict[str, Any]:
        """Return all that the dashboard knows, with the details of one call."""
        path = f"{self.base}state" + ("" if call is None else f"?call={call}")
        reply = self.get(path, Authorization=f"Bearer {self.token}")
        assert reply.status == 200, reply
        found: dict[str, Any] = json.loads(reply.text)
        return found

    def post(self, path: str) -> dict[str, Any]:
        """Give a command as the page does, and return what came of it."""
        headers = {"Cookie": self.cookie, "Origin": f"http://{self.host}", "Content_Length": "0"}
        reply = self.ask("POST", self.base + path, **headers)
        assert reply.status == 200, reply
        found: dict[str, Any] = json.loads(reply.text)
        return found

    @contextlib.contextmanager
    def events(self, call: int | None = None) -> Iterator[Iterator[dict[str, Any]]]:
        """Follow the dashboard as a browser does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            path = f"{self.base}events" + ("" if call is None else f"?call={call}")
            connection.request("GET", path, headers={"Cookie": self.cookie})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield (
                json.loads(line[len(b"data: ") :])
                for line in iter(answer.readline, b"")
                if line.startswith(b"data: ")
            )
            answer.close()
        finally:
            connection.close()


@contextlib.contextmanager
def commanded() -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """The dashboard of the command line, with a name of its own, and its process."""
    command = [sys.executable, "-m", "parallel_core", "dashboard", "--port-range", "8200-8399"]
    pipe = subprocess.PIPE
    with (
        own_name(),
        subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment()
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            [port] = re.findall(r":(\d+)/", url)
            listener.look_again()
            yield Client({"url": url, "dashboard_port_nr": int(port)}), process
        finally:
            process.terminate()


@contextlib.contextmanager
def started() -> Iterator[Client]:
    """A dashboard that this process has started, with a name of its own."""
    with own_name():
        details = parallel_core.start_dashboard(PORTS)
        try:
            yield Client(details)
        finally:
            parallel_core.shutdown_dashboard()
