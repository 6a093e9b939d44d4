"""Where segments come from, and where they go when nobody refers to them any more.

States of a segment: *held* (a `Segment` exists), *kept* (let go of; its pages may serve the next
array, which saves the kernel most of the work) and *closed*. From kept back to held it goes only
when a write lease proves that no other process has it open or mapped: a task may have stored its
argument away. Few are kept, not for long, and `free_kept_memory` closes them at once.

A finalizer may let go, in any thread and at any moment: so letting go takes no lock that it would
have to wait for, and starts no thread. What is let go of lies in `_returned` until a thread with
the lock sorts it in. The timer that closes what was kept for long enough is started when a segment
is taken, and runs as long as there is any.
"""

from __future__ import annotations

import errno
import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from memmapping.folders import Folder, candidate_folders, examine
from memmapping.forks import in_child
from memmapping.interrupts import HeldSignals
from memmapping.segments import Segment, new_file, nobody_else_has_open, others_may_open

#: Seconds for which a segment that nobody uses is kept for the next array.
KEPT_SECONDS = 10.0
#: How many are kept at most, and which part of the folder they may fill together.
KEPT_NUMBER = 16
KEPT_SHARE = 0.25

_SPARE = 1 << 20  # bytes that are left free in a folder
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM)


class NoRoom(OSError):
    """No folder has room for an array; the message names the problem of each folder."""


class _Kept(NamedTuple):
    fd: int
    nbytes: int
    folder: str
    since: float


