"""What the worker of another engine brings back of a batch.

::

    answers of the batch ──┬─▶ their pickle, with `HERE` where something large was
                           └─▶ beside it, in the order of the `HERE`: text, bytes, pickles as they
                               are, and the memory of arrays and buffers as arrays of bytes

An engine pickles what its worker returns. In a pickle within that pickle, what is large would be
copied at each end once more, and an engine that sends buffers out of band would not find them.
"""

from __future__ import annotations

import pickle
from typing import Any

from parallel_core.serialization.buffers import HERE, Buffer, Description
from parallel_core.serialization.results import BESIDE, LocalSink, Parcel, ParcelPickler
from parallel_core.workers.messages import Answer, Message, from_wire, to_wire
from parallel_core.workers.results import Parcels

#: The pickle of whatever stands beside it.
_FLAT = pickle.dumps(HERE, 5, buffer_callback=lambda _: False)


class BatchResult:
    """The answers of a batch in which something is large."""

    __slots__ = ("beside", "head")

    def __init__(self, head: bytes, beside: list[tuple[Description | None, Any]]) -> None:
        self.head = head  #: the pickle of the answers, without what is large
        #: For each `HERE` in it what to make of the object that follows, and that; see `_restore`.
        self.beside = beside

    def __reduce__(self) -> Any:
        return BatchResult, (self.head, self.beside)

    @property
    def nbytes(self) -> int:
        """How large it is, about."""
        return sum(_size(obj) for _, obj in self.beside) + len(self.head)


def read_result(result: bytes | BatchResult) -> list[Message]:
    """Return what a batch has returned; what cannot be restored is there as the exception."""
    if isinstance(result, BatchResult):
        said = pickle.loads(result.head, buffers=map(_restore, result.beside))
    else:
        said = pickle.loads(result)
    return list(map(from_wire, said))


def size_of_result(result: bytes | BatchResult) -> int:
    """Return how many bytes a batch has brought back, about."""
    return result.nbytes if isinstance(result, BatchResult) else len(result)


class Collector:
    """Collects the answers of a batch, in its worker."""

    def __init__(self, is_pool: bool) -> None:
        self._is_pickled_at_once = is_pool
        pickler = LocalBesidePickler if is_pool else BesidePickler
        #: How answers with something beside them come here.
        self.parcels = Parcels(self.add, None, pickler, is_together=True)
        self._beside: list[tuple[Description | None, Any]] = []
        self.said: list[Message] = []  #: those, and what else there is to say

    def add(self, answer: Answer, buffers: list[Buffer]) -> None:
        """Take an answer, and what is beside it as it is now."""
        as_it_lies = answer.finished and self._is_pickled_at_once
        self.said.append(answer)
        for buffer in buffers:
            if isinstance(buffer, _Whole):
                self._beside.append((None, buffer.obj))
            else:
                self._beside.append((buffer.description, _as_array(buffer, as_it_lies)))

    def result(self) -> bytes | BatchResult:
        """Return what to return from the batch."""
        said = list(map(to_wire, self.said))
        if not self._beside:
            return pickle.dumps(said, 5)
        head = pickle.dumps(said, 5, buffer_callback=lambda buffer: buffer is not HERE)
        return BatchResult(head, self._beside)


class BesidePickler(ParcelPickler):
    """Pickles results; text, bytes and large pickles are left whole beside the answer."""

    __slots__ = ()

    def dumps_flat(self, value: object) -> bytes | Parcel:
        """Return a parcel of a large text or bytes, which nothing can change."""
        return Parcel((_FLAT, HERE), [_Whole(value)])

    def _pack(self, pieces: list[Any], buffers: list[Buffer]) -> bytes | Parcel:
        data = b"".join(pieces)
        places = (HERE,) * len(buffers)
        if len(data) >= BESIDE:
            return Parcel((HERE, *places), [_Whole(data), *buffers])
        return Parcel((data, *places), buffers) if buffers else data


class LocalBesidePickler(BesidePickler):
    """Does likewise for a receiver on this machine."""

    __slots__ = ()

    _sink_type = LocalSink


class _Whole(Buffer):
    """An object that the engine pickles as it is."""

    __slots__ = ("obj",)

    def __init__(self, obj: object) -> None:
        super().__init__(_size(obj), [])
        self.obj = obj


def _size(obj: Any) -> int:
    return len(obj) if isinstance(obj, (bytes, str)) else int(obj.nbytes)


def _as_array(buffer: Buffer, as_it_lies: bool) -> Any:
    """Return the memory of `buffer` as an array, which every way of pickling knows to handle.

    One that cannot be written to would come back so, and is copied, too.
    """
    import numpy

    view = buffer.views[0]  # of arrays and buffers there is one
    if as_it_lies and not view.readonly:
        return numpy.frombuffer(view, "B")
    return numpy.array(view, "B")


def _restore(item: tuple[Description | None, Any]) -> Any:
    description, received = item
    if description is None:
        return received
    try:
        array = received if received.flags.writeable else received.copy()
        if isinstance(description, int):
            return memoryview(array)
        _, form, shape, order = description
        dtype = form if isinstance(form, str) else pickle.loads(form)
        return array.view(dtype).reshape(shape, order=order)
    except Exception as error:  # one task's failure, to be raised when its result is read
        return error
