"""Segments: files without a name that hold arrays, and that other processes open by number.

A segment is made by ``O_TMPFILE`` where the file system can do that, else under a name that
cannot be guessed and that is removed at once. So there is nothing to clean up: when the last
process that has it open ends, however it ends, the memory is free. Others open it as
``/proc/<owner>/fd/<number>`` (`proc(5)`), and check that it is the file that was meant.

Three other ways were weighed. A file with a name needs somebody to remove it, and that process can
be killed. A descriptor can be passed over a socket of ours, but not through loky or an executor,
and not in a pickle within a pickle. `memfd_create` knows neither folders nor the limit of
``/dev/shm``, and the kernel never grants a lease on what it makes.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import secrets
import signal
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

PAGE = os.sysconf("SC_PAGE_SIZE")
_PIECE = 128 << 20  # bytes written at a time: Ctrl-C is heard between two pieces
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Origin(NamedTuple):
    """What another process needs to open the file that holds an array."""

    path: str  #: where it is opened
    device: int  #: which file it must be, with the inode
    inode: int
    nameless: bool  #: whether it is a segment; else it is a file of the user's


class Segment:
    """A file without a name, open in this process."""

    __slots__ = (
        "__weakref__",
        "_let_go",
        "_where",
        "fd",
        "folder",
        "maker",
        "nbytes",
        "spoiled",
        "users",
    )

    def __init__(
        self, fd: int, nbytes: int, folder: str, let_go: Callable[[Segment], None]
    ) -> None:
        self._let_go = let_go
        self.fd = fd
        self.nbytes = nbytes
        self.folder = folder
        #: Users in this process that expect its content to stay as it is; see `Use`.
        self.users: set[ref[Use]] = set()
        self.spoiled = False  #: whether it must not be used again
        self.maker = os.getpid()  #: the process that made it; a fork has the object, too
        status = os.fstat(fd)
        self._where = status.st_dev, status.st_ino

    @property
    def origin(self) -> Origin:
        """How other processes open it; a forked child that inherited it is an owner, too."""
        return Origin(f"/proc/{os.getpid()}/fd/{self.fd}", *self._where, True)

    def write(self, data: Any, offset: int = 0) -> None:
        """Write the bytes of `data`, a contiguous buffer, at `offset`.

        A full folder is an OSError, and no SIGBUS, as from writing through a mapping.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done : done + _PIECE], offset + done)

    def reserve(self) -> None:
        """Have all its pages now, or an OSError, for a user that writes through a mapping."""
        os.posix_fallocate(self.fd, 0, self.nbytes)

    def is_private(self) -> bool:
        """Whether no other process has it open, and nobody here relies on its content."""
        return not self.users and nobody_else_has_open(self.fd)

    def __del__(self) -> None:
        if hasattr(self, "_where"):
            self._let_go(self)


class Use:
    """Somebody's wish that a segment stay as it is; ends with this object."""

    __slots__ = ("__weakref__", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        # No `__del__`: if Ctrl-C were heard there, Python would print that and go on.
        segment.users.add(ref(self, segment.users.discard))


def new_file(folder: str) -> int:
    """Return the descriptor of an empty file in `folder` that has no name."""
    fd = _open_new(folder)
    os.fchmod(fd, 0o600)  # whatever the umask took away
    return fd


def _open_new(folder: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_EXCL
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    path = os.path.join(folder, f".memmapping-{secrets.token_hex(16)}")
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return fd


def nobody_else_has_open(fd: int) -> bool:
    """Whether this is the only open file description, so that no other process maps the file.

    A write lease [1]_ is given only then. A file system without leases says no.

    .. [1] https://man7.org/linux/man-pages/man2/F_SETLEASE.2const.html
    """
    try:
        # Should somebody open it just now, the kernel sends a signal: not one that could harm.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


_PR_GET_DUMPABLE = 3


def others_may_open() -> bool:
    """Whether processes of the same user can open the descriptors of this one; see `proc(5)`."""
    return os.path.isdir("/proc/self/fd") and _c_library().prctl(_PR_GET_DUMPABLE) == 1


@functools.cache
def _c_library() -> Any:
    import ctypes

    return ctypes.CDLL(None)
