"""How rank 0 and the other ranks find each other, and the links between them.

::

    rank 0                                           rank n
    Meeting: a socket with a name ── Address ────▶   can it be reached, and are the files
                                                     of rank 0 to be seen from here?
    Meeting.accept ◀─────────── Hello ────────────   yes: SocketLink
    the link of a Rank ─── START, GOODBYE ───────▶   Link.receive

Ranks on the host of rank 0 are reached over a socket, as workers of the local pool are: it takes
descriptors, can be waited for without looking again and again, and is faster than messages of MPI.
A rank that cannot see the socket, or the files that rank 0 has open, counts as one on another host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from typing import NamedTuple
from weakref import WeakSet

from memmapping.forks import in_child
from parallel_core import config
from parallel_core._version import __version__
from parallel_core.backends.cluster.mpi_serving import RankZeroGone, Start
from parallel_core.workers.forkserver_channel import ForkServerChannel, ForkServerClosed
from parallel_core.workers.system import memory_file

#: Kinds of messages on a link: to a rank (START, variables) with descriptors, (GOODBYE,); from it
#: a `Hello` first, then (STARTED,) for each START.
START, GOODBYE, STARTED = range(3)
#: Set to ``messages``, ranks on the host of rank 0 are reached like those of other hosts.
LINK_VARIABLE = "PARALLEL_CORE_MPI_LINK"
#: Seconds for an answer on a link, from a rank that waits for nothing else.
PATIENCE = 10.0
_LONGEST_PATH = 80  # characters of a folder; the whole name of a socket may have 107
_ALLOW_READING = 0x59616D61  # PR_SET_PTRACER, see prctl(2)


class Address(NamedTuple):
    """Where rank 0 is to be found, and what it is like."""

    path: str  #: of the socket
    pid: int
    probe: int  #: a descriptor of rank 0's, which ranks on its host can open
    inode: int  #: of the file that it refers to
    python: tuple[int, int]
    version: str  #: of this library
    environment: dict[bytes, bytes]


class Hello(NamedTuple):
    """What a rank says of itself."""

    rank: int
    pid: int
    host: str
    is_here: bool  #: whether it is on the host of rank 0
    complaint: str  #: why it cannot serve; empty if it can


class Meeting:
    """A socket with a name, for the time that ranks need to find it."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        parent = parent if len(parent) <= _LONGEST_PATH else "/tmp"
        self._folder = tempfile.mkdtemp(prefix="parallel-core-", dir=parent)
        self.socket = socket.socket(socket.AF_UNIX)
        self._probe = memory_file(1)
        path = os.path.join(self._folder, "ranks")
        self.socket.bind(path)
        self.socket.listen(4096)
        self.address = Address(
            "" if config.environment(LINK_VARIABLE) == "messages" else path,
            os.getpid(),
            self._probe,
            os.fstat(self._probe).st_ino,
            sys.version_info[:2],
            __version__,
            dict(os.environb),
        )

    def accept(self, seconds: float) -> tuple[Hello, ForkServerChannel] | None:
        """Return the next rank that comes, and the link to it; None if there is none in time."""
        self.socket.settimeout(seconds)
        try:
            connection, _ = self.socket.accept()
        except (TimeoutError, BlockingIOError):
            return None
        channel = ForkServerChannel(connection)
        channel.set_patience(PATIENCE)
        fields, _ = channel.receive()
        return Hello(*fields), channel

    def close(self) -> None:
        """Remove the name."""
        self.socket.close()
        os.close(self._probe)
        shutil.rmtree(self._folder, ignore_errors=True)


class SocketLink:
    """The end of a rank on the host of rank 0."""

    def __init__(self, address: Address, idle_seconds: float | None) -> None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            if not address.path:
                raise OSError("messages are wanted")
            connection.settimeout(PATIENCE)
            connection.connect(address.path)
            if os.stat(f"/proc/{address.pid}/fd/{address.probe}").st_ino != address.inode:
                raise OSError("another process of that number")
            os.close(os.open(f"/proc/{address.pid}/fd/{address.probe}", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            connection.close()
            raise
        self._channel = ForkServerChannel(connection)
        self._is_patient = idle_seconds is None
        self._idle_seconds = idle_seconds
        _open_links.add(self)

    def send(self, hello: Hello) -> None:
        """Tell rank 0 who is here."""
        self._channel.send(tuple(hello))
        self._channel.set_patience(self._idle_seconds)

    def receive(self) -> Start | None:
        """Wait for the next worker; None: rank 0 wants none, or for so long that it may ask anew.

        Raises
        ------
        RankZeroGone
            When rank 0 has ended.
        """
        try:
            (kind, *rest), descriptors = self._channel.receive()
            if kind == GOODBYE:
                return None
            self._channel.send((STARTED,))
        except ForkServerClosed as closed:
            if self._is_patient:
                raise RankZeroGone from closed
            return None
        connection, board, output, end = descriptors
        return Start(connection, board, output, socket.socket(fileno=end), rest[0])

    def close(self) -> None:
        """Close this end."""
        self._channel.close()


_open_links: WeakSet[SocketLink] = WeakSet()


@in_child
def _close_in_child() -> None:
    """Close what is not the child's: rank 0 would not see that this rank has ended."""
    for link in list(_open_links):
        link.close()


def complaint_about(address: Address) -> str:
    """Return why this process cannot work for rank 0; empty if it can."""
    found: list[str] = []
    if address.python != sys.version_info[:2]:
        ours = ".".join(map(str, sys.version_info[:2]))
        found.append(f"it runs Python {ours}, and rank 0 {'.'.join(map(str, address.python))}")
    if address.version != __version__:
        found.append(f"it has parallel-core {__version__}, and rank 0 {address.version}")
    return "; ".join(found)


def allow_reading(pid: int) -> None:
    """Let rank 0 read large results where they are, though it is no parent of this process.

    Where the system does not ask for that, or knows no such permission, nothing happens.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError):  # a C library without it
        ctypes.CDLL(None).prctl(_ALLOW_READING, ctypes.c_ulong(pid), 0, 0, 0)
