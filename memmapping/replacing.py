"""Files that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

_MAX_LINKS = 40  # as many as the kernel follows


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file to write, which takes the place of the one at `path` when the block ends.

    A process that has the old one open or mapped goes on seeing that. When the block raises, the
    old one stays. The new one has the permissions, and as far as that is allowed the owners, of the
    old one, or those that `open` would give it. Behind a symbolic link, the file that it leads to
    is replaced; other hard links go on leading to the old one. What is no regular file, a pipe or
    ``/dev/null``, is written into. The file has no buffer.
    """
    old = _status_of(path)
    target = _name_behind_links(path)
    if target is None or (old is not None and not stat.S_ISREG(old.st_mode)):
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    if old is not None:
        try:  # may it be written to at all?
            os.close(os.open(target, os.O_WRONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            old = None  # somebody has just removed it
    # Hidden, and short enough whatever the length of the name that it stands for.
    temporary = os.path.join(os.path.dirname(target), f".memmapping-{os.urandom(16).hex()}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o666)
    except OSError as error:
        raise _about_folder(error, path) from error
    try:
        with open(fd, "wb", buffering=0) as file:
            yield file
            if old is not None:
                _take_over(fd, old)
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise _about_folder(error, path) from error
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # what went wrong before matters more
        raise


def _status_of(path: str) -> os.stat_result | None:
    """Return what is at `path`; None for nothing, where there may be a file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if not path:
            raise
        if not os.path.basename(path):  # it ends with a slash
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) from None
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return status


def _name_behind_links(path: str) -> str | None:
    """Return the name of the file that links lead to; None when it may have none.

    That is behind ``/dev/stdout``, and whatever else is a link in ``/proc/<pid>/fd``.
    """
    try:
        proc = os.stat("/proc/self").st_dev
    except OSError:
        proc = -1
    for _ in range(_MAX_LINKS):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(status.st_mode):
            return path
        if status.st_dev == proc:
            return None
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _take_over(fd: int, old: os.stat_result) -> None:
    """Give the new file the owners and permissions of the old one."""
    mode = old.st_mode & 0o777
    new = os.fstat(fd)
    if new.st_gid != old.st_gid:
        try:
            os.fchown(fd, -1, old.st_gid)
        except OSError:
            mode &= ~0o070  # they were meant for another group
    if new.st_uid != old.st_uid:
        try:
            os.fchown(fd, old.st_uid, -1)
        except OSError:
            pass  # only root may give files away
    os.fchmod(fd, mode)


def _about_folder(error: OSError, path: str) -> OSError:
    """Return the same error, in words that say what a folder has to do with writing a file."""
    words = error.strerror or ""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        words += (
            " (a new file is made in the same folder, and then takes the place of the old one; "
            "a file object is written into as it is)"
        )
    return OSError(error.errno, words, path)
