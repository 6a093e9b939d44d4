"""Files that an agent has for its workers: copies of the caller's that hold arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from parallel_core.backends.cluster.control import Piece, Store, Stored

if TYPE_CHECKING:
    from memmapping.segments import Segment


class StoredFiles:
    """The files that an agent has, by the numbers that the caller has given to them."""

    def __init__(self) -> None:
        self._segments: dict[int, Segment] = {}
        self._missing: dict[int, int] = {}  # bytes that are still to come
        self._adopted: list[int] = []

    def begin(self, store: Store) -> Stored | None:
        """Make room for a file, or open the one that is here; return what can be said at once."""
        if store.here is not None:
            return self._adopt(store.file, store.here)
        from memmapping.store import segment_store

        try:
            segment = segment_store().take(store.nbytes, lasting=True)
        except OSError as error:
            return Stored(store.file, None, str(error))
        self._segments[store.file] = segment
        self._missing[store.file] = store.nbytes
        return None

    def _adopt(self, number: int, here: tuple[Any, ...]) -> Stored:
        path, device, inode, _ = here
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            return Stored(number, None, str(error))
        self._adopted.append(descriptor)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != (device, inode):
            return Stored(number, None, f"{path} is another file than it was")
        mine = f"/proc/{os.getpid()}/fd/{descriptor}"
        return Stored(number, (mine, device, inode, True), "")

    def add(self, piece: Piece) -> Stored | None:
        """Write a piece; return what to say when the file is complete, or cannot be."""
        segment = self._segments.get(piece.file)
        if segment is None:
            return None  # there was no room for it
        try:
            segment.write(piece.data, piece.offset)
        except OSError as error:
            del self._segments[piece.file]
            return Stored(piece.file, None, str(error))
        self._missing[piece.file] -= len(piece.data)
        if self._missing[piece.file] > 0:
            return None
        return Stored(piece.file, tuple(segment.origin), "")

    def close(self) -> None:
        """Let go of all of them; who has one mapped keeps it as long."""
        self._segments.clear()
        self._missing.clear()
        adopted, self._adopted = self._adopted, []
        for descriptor in adopted:
            os.close(descriptor)
