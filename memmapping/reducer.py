"""How large arrays on their way to another process become references.

::

    what pickle meets ──▶ ArrayReducer.reduce ──┬─▶ array over a file: reference to that file
                                                ├─▶ large array: reference to the segment of a
                                                │     mirror of its base's memory
                                                └─▶ else: pickle goes on as it would

    large buffer of   ──▶ ArrayReducer.hand_over ─▶ a segment, by the same mirrors
    another library

A reference is worth something while its segment exists, so its sender keeps the `Use` objects in
`uses` until the receiver is done.
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
    from memmapping.checking import Checking
    from memmapping.damage import ChangedArrayError
    from memmapping.folders import Folder
    from memmapping.mirrors import Look, Mirror
    from memmapping.pages import SharedWatch
    from memmapping.segments import Origin, Segment, Use

_OTHERS = 256  # types; a call may make any number
_FOREIGN = 8  # buffers of other libraries whose copies are kept at a time

#: A part of a segment, as `references.open_buffer` takes it.
BufferReference = tuple[tuple[Any, ...], int, int]


class _Known:
    """A mirror that calls on the same workers have used."""

    __slots__ = (
        "__weakref__",
        "checked",
        "is_exact",
        "is_outdated",
        "mirror",
        "owner",
        "skipped",
    )

    def __init__(self, mirror: Mirror, owner: ref[Any] | None, is_exact: bool) -> None:
        self.mirror = mirror
        self.owner = owner  #: whose memory it is; when that goes, so does this
        self.is_exact = is_exact  #: whether all of it is compared whenever it is used
        self.checked: Any = None  #: which pages this call has compared, where it does so once
        #: Whether it has then been used without comparing all again.
        self.skipped = self.is_outdated = False
        mirror.followers.add(self)

    def is_checked(self, pages: tuple[int, int]) -> bool:
        """Whether this call has compared all of `pages`."""
        return self.checked is not None and bool(self.checked[pages[0] : pages[1]].all())

    def note(self, pages: tuple[int, int], look: Look) -> None:
        """Note that `pages` were looked at."""
        if self.checked is None:
            self.checked = self.mirror.no_pages()
        if look.seconds is None:
            self.checked[pages[0] : pages[1]] = True
        else:
            self.skipped = True

    def end_call(self) -> None:
        """Have the next call compare for itself."""
        self.checked = None
        self.skipped = self.is_outdated = False


class ArrayReducer:
    """Makes references of arrays, for one call or several on the same workers.

    Arrays from `max_nbytes` on are put in shared memory, or in `temp_folder`, and opened with
    `mmap_mode`; with None, there is no such size, or the receiver gets ordinary arrays. `check`
    says how much of what cannot be watched is compared, see `Checking`. `warn` is told once when
    there is no room for an array, `warn_of_cost` once a call when comparing takes long.
    """

    def __init__(
        self,
        max_nbytes: int | float | str | None = "1M",
        mmap_mode: str | None = "r",
        temp_folder: str | None = None,
        warn: Callable[[str], object] = warnings.warn,
        check: str = "auto",
        warn_of_cost: Callable[[str], object] = warnings.warn,
    ) -> None:
        nbytes = parse_nbytes(max_nbytes)
        self._least = sys.maxsize if nbytes is None else max(nbytes, 1)
        self._mode = "r+" if mmap_mode == "w+" else mmap_mode
        self._temp_folder = temp_folder
        self._warn = warn
        self._folders: list[Folder] | None = None
        self._mirrors: dict[tuple[int, int, int], _Known] = {}
        self._foreign: dict[tuple[int, int], _Known] = {}
        self._watches = check != "never"
        self._check = check
        self._warn_of_cost = warn_of_cost
        self._checking: Checking | None = None
        self._others: set[type] = set()  # of which nothing is known here; for one call
        #: What has to be kept for the references that were made (of the user's files, their names);
        #: the sender of the references takes it away.
        self.uses: list[Use | Origin] = []
        #: Where the buffers are that were handed over; the sender takes it away, too.
        self.buffers: list[BufferReference] = []
        self.copied_nbytes = 0  #: how much memory was mirrored anew, in all
        #: Set when an array turns out to have changed that should not have; then what was made
        #: since the call began may be out of date.
        self.changed: ChangedArrayError | None = None
        self._has_warned = False

    def reduce(self, obj: Any) -> Any:
        """Return how `obj` is to be pickled, for ``reducer_override``; NotImplemented: as ever."""
        if type(obj) in self._others:
            return NotImplemented
        numpy = loaded("numpy")
        if numpy is not None and isinstance(obj, numpy.ndarray):
            return self._reduce_array(obj, numpy)
        if "torch" in sys.modules:
            from memmapping.tensors import is_tensor

            if is_tensor(obj):
                return self._reduce_tensor(obj)
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
            self.changed = None
            if self._checking is not None:
                self._checking.end_call()
            for known in (*self._mirrors.values(), *self._foreign.values()):
                known.end_call()
            if self._mode == "r+":
                self._mirrors.clear()

    def close(self) -> None:
        """Let go of all memory; references that were given out stay good with their uses."""
        with HeldInterrupts():
            self.uses, self.buffers = [], []
            self._others.clear()
            self._mirrors.clear()
            self._foreign.clear()

    def confirm(self) -> None:
        """Look once more, after the last task, at what was used without comparing all of it."""
        for known in list(self._mirrors.values()):
            owner = None if known.owner is None else known.owner()
            if owner is not None and known.skipped and self.changed is None:
                self._checks().note(known.mirror.confirm(known.checked))
                self._note_change(known)
            del owner  # whose memory had to stay until here

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
        mode = self._mode
        if mode is not None and isinstance(root, numpy.memmap) and root.mode == "c":
            mode = "c"  # as the user has opened it: each task may write to what it got
        return references.reference(array, segment.origin, -first, mode)

    def _reduce_subclass(self, array: Any, kind: type, numpy: Any) -> Any:
        """Reduce an array whose type pickles as plain arrays do, and masked arrays."""
        from memmapping.arrays import Form, form_of, masked_over, parts_of_masked

        form = form_of(kind)
        if form is Form.MASKED:
            return masked_over, parts_of_masked(array)
        if form is Form.SUBCLASS:
            return _as_subclass, (array.view(numpy.ndarray), kind)
        return NotImplemented

    def _reduce_tensor(self, tensor: Any) -> Any:
        """Reduce a tensor of torch; tasks may write to it, which nothing in torch could forbid."""
        from memmapping import references, tensors

        array = tensors.array_of(tensor, self._least)
        if array is None:
            return NotImplemented
        owner, span = tensors.storage_of(tensor)
        found = self._segment_over(array, owner, span)
        if found is None:
            return NotImplemented
        segment, first = found
        mode = "c" if self._mode == "r" else self._mode
        return tensors.open_tensor, references.reference(array, segment.origin, -first, mode)[1]

    def _segment_of(self, array: Any, root: Any) -> tuple[Segment, int] | None:
        """Return an up-to-date segment with the elements of `array`, and where it starts."""
        from memmapping import references

        span = references.bounds_of(root)
        is_trusted = not array.flags.writeable and not root.flags.writeable
        return self._segment_over(array, root, span, is_trusted)

    def _segment_over(
        self, array: Any, owner: Any, span: tuple[int, int], is_trusted: bool = False
    ) -> tuple[Segment, int] | None:
        """Do so for an array within the `span` of memory that is there as long as its `owner`."""
        from memmapping import references

        needed = references.bounds_of(array)
        if needed[0] < span[0] or needed[1] > span[1]:
            span = needed  # strides that lead out of their base
        known = self._mirror(span, owner)
        segment = self._up_to_date(known, needed, is_trusted)
        return None if segment is None else (segment, known.mirror.first)

    def _mirror(self, span: tuple[int, int], owner: Any) -> _Known:
        from memmapping.mirrors import mirror_of

        place = *span, id(owner)
        known = self._mirrors.get(place)
        if known is not None:
            return known
        is_private = _is_malloced(owner) or _is_private(span)
        watch = self._shared_watch() if is_private else None
        if self._mode == "r+":  # what workers write to it is for this call alone
            mirror = self._new_mirror(span, watch)
        else:
            key = *place, self._temp_folder, watch is not None
            mirror = mirror_of(key, owner, lambda: self._new_mirror(span, watch))
        mirrors = self._mirrors

        def forget(gone: ref[Any]) -> None:
            entry = mirrors.get(place)
            if entry is not None and entry.owner is gone:
                del mirrors[place]

        known = mirrors[place] = _Known(mirror, ref(owner, forget), not is_private)
        return known

    def _new_mirror(self, span: tuple[int, int], watch: SharedWatch | None) -> Mirror:
        from memmapping.mirrors import Mirror

        return Mirror(span, segment_store(), self._where(), watch, self._mode == "r+")

    def _shared_watch(self) -> SharedWatch | None:
        if not self._watches:
            return None
        from memmapping.mirrors import shared_watch
        from memmapping.pages import Unwatchable

        try:
            return shared_watch()
        except Unwatchable:
            self._watches = False
            return None

    def _checks(self) -> Checking:
        if self._checking is None:
            from memmapping.checking import Checking

            self._checking = Checking(self._check, self._warn_of_cost)
        return self._checking

    def _up_to_date(
        self, known: _Known, span: tuple[int, int], is_trusted: bool = False
    ) -> Segment | None:
        from memmapping.mirrors import Look
        from memmapping.segments import Use

        mirror, checks = known.mirror, self._checks()
        pages = mirror.pages_of(span)
        if known.owner is None:  # the same address may be another's memory by now
            look = Look()
        else:
            look = checks.look(known.is_exact, is_trusted, known.is_checked(pages))
        try:
            with mirror.lock:
                before = mirror.segment
                segment = mirror.segment_for(span, look)
                self.uses.append(Use(segment))
        except NoRoom as error:
            self._tell(error)
            return None
        if checks.is_partial and not (mirror.is_watched or known.is_exact or is_trusted):
            known.note(pages, look)
            self._note_change(known)
        checks.note(look.spent)
        if segment is not before:
            self.copied_nbytes += span[1] - span[0]
        return segment

    def _note_change(self, known: _Known) -> None:
        if not known.is_outdated or self.changed is not None:
            return
        from memmapping.damage import ChangedArrayError

        nbytes = known.mirror.nbytes
        self.changed = ChangedArrayError(
            f"an array of {nbytes / 1e6:.1f} MB has changed since the first task of this call was "
            "given it, and later tasks may have been given its old content. The kernel does not "
            "tell here which memory was written, and comparing all of it for each task takes long. "
            "Pass a copy for each state (array.copy()); or say check_arrays='always', to have it "
            "compared before each task; or make it by memmapping.empty, if tasks are to see what "
            "is written while they run"
        )

    def _put(self, view: memoryview) -> bool:
        """Put a buffer of another library into a segment; true when there is no room.

        When its memory ends is not announced to us, so a mirror of it is never believed: the
        copy is compared with what is there now.
        """
        from memmapping.mirrors import Mirror
        from memmapping.references import address_of

        address = address_of(view)
        span = address, address + view.nbytes
        known = self._foreign.pop(span, None)
        if known is None:
            mirror = Mirror(span, segment_store(), self._where(), None, False)
            known = _Known(mirror, None, is_exact=True)
        self._foreign[span] = known
        if len(self._foreign) > _FOREIGN:
            del self._foreign[next(iter(self._foreign))]
        segment = self._up_to_date(known, span)
        if segment is None:
            return True
        self.buffers.append((tuple(segment.origin), address - known.mirror.first, view.nbytes))
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
    flags = getattr(root, "flags", None)  # the storage of a tensor has none
    if flags is None or not flags.owndata:
        return False
    modules = sys.modules
    multiarray: Any = modules.get("numpy._core.multiarray") or modules["numpy.core.multiarray"]
    return bool(multiarray.get_handler_name(root) == "default_allocator")


def _is_private(span: tuple[int, int]) -> bool:
    from memmapping.maps import is_private_memory

    return is_private_memory(span)
