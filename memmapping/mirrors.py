"""Mirrors: copies of memory in segments, brought up to date before each use.

::

    memory of an array    ··▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒··    whole pages (▓) are watched or compared, what is
                            │                │      left over at both ends (▒) is compared: other
    segment               ··▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒··    things lie in the same pages

A page of the mirror is *absent* or *copied*. A copied page is as good as the memory was at the
last look; so each use begins with a look at the pages that it needs (`Mirror.segment_for`). When
some have changed, there are two ways on. If nobody relies on the segment any more, which takes no
task in flight here and a write lease, the changed pages are written again. Else the segment belongs
to those who use it, and the mirror goes on with a new one.

A page is watched before it is copied or compared, so what is written meanwhile counts as changed.
Where the kernel cannot tell, and before the second use of what is small, memory and copy are
compared bit by bit: −0.0 is not 0.0 there, and a NaN equals itself.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from typing import Any

import numpy as np

from memmapping.folders import Folder
from memmapping.pages import PageWatch, Span, Unwatchable
from memmapping.references import address_of
from memmapping.segments import PAGE, Segment
from memmapping.store import NoRoom, SegmentStore

_COMPARED = 64  # pages compared at a time: what has changed is written again in such blocks
_PATIENCE = 0.02  # seconds; to copy what is that large anew takes longer
_WATCHED_AT_ONCE = 32 << 20  # bytes; smaller memory is watched from its second use on

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


class Mirror:
    """A copy of one array's memory in a segment.

    Parameters
    ----------
    span : tuple of int
        The memory: its first address, and the one after its last. Whoever asks for a segment
        sees to it that the memory exists.
    store : SegmentStore
        Where segments come from.
    folders : list of Folder
        Where they may be.
    watch : PageWatch or None
        Tells what was written; None: compare.
    writable : bool
        Whether workers may write to the segment; it is no copy to compare with, then.

    Attributes
    ----------
    segment : Segment or None
        Where the copy is.
    """

    def __init__(
        self,
        span: Span,
        store: SegmentStore,
        folders: list[Folder],
        watch: PageWatch | None,
        writable: bool,
    ) -> None:
        self.span = span
        self.first = span[0] // PAGE * PAGE  # so that pages here are pages there
        self.nbytes = span[1] - self.first
        self._store = store
        self._folders = folders
        self._watch = watch
        self._writable = writable
        self.segment: Segment | None = None
        self._pristine: Segment | None = None  # in place of a writable segment, for comparison
        number = -(-self.nbytes // PAGE)
        self._copied = np.zeros(number, bool)
        self._watched = np.zeros(number, bool)
        self._ends = {page for page in (0, number - 1) if self._is_partial(page)}
        self._end_bytes: dict[int, bytes] = {}
        self._uses = 0
        self._settled: Span | None = None  # pages that are all copied, and watched but for ends
        self._map: tuple[mmap.mmap, int] | None = None

    def segment_for(self, span: Span) -> Segment:
        """Return the segment in which the bytes of `span` are what they are in memory now.

        The byte at address ``p`` is at offset ``p - first``.

        Raises
        ------
        NoRoom
            When there is none to be had.
        """
        self._uses += 1
        pages = (span[0] - self.first) // PAGE, -(-(span[1] - self.first) // PAGE)
        changed = self._look(pages)
        segment = self.segment
        if segment is not None and not changed and pages == self._settled:
            return segment
        if changed is None:
            self._drop()
        elif changed and segment is not None:
            if self._writable or not self._may_write_to(segment):
                self._drop()
            for low, high in changed:
                self._copied[low:high] = False
        try:
            return self._complete(pages)
        except BaseException:
            self._drop()
            raise
        finally:
            done = self.segment is not None and self._all_watched(*pages)
            self._settled = pages if done else None

    def _may_write_to(self, segment: Segment) -> bool:
        """Whether nobody relies on `segment`, or will in a moment: workers are letting go of it."""
        until = time.monotonic() + (_PATIENCE if self.nbytes >= _WATCHED_AT_ONCE else 0)
        while not segment.is_private():
            if segment.users or time.monotonic() >= until:
                return False
            time.sleep(0.001)
        return True

    def _drop(self) -> None:
        self.segment = self._pristine = self._map = self._settled = None
        self._copied[:] = False

    def _is_partial(self, page: int) -> bool:
        start = self.first + page * PAGE
        return start < self.span[0] or start + PAGE > self.span[1]

    def _look(self, pages: Span) -> list[Span] | None:
        """Return the copied pages among `pages` that have changed; None: all may have."""
        low, high = pages
        changed: list[Span] = []
        for end in self._ends:
            is_copied = low <= end < high and self._copied[end]
            if is_copied and self._end_bytes[end] != bytes(self._memory(end, end + 1)):
                changed.append((end, end + 1))
        try:
            if pages == self._settled:
                low, high = low + (low in self._ends), high - (high - 1 in self._ends)
                return changed + self._written(low, high) if low < high else changed
            for first, end in _runs(self._copied[low:high], low):
                watched = self._watched[first:end].copy()
                for start, stop in _runs(~watched, first):
                    start, stop = start + (start in self._ends), stop - (stop - 1 in self._ends)
                    if start < stop:
                        self._start_watching(start, stop)
                        changed += self._different(start, stop)
                for start, stop in _runs(watched, first):
                    changed += self._written(start, stop)
        except OSError:  # it cannot be told, or there is no address space to compare
            self._stop_watching()
            return None
        return changed

    def _written(self, low: int, high: int) -> list[Span]:
        if self._watch is None:
            raise Unwatchable("somebody else watches a part of this memory")
        spans = self._watch.written((self.first + low * PAGE, self.first + high * PAGE))
        return [((a - self.first) // PAGE, (b - self.first) // PAGE) for a, b in spans]

    def _different(self, low: int, high: int) -> list[Span]:
        """Return what differs between memory and copy, in blocks of whole pages."""
        address = self._address_of_copy()
        found: list[Span] = []
        for start in range(low, high, _COMPARED):
            stop = min(start + _COMPARED, high)
            if _memcmp(self.first + start * PAGE, address + start * PAGE, (stop - start) * PAGE):
                found.append((start, stop))
        return found

    def _address_of_copy(self) -> int:
        if self._map is None:
            copy = self._pristine or self.segment
            assert copy is not None
            mapped = mmap.mmap(copy.fd, self.nbytes, prot=mmap.PROT_READ)
            self._map = mapped, address_of(mapped)
        return self._map[1]

    def _complete(self, pages: Span) -> Segment:
        """Copy what is absent of `pages`, or all of them into a segment elsewhere."""
        low, high = pages
        folders = self._folders
        while True:
            missing = _runs(~self._copied[low:high], low)
            nbytes = sum(b - a for a, b in missing) * PAGE
            for first, end in missing:
                if self._uses > 1 or self.nbytes >= _WATCHED_AT_ONCE:
                    self._start_watching(first, end)
            if self._writable:
                self._start_watching(0, len(self._watched))
            try:
                segments = self._segments(nbytes, pages, folders)
                ends = self._end_contents(missing)
                for segment in segments:
                    for first, end in missing:
                        segment.write(self._memory(first, end), max(first * PAGE, self._begin))
                    for page, content in ends.items():
                        segment.write(content, max(page * PAGE, self._begin))
            except OSError as error:
                if self.segment is None or isinstance(error, NoRoom):
                    raise
                folders = self._store.after_failure(folders, self.segment, error)
                self._drop()
                continue
            for first, end in missing:
                self._copied[first:end] = True
            self._end_bytes.update(ends)
            return segments[0]

    def _end_contents(self, missing: list[Span]) -> dict[int, bytes]:
        """Return what is at the ends now: nobody watches them, so what is compared is copied."""
        return {
            end: bytes(self._memory(end, end + 1))
            for end in self._ends
            if any(low <= end < high for low, high in missing)
        }

    def _segments(self, nbytes: int, pages: Span, folders: list[Folder]) -> list[Segment]:
        """Return where to copy to: the segment, and what it is compared with if not itself."""
        if self.segment is None:
            self.segment = self._store.take(self.nbytes, folders, needed=nbytes)
            if self._writable and not self._all_watched(0, len(self._watched)):
                self._pristine = self._store.take(self.nbytes, folders, needed=nbytes)
        elif nbytes:
            self._store.check_room(self.segment.folder, nbytes)
        return [self.segment] if self._pristine is None else [self.segment, self._pristine]

    def _all_watched(self, low: int, high: int) -> bool:
        """Whether the whole pages among these are watched."""
        return bool(
            self._watched[low + (low in self._ends) : high - (high - 1 in self._ends)].all()
        )

    def _start_watching(self, low: int, high: int) -> None:
        """Watch the whole pages among these, if the kernel can."""
        low, high = low + (low in self._ends), high - (high - 1 in self._ends)
        if self._watch is None or self._watched[low:high].all():
            return
        try:
            self._watch.start((self.first + low * PAGE, self.first + high * PAGE))
        except Unwatchable:
            self._stop_watching()
        else:
            self._watched[low:high] = True

    def _stop_watching(self) -> None:
        self._watch = self._settled = None
        self._watched[:] = False

    @property
    def _begin(self) -> int:
        return self.span[0] - self.first

    def _memory(self, low: int, high: int) -> memoryview:
        begin, end = max(low * PAGE, self._begin), min(high * PAGE, self.nbytes)
        return memory_at(self.first + begin, end - begin)


class _Memory:
    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }


def memory_at(address: int, nbytes: int) -> memoryview:
    """Return the `nbytes` of this process's memory at `address`, to be read only."""
    memory: Any = np.asarray(_Memory(address, nbytes))
    return memoryview(memory)


def _runs(mask: Any, offset: int) -> list[Span]:
    """Return the runs of True in `mask`, as spans counted from `offset`."""
    if mask.all():
        return [(offset, offset + len(mask))] if len(mask) else []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).view(np.int8)))
    return [(offset + int(a), offset + int(b)) for a, b in edges.reshape(-1, 2)]
