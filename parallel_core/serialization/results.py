"""How results are pickled.

::

                  numpy is not loaded ──▶ pickle.dumps
    result ──▶ ResultPickler                    names __main__ ──▶ cloudpickle
                  else ──▶ a pickler that asks a sink about each object

    sink ─┬─ WholeSink     everything in one pickle
          └─ BufferSink    large arrays and buffers beside it: a Parcel
              └─ LocalSink arrays over files as references, for a receiver on this machine

Arrays come back as ordinary ones that can be written to, whatever they were here: read-only, a
view, or over a memory map that was an argument. Those over a file of the user's come back as maps
of that file.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from parallel_core.serialization.buffers import HERE, Buffer, array_buffer
from parallel_core.serialization.pickling import (
    MAIN,
    PICKLING_ERRORS,
    PROTOCOL,
    HandOver,
    Reducer,
    dumps_by_value,
)

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

#: From this size on, in bytes, memory is sent from where it lies: arrays, buffers, and pickles.
#: The C pickler writes in frames of this size, so what is smaller than it comes in one piece.
BESIDE = 1 << 16

#: No frame of the C pickler is as long; a longer piece is somebody's data.
_LONGER_THAN_FRAMES = 1 << 18


class Parcel:
    """A pickled result with buffers."""

    __slots__ = ("buffers", "entry")

    def __init__(
        self, entry: tuple[bytes | pickle.PickleBuffer, ...], buffers: list[Buffer]
    ) -> None:
        #: What stands for it in an answer: its pickle and `HERE` for each buffer; or `HERE` for the
        #: pickle, too.
        self.entry = entry
        #: Those buffers. They are views of what the result is made of, not copies.
        self.buffers = buffers


def unpack(entry: tuple[Any, ...]) -> Any:
    """Return the result whose `Parcel.entry` has come, with what was received for each `HERE`.

    What could not be received is there as the exception that says why, which is raised.
    """
    for item in entry:
        if isinstance(item, BaseException):
            raise item
    return pickle.loads(entry[0], buffers=entry[1:])


def as_is(received: object) -> object:
    """Return an array that was received; called by the pickle that it belongs to."""
    return received


def reduce_memmap(array: numpy.memmap[Any, Any]) -> Any:
    """Say how a memory map that is a result goes back.

    Returns
    -------
    ndarray, tuple, or NotImplemented
        What to pickle in its place; or how to pickle it, as ``__reduce__`` says it; or
        NotImplemented, which leaves it to numpy.
    """
    if array.filename is None:  # no file of the user's: it was an argument
        import numpy

        return array.view(numpy.ndarray)
    return NotImplemented


class WholeSink:
    """Takes what a pickler writes, and says how it pickles arrays: within."""

    __slots__ = ("_ndarray", "buffers", "pieces", "write")

    hand_over: HandOver | None = None  #: see ``buffer_callback`` of `pickle.Pickler`

    def __init__(self) -> None:
        self.pieces: list[Any] = []  #: the pickle so far, in pieces
        self.buffers: list[Buffer] = []  #: what is beside it
        self.write = self.pieces.append  #: takes the next piece
        self._ndarray: Any = getattr(sys.modules.get("numpy"), "ndarray", ())

    def reduce(self, obj: Any) -> Any:
        """Return how `obj` is to be pickled, for ``reducer_override``; NotImplemented: as ever."""
        if not isinstance(obj, self._ndarray):
            return self._reduce_tensor(obj) if "torch" in sys.modules else NotImplemented
        if type(obj) is self._ndarray:
            return self._reduce_array(obj)
        reduced = _reduce_subclass(obj)
        if type(reduced) is not self._ndarray:
            return reduced
        instead = self._reduce_array(reduced)
        return reduced.__reduce_ex__(PROTOCOL) if instead is NotImplemented else instead

    def _reduce_tensor(self, obj: Any) -> Any:
        """Leave tensors to torch."""
        return NotImplemented

    def _reduce_array(self, array: NDArray[Any]) -> Any:
        """Reduce an ordinary array; one that is read-only as one that is not.

        numpy's older way does that, but brings it in the byte order of this machine.
        """
        if array.dtype.isnative:
            return NotImplemented if array.flags.writeable else array.__reduce__()
        if array.flags.writeable and array.flags.forc:
            return NotImplemented
        return array.copy(order="A").__reduce_ex__(PROTOCOL)


class BufferSink(WholeSink):
    """Takes what a pickler writes; large arrays and buffers beside the pickle."""

    __slots__ = ()

    def _reduce_array(self, array: NDArray[Any]) -> Any:
        """Reduce an ordinary array; a large one to a buffer."""
        if array.nbytes >= BESIDE:
            buffer = array_buffer(array)
            if buffer is not None:
                self.buffers.append(buffer)
                return as_is, (HERE,)
        return WholeSink._reduce_array(self, array)

    def _reduce_tensor(self, obj: Any) -> Any:
        from memmapping.tensors import array_of, is_tensor, tensor_over

        array = array_of(obj, BESIDE) if is_tensor(obj) else None
        buffer = None if array is None else array_buffer(array)
        if buffer is None:
            return NotImplemented
        self.buffers.append(buffer)
        return tensor_over, (HERE,)

    def hand_over(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; true: it is to be pickled as ever."""
        if buffer is HERE:
            return False
        try:
            view = buffer.raw()
        except BufferError:  # with gaps
            return True
        if view.nbytes < BESIDE:
            return True
        self.buffers.append(Buffer(view.nbytes, [view]))
        return False


