r"""The file of a trace: a JSON array of events that is complete whenever it is looked at.

::

    add ──▶ events in memory ── 64 KiB, or half a second later ──▶ gzip, if the name ends in .gz
                                                                        │
            [ first event, event, event, ... next piece  \n]   ◀── written in one go
                                                          └── the end; the next piece replaces it

Each piece is written together with the end of the array. So a program that is killed leaves a file
that parses, unless that happens in the middle of a piece; then Perfetto opens what is there of an
array without an end. A compressed file is one gzip stream: the end is made by a copy of the
compressor, and the compressor itself goes on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
import sys
import threading
import zlib
from collections import Counter
from time import monotonic_ns, strftime
from typing import Any

from memmapping.forks import in_child
from parallel_core._version import __version__
from parallel_core.errors import warn_caller
from parallel_core.trace.rows import Rows
from parallel_core.trace.target import Target, check_trace

_END = b"\n]\n"
_PIECE = 1 << 16  # characters
_PAUSE_NS = 500_000_000  # after which what is in memory is written, however little it is
_GZIP = 31  # zlib's number for a stream with the header and checksum of gzip

_lock = threading.RLock()
_open: dict[str, TraceFile] = {}  # by path: the files that calls are writing now


class TraceFile:
    """The trace of one `Parallel` object or of one `parallel_config` block.

    The first call begins the file, and later ones append to it. It is open while there are calls.
    """

    def __init__(self, target: Target) -> None:
        self.path = os.path.realpath(target.path)
        self.pid = os.getpid()
        self.began = 0  #: time of the first call by `time.monotonic_ns`, the zero of the file
        self.rows = Rows(self.pid, self.add)
        self._max_events = target.max_events
        self._n_events = 0
        self._left_out: Counter[str] = Counter()  # by what they are, in tasks and in events
        self._has_warned = False
        self._joined: TraceFile | None = None  # another object's, for the same path
        self._users = 0  # calls that write it now
        self.lock = threading.RLock()  #: hold it to add events; a signal handler may make a call
        self.calls: set[int] = set()  #: numbers of the calls that write it now, from 0
        self._flows = itertools.count(1)
        self._file = -1
        self._identity: tuple[int, int, int] | None = None  # device, inode and size when closed
        self._has_failed = False
        self._events: list[str] = []
        self._n_characters = 0
        self._written_at = 0
        self._position = 0  # where the next piece goes
        self._size = 0
        self._end = _END  # what stands there
        self._compressor: Any = None  # zlib has no public name for its type

    def __repr__(self) -> str:
        return f"trace={self.path!r}"

    def open(self) -> TraceFile:
        """Return the file that a call is to write to; `close` it when the call ends.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with _lock:
            used = self._joined or _open.get(self.path, self)
            self._joined = None if used is self else used
            with used.lock:
                if not used._users and not used._has_failed:
                    used._open_file()
                used._users += 1
            _open[self.path] = used
            return used

    def close(self) -> None:
        """End the part of one call."""
        with _lock, self.lock:
            self._users -= 1
            if self._users > 0:
                return
            _open.pop(self.path, None)
            if self._file < 0:
                return
            try:
                self._write(is_last=True)
            finally:
                self._close_file()
        if self._left_out and not self._has_warned:
            self._has_warned = True
            warn_caller(
                f"the trace {self.path!r} has the first {self._max_events} events; left out were "
                f"{self._words()}. Pass trace={{'path': ..., 'max_events': None}} for all",
                RuntimeWarning,
            )

    def add(self, what: str, event: str, count: int = 1) -> None:
        """Write an event, unless there are too many; `what` and `count` say what is left out."""
        if self._file < 0:
            return
        if self._max_events is not None and self._n_events >= self._max_events:
            self._left_out[what] += count
            return
        self._n_events += 1
        self._events.append(event)
        self._n_characters += len(event)
        if self._n_characters >= _PIECE:
            self._write()

    def write_if_due(self, now: int) -> None:
        """Write what is in memory if it has been there for long; `now` is as `began`."""
        if now - self._written_at > _PAUSE_NS and self._file >= 0:
            self._write()

    def next_flow(self) -> int:
        """Return a number for the two ends of an arrow."""
        return next(self._flows)

    def forget(self) -> None:
        """In a forked child: the file is the parent's."""
        self.lock = threading.RLock()
        self._events.clear()
        self._has_failed = True
        self._users = 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open_file(self) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o666)
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "this is not a regular file")
            _lock_file(self._file)
            if self._identity != (found.st_dev, found.st_ino, found.st_size):
                self._begin()
        except OSError as error:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            reason = f"the trace cannot be written: {error.strerror}"
            raise OSError(error.errno, reason, self.path) from None

    def _begin(self) -> None:
        """Begin the file anew: it is the first call, or somebody has changed the file."""
        os.ftruncate(self._file, 0)
        self._position = self._size = self._n_events = 0
        self._left_out.clear()
        self._events.clear()
        self.began = monotonic_ns()
        self.rows.clear()
        if self.path.endswith(".gz"):
            self._compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        about = {"version": __version__, "began": strftime("%Y-%m-%dT%H:%M:%S%z")}
        name = {"name": program}
        self._put(
            "[\n"
            + ",\n".join(
                json.dumps(
                    {"ph": "M", "pid": self.pid, "name": what, "args": args}, ensure_ascii=False
                )
                for what, args in (("parallel_core", about), ("process_name", name))
            )
        )

    def _close_file(self) -> None:
        found = os.fstat(self._file)
        self._identity = found.st_dev, found.st_ino, found.st_size
        file, self._file = self._file, -1
        _unlock_file(file)
        os.close(file)

    def _write(self, is_last: bool = False) -> None:
        """Write what is in memory; a disk that is full ends the trace, and not the call."""
        events, self._events = self._events, []
        self._n_characters = 0
        self._written_at = monotonic_ns() - self.began
        if not events and not (is_last and self._left_out):
            return
        try:
            self._put("".join([f",\n{event}" for event in events]))
        except OSError as error:
            self._has_failed = True
            self._restore()
            self._close_file()
            warn_caller(
                f"the trace {self.path!r} ends early, and the call goes on: {error.strerror}",
                RuntimeWarning,
            )
        except BaseException:  # Ctrl-C, maybe in the middle of it
            self._has_failed = True
            self._restore()
            self._close_file()
            raise

    def _put(self, text: str) -> None:
        """Write text, and behind it the end of the array."""
        data, end = text.encode("utf-8", "replace"), _END
        if self._left_out:
            end = f",\n{self._note()}\n]\n".encode()
        if self._compressor is not None:
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            ending = self._compressor.copy()
            end = ending.compress(end) + ending.flush()
        _write_at(self._file, data + end, self._position)
        size = self._position + len(data) + len(end)
        if size < self._size:
            os.ftruncate(self._file, size)
        self._position, self._size, self._end = size - len(end), size, end

    def _restore(self) -> None:
        """Put back the end that was there before a piece that could not be written."""
        with contextlib.suppress(OSError):  # it is as complete as can be
            _write_at(self._file, self._end, self._position)
            os.ftruncate(self._file, self._position + len(self._end))

    def _note(self) -> str:
        """Return the event that says what was left out."""
        return json.dumps(
            {
                "ph": "i",
                "s": "g",
                "pid": self.pid,
                "tid": self.pid,
                "ts": (monotonic_ns() - self.began) // 1000,
                "name": f"left out: {self._words()}",
                "cat": "trace",
                "args": {**self._left_out, "max_events": self._max_events},
            }
        )

    def _words(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self._left_out.items()))


def trace_of(given: Any) -> Target | TraceFile | None:
    """Return the file to write, checked; a block has one for all its calls."""
    return given if isinstance(given, TraceFile) else check_trace(given)


def _write_at(file: int, data: bytes, position: int) -> None:
    """Write all of `data`."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, position)
        rest = rest[written:]
        position += written


def _lock_file(file: int) -> None:
    """Raise unless this is the only process that writes the file."""
    try:
        import fcntl
    except ImportError:  # a system without these locks
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        reason = "another process is writing to it; use a name with os.getpid()"
        raise OSError(error.errno, reason) from None
    except OSError:  # a file system without these locks
        return


def _unlock_file(file: int) -> None:
    """Give the lock back; a forked child may have a copy of the descriptor that would keep it."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(file, fcntl.LOCK_UN)


@in_child
def _forget_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for file in _open.values():
        file.forget()
    _open.clear()
