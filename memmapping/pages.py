"""Which pages of memory were written since the last look? The kernel knows.

`userfaultfd(2)` in asynchronous write-protect mode [1]_ marks pages; the kernel takes the mark
off a page at its first write, without stopping the writer; ``PAGEMAP_SCAN`` [2]_ finds the pages
without a mark and marks them again in the same step. Both work unprivileged from Linux 6.7 on,
but for containers whose seccomp profile refuses the system call. There, ``/dev/userfaultfd`` does
as well, for whoever may open it.

No other way of watching was found that is as sure. Soft-dirty bits [3]_ are cleared for the whole
process at once, whoever else relies on them, and kernels from 5.19 on had faults that lost some.
That a page is mapped by one process only says nothing after a fork that happened in between.
`mprotect` with a handler of SIGSEGV makes system calls fail that write into the array. If the copy
were mapped over the array, written pages would show in ``/proc/self/pagemap`` as anonymous, but a
write of another thread at that moment would be lost. Hashes take longer than `memcmp`, and can be
wrong.

What it can tell is what *this process* wrote. So only private anonymous memory is watched, which
nobody else can write; and memory that a device writes to by itself (registered for DMA before it
was watched) is beyond its knowledge.

.. [1] https://docs.kernel.org/admin-guide/mm/userfaultfd.html
.. [2] https://docs.kernel.org/admin-guide/mm/pagemap.html
.. [3] https://docs.kernel.org/admin-guide/mm/soft-dirty.html
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import threading
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from memmapping.forks import in_child
from memmapping.interrupts import HeldInterrupts, HeldSignals
from memmapping.segments import PAGE

_SYSCALL = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "ppc64le": 364, "s390x": 355}
_USER_MODE_ONLY = 1
_FEATURES = 1 << 0 | 1 << 13 | 1 << 15  # PAGEFAULT_FLAG_WP, WP_UNPOPULATED, WP_ASYNC
_MODE_WP = 2
_IS_WPALLOWED, _IS_WRITTEN = 1 << 0, 1 << 1
_WP_MATCHING, _CHECK_WPASYNC = 1 << 0, 1 << 1
_REGIONS = 1024


def _request(direction: int, kind: int, number: int, size: int) -> int:
    return (direction << 30) | (size << 16) | (kind << 8) | number


_DEVICE = "/dev/userfaultfd"
_USERFAULTFD_NEW = _request(0, 0xAA, 0x00, 0)
_UFFDIO_API = _request(3, 0xAA, 0x3F, 24)
_UFFDIO_REGISTER = _request(3, 0xAA, 0x00, 32)
_UFFDIO_WRITEPROTECT = _request(3, 0xAA, 0x06, 24)
_PAGEMAP_SCAN = _request(3, ord("f"), 16, 96)

#: A part of memory: its first address, and the one after its last.
Span = tuple[int, int]


class Unwatchable(OSError):
    """The kernel does not tell about these pages, or not any more."""


_watches: WeakSet[PageWatch] = WeakSet()


class PageWatch:
    """Tells which pages of this process were written.

    A look clears the mark of a page, so each page is asked about by one user.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._pagemap = -1
        _watches.add(self)
        with HeldInterrupts():
            self._open()

    def _open(self) -> None:
        self._fd = _userfaultfd()
        try:
            _control(self._fd, _UFFDIO_API, bytearray(struct.pack("QQQ", 0xAA, _FEATURES, 0)))
            self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            self._regions = (ctypes.c_uint64 * (3 * _REGIONS))()
            self._scan(0, PAGE, _IS_WPALLOWED, 0)  # is there such a request at all?
        except OSError as error:
            self.close()
            raise Unwatchable(error.errno, str(error)) from error

    def start(self, span: Span) -> None:
        """Watch the pages of `span`, whose ends lie between pages, from now on.

        Memory that somebody else watches, or that is not private, is `Unwatchable`.
        """
        self.register(span)
        first, end = span
        _control(
            self._fd,
            _UFFDIO_WRITEPROTECT,
            bytearray(struct.pack("QQQ", first, end - first, 1)),
        )

    def register(self, span: Span) -> None:
        """Have the pages of `span` watched from their next look on; raises what `start` does."""
        first, end = span
        _control(
            self._fd,
            _UFFDIO_REGISTER,
            bytearray(struct.pack("QQQQ", first, end - first, _MODE_WP, 0)),
        )

    def written(self, span: Span) -> list[Span]:
        """Return what was written within `span` since it was watched or since the last look.

        Where that cannot be told, and anything may have been, it raises `Unwatchable`.
        """
        return self._scan(*span, _IS_WRITTEN, _WP_MATCHING | _CHECK_WPASYNC)

    def _scan(self, first: int, end: int, category: int, flags: int) -> list[Span]:
        found: list[Span] = []
        regions = self._regions
        address = ctypes.addressof(regions)
        while first < end:
            request = bytearray(
                struct.pack(
                    "12Q",
                    96,
                    flags,
                    first,
                    end,
                    0,
                    address,
                    _REGIONS,
                    0,
                    0,
                    category,
                    0,
                    category,
                )
            )
            count = _control(self._pagemap, _PAGEMAP_SCAN, request)
            found += [(regions[3 * i], regions[3 * i + 1]) for i in range(count)]
            walked = struct.unpack_from("Q", request, 32)[0]
            if walked <= first:
                raise Unwatchable("the kernel did not look at all pages")
            first = walked
        return found

    def close(self) -> None:
        """Watch nothing any more."""
        descriptors, self._fd, self._pagemap = (self._pagemap, self._fd), -1, -1
        for fd in descriptors:
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()  # an interrupt may have come before it was


