"""Files of the caller that hold arrays, once on each other host.

::

    caller                                  another host
    segment ── Store, Piece, Piece ... ──▶  agent: a segment of its own ─┐ Stored
            ── Store (here=...) ─────────▶  agent: opens that one ───────┤ Stored
                                                                         ▼
    Relocate, before the batch ──────────▶  worker: opens it in its agent's descriptors

The agents of one host share one copy, and each has it open: so the end of one takes nothing from
the others. While a file is stored elsewhere, the caller notes its use, and so it stays as it is.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Protocol

from parallel_core.backends.cluster.control import Control, Drop, Piece, Store, Stored
from parallel_core.serialization.buffers import HERE

#: Bytes of a piece: large enough for the network, small enough for what else is to be said.
_PIECE_NBYTES = 1 << 22

#: The fields of an `Origin`.
Place = tuple[Any, ...]


class Send(Protocol):
    """Says something to an agent, perhaps with memory beside it."""

    def __call__(self, message: Control, memory: memoryview | None = None) -> None:
        """Say it."""


class _File:
    """A file on its way to a host, or there."""

    def __init__(self, number: int, use: Any, mapping: mmap.mmap) -> None:
        self.number = number
        self.use = use  #: so that it stays as it is
        self.mapping = mapping
        self.here: Place | None = None  #: where the host has it
        self.is_sent = False  #: whether its bytes were sent, and not only where they are
        self.waiting: list[Callable[[], None]] = []  #: to be called when it has come


class SentFiles:
    """What one agent has of the caller's files."""

    def __init__(self, host: str, node: str, send: Send) -> None:
        self._host = host
        self._node = node
        self._send = send
        self._numbers = itertools.count(1)
        self._files: dict[Place, _File] = {}
        self._by_number: dict[int, _File] = {}

    def provide(
        self, uses: Iterable[Any], others: Iterable[SentFiles], then: Callable[[], None]
    ) -> list[Place]:
        """Have the agent store what a batch uses; return all places of that.

        `then` is called for each that it does not have yet, when it has. What another agent of the
        same host has is not sent again.
        """
        places = []
        for use in uses:
            place = _place_of(use)
            if place is None:
                continue
            places.append(place)
            file = self._files.get(place)
            if file is None:
                file = self._begin(place, use, others)
            if file.here is None:
                file.waiting.append(then)
        return places

    def is_missing(self, places: Iterable[Place]) -> bool:
        """Whether one of the `places` has not come yet."""
        return any(place in self._files and self._files[place].here is None for place in places)

    def relocated(self, places: Iterable[Place]) -> Iterator[tuple[Place, Place]]:
        """Yield where the host has what the caller has at `places`."""
        for place in places:
            file = self._files.get(place)
            if file is not None and file.here is not None:
                yield place, file.here

    def note(self, stored: Stored) -> None:
        """Take in what came of a file."""
        file = self._by_number.get(stored.file)
        if file is None:
            return  # it was of a call that has ended
        if stored.here is not None:
            file.here = tuple(stored.here)
        elif not file.is_sent:
            self._send_bytes(file)
            return
        else:  # a task that needs it says why it is not there
            file.here = (f"not copied to {self._node}: {stored.words}", 0, 0, True)
        waiting, file.waiting = file.waiting, []
        for then in waiting:
            then()

    def drop(self) -> None:
        """Have the agent let go of all files, and let go of them here."""
        if self._files:
            self.forget()
            self._send(Drop())

    def forget(self) -> None:
        """Let go of all files here."""
        self._files, self._by_number = {}, {}

    def _begin(self, place: Place, use: Any, others: Iterable[SentFiles]) -> _File:
        file = _File(next(self._numbers), use, _mapping_of(use))
        self._files[place] = self._by_number[file.number] = file
        for other in others:
            theirs = other._files.get(place)
            if other is self or other._host != self._host or theirs is None:
                continue
            if theirs.here is not None:
                self._send(Store(file.number, len(file.mapping), theirs.here))
            else:
                theirs.waiting.append(partial(self._take_over, file, theirs))
            return file
        self._send_bytes(file)
        return file

    def _take_over(self, file: _File, theirs: _File) -> None:
        if file.number in self._by_number:
            self._send(Store(file.number, len(file.mapping), theirs.here))

    def _send_bytes(self, file: _File) -> None:
        file.is_sent = True
        view = memoryview(file.mapping)
        self._send(Store(file.number, len(view), None))
        for start in range(0, len(view), _PIECE_NBYTES):
            self._send(Piece(file.number, start, HERE), view[start : start + _PIECE_NBYTES])


def _place_of(use: Any) -> Place | None:
    """Return the fields of the `Origin` of what a batch uses; None if that is no file."""
    segment = getattr(use, "segment", None)
    if segment is not None:
        return tuple(segment.origin)
    if isinstance(use, tuple) and hasattr(use, "inode"):
        return tuple(use)
    return None


def _mapping_of(use: Any) -> mmap.mmap:
    segment = getattr(use, "segment", None)
    if segment is not None:
        return mmap.mmap(segment.fd, segment.nbytes, access=mmap.ACCESS_READ)
    descriptor = os.open(use.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
