"""Mirrors: copies of memory in segments, brought up to date before each use.

::

    memory of an array    ··▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒··    whole pages (▓) are watched or compared, what is
                            │                │      left over at both ends (▒) is compared: other
    segment               ··▒▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▒··    things lie in the same pages

A page of the mirror is *absent* or *copied*. A copied page is as good as the memory was at the
last look; so each use begins with a look at the pages that it needs (`Mirror.segment_for`). When
some have changed, there are two ways on. If nobody relies on the segment any more, which takes no
task in flight here and a write lease, the changed pages are written again. Else the segment belongs
to its users, and the mirror goes on with a new one.

A page is watched before it is copied or compared, so what is written meanwhile counts as changed.
Where the kernel cannot tell, and before the second use of what is small, memory and copy are
compared bit by bit: −0.0 is not 0.0 there, and a NaN equals itself. How much of that a use wants,
its `Look` says.

All calls of a process share the mirror of one memory (`mirror_of`), whose lock they take in turn.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet, WeakValueDictionary, ref

import numpy as np

from memmapping.folders import Folder
from memmapping.forks import in_child
from memmapping.interrupts import HeldSignals
from memmapping.pages import SharedWatch, Span, Unwatchable
from memmapping.references import address_of
from memmapping.segments import PAGE, Segment
from memmapping.store import NoRoom, SegmentStore

_COMPARED = 64  # pages compared at a time: what has changed is written again in such blocks
_PATIENCE = 0.02  # seconds; to copy what is that large anew takes longer
_WATCHED_AT_ONCE = 32 << 20  # bytes; smaller memory is watched from its second use on

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memcmp.restype = ctypes.c_int


class Look:
    """How much of what cannot be watched is compared at a use: all, where `seconds` are None.

    Else this long, each time another part; so earlier uses may have missed what is found to have
    changed.
    """

    __slots__ = ("seconds", "spent")

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.spent = 0.0  #: how many seconds were spent comparing


class Follower(Protocol):
    """A user of a mirror that does not compare all at each use, and wants to know of changes."""

    checked: Any  #: the pages that it relies on
    is_outdated: bool  #: set when one of these has changed


class Mirror:
    """A copy of one array's memory in a segment.

    Whoever asks for a segment sees to it that the memory of `span` exists. `watch` tells what was
    written; where there is none, the copy is compared. Where workers may write to the segment, it
    is no copy to compare with.
    """

    def __init__(
        self,
        span: Span,
        store: SegmentStore,
        folders: list[Folder],
        watch: SharedWatch | None,
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
        self._next = 0  # the page to go on comparing with
        self.followers: WeakSet[Follower] = WeakSet()  #: are told of changes
        #: Whose memory it is, where it is shared; see `mirror_of`.
        self.owner: ref[Any] | None = None
        #: Held during a use: by its user until a `Use` says that the segment is relied on.
        self.lock = threading.RLock()
        self._is_busy = False
        _mirrors.add(self)

    @property
    def extent(self) -> Span:
        """The pages that it has to do with, by their addresses."""
        return self.first, self.first + len(self._copied) * PAGE

    @property
    def is_watched(self) -> bool:
        """Whether the kernel tells what was written, as far as is known."""
        return self._watch is not None

    def pages_of(self, span: Span) -> Span:
        """Return the first page with bytes of `span`, and the one after the last."""
        return (span[0] - self.first) // PAGE, -(-(span[1] - self.first) // PAGE)

    def no_pages(self) -> Any:
        """Return a mask for its pages, all of which are False."""
        return np.zeros(len(self._copied), bool)

    def segment_for(self, span: Span, look: Look | None = None) -> Segment:
        """Return the segment in which the bytes of `span` are what they are in memory now.

        The byte at address ``p`` is at offset ``p - first``.
        """
        with self.lock:
            if self._is_busy:  # this thread is at it, and the handler of a signal makes a call
                aside = Mirror(self.span, self._store, self._folders, None, self._writable)
                return aside.segment_for(span)
            self._is_busy = True
            try:
                return self._segment_for(self.pages_of(span), look or Look())
            except BaseException:
                self._drop()  # news may have been lost
                raise
            finally:
                self._is_busy = False

    def confirm(self, mask: Any) -> float:
        """Compare the pages of `mask`, and tell followers; return the seconds that it took."""
        began = time.perf_counter()
        with self.lock:
            for first, end in _runs(self._copied & mask, 0):
                self._tell(self._changed_ends((first, end)))
                self._tell(self._different(*self._without_ends(first, end)))
        return time.perf_counter() - began

    def _tell(self, changed: list[Span]) -> None:
        for follower in list(self.followers) if changed else ():
            checked = follower.checked
            if checked is not None and any(checked[low:high].any() for low, high in changed):
                follower.is_outdated = True

    def _segment_for(self, pages: Span, look: Look) -> Segment:
        self._uses += 1
        if look.seconds is None or self._watch is not None:
            changed = self._look(pages, look)
        else:
            changed = self._look_at_a_part(pages, look)
        segment = self.segment
        if segment is not None and not changed and pages == self._settled:
            return segment
        if changed is None:
            self._drop()
        elif changed and segment is not None:
            self._tell(changed)
            if self._writable or not self._may_write_to(segment):
                self._drop()
            for low, high in changed:
                self._copied[low:high] = False
        segment = self._complete(pages)
        self._settled = pages if self._all_watched(*pages) else None
        return segment

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

    def _look(self, pages: Span, look: Look) -> list[Span] | None:
        """Return the copied pages among `pages` that have changed; None: all may have."""
        low, high = pages
        changed = self._changed_ends(pages)
        try:
            if pages == self._settled:
                low, high = self._without_ends(low, high)
                return changed + self._written(low, high) if low < high else changed
            for first, end in _runs(self._copied[low:high], low):
                watched = self._watched[first:end].copy()
                for start, stop in _runs(~watched, first):
                    start, stop = self._without_ends(start, stop)
                    if start < stop:
                        self._start_watching(start, stop)
                        began = time.perf_counter()
                        changed += self._different(start, stop)
                        look.spent += time.perf_counter() - began
                for start, stop in _runs(watched, first):
                    changed += self._written(start, stop)
        except OSError:  # it cannot be told, or there is no address space to compare
            self._stop_watching()
            return None
        return changed

    def _look_at_a_part(self, pages: Span, look: Look) -> list[Span]:
        """Compare for as long as `look` allows, from where the last one ended."""
        assert look.seconds is not None
        low, high = pages
        began = time.perf_counter()
        page = self._next if low <= self._next < high else low
        changed: list[Span] = []
        for _ in range(low, high, _COMPARED):
            if look.spent >= look.seconds:
                break
            end = min(page + _COMPARED, high)
            for first, stop in _runs(self._copied[page:end], page):
                changed += self._changed_ends((first, stop))
                changed += self._different(*self._without_ends(first, stop))
            page = end if end < high else low
            look.spent = time.perf_counter() - began
        self._next = page
        return changed

    def _changed_ends(self, pages: Span) -> list[Span]:
        """Return the ends among `pages` that have changed: other things lie in the same pages."""
        low, high = pages
        return [
            (end, end + 1)
            for end in self._ends
            if low <= end < high
            and self._copied[end]
            and self._end_bytes[end] != bytes(self._memory(end, end + 1))
        ]

    def _without_ends(self, low: int, high: int) -> Span:
        return low + (low in self._ends), high - (high - 1 in self._ends)

    def _written(self, low: int, high: int) -> list[Span]:
        if self._watch is None:
            raise Unwatchable("somebody else watches a part of this memory")
        spans = self._watch.written((self.first + low * PAGE, self.first + high * PAGE), self)
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
        low, high = self._without_ends(low, high)
        return bool(self._watched[low:high].all())

    def _start_watching(self, low: int, high: int) -> None:
        """Watch the whole pages among these, if the kernel can."""
        low, high = self._without_ends(low, high)
        if self._watch is None or self._watched[low:high].all():
            return
        try:
            self._watch.start((self.first + low * PAGE, self.first + high * PAGE), self)
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


_mirrors: WeakSet[Mirror] = WeakSet()
_shared: WeakValueDictionary[tuple[Any, ...], Mirror] = WeakValueDictionary()
_shared_lock = threading.Lock()
_watch: ref[SharedWatch] | None = None


def shared_watch() -> SharedWatch:
    """Return the watch of this process, which ends when no mirror needs it; or `Unwatchable`."""
    global _watch
    with HeldSignals(), _shared_lock:
        found = None if _watch is None else _watch()
        if found is None:
            found = SharedWatch()
            _watch = ref(found)
        return found


def mirror_of(key: tuple[Any, ...], owner: Any, make: Callable[[], Mirror]) -> Mirror:
    """Return the mirror that calls of this process share under `key`, which is about `owner`.

    Its users keep it, and let go of it when its owner does not exist any more.
    """
    with HeldSignals(), _shared_lock:
        found = _shared.get(key)
        if found is None or found.owner is None or found.owner() is not owner:
            found = _shared[key] = make()
            found.owner = ref(owner)
        return found


@in_child
def _after_fork() -> None:
    """In a forked child: locks may be held by threads that are not here, and memory is another."""
    global _shared_lock, _watch
    _shared_lock = threading.Lock()
    _watch = None
    _shared.clear()
    for mirror in list(_mirrors):
        mirror.lock = threading.RLock()


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
