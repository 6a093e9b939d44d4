"""The SQLite file of a journal: made or taken up, for one program at a time.

::

    look at it ──▶ is it new? ─yes─▶ make the tables ─┐
      (100 bytes)      │no                            ├─▶ locked: a connection
                       └▶ check it, reading only ─────┘

What is refused is not changed by a byte. So SQLite sees a file only after its first bytes have
said that it is a journal, and checks it through a connection that cannot write: one that can
would tidy up when it is closed.

SQLite's own lock keeps others out: in exclusive mode one connection has it from its first access
until it is closed, and the kernel takes it back when the process ends, however it ends. It is a
POSIX lock, which a process also loses by closing any other descriptor of the file: a file that a
journal of this program has open must not even be looked at (see `_open_here`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import threading
import zlib
from urllib.parse import quote
from weakref import WeakValueDictionary

from memmapping.forks import in_child
from parallel_core._version import __version__
from parallel_core.errors import JournalError

#: Of the tables, and of the rules by which digests are made.
FORMAT = 2

_APPLICATION = int.from_bytes(b"pcjl", "big")
_MAGIC = b"SQLite format 3\0"
_HEADER_NBYTES = 100
_FORMAT_AT = slice(60, 64)
_APPLICATION_AT = slice(68, 72)

_TABLES = (
    "CREATE TABLE about (python TEXT NOT NULL, library TEXT NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE TABLE functions (digest BLOB PRIMARY KEY, parts TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE results (position INTEGER PRIMARY KEY, function BLOB NOT NULL, "
    "arguments BLOB NOT NULL, seed BLOB, checksum INTEGER NOT NULL, value BLOB NOT NULL)",
)

#: What SQLite says of the surroundings.
_NOT_ITS_CONTENT = ("unable to open", "attempt to write", "disk I/O", "database or disk is full")

_OTHER_FILE = "Name another file, or delete this one"

_opening = threading.Lock()
#: By device and inode.
_open_here: WeakValueDictionary[tuple[int, int], JournalFile] = WeakValueDictionary()


class JournalFile:
    """An open, locked file."""

    def __init__(self, path: str) -> None:
        self.path = path  #: as the user gave it
        try:
            real = os.path.realpath(path)
        except ValueError as error:
            raise refused(path, str(error)) from error
        with _opening:
            is_new = _is_new(real, path)
            if not is_new and not os.path.exists(real + "-journal"):  # else it was being made
                _check_untouched(real, path)
            self.connection = _connect(real, path)
            try:
                self._identity = _identity(real)
            except OSError as error:  # it was deleted under our hands
                self.connection.close()
                raise refused(path, str(error)) from error
            _open_here[self._identity] = self

    def close(self) -> None:
        """Write everything to the one file, and let others open it."""
        with _opening:
            self.connection.close()
            _open_here.pop(self._identity, None)


def refused(path: str, why: str) -> JournalError:
    """Return the error for a file that is not used."""
    return JournalError(f"{path!r} cannot be used as a journal: {why}")


def damaged(path: str, what: str) -> JournalError:
    """Return the error for a file whose content is not what was written."""
    return refused(path, f"it is damaged: {what}. {_OTHER_FILE}; nothing in it was changed")


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_new(real: str, path: str) -> bool:
    """Whether the file has yet to be made; raises if it is another than a journal of ours."""
    try:
        status = os.stat(real)
    except FileNotFoundError:
        folder = os.path.dirname(real)
        if not os.path.isdir(folder):
            raise refused(path, f"there is no folder {folder!r}") from None
        return True
    except (OSError, ValueError) as error:
        raise refused(path, str(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise refused(path, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise refused(path, "it is not a regular file")
    if (status.st_dev, status.st_ino) in _open_here:
        raise refused(path, "another call in this program has it open")
    try:
        fd = os.open(real, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise refused(path, f"it cannot be read and written: {error.strerror}") from error
    try:
        header = os.read(fd, _HEADER_NBYTES)
    finally:
        os.close(fd)
    if header:
        _check_header(header, path)
    return not header


def _check_header(header: bytes, path: str) -> None:
    if len(header) < _HEADER_NBYTES or not header.startswith(_MAGIC):
        raise refused(path, f"it is another kind of file. {_OTHER_FILE}")
    if int.from_bytes(header[_APPLICATION_AT], "big") != _APPLICATION:
        raise refused(path, f"it is an SQLite database of something else. {_OTHER_FILE}")
    found = int.from_bytes(header[_FORMAT_AT], "big")
    if found > FORMAT:
        raise refused(
            path,
            f"it has format {found}, and parallel_core {__version__} knows {FORMAT}: it was "
            f"written by a newer version. Use that, or name another file",
        )
    if found < FORMAT:
        raise refused(
            path,
            f"it has format {found}, and parallel_core {__version__} writes {FORMAT}: it was "
            f"written by an older version. {_OTHER_FILE}",
        )


def _check_untouched(real: str, path: str) -> None:
    """Check the file without writing to it.

    Where another program has left a log of what is not in the file yet, SQLite reads both;
    otherwise it reads the file as it is, and needs no lock, so a program that has just begun to
    write to it may have been in the way.
    """
    before = os.stat(real)
    log, index = real + "-wal", real + "-shm"
    has_log = os.path.exists(log) and os.path.getsize(log) > 0
    has_index = os.path.exists(index)
    mode = "mode=ro" if has_log else "immutable=1"
    try:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(real))}?{mode}", timeout=0, isolation_level=None, uri=True
        )
        try:
            _check_tables(connection, path)
            (page_nbytes,) = connection.execute("PRAGMA page_size").fetchone()
            if before.st_size % page_nbytes and not has_log:
                raise damaged(path, "it ends within a page")
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise damaged(path, " ".join(str(found).split()))
        finally:
            connection.close()
    except (sqlite3.Error, JournalError) as error:
        after = os.stat(real)
        has_changed = (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
        if has_changed and not has_log:
            raise _in_use(path) from error
        if isinstance(error, JournalError):
            raise
        raise _translated(error, path) from error
    finally:
        if has_log and not has_index:
            _unlink(index)  # a connection that cannot write leaves it


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:  # gone
        pass


def _connect(real: str, path: str) -> sqlite3.Connection:
    """Return a connection that has the file for itself."""
    existed = os.path.exists(real)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(real, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            _make_tables(connection)
        connection.execute("COMMIT")
        _check_tables(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.text_factory = bytes  # whatever type damage has made of a value
        return connection
    except (sqlite3.Error, JournalError) as error:
        if connection is not None:
            connection.close()
        if not existed and os.path.exists(real) and os.path.getsize(real) == 0:
            _unlink(real)
        if isinstance(error, JournalError):
            raise
        raise _translated(error, path) from error


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    for table in _TABLES:
        connection.execute(table)
    python = sys.implementation.cache_tag
    connection.execute(
        "INSERT INTO about VALUES (?, ?, ?)", (python, __version__, _about(python, __version__))
    )


def _about(python: str, library: str) -> int:
    return zlib.crc32(f"{python} {library}".encode())


def _check_tables(connection: sqlite3.Connection, path: str) -> None:
    tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    if tables != [(table,) for table in _TABLES]:
        raise damaged(path, "its tables are not those of a journal")
    rows = connection.execute("SELECT python, library, checksum FROM about").fetchall()
    if len(rows) != 1 or _about(*rows[0][:2]) != rows[0][2]:
        raise damaged(path, "it does not say what wrote it")
    python, library, _ = rows[0]
    if python != sys.implementation.cache_tag:
        raise refused(
            path,
            f"it was written by {python} (parallel_core {library}), and this is "
            f"{sys.implementation.cache_tag}. Each compiles functions in its own way, so nothing "
            "tells whether they are the same. Use the Python that wrote it, or name another file",
        )


def _in_use(path: str) -> JournalError:
    return refused(path, "another program has it open")


def _translated(error: sqlite3.Error, path: str) -> JournalError:
    """Return what SQLite says in our words."""
    text = str(error)
    if "locked" in text:
        return _in_use(path)
    if text.startswith("disk I/O"):
        text += ", with it or with a file that SQLite needs beside it; is the disk full?"
    if text.startswith(_NOT_ITS_CONTENT):
        return refused(path, text)
    return damaged(path, text)


@in_child
def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # the thread that had it is not here