class SegmentStore:
    """Makes segments, and keeps some of those that were let go of."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[_Kept] = deque()
        self._kept: list[_Kept] = []
        self._held: set[int] = set()
        self._timer: threading.Timer | None = None

    def take(
        self,
        nbytes: int,
        folders: Iterable[Folder] | None = None,
        lasting: bool = False,
        needed: int | None = None,
        when_gone: Callable[[], object] | None = None,
    ) -> Segment:
        """Return a segment of at least one byte, whose content is undefined; or `NoRoom`.

        It may be in one of `folders`, best first, by default `candidate_folders()`. A `lasting` one
        belongs to the user: it stays open in forked children, and is never reused; `when_gone` is
        called when nobody refers to it any more, perhaps by a finalizer. Of `nbytes`, `needed` will
        be written, by default all.
        """
        needed = nbytes if needed is None else needed
        if not others_may_open():
            raise NoRoom(errno.EACCES, "other processes cannot open what this one has open")
        if len(self._held) >= _max_held():
            raise NoRoom(errno.EMFILE, f"{len(self._held)} arrays are in flight, each in a file")
        if not lasting:
            self._start_timer()
        problems = []
        for folder in candidate_folders() if folders is None else folders:
            try:
                with HeldSignals():
                    segment = self._take_in(nbytes, needed, folder, lasting, when_gone)
                return segment
            except OSError as error:
                problems.append(f"{folder.path}: {error.strerror}")
        raise NoRoom(errno.ENOSPC, f"no room for {needed} bytes ({'; '.join(problems)})")

    def take_filled(
        self,
        nbytes: int,
        folders: Iterable[Folder],
        fill: Callable[[Segment], object],
        when_gone: Callable[[], object] | None = None,
    ) -> Segment:
        """Return a lasting segment that `fill` has filled.

        A folder that turns out to be full is left for the next one.
        """
        left = list(folders)
        while True:
            segment = self.take(nbytes, left, lasting=True, when_gone=when_gone)
            try:
                fill(segment)
                return segment
            except OSError as error:
                left = self.after_failure(left, segment, error)

    def check_room(self, path: str, nbytes: int) -> None:
        """Raise OSError unless `nbytes` more fit into the folder `path`."""
        room = examine(path, "")
        if room.free is not None and room.free < nbytes + _SPARE and self.clear():
            room = examine(path, "")
        if room.problem is not None:
            raise OSError(errno.ENOSPC, room.problem)
        if room.free is not None and room.free < nbytes + _SPARE:
            raise OSError(errno.ENOSPC, f"{room.free} bytes free")

    def after_failure(
        self, folders: list[Folder], segment: Segment, error: OSError
    ) -> list[Folder]:
        """Return the folders to try after that of `segment`, which failed with `error`.

        Where there are none, raise `NoRoom`; an error that does not say that the folder is full is
        raised as it is.
        """
        if error.errno not in _FULL:
            raise error
        segment.spoiled = True
        paths = [folder.path for folder in folders]
        left = folders[paths.index(segment.folder) + 1 :]
        if not left:
            raise NoRoom(error.errno, f"no room for {segment.nbytes} bytes: {error}") from error
        return left

    def clear(self) -> int:
        """Close what is kept; return how many there were."""
        with HeldSignals():
            return self._clear()

    def _clear(self) -> int:
        with self._lock:
            self._sort_in()
            kept, self._kept = self._kept, []
            timer = self._timer
            if self._held:
                timer = None  # it is still needed, for those
            else:
                self._timer = None
        if timer is not None:
            timer.cancel()
            if timer is not threading.current_thread():
                timer.join()
        for entry in kept:
            os.close(entry.fd)
        return len(kept)

    def kept_bytes(self) -> int:
        """Return the bytes in segments that are kept for reuse."""
        with HeldSignals(), self._lock:
            self._sort_in()
            return sum(entry.nbytes for entry in self._kept)

    def forget(self) -> None:
        """In a forked child: close what belongs to calls of the parent."""
        known = self._held.union(entry.fd for entry in (*self._kept, *self._returned))
        self._reset()  # the lock may be held by a thread that is not here
        for fd in known:
            try:
                os.close(fd)
            except OSError:  # the user's program closed it; the others are still to be closed
                pass

    def _take_in(
        self,
        nbytes: int,
        needed: int,
        folder: Folder,
        lasting: bool,
        when_gone: Callable[[], object] | None,
    ) -> Segment:
        if folder.problem is not None:
            raise OSError(errno.ENOTDIR, folder.problem)
        fd = -1 if lasting else self._take_kept(nbytes, folder.path)
        if fd < 0:
            self.check_room(folder.path, needed)
            fd = new_file(folder.path)
        try:
            os.ftruncate(fd, nbytes)
        except OSError:
            os.close(fd)
            raise
        if lasting:
            return Segment(fd, nbytes, folder.path, _Closing(when_gone))
        self._held.add(fd)
        return Segment(fd, nbytes, folder.path, self._give_back)

    def _take_kept(self, nbytes: int, folder: str) -> int:
        """Return the descriptor of a kept segment that nobody has open any more, or -1."""
        with self._lock:
            self._sort_in()
            fitting = [entry for entry in self._kept if entry.folder == folder]
            fitting.sort(key=lambda entry: abs(entry.nbytes - nbytes))
            for entry in fitting:
                if nobody_else_has_open(entry.fd):
                    self._kept.remove(entry)
                    return entry.fd
        return -1

    def _give_back(self, segment: Segment) -> None:
        if os.getpid() != segment.maker:
            return  # closed by `forget`; its number may be another's by now
        if segment.spoiled or self._timer is None or sys.is_finalizing():
            self._held.discard(segment.fd)
            os.close(segment.fd)
            return
        with HeldSignals():
            self._keep(segment)

    def _keep(self, segment: Segment) -> None:
        now = time.monotonic()
        self._returned.append(_Kept(segment.fd, segment.nbytes, segment.folder, now))
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._sort_in()
            finally:
                self._lock.release()

    def _sort_in(self) -> None:
        """Keep what came back, within the limits; the lock is held."""
        while self._returned:
            entry = self._returned.popleft()
            self._held.discard(entry.fd)
            self._kept.append(entry)
        oldest = time.monotonic() - KEPT_SECONDS
        for entry in [entry for entry in self._kept if entry.since <= oldest]:
            self._close_kept(entry)
        while len(self._kept) > KEPT_NUMBER:
            self._close_kept(self._kept[0])
        for folder in {entry.folder for entry in self._kept}:
            here = [entry for entry in self._kept if entry.folder == folder]
            excess = sum(entry.nbytes for entry in here) - _share_of(folder)
            for entry in here:
                if excess <= 0:
                    break
                excess -= entry.nbytes
                self._close_kept(entry)

    def _close_kept(self, entry: _Kept) -> None:
        self._kept.remove(entry)
        os.close(entry.fd)

    def _start_timer(self, seconds: float | None = None) -> None:
        """Have what is kept closed when its time is over, whether or not anything happens here."""
        if self._timer is not None:
            return
        timer = threading.Timer(KEPT_SECONDS if seconds is None else seconds, self._expire)
        timer.daemon = True
        timer.name = "memmapping-kept-segments"
        try:
            timer.start()
        except RuntimeError:  # there is no thread to be had: so nothing will be kept
            return
        self._timer = timer

    def _expire(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # `clear` was faster
            self._sort_in()
            self._timer = None
            if self._kept or self._held:
                now = time.monotonic()
                oldest = min((entry.since for entry in self._kept), default=now)
                left = oldest + KEPT_SECONDS - now  # for many, not a thread for each
                self._start_timer(max(left, KEPT_SECONDS / 10))


def _max_held() -> int:
    """Return how many segments may be open: most descriptors are for others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(8, min(4096, soft // 4))


class _Closing:
    """Closes a lasting segment that nobody refers to any more."""

    __slots__ = ("_owner", "_when_gone")

    def __init__(self, when_gone: Callable[[], object] | None) -> None:
        self._when_gone = when_gone
        self._owner = os.getpid()

    def __call__(self, segment: Segment) -> None:
        os.close(segment.fd)
        if self._when_gone is not None and os.getpid() == self._owner:
            self._when_gone()


def _share_of(folder: str) -> int:
    try:
        room = os.statvfs(folder)
    except OSError:
        return 0
    return int(room.f_blocks * room.f_frsize * KEPT_SHARE)


@in_child
def _after_fork() -> None:
    global _store_lock
    _store_lock = threading.Lock()  # the thread that had it is not here
    if _store is not None:
        _store.forget()


_store: SegmentStore | None = None
_store_lock = threading.Lock()


def segment_store() -> SegmentStore:
    """Return the store of this process."""
    global _store
    if _store is None:
        with HeldSignals(), _store_lock:
            if _store is None:
                _store = SegmentStore()
    return _store


def free_kept_memory() -> int:
    """Free the memory that is kept for reuse; return the number of freed segments.

    Examples
    --------
    >>> from memmapping import free_kept_memory
    >>> free_kept_memory() >= 0
    True
    """
    return _store.clear() if _store is not None else 0
