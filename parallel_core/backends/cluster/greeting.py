"""How the two ends of a new connection prove that they belong together, before any unpickling.

::

    caller (listens)                                     engine's process (connects)
    MAGIC, challenge                    ────────────▶
                                        ◀────────────    facts, challenge, proof of both
    verdict, proof of it                ────────────▶

A proof is an HMAC with the token that the engine has carried to its process, so neither side can be
stood in for by another process that happens to listen, or to connect, at that port. Facts are JSON:
nothing is unpickled before both sides are known, and Python and this library are the same there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from parallel_core._version import __version__

_MAGIC = b"parallel-core 1\n"
_NONCE = 32
_LENGTH = struct.Struct("<I")
_MOST = 1 << 20  # bytes of facts
_PROOF = hashlib.sha256().digest_size
TOKEN_NBYTES = 32
#: Seconds that either side waits for the other while they greet.
GREETING_SECONDS = 10.0


class Refused(ConnectionError):
    """The other side is not the one that was meant, or another version; the message says which."""


def versions() -> dict[str, str]:
    """Return the versions that matter to what is sent."""
    found = {"Python": f"{sys.version_info[0]}.{sys.version_info[1]}", "parallel_core": __version__}
    for name in ("numpy", "cloudpickle"):
        version = _version_of(name)
        if version is not None:
            found[name] = version
    return found


def _version_of(name: str) -> str | None:
    """Return the version of a package without its import."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def host_identity() -> str:
    """Return what processes have in common that can open each other's files and memory."""
    parts = [str(os.getuid())]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid", "/proc/self/ns/mnt"):
        try:
            parts.append(os.readlink(path) if "/ns/" in path else _read(path))
        except OSError:
            parts.append(secrets.token_hex(8))  # nothing is known: so it is nobody else's
    return " ".join(parts)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def differences(theirs: Mapping[str, str]) -> tuple[str, str]:
    """Return in words which versions differ: those that forbid to go on, and those that may hurt.

    Either is empty if there are none.
    """
    ours = versions()
    fatal, doubtful = [], []
    for name, version in ours.items():
        other = theirs.get(name)
        if name in ("Python", "parallel_core"):
            if other != version:
                fatal.append(f"{name} {other} there and {version} here")
        elif other is not None and _major(other) != _major(version):
            doubtful.append(f"{name} {other} there and {version} here")
    return "; ".join(fatal), "; ".join(doubtful)


def _major(version: str) -> str:
    return version.partition(".")[0]


def _proof(token: bytes, *parts: bytes) -> bytes:
    return hmac.digest(token, b"".join(parts), "sha256")


class Greeting:
    """The caller's side of a connection that has just come in; it is fed what arrives."""

    def __init__(self, sock: socket.socket, token: bytes) -> None:
        self.sock = sock
        self._token = token
        self._challenge = secrets.token_bytes(_NONCE)
        self._received = b""
        sock.setblocking(False)
        sock.sendall(_MAGIC + self._challenge)

    def read(self) -> dict[str, Any] | None:
        """Read what is there; return the facts when they are complete and proven.

        Raises
        ------
        Refused
            When the other side does not know the token, or speaks something else.
        """
        try:
            while chunk := self.sock.recv(1 << 16):
                self._received += chunk
                if len(self._received) > _MOST:
                    raise Refused("it has said more than a greeting")
                if self._is_complete():
                    break
            else:
                raise Refused("it closed the connection")
        except BlockingIOError:
            pass
        except OSError as error:
            raise Refused(str(error)) from error
        return self._facts() if self._is_complete() else None

    def _is_complete(self) -> bool:
        if len(self._received) < _LENGTH.size:
            return False
        length: int = _LENGTH.unpack_from(self._received)[0]
        return len(self._received) >= _LENGTH.size + length + _NONCE + _PROOF

    def _facts(self) -> dict[str, Any]:
        (length,) = _LENGTH.unpack_from(self._received)
        start, end = _LENGTH.size, _LENGTH.size + length
        said = self._received[start : end + _NONCE]
        proof = self._received[end + _NONCE : end + _NONCE + _PROOF]
        if not hmac.compare_digest(proof, _proof(self._token, self._challenge, said)):
            raise Refused("it does not know the token of this program")
        self._answer_to = said[length:]
        facts: dict[str, Any] = json.loads(said[:length])
        return facts

    def answer(self, refusal: str = "") -> socket.socket:
        """Say that the other side is welcome, or why not; return the socket."""
        words = refusal.encode()
        verdict = _LENGTH.pack(len(words)) + words
        self.sock.setblocking(True)
        self.sock.settimeout(GREETING_SECONDS)
        self.sock.sendall(verdict + _proof(self._token, self._answer_to, verdict))
        self.sock.settimeout(None)
        return self.sock


def connect(host: str, port: int, token: bytes, facts: Mapping[str, Any]) -> socket.socket:
    """Return a connection to the caller that listens at `host` and `port`, when it has agreed.

    Raises
    ------
    Refused
        When it is another program, or says why it does not want this process.
    OSError
        When it cannot be reached.
    """
    sock = socket.create_connection((host, port), timeout=GREETING_SECONDS)
    try:
        tune(sock)
        if _receive(sock, len(_MAGIC)) != _MAGIC:
            raise Refused("what listens there is no parallel-core of this version")
        theirs, ours = _receive(sock, _NONCE), secrets.token_bytes(_NONCE)
        said = json.dumps(facts).encode() + ours
        length = _LENGTH.pack(len(said) - _NONCE)
        sock.sendall(length + said + _proof(token, theirs, said))
        verdict = _receive(sock, _LENGTH.size)
        words = _receive(sock, _LENGTH.unpack(verdict)[0])
        if not hmac.compare_digest(_receive(sock, _PROOF), _proof(token, ours, verdict + words)):
            raise Refused("what listens there does not know the token of the program")
        if words:
            raise Refused(words.decode())
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return sock


def _receive(sock: socket.socket, nbytes: int) -> bytes:
    if nbytes > _MOST:
        raise Refused("what listens there speaks something else")
    received = b""
    while len(received) < nbytes:
        chunk = sock.recv(nbytes - len(received))
        if not chunk:
            raise Refused("the program at the other end closed the connection")
        received += chunk
    return received


_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
_LOST_MILLISECONDS = 30_000


def tune(sock: socket.socket) -> None:
    """Have small frames leave at once, and the loss of the other host noticed within 30 s."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def expect_reading(sock: socket.socket) -> None:
    """Have the loss noticed also while something is on its way; the other side reads at any time.

    On a connection whose other side may rest, this would cut it off: see TCP_USER_TIMEOUT in
    tcp(7), which ends a connection that has had no room for so long.
    """
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, _LOST_MILLISECONDS)