class LocalSink(BufferSink):
    """Takes what a pickler writes for a receiver that can open the files of this process."""

    __slots__ = ()

    def reduce(self, obj: Any) -> Any:
        """Return how `obj` is to be pickled: over a file of the user's, as a reference to it."""
        if isinstance(obj, self._ndarray) and not obj.flags.owndata:
            reduced = _reduce_in_file(obj)
            if reduced is not NotImplemented:
                return reduced
        return super().reduce(obj)


def _reduce_in_file(array: Any) -> Any:
    """Return how to pickle an array over a file that has a name; else NotImplemented.

    What workers map of the caller's arrays has none, and its memory will be used for others.
    """
    import numpy

    from memmapping.references import mapping_under, reduce_mapped, root_of

    root = root_of(array)
    if type(array) not in (numpy.ndarray, numpy.memmap) or not isinstance(root, numpy.memmap):
        return NotImplemented
    mapped = mapping_under(root)
    if mapped is None or mapped.origin.nameless:
        return NotImplemented
    return reduce_mapped(array, mapped)


def _reduce_subclass(array: Any) -> Any:
    import numpy

    if isinstance(array, numpy.memmap):
        return reduce_memmap(array)
    from memmapping.arrays import Form, form_of, masked_over, parts_of_masked, subclass_over

    form = form_of(type(array))
    if form is Form.MASKED:
        return masked_over, parts_of_masked(array)
    dtype = array.dtype
    is_taken_apart = (array.nbytes >= BESIDE or not dtype.isnative) and not dtype.hasobject
    if form is Form.SUBCLASS and is_taken_apart:
        return subclass_over, (type(array), array.view(numpy.ndarray))
    return NotImplemented


class _Pickler(pickle.Pickler):
    def __init__(self, sink: WholeSink) -> None:
        super().__init__(sink, PROTOCOL, buffer_callback=sink.hand_over)
        self.reducer_override = sink.reduce  # type: ignore[method-assign]  # where pickle looks


class ResultPickler:
    """Pickles one result after the other, each whole."""

    __slots__ = ("_pickler", "_reduce_class", "_sink")

    _sink_type: type[WholeSink] = WholeSink

    def __init__(self, reduce_class: Reducer) -> None:
        self._reduce_class = reduce_class  #: says how classes are pickled that came from the caller
        self._pickler: _Pickler | None = None
        self._sink: WholeSink | None = None

    def dumps(self, value: object) -> bytes | Parcel:
        """Return the pickle of `value`, in which classes of the caller are references."""
        try:
            if "numpy" in sys.modules:
                return self._dumps_with_arrays(value)
            data = pickle.dumps(value, PROTOCOL)
        except PICKLING_ERRORS:
            return self._dumps_by_value(value)
        if MAIN in data:
            return self._dumps_by_value(value)
        return data if len(data) < BESIDE else self._pack([data], [])

    def _dumps_with_arrays(self, value: object) -> bytes | Parcel:
        pickler, sink = self._pickler, self._sink
        if pickler is None or sink is None:  # or in use: a ``__reduce__`` has come back here
            sink = self._sink_type()
            pickler = _Pickler(sink)
        self._pickler = None
        pickler.dump(value)
        pieces = sink.pieces
        if len(pieces) == 1 and not sink.buffers:
            data: bytes = pieces.pop()
            pickler.clear_memo()
            self._pickler, self._sink = pickler, sink
            if len(data) < BESIDE:
                return data if MAIN not in data else self._dumps_by_value(value)
            pieces = [data]
        # A pickler that remembers a large result is not used again.
        if any(map(_names_main, pieces)):
            return self._dumps_by_value(value)
        return self._pack(pieces, sink.buffers)

    def dumps_flat(self, value: object) -> bytes | Parcel:
        """Return the pickle of a large text or bytes, which has no parts to ask about."""
        sink = self._sink_type()
        _Pickler(sink).dump(value)
        return self._pack(sink.pieces, sink.buffers)

    def _dumps_by_value(self, value: object) -> bytes | Parcel:
        sink = self._sink_type()
        reduce_class = self._reduce_class

        def reduce(obj: object) -> Any:
            reduced = sink.reduce(obj)
            return reduce_class(obj) if reduced is NotImplemented else reduced

        data = dumps_by_value(value, reduce, sink.hand_over)
        return self._pack([data], sink.buffers)

    def _pack(self, pieces: list[Any], buffers: list[Buffer]) -> bytes | Parcel:
        return b"".join(pieces)


class ParcelPickler(ResultPickler):
    """Pickles one result after the other; what is large is left where it lies.

    A `Parcel` has views, so what they show must be sent or copied before it can change.
    """

    __slots__ = ()

    _sink_type: type[WholeSink] = BufferSink

    def _pack(self, pieces: list[Any], buffers: list[Buffer]) -> bytes | Parcel:
        views = list(map(_view, pieces))
        nbytes = sum(map(len, views))
        places = (HERE,) * len(buffers)
        if nbytes < BESIDE:
            data = b"".join(pieces)
            return Parcel((data, *places), buffers) if buffers else data
        return Parcel((HERE, *places), [Buffer(nbytes, views), *buffers])


class LocalParcelPickler(ParcelPickler):
    """Does likewise for a receiver on this machine."""

    __slots__ = ()

    _sink_type = LocalSink


def _names_main(piece: Any) -> bool:
    """Whether a piece that pickle wrote names the script; data of the user's is not looked at."""
    return type(piece) is bytes and len(piece) < _LONGER_THAN_FRAMES and MAIN in piece


def _view(piece: Any) -> memoryview:
    """Return what the pickler wrote as bytes; large bytearrays and buffers come as they are."""
    return piece.raw() if isinstance(piece, pickle.PickleBuffer) else memoryview(piece)