def _userfaultfd() -> int:
    """Return a new descriptor: by the system call, or by the device where that is refused."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise Unwatchable("no number of userfaultfd is known for this machine")
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(number, flags | _USER_MODE_ONLY))
    if fd >= 0:
        return fd
    code = ctypes.get_errno()
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        try:
            return int(fcntl.ioctl(device, _USERFAULTFD_NEW, flags))
        finally:
            os.close(device)
    except OSError:
        raise Unwatchable(code, f"userfaultfd: {os.strerror(code)}") from None


class Watcher(Protocol):
    """A user of a `SharedWatch`; `extent` is the memory that the answers may be about."""

    @property
    def extent(self) -> Span:
        """The first address, and the one after the last."""


class SharedWatch:
    """One `PageWatch` for all that look after memory in this process, which may overlap.

    Only one descriptor can watch a page, and a look clears its mark. So a look of one user notes
    for the others what it has found, and they get it at their next look.
    """

    def __init__(self) -> None:
        self._pages = PageWatch()
        self._news: WeakKeyDictionary[Watcher, list[Span]] = WeakKeyDictionary()
        self.lock = threading.Lock()
        _shared_watches.add(self)

    def start(self, span: Span, watcher: Watcher) -> None:
        """Watch the pages of `span` for `watcher`; raises what `PageWatch.start` does."""
        with HeldSignals(), self.lock:
            others = self._others(span, watcher)
            if others:
                self._pages.register(span)
                self._tell(others, self._pages.written(span))
            else:
                self._pages.start(span)
            self._news.setdefault(watcher, [])

    def written(self, span: Span, watcher: Watcher) -> list[Span]:
        """Return what was written within `span` since `watcher` asked; see `PageWatch.written`."""
        with HeldSignals(), self.lock:
            found = self._pages.written(span)
            if found and len(self._news) > 1:
                self._tell(self._others(span, watcher), found)
            news = self._news.get(watcher)
            if news:
                found = found + [part for part in (_common(one, span) for one in news) if part]
                self._news[watcher] = [part for one in news for part in _outside(one, span)]
            return found

    def _others(self, span: Span, watcher: Watcher) -> list[Watcher]:
        if not self._news:
            return []
        return [one for one in list(self._news) if one is not watcher and _common(one.extent, span)]

    def _tell(self, others: list[Watcher], spans: list[Span]) -> None:
        for other in others:
            news = self._news[other] + spans
            if len(news) > _REGIONS:
                news = [(min(low for low, _ in news), max(high for _, high in news))]
            self._news[other] = news


_shared_watches: WeakSet[SharedWatch] = WeakSet()


def _common(one: Span, other: Span) -> Span | None:
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low < high else None


def _outside(one: Span, other: Span) -> list[Span]:
    """Return the parts of `one` before and after `other`."""
    parts = (one[0], min(one[1], other[0])), (max(one[0], other[1]), one[1])
    return [(low, high) for low, high in parts if low < high]


@in_child
def _after_fork() -> None:
    """In a forked child: the watches are about the memory of its parent, and only it ends them."""
    for watch in list(_watches):
        watch.close()
    for shared in list(_shared_watches):
        shared.lock = threading.Lock()  # the thread that had it is not here


def _control(fd: int, request: int, argument: bytearray) -> int:
    try:
        return int(fcntl.ioctl(fd, request, argument))
    except OSError as error:
        raise Unwatchable(error.errno, error.strerror) from error


def tracking_problem() -> str | None:
    """Return why the kernel does not track written pages here, or None when it does."""
    try:
        PageWatch().close()
    except Unwatchable as error:
        return error.strerror or str(error)
    return None
