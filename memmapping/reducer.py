"""How large arrays on their way to another process become references.

::

    what pickle meets ──▶ ArrayReducer.reduce ──┬─▶ array over a file: reference to that file
                                                ├─▶ large array: reference to the segment of a
                                                │     mirror of its base's memory
                                                └─▶ else: pickle goes on as it would

    large buffer of   ──▶ ArrayReducer.hand_over ─▶ a segment, by the same mirrors
    another library

A reference is worth something while its segment exists, so who sends it keeps the `Use` objects
in `uses` until the receiver is done.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from memmapping.folders import candidate_folders
from memmapping.interrupts import HeldInterrupts
from memmapping.modules import loaded
from memmapping.sizes import parse_nbytes
from memmapping.store import NoRoom, segment_store

if TYPE_CHECKING:
    from memmapping.folders import Folder
    from memmapping.mirrors import Mirror
    from memmapping.pages import PageWatch
    from memmapping.segments import Origin, Segment, Use

_OTHERS = 256  # types; a call may make any number
_FOREIGN = 8  # buffers of other libraries whose copies are kept at a time

#: A part of a segment, as `references.open_buffer` takes it.
BufferReference = tuple[tuple[Any, ...], int, int]


class ArrayReducer:
    """Makes references of arrays, for one call or several on the same workers.

    Parameters
    ----------
    max_nbytes : int, float, str or None
        From which size arrays are put in shared memory; None: never.
    mmap_mode : {"r", "r+", "w+", "c", None}
        How the receiver opens them; None: it gets ordinary arrays.
    temp_folder : str, optional
        Where to put them rather than in shared memory.
    warn : callable, optional
        Told once when there is no room for an array.

    Attributes
    ----------
    uses : list
        What has to be kept for the references that were made (of the user's files, their names);
        whoever sends them takes it away.
    buffers : list of tuple
        Where the buffers are that were handed over; taken away likewise.
    copied_nbytes : int
        How much memory was mirrored anew, in all.
    """

    def __init__(
        self,
        max_nbytes: int | float | str | None = "1M",
        mmap_mode: str | None = "r",
        temp_folder: str | None = None,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        nbytes = parse_nbytes(max_nbytes)
        self._least = sys.maxsize if nbytes is None else max(nbytes, 1)
        self._mode = "r+" if mmap_mode == "w+" else mmap_mode
        self._temp_folder = temp_folder
        self._warn = warn
        self._folders: list[Folder] | None = None
        self._mirrors: dict[tuple[int, int], tuple[Mirror, ref[Any]]] = {}
        self._foreign: dict[tuple[int, int], Mirror] = {}
        self._watch: PageWatch | None = None
        self._watches = True
        self._others: set[type] = set()  # of which nothing is known here; for one call
        self.uses: list[Use | Origin] = []
        self.buffers: list[BufferReference] = []
        self.copied_nbytes = 0
        self._has_warned = False

    def reduce(self, obj: Any) -> Any:
        """Return how `obj` is to be pickled, for ``reducer_override``; NotImplemented: as ever."""
        if type(obj) in self._others:
            return NotImplemented
        numpy = loaded("numpy")
        if numpy is not None and isinstance(obj, numpy.ndarray):
            return self._reduce_array(obj, numpy)
        sharing = loaded("memmapping.sharing")
        if sharing is not None and isinstance(obj, (sharing.Shared, sharing.Argument)):
            if obj.segment is not None:
                self._use(obj.segment)
        elif numpy is not None and (sharing is not None or "memmapping.sharing" not in sys.modules):
            self._note_other(obj)
        return NotImplemented

    def _note_other(self, obj: Any) -> None:
        """Look at no more objects of this type, unless each may say that it is of another."""
        kind = type(obj)
        if obj.__class__ is kind and len(self._others) < _OTHERS:
            self._others.add(kind)

    def hand_over(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer, as pickle's ``buffer_callback``; true: it is to be pickled as ever."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < self._least or not view.nbytes:
            return True
        numpy = loaded("numpy")
        if numpy is not None and isinstance(view.obj, numpy.ndarray):
            return True  # `reduce` found no room for it, or it pickles in its own way
        return self._put(view)

    def end_call(self) -> None:
        """Forget what the next call must not find: memory that workers may have written to."""
        with HeldInterrupts():  # of what is raised in a finalizer, Python only prints a note
            self.uses, self.buffers = [], []
            self._folders = None
            self._others.clear()
            if self._mode == "r+":
                self._mirrors.clear()

    def close(self) -> None:
        """Let go of all memory; references that were given out stay good with their uses."""
        with HeldInterrupts():
            self.uses, self.buffers = [], []
            self._others.clear()
            self._mirrors.clear()
            self._foreign.clear()
            if self._watch is not None:
                self._watch.close()
                self._watch = None

    def _reduce_array(self, array: Any, numpy: Any) -> Any:
        if array.nbytes < self._least and array.flags.owndata:
            return NotImplemented
        from memmapping import references
        from memmapping.arrays import has_plain_bytes

        if not has_plain_bytes(array.dtype) or array.nbytes == 0:
            return NotImplemented

        kind = type(array)
        is_plain = kind is numpy.ndarray or kind is numpy.memmap
        root = references.root_of(array)
        mapped = None if root.flags.owndata else references.mapping_under(root)
        if mapped is None and array.nbytes < self._least:
            return NotImplemented
        if not is_plain:
            return self._reduce_subclass(array, kind, numpy)
        if mapped is not None:
            if mapped.segment is not None:
                self._use(mapped.segment)
            else:
                self.uses.append(mapped.origin)
            return references.reduce_mapped(array, mapped)
        found = self._segment_of(array, root)
        if found is None:
            return NotImplemented
        segment, first = found
        return references.reference(array, segment.origin, -first, self._mode)

    def _reduce_subclass(self, array: Any, kind: type, numpy: Any) -> Any:
        """Reduce an array whose type pickles as plain arrays do, and masked arrays."""
        from memmapping.arrays import Form, form_of, masked_over, parts_of_masked

        form = form_of(kind)
        if form is Form.MASKED:
            return masked_over, parts_of_masked(array)
        if form is Form.SUBCLASS:
            return _as_subclass, (array.view(numpy.ndarray), kind)
        return NotImplemented

    def _segment_of(self, array: Any, root: Any) -> tuple[Segment, int] | None:
        """Return an up-to-date segment with the elements of `array`, and where it starts."""
        from memmapping import references

        span = references.bounds_of(root)
        needed = references.bounds_of(array)
        if needed[0] < span[0] or needed[1] > span[1]:
            span = needed  # strides that lead out of their base
        mirror = self._mirror(span, root, _is_malloced(root))
        segment = self._up_to_date(mirror, needed)
        return None if segment is None else (segment, mirror.first)

    def _mirror(self, span: tuple[int, int], owner: Any, is_malloced: bool) -> Mirror:
        from memmapping.mirrors import Mirror

        known = self._mirrors.get(span)
        if known is not None and known[1]() is owner:
            return known[0]
        watch = None
        if not self._overlaps(span) and (is_malloced or _is_private(span)):
            watch = self._page_watch()
        mirror = Mirror(span, segment_store(), self._where(), watch, self._mode == "r+")
        mirrors = self._mirrors

        def forget(gone: ref[Any]) -> None:
            entry = mirrors.get(span)
            if entry is not None and entry[1] is gone:
                del mirrors[span]

        mirrors[span] = mirror, ref(owner, forget)
        return mirror

    def _overlaps(self, span: tuple[int, int]) -> bool:
        """Whether another mirror has some of this memory: the first to look takes the news away."""
        return any(low < span[1] and span[0] < high for low, high in self._mirrors)

    def _page_watch(self) -> PageWatch | None:
        if self._watch is None and self._watches:
            from memmapping.pages import PageWatch, Unwatchable

            try:
                self._watch = PageWatch()
            except Unwatchable:
                self._watches = False
        return self._watch

    def _up_to_date(self, mirror: Mirror, span: tuple[int, int]) -> Segment | None:
        before = mirror.segment
        try:
            segment = mirror.segment_for(span)
        except NoRoom as error:
            self._tell(error)
            return None
        if segment is not before:
            self.copied_nbytes += span[1] - span[0]
        self._use(segment)
        return segment

    def _put(self, view: memoryview) -> bool:
        """Put a buffer of another library into a segment; true when there is no room.

        When its memory ends is not announced to us, so a mirror of it is never believed: the
        copy is compared with what is there now.
        """
        from memmapping.mirrors import Mirror
        from memmapping.references import address_of

        address = address_of(view)
        span = address, address + view.nbytes
        mirror = self._foreign.pop(span, None)
        if mirror is None:
            mirror = Mirror(span, segment_store(), self._where(), None, False)
        self._foreign[span] = mirror
        if len(self._foreign) > _FOREIGN:
            del self._foreign[next(iter(self._foreign))]
        segment = self._up_to_date(mirror, span)
        if segment is None:
            return True
        self.buffers.append((tuple(segment.origin), address - mirror.first, view.nbytes))
        return False

    def _where(self) -> list[Folder]:
        if self._folders is None:
            self._folders = candidate_folders(self._temp_folder)
        return self._folders

    def _use(self, segment: Segment) -> None:
        from memmapping.segments import Use

        self.uses.append(Use(segment))

    def _tell(self, error: NoRoom) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"a large array goes through a socket, copied for each task: {error.strerror}; "
                "temp_folder says where else there is room"
            )


def _as_subclass(array: Any, kind: type) -> Any:
    return array.view(kind)


def _is_malloced(root: Any) -> bool:
    """Whether the memory of `root` is numpy's own, from the C library's heap."""
    if not root.flags.owndata:
        return False
    modules = sys.modules
    multiarray: Any = modules.get("numpy._core.multiarray") or modules["numpy.core.multiarray"]
    return bool(multiarray.get_handler_name(root) == "default_allocator")


def _is_private(span: tuple[int, int]) -> bool:
    from memmapping.maps import is_private_memory

    return is_private_memory(span)
